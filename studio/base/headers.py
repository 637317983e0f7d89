"""Config and tensor shapes of a model that is no local safetensors folder: of a GGUF file, the Hub, a config.json.

Each function returns plain values, (config, {tensor name: (type, shape)}), of which studio/model.py makes ModelFacts.
No weight is read.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from studio import child_process, json_text
from studio.base import families
from studio.base.hub import errors, unreachable
from studio.errors import ModelError, reason_of
from studio.home import subfolder, temporary_path, write_atomic

Headers = tuple[dict[str, Any], dict[str, tuple[str, tuple[int, ...]]]]
KINDS = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
WHOLE_REPO = "The repository is not whole: take another one, or another revision of it."
GGUF_NAMES = {"gemma3": "gemma3_text"} | {
    name: name for name in ("llama", "qwen2", "qwen3", "gemma", "gemma2", "phi3", "granite", "olmo2", "smollm3")
}


def from_config(config: dict[str, Any]) -> Headers:
    """Headers from config.json alone, by arithmetic for plain families, else once on the meta device of a process."""
    text = families.completed(families.text_config(config))
    shapes = (None if "text_config" in config else families.tensors(text)) or _of_worker("shapes", config)
    kind = KINDS.get(str(text.get("dtype") or text.get("torch_dtype") or "bfloat16"), "BF16")
    return config, {name: (kind, tuple(shape)) for name, shape in shapes.items()}


def completed(config: dict[str, Any]) -> dict[str, Any]:
    """The settings in a config.json with the defaults of its class in transformers, cached.

    Raises ModelError for a model type that transformers does not know.
    """
    return _of_worker("settings", config)


def _of_worker(what: str, config: dict[str, Any]) -> Any:
    """The shapes or settings that worker/model_config.py prints for a config, cached. Raises ModelError."""
    text = json.dumps(config, sort_keys=True)
    cached = subfolder("cache") / f"{what}-{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"
    if not cached.is_file():
        config_file = temporary_path(cached)
        write_atomic(config_file, text)
        try:
            printed = child_process.output_of("-m", "studio.worker.model_config", what, str(config_file))
        except child_process.ProcessFailed as error:
            raise ModelError(
                f"What a {config.get('model_type')!r} model consists of could not be found: "
                f"{str(error).split('. ')[0][:200].rstrip('.')}.",
                "Only decoder-only language models that transformers knows can be tuned here.",
                "model",
            ) from error
        finally:
            config_file.unlink(missing_ok=True)
        write_atomic(cached, child_process.last_line(printed))
    return json.loads(cached.read_text())


def gguf(path: Path) -> Headers:
    """Headers from a .gguf file's key-value head (llama.cpp's spec). Raises ModelError for an unknown architecture."""
    from gguf import GGUFReader

    try:
        reader = GGUFReader(path)
    except (OSError, ValueError, IndexError) as error:
        hint = "Download it again."
        raise ModelError(f"{path} is no readable GGUF file: {reason_of(error)}.", hint, "model") from error
    values = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("tokenizer.")}
    kind = str(values.get("general.architecture"))
    if kind not in GGUF_NAMES:
        message = f"The memory of a GGUF model of architecture {kind!r} cannot be estimated before it is converted."
        hint = f"Known here: {', '.join(GGUF_NAMES)}. Take the safetensors original."
        raise ModelError(message, hint, "model")

    def value(name: str, default: Any = None) -> Any:
        return values.get(f"{kind}.{name}", default)

    shapes = {tensor.name: tuple(int(size) for size in reversed(tensor.shape)) for tensor in reader.tensors}
    heads, hidden = int(value("attention.head_count")), int(value("embedding_length"))
    config = {
        "model_type": GGUF_NAMES[kind],
        "architectures": [f"gguf {kind}"],
        "hidden_size": hidden,
        "num_hidden_layers": int(value("block_count")),
        "intermediate_size": int(value("feed_forward_length")),
        "num_attention_heads": heads,
        "num_key_value_heads": int(value("attention.head_count_kv", heads)),
        "head_dim": int(value("attention.key_length", hidden // heads)),
        "vocab_size": shapes["token_embd.weight"][0],
        "dtype": "bfloat16",
        "tie_word_embeddings": "output.weight" not in shapes,
        "max_position_embeddings": int(value("context_length", 0)) or None,
        "attention_bias": kind not in ("qwen2",) and "blk.0.attn_q.bias" in shapes,
    }
    return from_config(config)


def hub(repo: str, revision: str | None) -> Headers:
    """Headers from the Hub: config.json and the safetensors headers, some kilobytes. Raises ModelError."""
    from huggingface_hub import get_safetensors_metadata, hf_hub_download
    from huggingface_hub.errors import NotASafetensorsRepoError, RemoteEntryNotFoundError, SafetensorsParsingError

    why = unreachable()
    if why:
        hint = "Check the network (HF_ENDPOINT, HF_HUB_OFFLINE), or give a local folder."
        raise ModelError(f"What {repo} is made of could not be asked of the Hub ({why}).", hint, "model", "network")
    try:
        config = json_text.read(
            Path(hf_hub_download(repo, "config.json", revision=revision)).read_text(), "config.json"
        )
        metadata = get_safetensors_metadata(repo, revision=revision)
    except NotASafetensorsRepoError as error:
        hint = "Pickle files are not loaded; look for a safetensors revision."
        raise ModelError(f"{repo} has no .safetensors weights.", hint, "model") from error
    except RemoteEntryNotFoundError as error:
        missing = str(error.response.url).rpartition("/")[2]
        raise ModelError(f"{repo} has no {missing}, which it needs.", WHOLE_REPO, "model") from error
    except SafetensorsParsingError as error:
        raise ModelError(f"A weight file of {repo} is damaged: {reason_of(error)}.", WHOLE_REPO, "model") from error
    except errors() as error:
        message = f"What {repo} is made of could not be asked of the Hub ({reason_of(error)})."
        hint = "Check the name and the network (HF_ENDPOINT, HF_TOKEN), or give a local folder."
        raise ModelError(message, hint, "model") from error
    return config, {
        name: (item.dtype, tuple(item.shape))
        for file in metadata.files_metadata.values()
        for name, item in file.tensors.items()
    }
