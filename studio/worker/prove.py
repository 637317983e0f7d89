"""python -m studio.worker.prove trained|exported WHAT ORDER.json ANSWER.json: one side of an export's proof, in a process of its own.

The trained model answers through the studio's own chat; a merged folder through transformers' generate, a GGUF file through llama.cpp where it is
installed: what the export is for. Weights are loaded in the type of the file, on what has room for them.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from studio import device, model, token_rows
from studio.errors import DeviceError, StudioError
from studio.kernels import IGNORE_INDEX
from studio.talk import chat
from studio.talk.reference import ModelReference, of_folder, resolve
from studio.tokens import Encoder
from studio.worker import llama_cpp
from studio.worker.generate import Answer, Sampling
from studio.worker.loaded import LoadedModel, LoadedModels
from studio.worker.merge import own_type, rounded, still_tied, untied, weights

TOGETHER = 20  # answers that transformers writes side by side
SINGLE = ("longrope", "dynamic")  # positions of these depend on the longest neighbour: one answer at a time
Rows = list[dict[str, list[int]]]


def main(side: str, name: str, order: dict[str, Any]) -> dict[str, Any]:
    torch.set_num_threads(device.cores())
    if side == "trained":
        return trained(resolve(name), order)
    path = Path(name)
    if path.suffix == ".gguf":
        return of_gguf(path, order)
    if (path / "adapter_config.json").is_file():
        return of_voice(of_folder(path, name), order)
    return of_transformers(path, order)


# -- the two sides


def trained(found: ModelReference, order: dict[str, Any]) -> dict[str, Any]:
    """{answers, ids, rows, loss: {trained, merged}}: rows as {ids, labels}; merged: in the base's type, None where nothing is merged."""
    place, dtype = room(model.facts(found.base).parameters, own_type(found))
    speakers = LoadedModels(place, dtype)
    speaker = speakers.load(found)
    told = _of_speaker(speaker, order)
    rows = encoded(speaker, order)
    loss = {"trained": mean_loss(speaker.model, rows), "merged": None}
    mergeable = found.result is not None and not found.whole and found.method.mergeable
    if rows and mergeable and speakers.bases:
        base = next(iter(speakers.bases.values()))
        try:
            loss["merged"] = mean_loss(merged_into(base, found), rows)
        except (StudioError, NotImplementedError, RuntimeError) as error:
            print(f"the merged model's loss could not be taken: {error}", file=sys.stderr)
    return {**told, "rows": rows, "loss": loss}


def merged_into(base: Any, found: ModelReference) -> Any:
    """A loaded base whose weights become those of the merged model, rounded to the base's type. The base is lost."""
    token_rows.prepare_base(base, found.result)
    dtype, base = own_type(found), untied(base)
    held, written = dict(base.named_parameters()), set()
    with torch.no_grad():
        for name, weight in weights(found):
            if name in held:
                held[name].copy_(rounded(weight, dtype))
                written.add(name)
        head, table = base.get_output_embeddings(), base.get_input_embeddings()
        if still_tied(found.base, written):
            head.weight.copy_(table.weight)
    return base


def of_voice(found: ModelReference, order: dict[str, Any]) -> dict[str, Any]:
    """An exported adapter on its base, opened anew by the studio."""
    place, dtype = room(model.facts(found.base).parameters, own_type(found))
    speaker = LoadedModels(place, dtype).load(found)
    return {**_of_speaker(speaker, order), "loss": mean_loss(speaker.model, order["rows"]), "by": "Fine-Tuning Studio"}


