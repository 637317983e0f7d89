"""Loading a base or an adapter, whole or not at all: no weight starts at random, and none is left over.

The libraries only warn of either. torch, transformers and peft are imported late: a worker calls this.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError

from studio import memory_peak, token_rows
from studio.base.quantization import Quantization
from studio.errors import ModelError

LOADING_ERRORS = (
    *(ValueError, ImportError, LookupError, AttributeError, TypeError, RuntimeError),
    StrictDataclassError,  # of a config.json that contradicts itself
)
PLAIN_INITS = ("true", "false", "gaussian", "eva", "orthogonal", "mica")  # init_lora_weights that leave the base alone


def load_packed(folder: Path, dtype: Any, quantization: Quantization, **options: Any) -> Any:
    """As load_base, each weight quantized as it is read. dtype: of what is not, and of computing (torch.dtype)."""
    with memory_peak.blocks_mapped():
        model = load_base(folder, dtype, **quantization.options(dtype), **options)
    return quantization.settle(model)


def load_base(folder: Path, dtype: Any, **options: Any) -> Any:
    """A causal language model with every weight from the files in folder. Raises ModelError where one is missing."""
    from transformers import AutoModelForCausalLM

    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # refused below, with their shapes
            **options,
        )
    except LOADING_ERRORS as error:
        raise _not_loaded(f"the model in {folder}", error) from error
    if mismatched := sorted(report["mismatched_keys"]):
        name, stored, expected = mismatched[0]
        raise ModelError(
            f"{len(mismatched)} weights in {folder} have other shapes than its config.json says, such as {name}: "
            f"{list(stored)} instead of {list(expected)}.",
            "Download the model again, its config.json too.",
            "model",
        )
    missing = sorted(report["missing_keys"])
    if missing:
        raise ModelError(
            f"{folder} lacks {len(missing)} of the weights of a {type(model).__name__}, which would start at random: "
            f"{', '.join(missing[:3])}{', …' if len(missing) > 3 else ''}.",
            "Download the model again; of a classifier or an embedding model take the language model it was made from.",
            "model",
        )
    return model


def load_adapter(model: Any, folder: Path, name: str) -> Any:
    """A peft model with the adapter in folder, frozen. model: a base, or a peft model that gets one more adapter.

    Raises ModelError where the adapter's tensors are not those of its modules in this base: peft would leave what is
    missing at its start, and ignore what is left over.
    """
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PeftConfig, PeftModel
    from peft.auto import MODEL_TYPE_TO_PEFT_MODEL_MAPPING

    if not (folder / "adapter_model.safetensors").is_file():
        message = f"{folder} holds no adapter_model.safetensors; a pickle file (adapter_model.bin) can run code."
        hint = "Load the adapter once with peft and save it again (save_pretrained)."
        raise ModelError(message, hint, str(folder))
    try:
        key_mapping = None
        if not isinstance(model, PeftModel):
            config = PEFT_TYPE_TO_CONFIG_MAPPING[PeftConfig._get_peft_type(str(folder))].from_pretrained(str(folder))
            config.inference_mode = True
            kind = MODEL_TYPE_TO_PEFT_MODEL_MAPPING.get(config.task_type, PeftModel)
            key_mapping = None if config.is_prompt_learning else getattr(model, "_checkpoint_conversion_mapping", None)
            model = kind(model, config, adapter_name=name)
        report = model.load_adapter(str(folder), adapter_name=name, key_mapping=key_mapping)
    except LOADING_ERRORS as error:
        raise _not_loaded(f"the adapter in {folder} onto this base", error) from error
    leftover = [] if model.peft_config[name].is_prompt_learning else report.unexpected_keys
    if model.get_base_model().config.get_text_config().tie_word_embeddings:  # a tied head's rows are the embedding's
        leftover = [key for key in leftover if not key.endswith(token_rows.DELTA_SUFFIX)]
    strangers = [*report.missing_keys, *(key for key in leftover if not token_rows.is_table(key))]
    if strangers:
        raise ModelError(
            f"The adapter in {folder} does not fit this base: {len(strangers)} of its tensors belong to no layer here, "
            f"or are missing: {', '.join(sorted(strangers)[:3])}.",
            "Give the base that it was trained on.",
            str(folder),
        )
    return model


def changes_base(folder: Path) -> bool:
    """Whether peft writes into the base's tensors when it attaches the adapter (biases, PiSSA and its like)."""
    file = folder / "adapter_config.json"
    config = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return config.get("bias", "none") != "none" or takes_out_of_base(config) or bool(token_rows.table_rows(folder))


def takes_out_of_base(config: dict[str, Any]) -> bool:
    """Whether a LoRA's start took a part out of the base's weights (PiSSA, OLoRA, LoftQ, CorDA, LoRA-GA)."""
    return str(config.get("init_lora_weights", True)).lower() not in PLAIN_INITS


def _not_loaded(what: str, error: Exception) -> Exception:
    """A library's error while it loads weights as a ModelError; memory that ran out stays what it is."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if re.search(r"memory|CUDA|CUBLAS|CUDNN", lines[0]):
        return error
    if "custom code" in lines[0]:
        lines = ["it needs Python code of its own (auto_map), which is never run here"]
    if lines[0].startswith("Unrecognized configuration class"):
        lines = ["transformers has no causal language model of this type: it reads images or sound, or is no decoder"]
    if isinstance(error, KeyError) and re.fullmatch(r"'\S*'", lines[0]):
        lines = [f"transformers does not find {lines[0]}"]
    package = re.search(r"pip install ([\w-]+)", str(error)) if isinstance(error, ImportError) else None
    hint = "Take another one, or load it with the program that made it and save it again (save_pretrained)."
    if package:
        lines, hint = [f"it needs {package[1]}, which is not installed"], f"Install it: pip install {package[1]}."
    return ModelError(
        f"{what[0].upper()}{what[1:]} cannot be loaded: {' '.join(lines)[:300].rstrip('.')}.", hint, "model"
    )
