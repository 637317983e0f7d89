"""python -m studio.worker.influence ORDER.json: how each training row's gradient lies to that of an answer.

The gradient of a row's loss with respect to the adapter's weights is projected at random and normalised, as LESS does
(Xia et al. 2024, arXiv 2402.04333, after TracIn, Pruthi et al. 2020, arXiv 2002.08484); the score is the cosine with
the answer's. Of what a model has learnt well the gradient vanishes, so TracIn sums over checkpoints; as few of them are
kept, the mean here is over points on the straight line from the base to the result (WAY). The projection is a count
sketch (Charikar et al. 2002): every weight is added to one of a few thousand sums with a random sign, which keeps inner
products and costs no matrix.
Prints a JSON object a line: {kind: doing, answer, scores, error}.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from peft.tuners.lora import LoraLayer

from studio import data, device
from studio.errors import DataError, DeviceError, OrderError
from studio.run import find
from studio.talk.reference import ModelReference, resolve
from studio.tokens import Encoded, Encoder
from studio.worker import memory
from studio.worker.bottleneck import BottleneckLayer
from studio.worker.evaluate import answered
from studio.worker.lines import emit, run_on_order
from studio.worker.loaded import LoadedModel, LoadedModels
from studio.worker.loss import has_plain_linear_head, loss
from studio.worker.sampling import Sampling

KEPT_EVERY = 25  # rows: how often it is written down up to where the kept gradients are whole
LONGEST_ANSWER = 256  # tokens
WAY = (1 / 3, 2 / 3)  # shares of the result's change of the base at which gradients are taken


class Example(NamedTuple):
    """A conversation with its encoded rows. source: of data.train, its place in the order."""

    source: int
    row: int
    chunks: list[Encoded]
    is_text: bool


def main(order: dict[str, Any]) -> None:
    torch.set_num_threads(device.cores())
    run, reference = find(order["run"]), resolve(order["model"])
    emit("doing", doing="loading the model")
    models = LoadedModels()
    loaded = models.load(reference)
    encoder = training_encoder(reference, run.config.data)
    emit("doing", doing="reading data")
    examples = chosen(_examples(run.config, encoder), order["most_rows"], order["seed"])
    if not examples:
        raise DataError("There is no row that the run was trained on.", "Look at its data.", "data")
    answer = None
    if order["prompt"] is not None:
        answer = order["answer"]
        if answer is None:
            emit("doing", doing="the model answers")
            answer = own_answer(loaded, order["prompt"], examples[0].is_text)
        emit("answer", text=answer)
    gradients = Gradients(loaded, adapter_weights(models, loaded), order["dimension"], order["seed"])
    held = _held_out(run.config, encoder, order["most_held_out"]) if order["held_out"] else []
    asked = None if answer is None else answer_rows(encoder, order["prompt"], answer, examples[0].is_text)
    factors, scores, left_out = outer_factors(loaded.model), {"answer": [], "held_out": []}, set()
    way = WAY if factors else (1.0,)
    for point, share in enumerate(way):
        part, stem = (point, len(way)), Path(f"{order['cache']}-{point}")
        with scaled(factors, share):
            rows = gradients.kept([example.chunks for example in examples], stem, "training rows", part)
            if asked is not None:
                scores["answer"].append(rows.astype(np.float32) @ gradients.of(asked))
            if held:
                mean = gradients.kept(held, stem, "held-out rows", part).astype(np.float32).mean(0)
                scores["held_out"].append(rows.astype(np.float32) @ (mean / (np.linalg.norm(mean) or 1.0)))
        left_out |= set(np.flatnonzero(~rows.any(1)).tolist())
    named = [[example.source, example.row] for example in examples]
    for name, cosines in scores.items():
        if cosines:
            emit("scores", of=name, rows=named, scores=np.mean(cosines, axis=0).round(5).tolist())
    if left_out:
        emit("note", rows=len(left_out))


# -- rows


def training_encoder(reference: ModelReference, order: data.DataOrder) -> Encoder:
    """The encoder of the training, as the run's order set it."""
    encoder = Encoder(reference.tokenizer, reference.template)
    for key, value in Encoder.settings(order).items():
        setattr(encoder, key, value)
    return encoder


