"""python -m studio.worker.prove trained|exported MODEL ORDER.json ANSWER.json: one side of an export's proof.

The trained model answers through the studio's own chat, a merged folder through transformers' generate, and a GGUF file
through llama.cpp where it is installed. Weights are loaded in the dtype of the file, on the device that has room.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import gguf
import torch

from studio import device, model, token_rows
from studio.base import generation
from studio.errors import DeviceError, ExportError, StudioError, reason_of
from studio.export.llama_cpp import installed
from studio.kernels import IGNORE_INDEX
from studio.talk import room
from studio.talk.reference import ModelReference, of_folder, resolve
from studio.worker import dynamic_rope, llama_cpp
from studio.worker.convert import dequantized, read_back, read_dtype
from studio.worker.lines import answer_order
from studio.worker.loaded import LoadedModel, LoadedModels
from studio.worker.loss import context_length
from studio.worker.merge import base_dtype, rounded, still_tied, untied, weights
from studio.worker.packing import left_padded
from studio.worker.sampling import Sampling

BATCH_SIZE = 20  # answers that transformers generates in one batch
Rows = list[dict[str, list[int]]]


def main(side: str, name: str, order: dict[str, Any]) -> dict[str, Any]:
    torch.set_num_threads(device.cores())
    if side == "trained":
        return trained(resolve(name), order)
    path = Path(name)
    if path.suffix == ".gguf":
        return of_gguf(path, order)
    if (path / "adapter_config.json").is_file():
        return of_adapter(of_folder(path, name), order)
    return of_transformers(path, order)


# -- the two sides


def trained(reference: ModelReference, order: dict[str, Any]) -> dict[str, Any]:
    """The trained model's side: {answers, ids, rows: [{ids, labels}], loss: {trained, merged}, unmeasured: [sentence]}.

    The merged loss is taken in the base's dtype; it is None where nothing is merged.
    """
    loaded_models = LoadedModels(*placement(model.facts(reference.base).parameters, base_dtype(reference)))
    loaded_model = loaded_models.load(reference)
    side = _answers_and_ids(loaded_model, order)
    rows = encoded(loaded_model, order)
    loss: dict[str, float | None] = {"trained": mean_loss(loaded_model.model, rows), "merged": None}
    unmeasured = []
    mergeable = reference.result is not None and not reference.standalone and reference.method.mergeable
    if rows and mergeable and loaded_models.bases:
        base = next(iter(loaded_models.bases.values()))
        try:
            loss["merged"] = mean_loss(load_merged_weights(base, reference), rows)
        except (StudioError, NotImplementedError, RuntimeError) as error:
            unmeasured.append(_unmeasured("merged model", error))
    return {**side, "rows": rows, "loss": loss, "unmeasured": unmeasured}


def _unmeasured(which: str, error: Exception) -> str:
    return f"The held-out loss of the {which} could not be taken: {reason_of(error)}."


def load_merged_weights(base: Any, reference: ModelReference) -> Any:
    """Overwrite a loaded base with the merged weights, rounded to the base's dtype, and return it."""
    token_rows.prepare_base(base, reference.result)
    dtype, base = base_dtype(reference), untied(base)
    parameters, written = dict(base.named_parameters()), set()
    with torch.no_grad():
        for name, weight in weights(reference):
            if name in parameters:
                parameters[name].copy_(rounded(weight, dtype))
                written.add(name)
        if still_tied(reference.base, written):
            base.get_output_embeddings().weight.copy_(base.get_input_embeddings().weight)
    return base


def of_adapter(reference: ModelReference, order: dict[str, Any]) -> dict[str, Any]:
    """An exported adapter on its base, loaded anew by the studio."""
    loaded_models = LoadedModels(*placement(model.facts(reference.base).parameters, base_dtype(reference)))
    loaded_model = loaded_models.load(reference)
    loss = mean_loss(loaded_model.model, order["rows"])
    return {**_answers_and_ids(loaded_model, order), "loss": loss, "by": "Fine-Tuning Studio"}