def of_transformers(folder: Path, order: dict[str, Any]) -> dict[str, Any]:
    """A folder as a program finds it: AutoTokenizer, its chat template, generate with the generation config beside the weights."""
    import transformers

    facts = model.facts(folder)
    place, dtype = room(facts.parameters, getattr(torch, facts.dtype))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    loaded = (
        transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True).to(place).eval()
    )
    prompts = [
        tokenizer(
            tokenizer.apply_chat_template(question, add_generation_prompt=True, tokenize=False),
            add_special_tokens=False,
        )["input_ids"]
        for question in order["questions"]
    ]
    rope = getattr(loaded.config.get_text_config(), "rope_parameters", None) or {}
    width = 1 if rope.get("rope_type") in SINGLE else TOGETHER
    answers = []
    for start in range(0, len(prompts), width):
        answers += _generated(loaded, tokenizer, prompts[start : start + width], order["max_tokens"])
        print(f"{len(answers)}/{len(prompts)}", flush=True)
    return {
        "answers": answers,
        "ids": [tokenizer(text, add_special_tokens=False)["input_ids"] for text in order["texts"]],
        "loss": mean_loss(loaded, order["rows"]),
        "by": f"transformers {transformers.__version__}, {facts.dtype} weights",
    }


def _generated(loaded: Any, tokenizer: Any, prompts: list[list[int]], max_tokens: int) -> list[dict[str, Any]]:
    """Greedy answers, padded on the left; what the base's generation config says of sampling and penalties is left out on both sides."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(one)) + one for one in prompts], device=loaded.device)
    mask = torch.tensor([[0] * (longest - len(one)) + [1] * len(one) for one in prompts], device=loaded.device)
    settings = loaded.generation_config
    ends = settings.eos_token_id if isinstance(settings.eos_token_id, list) else [settings.eos_token_id]
    with torch.inference_mode():
        made = loaded.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=max_tokens,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            repetition_penalty=1.0,
            pad_token_id=next((end for end in ends if end is not None), 0),
        )
    found = []
    for prompt, row in zip(prompts, made[:, longest:].tolist(), strict=True):
        stop = next((place for place, token in enumerate(row) if token in ends), None)
        new = row[:stop]
        found.append(
            {
                "text": tokenizer.decode(new, skip_special_tokens=True),
                "ids": new,
                "prompt": prompt,
                "finish": "length" if stop is None else "stop",
            }
        )
    return found


def of_gguf(file: Path, order: dict[str, Any]) -> dict[str, Any]:
    """By llama.cpp where it is installed, else as transformers reads the file; the loss is of the weights that transformers reads from it."""
    longest = max((len(ids) for ids in order["prompts"]), default=0) + order["max_tokens"] + 64
    opened_by = [_of_llama_cpp(reader, order) for reader in llama_cpp.readers(file, longest)]
    try:
        with tempfile.TemporaryDirectory(dir=file.parent) as scratch:
            read = of_transformers(
                opened(str(file), Path(scratch)).base, order if not opened_by else {**order, "questions": []}
            )
        read["by"] = read["by"].split(",")[0] + ", read from the GGUF"
    except (StudioError, ValueError, RuntimeError, KeyError, NotImplementedError, OSError) as error:
        if not opened_by:
            raise DeviceError(
                f"transformers does not read this GGUF file ({error}), and no llama.cpp is installed to ask.",
                "pip install xllamacpp",
                "gguf",
            ) from error
        read = {"loss": None}
    if not opened_by:
        return read
    first, *others = opened_by
    return {**first, "loss": read["loss"], "others": others}


def _of_llama_cpp(reader: llama_cpp.Reader, order: dict[str, Any]) -> dict[str, Any]:
    answers = []
    for question in order["questions"]:
        answers.append(reader.answer(question, order["max_tokens"]))
        print(f"{len(answers)}/{len(order['questions'])}", flush=True)
    return {"answers": answers, "ids": [reader.ids(text) for text in order["texts"]], "by": reader.name}


def opened(name: str, scratch: Path) -> ModelReference:
    """A voice by name; a .gguf file is read back through transformers with the template and stop token it carries."""
    if not name.endswith(".gguf"):
        return resolve(name)
    from studio.worker.convert import convert

    convert(
        Path(name),
        scratch / "model",
        torch.float32 if 8 * Path(name).stat().st_size < device.cpu().free else torch.float16,
    )
    return of_folder(scratch / "model", name)


# -- what both are asked


def answers(
    speaker: LoadedModel, questions: list[list[dict[str, Any]]], max_tokens: int, tell: Any = None
) -> list[dict[str, Any]]:
    """[{text, ids, prompt, finish}] in the order of the questions; all are written side by side."""
    asked = [speaker.answer(messages, Sampling(max_tokens=max_tokens, temperature=0)) for messages in questions]
    texts = [""] * len(asked)
    for place, answer in enumerate(asked):
        while (shown := speaker.batch.read(answer)) is None:
            pass
        texts[place] += shown
    while speaker.batch.rows:
        for answer, shown in speaker.batch.step():
            texts[asked.index(answer)] += shown
        if tell:
            tell(sum(one.finish is not None for one in asked), len(asked))
    return [_told(text, answer) for text, answer in zip(texts, asked, strict=True)]


def _told(text: str, answer: Answer) -> dict[str, Any]:
    """ids: without the token that ended it. finish: "text" where only this program's look-out for a stop text ended it."""
    by_token = answer.new[-1] in answer.ends
    return {
        "text": text,
        "ids": answer.new[:-1] if by_token else answer.new,
        "prompt": answer.prompt,
        "finish": "text" if answer.finish == "stop" and not by_token else answer.finish,
    }