def _examples(config: Any, encoder: Encoder) -> Iterator[Example]:
    numbers = {source.source: index for index, source in enumerate(config.data.sources())}
    for dataset, conversation, chunks in data.training_examples(config.data, encoder, config.training.seed):
        yield Example(numbers.get(dataset.source, 0), int(conversation["row"]), chunks, "text" in conversation)


def chosen(examples: Iterator[Example], most: int, seed: int) -> list[Example]:
    """At most `most` of the examples, each as likely as any other (Vitter 1985, algorithm R), in their order."""
    generator, kept = np.random.default_rng(seed), []
    for index, example in enumerate(examples):
        if len(kept) < most:
            kept.append((index, example))
        elif (slot := int(generator.integers(index + 1))) < most:
            kept[slot] = (index, example)
    return [example for _, example in sorted(kept, key=lambda entry: entry[0])]


def _held_out(config: Any, encoder: Encoder, most: int) -> list[list[Encoded]]:
    conversations = data.held_out(config.data, encoder, config.training.seed, most)
    rows = [encoder.encode(conversation) for conversation in conversations]
    return [[row] for row in rows if row.n_trained]


def answer_rows(encoder: Encoder, prompt: Any, answer: str, is_text: bool) -> list[Encoded]:
    """A question and its answer as a training row of which only the answer is a target. Raises DataError."""
    encoder.train_on = "last"
    row = encoder.encode(
        {"text": prompt + answer}
        if is_text
        else {"messages": [*_messages(prompt), {"role": "assistant", "content": answer}]}
    )
    if not row.n_trained:
        hint = "Give a shorter prompt, or an answer with words in it."
        raise DataError("Nothing of this answer fits into the length that the run was trained with.", hint, "answer")
    return [row]