def of_transformers(folder: Path, order: dict[str, Any]) -> dict[str, Any]:
    """A merged folder through AutoTokenizer, its chat template, and generate with the folder's generation config."""
    import transformers

    facts = model.facts(folder)
    torch_device, dtype = placement(facts.parameters, getattr(torch, facts.dtype))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True)
    loaded = dynamic_rope.each_as_alone(loaded).to(torch_device).eval()
    prompts = []
    for question in order["questions"]:
        text = tokenizer.apply_chat_template(
            question["messages"], tools=question.get("tools"), add_generation_prompt=True, tokenize=False
        )
        prompts.append(tokenizer(text, add_special_tokens=False)["input_ids"])
    fits = context_length(loaded, 0) >= max(map(len, prompts), default=0) + order["max_tokens"]
    batch_size = BATCH_SIZE if fits and not dynamic_rope.switch(loaded.config.get_text_config()) else 1
    answers = []
    for start in range(0, len(prompts), batch_size):
        answers += _generate(loaded, tokenizer, prompts[start : start + batch_size], order["max_tokens"])
        print(f"{len(answers)}/{len(prompts)}", flush=True)
    return {
        "answers": answers,
        "ids": [tokenizer(text, add_special_tokens=False)["input_ids"] for text in order["texts"]],
        "loss": mean_loss(loaded, order["rows"]),
        "by": f"transformers {transformers.__version__}, {facts.dtype} weights",
    }


def _generate(loaded: Any, tokenizer: Any, prompts: list[list[int]], max_tokens: int) -> list[dict[str, Any]]:
    """Greedy answers to a batch padded on the left, without the generation config's sampling and penalties.

    An answer ends where the model has no position left, as in the chat.
    """
    inputs = left_padded(prompts, loaded.device)
    max_tokens = min(max_tokens, max(1, context_length(loaded, 0) - inputs["input_ids"].shape[1]))
    end_ids = generation.end_ids({"eos_token_id": loaded.generation_config.eos_token_id})
    with torch.inference_mode():
        outputs = loaded.generate(
            **inputs,
            max_new_tokens=max_tokens,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            repetition_penalty=1.0,
            pad_token_id=end_ids[0] if end_ids else 0,
        )
    answers = []
    for prompt, output_ids in zip(prompts, outputs[:, inputs["input_ids"].shape[1] :].tolist(), strict=True):
        stop = next((position for position, token in enumerate(output_ids) if token in end_ids), None)
        answers.append(
            {
                "text": tokenizer.decode(output_ids[:stop], skip_special_tokens=True),
                "ids": output_ids[:stop],
                "prompt": prompt,
                "finish": "length" if stop is None else "stop",
            }
        )
    return answers


def of_gguf(file: Path, order: dict[str, Any]) -> dict[str, Any]:
    """A GGUF file through every installed llama.cpp, else through transformers, which always takes the loss."""
    longest = max((len(ids) for ids in order["prompts"]), default=0) + order["max_tokens"] + 64
    sides, ended = [], []
    for package in installed():
        try:
            sides.append(_of_llama_cpp(llama_cpp.Reader(package, file, longest), order))
        except ExportError as error:
            ended.append(error.message)
    if sides:
        return {**sides[0], **_loss_of_gguf(file, order["rows"]), "others": sides[1:], "not_asked": ended}
    if ended:
        raise ExportError(ended[0], " ".join(ended[1:]), "gguf")
    with tempfile.TemporaryDirectory(dir=file.parent) as scratch:
        try:
            by_transformers = of_transformers(read_back(file, Path(scratch)).base, order)
        except Exception as error:
            raise DeviceError(
                f"transformers does not read this GGUF file ({reason_of(error)}), and no llama.cpp is installed to "
                "ask.",
                "pip install xllamacpp",
                "gguf",
            ) from error
    by_transformers["by"] = by_transformers["by"].split(",")[0] + ", read from the GGUF"
    return by_transformers


def _loss_of_gguf(file: Path, rows: Rows) -> dict[str, Any]:
    """{loss, unmeasured}: the loss is None without rows, and for a family that transformers reads from no GGUF file."""
    if not rows:
        return {"loss": None}
    try:
        parameters = sum(int(tensor.n_elements) for tensor in gguf.GGUFReader(file).tensors)
        torch_device, dtype = placement(parameters, read_dtype(file))
        return {"loss": mean_loss(dequantized(file, dtype).to(torch_device).eval(), rows)}
    except (StudioError, ValueError, RuntimeError, KeyError, NotImplementedError, OSError) as error:
        return {"loss": None, "unmeasured": [_unmeasured("GGUF file", error)]}


