"""The short README in each export: what it is, and how to run it."""

from __future__ import annotations

from typing import Any

from studio.base.starter import REPO
from studio.combination import Combination
from studio.method import Method
from studio.methods.lora import LoRA
from studio.talk.reference import ModelReference


def hub_name(source: str) -> str:
    """The name that another computer knows a base by: its Hub id, or the name of its folder."""
    if source == "starter":
        return REPO
    return source.rstrip("/").rpartition("/")[2] if source.startswith(("/", "~", ".")) else source


def _source(reference: ModelReference) -> str:
    return (reference.manifest.get("model") or {}).get("source") or str(reference.base)


def _head(reference: ModelReference, kind: str) -> str:
    source = hub_name(_source(reference))
    method = reference.method.label if reference.method else "untuned"
    stops = ", ".join(f"`{stop}`" for stop in reference.stop) or "the tokenizer's end token"
    added = ", ".join(f"`{text}`" for text in reference.manifest.get("new_tokens") or ())
    tokens = f"New tokens: {added}.\n" if added else ""
    combined = _combination(reference.manifest.get("combined"))
    return (
        f"# {reference.label or reference.name}: {kind}\n\nMade with Fine-Tuning Studio from `{source}` ({method}).\n"
        f"{combined}Chat template: `{reference.template.name}`, inside. A turn ends with {stops}.\n{tokens}"
        "The licence of the base model applies to this file too.\n"
    )


def _combination(combined: dict[str, Any] | None) -> str:
    """What it was combined of, in one line, with the losses that are in its manifest; "" for a trained result."""
    if not combined:
        return ""
    order = Combination(**{name: value for name, value in combined.items() if name != "losses"})
    losses = [
        f"{row['combined']:.4f} on rows of {row['run']} (base {row['base']:.4f})" for row in combined.get("losses", ())
    ]
    measured = f" Held-out loss: {'; '.join(losses)}." if losses else ""
    return f"Combined of {order.describe()}.{measured}\n"


def adapter(reference: ModelReference) -> str:
    """With the lines that load it in other programs, where they load its kind."""
    used = usage(_source(reference), reference.method, len(reference.manifest.get("new_tokens") or ()))
    return f"{_head(reference, 'adapter')}\n{used}"


def merged(reference: ModelReference) -> str:
    return f"{_head(reference, 'merged model')}\n{WHOLE}"


WHOLE = """A whole model; nothing else is needed. With transformers:

```python
from transformers import pipeline

chat = pipeline("text-generation", "./")
answer = chat([{"role": "user", "content": "Hello!"}], max_new_tokens=200, do_sample=False)
print(answer[0]["generated_text"][-1]["content"])
```

With vLLM: `vllm serve ./`. With Fine-Tuning Studio: `python -m studio chat ./`.
"""


def usage(base: str, method: Method | None, new_tokens: int) -> str:
    """The lines that load a result in the folder of its files.

    base: its source as ordered. new_tokens: how many the result brings.
    """
    if method is None or not method.adapter:
        return WHOLE
    if method.name == "adapter":
        return "This kind of adapter is read by Fine-Tuning Studio only: `python -m studio chat ./FOLDER`.\n"
    source, note = hub_name(base), ""
    fetches = base in ("starter", source)
    place = "" if fetches else f" Put its folder `{source}` beside these files first."
    if new_tokens:
        rows = f"{new_tokens} new tokens and trained rows for them" if new_tokens > 1 else "1 new token and its row"
        note = f"It brings {rows}; the lines below make room for them.\n\n"
    return f"""{note}It needs its base model.{place} With transformers and peft:

```python
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer

model = AutoPeftModelForCausalLM.from_pretrained("./")  # {"fetches" if fetches else "opens"} {source}
tokenizer = AutoTokenizer.from_pretrained("./")
messages = [{{"role": "user", "content": "Hello!"}}]
prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
answer = model.generate(**prompt, max_new_tokens=200, do_sample=False)[0, prompt["input_ids"].shape[1] :]
print(tokenizer.decode(answer, skip_special_tokens=True))
```

{_with_vllm(method, source, new_tokens)}
"""


def _with_vllm(method: Method, source: str, new_tokens: int) -> str:
    """vLLM loads LoRA's matrices alone: without DoRA, rows of new tokens, or modules trained whole."""
    if isinstance(method, LoRA) and not new_tokens and not method.dora and not method.modules_to_save:
        return f"With vLLM: `vllm serve {source} --enable-lora --lora-modules mine=./`"
    merged = ": export the model merged for it" if method.mergeable else ""
    return f"vLLM does not load adapters of this kind{merged}."


def ollama(reference: ModelReference) -> str:
    return (
        _head(reference, "for Ollama")
        + """
In this folder:

```
ollama create my-model -f Modelfile
ollama run my-model
```

`model.gguf` also runs in llama.cpp (`llama-cli -m model.gguf`), LM Studio and their like.
"""
    )