def _messages(prompt: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt


def own_answer(loaded: LoadedModel, prompt: Any, is_text: bool) -> str:
    """The run's own answer, without chance. Raises DataError where there is none."""
    asked = [(prompt if is_text else _messages(prompt), {})]
    [(_, ended)] = answered(loaded, asked, Sampling(max_tokens=LONGEST_ANSWER, temperature=0), 1)
    if not ended.text.strip():
        raise DataError("The model answers nothing to this prompt.", "Give the answer yourself.", "answer")
    return ended.text


# -- gradients


def adapter_weights(models: LoadedModels, loaded: LoadedModel) -> list[torch.nn.Parameter]:
    """The weights that the adapter adds, set to take gradients, without whole tables. Raises OrderError for none."""
    others = {id(weight) for base in models.bases.values() for weight in base.parameters()}
    network = loaded.batch.base_model
    for table in (network.get_input_embeddings(), network.get_output_embeddings()):
        others |= {id(weight) for weight in (table.parameters() if table is not None else ())}
    weights = [weight for weight in loaded.model.parameters() if id(weight) not in others]
    weights = [weight for weight in weights if weight.is_floating_point()]
    if not weights:
        raise OrderError("This model carries no adapter whose gradients could be taken.", "Choose another run.", "run")
    for weight in weights:
        weight.requires_grad_(True)
    return weights


def outer_factors(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    """The weights to which the adapter's change is proportional (LoRA's B, a bottleneck's way up), if any."""
    factors: list[torch.nn.Parameter] = []
    for module in model.modules():
        if isinstance(module, LoraLayer):
            factors += [*module.lora_B.parameters(), *module.lora_embedding_B.parameters()]
        elif isinstance(module, BottleneckLayer) and all(settings.residual for settings in module.settings.values()):
            factors += module.adapter_up.parameters()
    return factors


@contextmanager
def scaled(factors: Sequence[torch.nn.Parameter], share: float) -> Iterator[None]:
    """The weights times a share, within the context."""
    whole = [factor.detach().clone() for factor in factors]
    with torch.no_grad():
        for factor in factors:
            factor.mul_(share)
    try:
        yield
    finally:
        with torch.no_grad():
            for factor, weight in zip(factors, whole, strict=True):
                factor.copy_(weight)


class Gradients:
    """Projected, normalised gradients of rows. dimension: numbers that are kept of each."""

    def __init__(self, loaded: LoadedModel, weights: Sequence[torch.nn.Parameter], dimension: int, seed: int):
        self.model, self.weights, self.dimension = loaded.model, list(weights), dimension
        self.device = self.weights[0].device
        generator = torch.Generator().manual_seed(seed)
        self.buckets, self.signs = [], []
        for weight in self.weights:
            count = weight.numel()
            self.buckets.append(torch.randint(dimension, (count,), generator=generator).int().to(self.device))
            self.signs.append((2 * torch.randint(2, (count,), generator=generator) - 1).to(torch.int8).to(self.device))
        self.head = "chunked" if has_plain_linear_head(loaded.model) else "full"

    def of(self, chunks: Sequence[Encoded]) -> np.ndarray:
        """The gradient of the summed loss of these chunks [dimension], of length 1; zeros where there is none."""
        sums = torch.zeros(self.dimension, device=self.device)
        for chunk in chunks:
            for gradient, bucket, sign in zip(self._gradients(chunk), self.buckets, self.signs, strict=True):
                if gradient is not None:
                    sums.index_add_(0, bucket, gradient.float().flatten() * sign)
        gradient = sums.cpu().numpy()
        norm = float(np.linalg.norm(gradient))
        return gradient / norm if np.isfinite(norm) and norm > 0 else np.zeros_like(gradient)

    def _gradients(self, chunk: Encoded) -> Sequence[torch.Tensor | None]:
        inputs = {
            name: torch.tensor([list(values)], device=self.device)
            for name, values in (("input_ids", chunk.ids), ("labels", chunk.labels))
        }
        dtype = self.weights[0].dtype
        with torch.enable_grad(), torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32):
            total = loss(self.model, {**inputs, "use_cache": False}, self.head, dtype)
            return torch.autograd.grad(total, self.weights, allow_unused=True)

    def kept(
        self, rows: Sequence[Sequence[Encoded]], stem: Path, what: str, part: tuple[int, int] = (0, 1)
    ) -> np.ndarray:
        """[rows, dimension] float16, kept in a file beside the run and gone on with where an earlier look ended.

        A row for which memory does not suffice is all zeros. part: which of how many such tables this is.
        """
        file = stem.with_name(f"{stem.name}-{what.partition(' ')[0]}.npy")
        count_file = file.with_suffix(".done")
        shape = (len(rows), self.dimension)
        done = int(count_file.read_text()) if file.is_file() and count_file.is_file() else 0
        table = np.lib.format.open_memmap(file, "r+" if done else "w+", np.float16, None if done else shape)
        for number in range(done, len(rows)):
            try:
                table[number] = self.of(rows[number])
            except RuntimeError as error:
                if not memory.is_out_of_memory(error):
                    raise
                memory.empty_cache()
                if number == 0:
                    message = "There is not enough memory for the gradient of one row."
                    hint = "End the chat and other programs on this device, and try again."
                    raise DeviceError(message, hint, "memory") from error
                table[number] = 0
            if (number + 1) % KEPT_EVERY == 0 or number + 1 == len(rows):
                table.flush()
                count_file.write_text(str(number + 1))
            done_before = part[0] * len(rows)
            emit("doing", doing=f"gradients of the {what}", done=done_before + number + 1, of=part[1] * len(rows))
        return table


if __name__ == "__main__":
    run_on_order(main)