def _of_llama_cpp(reader: llama_cpp.Reader, order: dict[str, Any]) -> dict[str, Any]:
    answers = []
    for question in order["questions"]:
        answers.append(reader.answer(max_tokens=order["max_tokens"], **question))
        print(f"{len(answers)}/{len(order['questions'])}", flush=True)
    return {"answers": answers, "ids": [reader.ids(text) for text in order["texts"]], "by": reader.name}


# -- what both sides compute


def answers(
    loaded_model: LoadedModel, questions: list[dict[str, Any]], max_tokens: int, progress: Any = None
) -> list[dict[str, Any]]:
    """[{text, ids, prompt, finish}] of the questions {messages, tools?}, generated in one batch.

    ids: without the end token. finish: "text" where only the studio's search for a stop text ended the answer.
    """
    sampling = Sampling(max_tokens=max_tokens, temperature=0)
    running = [loaded_model.answer(sampling=sampling, **question) for question in questions]
    for answer in running:
        loaded_model.batch.prefill_group([answer])
    while loaded_model.batch.answers:
        loaded_model.batch.step()
        if progress:
            progress(sum(answer.finish_reason is not None for answer in running), len(running))
    rows = []
    for answer in running:
        ended = answer.output_ids[-1] in answer.end_ids
        rows.append(
            {
                "text": answer.written,
                "ids": answer.output_ids[:-1] if ended else answer.output_ids,
                "prompt": answer.prompt_ids,
                "finish": "text" if answer.finish_reason == "stop" and not ended else answer.finish_reason,
            }
        )
    return rows


def _answers_and_ids(loaded_model: LoadedModel, order: dict[str, Any]) -> dict[str, Any]:
    def progress(done: int, total: int) -> None:
        print(f"{done}/{total}", flush=True)

    tokenizer = loaded_model.encoder.tokenizer
    return {
        "answers": answers(loaded_model, order["questions"], order["max_tokens"], progress),
        "ids": [tokenizer.encode(text, add_special_tokens=False).ids for text in order["texts"]],
    }


def encoded(loaded_model: LoadedModel, order: dict[str, Any]) -> Rows:
    """The held-out conversations as the trainer's evaluation encodes them."""
    encoder = loaded_model.encoder
    for key, value in order["encoding"].items():
        setattr(encoder, key, value)
    rows = [encoder.encode(conversation) for conversation in order["conversations"]]
    return [{"ids": row.ids, "labels": row.labels} for row in rows if row.n_trained]


@torch.inference_mode()
def mean_loss(loaded: Any, rows: Rows) -> float | None:
    """Mean cross entropy over the trained tokens of all rows; None without rows. Virtual tokens are left out."""
    torch_device = next(loaded.parameters()).device
    total, count = 0.0, 0
    for row in rows:
        labels = torch.tensor(row["labels"][1:])
        logits = loaded(input_ids=torch.tensor([row["ids"]], device=torch_device)).logits
        logits = logits[0, -len(row["ids"]) :][:-1].float().cpu()
        total += float(torch.nn.functional.cross_entropy(logits, labels, reduction="sum"))
        count += int((labels != IGNORE_INDEX).sum())
    return total / count if count else None


def placement(parameters: int, dtype: torch.dtype) -> tuple[str, torch.dtype]:
    """(device, dtype to compute in) for weights of a dtype. Raises DeviceError where there is no room.

    On a CPU the weights are widened to float32 if they fit: the same numbers, without rounding between operations.
    """
    first, ram = device.devices()[0], device.cpu().free
    free = first.free - room.reserved_by_training()[1]
    if first.kind != "cpu" and 1.2 * parameters * dtype.itemsize < free:
        return first.id, dtype
    for wider in (torch.float32, dtype):
        if 1.2 * parameters * wider.itemsize < ram:
            return "cpu", wider
    raise DeviceError(
        f"The proof loads the model, {parameters * dtype.itemsize / 2**30:.1f} GiB, and {ram / 2**30:.1f} GiB of "
        "memory are free.",
        "End the chat and trainings, and export again, or go without it: --no-proof.",
        "memory",
    )


if __name__ == "__main__":
    answer_order(lambda order: main(sys.argv[1], sys.argv[2], order))
