"""Every `auto` of the training settings that follows from order, device and model alone: precision, loss, attention,
packing, …

No setting here changes what is learnt: an optimizer step sees the same rows under each of them. Only speed and memory
change. RULES says every rule in words; the functions below are those rules. What needs an estimate as well is settled
in resolve.py.
"""

from __future__ import annotations

import importlib.util

from studio.base import proved
from studio.config import RunConfig
from studio.device import Device
from studio.errors import OrderError
from studio.model import ModelFacts

RULES = {  # training.KEY -> what it is when the order leaves it alone
    "precision": "bf16 where the device computes in it, fp16 with a scaler on older CUDA cards, else float32.",
    "weights": "Trained weights in float32, whatever the base is held in; bf16 with random rounding only when asked.",
    "packing": "Rows laid end to end wherever method, model and attention allow it; else padded in batches cut by "
    "length to few widths.",
    "batch_size": "4 rows at once; with accumulation it makes the effective batch, and only their product is what "
    "is learnt from.",
    "micro_batch": "On a card between the longest row and the whole step: as many tokens as keep it busy and fit "
    "(where the order names no batch_size); on a CPU 768 packed tokens, 1024 where every weight is trained.",
    "loss": "The head on trained tokens only, in chunks (of a 48th of a card's memory, 64 to 512 MiB); full logits for "
    "label smoothing or a head that is more than one linear.",
    "attention": "Over rows laid end to end our own (torch's variable-length flash kernel on Ampere and newer, "
    "small products on a CPU), else SDPA.",
    "checkpointing": "Only when the estimate says that the run does not fit without it.",
    "checkpointed_layers": "As many, from the first on, as the estimate says are needed.",
    "optimizer": "Fused AdamW; where memory is short the method's own (QLoRA on CUDA: paged 8-bit AdamW, which "
    "waits for the device after every tensor).",
    "compile": "Off: it pays only in long runs of equal shapes.",
    "fused_kernels": "liger-kernel's norms, rotary positions and gated feed-forwards on NVIDIA cards, where it is "
    "installed and the family is proved.",
    "fast_lora": "On where peft's layer is plain LoRA on a linear; off under torch.compile, which fuses by itself.",
    "threads": "All cores on fewer than four, else all but one, divided among the processes; waiting threads soon "
    "sleep.",
    "workers": "One process that prepares batches ahead on CUDA; none on a CPU, whose cores are busy with products.",
    "devices": "One.",
    "sharding": "A copy on each device; the model split over them (FSDP2) where a copy with its states would fill "
    "two thirds of one.",
    "probe": "The largest batch goes there and back once before the start, and leaves nothing behind; not on a CPU "
    "where the estimate leaves half of the memory free.",
}
ROUNDING = "adamw_rounding"  # worker/adamw.py
CPU_TOKENS = 768  # tokens of a packed micro-batch on a CPU: enough to keep it busy, and its memory small
CPU_TOKENS_FULL = 1024  # where all weights are trained: each micro-batch casts them, and adds a gradient of each
ROOMY = 0.5  # share of a CPU's free memory that is left, from which on a run is not probed
WINDOWED = ("sliding_window", "attention_window_size", "attention_chunk_size")
CAPPED = ("attn_logit_softcapping", "attn_logit_softcap")
CHANGED_SCORES = (*CAPPED, "alibi", "attention_sinks")
# other kinds (linear, recurrent, convolution) carry a state from row to row
PLAIN_LAYERS = {"full_attention", "sliding_attention"}


def installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def precision(config: RunConfig, device: Device) -> str:
    """bf16 where the device computes in it, fp16 on older CUDA cards, else float32. Trained weights stay float32."""
    ordered: str = config.training.precision
    if ordered == "bf16" and not device.bf16 and device.kind != "cpu":
        other = "auto or fp16" if device.traits.fp16 else "auto"
        hint = f"Set training.precision to {other}."
        raise OrderError(f"{device.name} cannot compute in bf16.", hint, "training.precision")
    if ordered == "fp16" and not device.traits.fp16:
        raise OrderError("A CPU does not train in fp16.", "Set training.precision to auto.", "training.precision")
    if ordered == "auto":
        ordered = device.precision
    return {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}[ordered]