def _of_speaker(speaker: LoadedModel, order: dict[str, Any]) -> dict[str, Any]:
    told = answers(
        speaker, order["questions"], order["max_tokens"], lambda done, total: print(f"{done}/{total}", flush=True)
    )
    return {"answers": told, "ids": token_ids(speaker.encoder, order["texts"])}


def token_ids(encoder: Encoder, texts: list[str]) -> list[list[int]]:
    return [encoder.tokenizer.encode(text, add_special_tokens=False).ids for text in texts]


def encoded(speaker: LoadedModel, order: dict[str, Any]) -> Rows:
    """The held-out conversations as the trainer's evaluation has them."""
    encoder = speaker.encoder
    for key, value in order["encoding"].items():
        setattr(encoder, key, value)
    found = [encoder.encode(row) for row in order["conversations"]]
    return [{"ids": one.ids, "labels": one.labels} for one in found if one.n_trained]


@torch.inference_mode()
def mean_loss(loaded: Any, rows: Rows) -> float | None:
    """Mean cross entropy over the trained tokens of all rows; None without rows. Virtual tokens before a row are left out."""
    total, count, place = 0.0, 0, next(loaded.parameters()).device
    for row in rows:
        labels = torch.tensor(row["labels"][1:])
        logits = (
            loaded(input_ids=torch.tensor([row["ids"]], device=place)).logits[0, -len(row["ids"]) :][:-1].float().cpu()
        )
        total += float(torch.nn.functional.cross_entropy(logits, labels, reduction="sum"))
        count += int((labels != IGNORE_INDEX).sum())
    return total / count if count else None


def room(parameters: int, dtype: torch.dtype) -> tuple[str, torch.dtype]:
    """(device, type to compute in) for a model whose weights are of a type. Raises DeviceError where there is room nowhere.

    On a CPU the weights are widened to float32 if they fit: the same numbers, and no rounding of the arithmetic between them.
    """
    first, ram = device.devices()[0], device.cpu().free
    free = first.free - chat.reserved_by_training()[1]
    if first.kind != "cpu" and 1.2 * parameters * dtype.itemsize < free:
        return first.id, dtype
    for kind in (torch.float32, dtype):
        if 1.2 * parameters * kind.itemsize < ram:
            return "cpu", kind
    raise DeviceError(
        f"The proof loads the model, {parameters * dtype.itemsize / 1e9:.1f} GB, and {ram / 1e9:.1f} GB of memory are free.",
        "End the chat and trainings, and export again, or go without it: --no-proof.",
        "memory",
    )


if __name__ == "__main__":
    try:
        found = main(sys.argv[1], sys.argv[2], json.loads(Path(sys.argv[3]).read_text()))
    except StudioError as error:
        print(json.dumps({"error": error.as_dict()}))
        sys.exit(2)
    Path(sys.argv[4]).write_text(json.dumps(found, ensure_ascii=False))