def weights(config: RunConfig, device: Device) -> str:
    """float32, which keeps AdamW's small steps; bf16 with random rounding where ordered: 8 in place of 16 bytes."""
    training = config.training
    if training.weights != "bf16":
        return "float32"
    if config.method.adapter:
        raise OrderError(
            f"Trained weights in bf16 are for full fine-tuning; {config.method.label} trains few, and keeps them in "
            "float32.",
            "Set training.weights to auto.",
            "training.weights",
        )
    if precision(config, device) != "bfloat16":
        hint = "Set training.weights to auto."
        raise OrderError("Trained weights in bf16 need training.precision bf16.", hint, "training.weights")
    if training.optimizer not in ("auto", "adamw"):
        hint = "Set training.optimizer to auto."
        raise OrderError("Trained weights in bf16 need the AdamW that rounds at random.", hint, "training.optimizer")
    return "bfloat16"


def loss(config: RunConfig) -> str:
    """chunked, but full logits where label smoothing needs the whole row of probabilities."""
    if config.training.label_smoothing:
        if config.training.loss == "chunked":
            hint = "Set training.loss to auto or full."
            raise OrderError("Label smoothing needs full logits.", hint, "training.loss")
        return "full"
    return "chunked" if config.training.loss == "auto" else config.training.loss


def optimizer(config: RunConfig, device: Device) -> str:
    """As ordered, else fused AdamW; the estimate takes the method's own where memory is short. 8-bit ones need CUDA."""
    ordered = config.training.optimizer
    if config.training.weights == "bf16":
        return ROUNDING
    if ordered == "auto":
        return "adamw_torch_fused"
    name = {"adamw_8bit": "adamw_bnb_8bit", "paged_adamw_8bit": "paged_adamw_8bit", "adamw": "adamw_torch_fused"}.get(
        ordered, ordered
    )
    if "paged" in name and not device.traits.pages:
        message = f"The optimizer {ordered} pages memory of a CUDA device, and there is none."
        hint = "Set training.optimizer to auto."
        raise OrderError(message, hint, "training.optimizer")
    return name


def fused_kernels(config: RunConfig, facts: ModelFacts, device: Device) -> tuple[bool, str]:
    """(liger-kernel's norms, rotary positions and feed-forwards?, why)."""
    ordered = config.training.fused_kernels
    if ordered is False:
        return False, "as ordered"
    hindrance = ""
    if device.kind != "cuda" or (device.capability or (0, 0)) < (7, 0):
        hindrance = f"they are written for NVIDIA cards from Volta on, and this is {device.name}"
    elif not (installed("liger_kernel") and installed("triton")):
        hindrance = "the package liger-kernel is not installed"
    elif facts.model_type not in proved.FUSED:
        hindrance = f"they are not proved for the family {facts.model_type}"
    elif config.training.compile:
        hindrance = "torch.compile fuses by itself"
    if ordered is True and hindrance:
        hint = "Set training.fused_kernels to auto or false."
        raise OrderError(f"Fused kernels cannot be used: {hindrance}.", hint, "training.fused_kernels")
    return not hindrance, hindrance or "one kernel each for norms, rotary positions and feed-forwards"


def fast_lora(config: RunConfig) -> bool:
    """Whether LoRA's layers take the forward of worker/fast_lora.py, at which torch.compile would stop."""
    return config.training.fast_lora and not config.training.compile


def layout(config: RunConfig, facts: ModelFacts, device: Device, longest: int) -> tuple[bool, str, str]:
    """(rows end to end?, attention, why). End to end wherever method and model allow it: no padding, no mask."""
    ordered, kernel = config.training.packing, attention(config, device)
    hindrance = _why_not_packed(config, facts, longest)
    if ordered is True and hindrance:
        hint = "Set training.packing to auto or false."
        raise OrderError(f"Rows cannot be packed: {hindrance}.", hint, "training.packing")
    if ordered is False or hindrance:
        return False, _padded(kernel, facts), hindrance or "as ordered"
    if config.training.compile and kernel == "packed" and device.kind == "cpu":
        return False, "sdpa", "torch.compile wants equal shapes"
    return True, kernel, "no padding, and no row sees another"


def _padded(kernel: str, facts: ModelFacts) -> str:
    """The attention of padded rows: as ordered, else SDPA, or eager for scores with a soft cap (Gemma 2)."""
    text_config = facts.text_config
    if not any(text_config.get(key) for key in CAPPED):
        return "sdpa" if kernel == "packed" else kernel
    if kernel == "sdpa":
        hint = "Set training.attention to auto."
        raise OrderError("This model caps its attention scores, which SDPA cannot do.", hint, "training.attention")
    return "eager" if kernel == "packed" else kernel


def attention(config: RunConfig, device: Device) -> str:
    """Our own attention over rows end to end, or the one ordered. Raises OrderError where flash attention is absent."""
    ordered = config.training.attention
    if ordered != "flash":
        return "packed" if ordered == "auto" else ordered
    if device.kind != "cuda" or (device.capability or (0, 0)) < (8, 0):
        message = f"Flash attention needs an Ampere card or newer, and this is {device.name}."
        hint = "Set training.attention to auto."
        raise OrderError(message, hint, "training.attention")
    if installed("flash_attn"):
        return "flash_attention_2"
    if installed("kernels"):
        return "kernels-community/flash-attn2"
    hint = "Set training.attention to auto, or install the package kernels."
    raise OrderError("Flash attention is not installed.", hint, "training.attention")


def _why_not_packed(config: RunConfig, facts: ModelFacts, longest: int) -> str:
    """Why rows cannot be packed; empty when they can."""
    text_config = facts.text_config
    if not config.method.allows_packing:
        return f"{config.method.label} puts virtual tokens before each row"
    if config.training.attention == "eager":
        return "eager attention would form a square over all rows"
    if facts.model_type not in proved.PACKED:
        return f"it is not proved for the family {facts.model_type} that packed rows stay apart"
    if not set(text_config.get("layer_types") or PLAIN_LAYERS) <= PLAIN_LAYERS or any(
        word in facts.model_type for word in ("mamba", "rwkv", "recurrent", "jamba")
    ):
        return "the model carries a state from row to row"
    if any(text_config.get(key) for key in CHANGED_SCORES):
        return "the model bends its attention scores"
    if windowed(facts, longest):
        return "the model's attention window is shorter than the longest row"
    if text_config.get("output_router_logits"):
        return "the model balances its experts over the tokens of a batch, padding left out"
    return ""


def windowed(facts: ModelFacts, longest: int) -> bool:
    """Whether some layers see less than the whole of the longest row."""
    text_config = facts.text_config
    return any((text_config.get(key) or longest) < longest for key in WINDOWED) and text_config.get(
        "use_sliding_window", True
    )


def masked(config: RunConfig, facts: ModelFacts, longest: int) -> bool:
    """Whether padded rows need the mask that transformers makes.

    Under causal attention they need none, as padding stands behind a row's tokens; a causal kernel forms no mask.
    """
    plain = (
        config.training.attention in ("auto", "sdpa")
        and facts.model_type in proved.PACKED
        and not config.training.compile
    )
    return not plain or windowed(facts, longest) or config.method.footprint(facts).prefix > 0


def packed_tokens(config: RunConfig, device: Device, longest: int) -> int:
    """Tokens of a micro-batch: as ordered, else what batch_size rows as long as the longest hold; of packed rows on a
    CPU, which gains little from more, CPU_TOKENS or CPU_TOKENS_FULL.
    """
    if config.training.micro_batch != "auto":
        return max(longest, config.training.micro_batch)
    if device.kind != "cpu":
        return config.training.batch_size * longest
    return max(longest, CPU_TOKENS if config.method.adapter else CPU_TOKENS_FULL)


def padded_rows(config: RunConfig, longest: int, tokens: int | None = None) -> int:
    """Rows of a padded micro-batch: as many of the longest as `tokens` or training.micro_batch hold, or batch_size."""
    most = tokens or (0 if config.training.micro_batch == "auto" else config.training.micro_batch)
    return max(1, most // longest) if most else config.training.batch_size


def chooses_micro_batch(config: RunConfig, device: Device) -> bool:
    """Whether the estimate chooses the micro-batch: on a card, where the order names neither tokens nor rows."""
    return (
        device.traits.cards
        and config.training.micro_batch == "auto"
        and "batch_size" not in config.training.model_fields_set
    )


def probe(config: RunConfig, device: Device, headroom: float) -> bool:
    """Whether the largest batch is tried before the start. headroom: share of the free memory that the estimate leaves.

    On a CPU it takes as long as a step, and there is nothing to be found out where memory is plenty.
    """
    ordered = config.training.probe
    return ordered if ordered != "auto" else device.kind != "cpu" or headroom < ROOMY


def threads(config: RunConfig, device: Device, processes: int) -> int:
    """Cores for each trainer process: from four on one is left to the page, whose waits are passive (launch.py)."""
    if config.training.threads != "auto":
        return config.training.threads
    cores = device.cores or 1
    return max(1, (cores if cores < 4 else cores - 1) // processes)


def workers(config: RunConfig, device: Device) -> int:
    """Processes that prepare batches ahead."""
    ordered = config.training.workers
    return ordered if ordered != "auto" else device.traits.workers
