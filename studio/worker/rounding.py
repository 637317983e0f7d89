"""Weights rounded to the numbers a file can hold so that what each layer puts out changes least: the error is carried on.

Rounded one by one, a layer's weights err each for itself. Here each column of a weight matrix is rounded in turn and what was lost is made
good in the columns still to come, weighted by how the layer's inputs go together: GPTQ (arXiv 2210.17323, algorithm 1), whose solver goes
back to Optimal Brain Surgeon. The inputs are those of the run's own training rows, never of held-out ones.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch.nn.functional import linear

from studio import data, device, model, run
from studio.errors import StudioError
from studio.methods import METHODS
from studio.talk import chat
from studio.talk.voice import Voice
from studio.tokens import Encoder
from studio.worker.batches import Layout, Row, groups
from studio.worker.merge import weights

TOKENS = 8192  # of training rows whose way through the model is watched
WIDTH = 1024  # tokens of rows laid end to end
DAMP = 0.1  # of the mean diagonal, added to it: directions the few rows hardly take are not rounded carelessly either
COLUMNS = 64  # whose errors are carried on among themselves before they are carried over to the rest
CPU_EACH = 250_000_000  # parameters a core: more, and watching takes a CPU longer than some ten minutes
Tell = Callable[[int, int], None]


class Grid(Protocol):
    """The numbers one weight matrix can be written in."""

    def __init__(self, weight: torch.Tensor): ...

    @staticmethod
    def wanted(weight: torch.Tensor) -> bool:
        """Whether a matrix can be written in such numbers, and does not lie on them already."""

    def nearest(self, column: torch.Tensor, place: int) -> torch.Tensor:
        """column [out] at its place, in numbers of the grid, as float32."""

    def stored(self, weight: torch.Tensor) -> torch.Tensor:
        """A matrix that lies on the grid, as its file holds it."""


class Sixteen:
    """bf16: eight bits of mantissa."""

    def __init__(self, weight: torch.Tensor):
        pass

    @staticmethod
    def wanted(weight: torch.Tensor) -> bool:
        return not torch.equal(weight, weight.to(torch.bfloat16).to(weight.dtype))

    def nearest(self, column: torch.Tensor, place: int) -> torch.Tensor:
        return column.to(torch.bfloat16).to(column.dtype)

    def stored(self, weight: torch.Tensor) -> torch.Tensor:
        return weight.to(torch.bfloat16)


class Eight:
    """llama.cpp's q8_0: 32 numbers of a row share a 16-bit scale, each is -127 to 127 times it."""

    def __init__(self, weight: torch.Tensor):
        self.scale = (weight.view(len(weight), -1, 32).abs().amax(2) / 127).half().float()  # [out, in / 32]
        self.divisor = torch.where(self.scale > 0, self.scale, 1)

    @staticmethod
    def wanted(weight: torch.Tensor) -> bool:
        return weight.shape[1] % 32 == 0

    def nearest(self, column: torch.Tensor, place: int) -> torch.Tensor:
        block = place // 32
        return (column / self.divisor[:, block]).round().clamp(-127, 127) * self.scale[:, block]

    def stored(self, weight: torch.Tensor) -> torch.Tensor:
        """uint8 [out, in / 32 · 34]: of every block the scale in two bytes, then its 32 numbers."""
        whole = (weight.view(*self.scale.shape, 32) / self.divisor[..., None]).round().to(torch.int8)
        return torch.cat([self.scale.half()[..., None].view(torch.uint8), whole.view(torch.uint8)], 2).flatten(1)


class Inputs(NamedTuple):
    """How a layer's inputs go together: an order of the columns, and the upper Cholesky factor of their inverse covariance in it.

    drift: [in, in]; weight @ drift is the change of a weight that makes good for how far its inputs have come from the exact ones.
    """

    order: torch.Tensor
    factor: torch.Tensor
    drift: torch.Tensor


def inputs(seen: torch.Tensor, exact: torch.Tensor) -> Inputs:
    """seen: [tokens, in], what the layer is given; exact: what it would be given, were nothing rounded before it.

    The weight whose answers to `seen` are nearest to those of W to `exact` is W + W (exact - seen)ᵀ seen (seenᵀ seen)⁻¹ (asymmetric
    calibration, arXiv 2504.02692). Columns that carry most come first, while most is left to make good with.
    """
    together = seen.T @ seen / len(seen)
    together.diagonal().add_(DAMP * together.diagonal().mean().clamp(min=1e-12))
    order = together.diagonal().argsort(descending=True)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(together[order][:, order].double()))
    back = order.argsort()
    drift = ((exact - seen).T @ seen / len(seen)).double() @ inverse[back][:, back]
    return Inputs(order, torch.linalg.cholesky(inverse, upper=True).to(seen.dtype), drift.to(seen.dtype))


def carried(weight: torch.Tensor, known: Inputs, grid: Grid) -> torch.Tensor:
    """weight [out, in] in numbers of the grid, each column's error carried on to those after it."""
    left, places = weight.T[known.order].contiguous(), known.order.tolist()  # [in, out]: a column of the weight is a row here
    done = torch.empty_like(left)
    for start in range(0, len(places), COLUMNS):
        end = min(start + COLUMNS, len(places))
        factor, part, errors = known.factor[start:end, start:end], left[start:end], torch.empty_like(left[start:end])
        for n in range(end - start):
            done[start + n] = grid.nearest(part[n], places[start + n])
            errors[n] = (part[n] - done[start + n]) / factor[n, n]
            part[n + 1:] -= factor[n, n + 1:, None] * errors[n]
        left[end:] -= known.factor[start:end, end:].T @ errors
    back = torch.empty_like(done)
    back[known.order] = done
    return back.T.contiguous()


def rounded(voice: Voice, kind: type[Grid], tell: Tell = lambda *_: None) -> dict[str, torch.Tensor]:
    """Name -> weight as its file holds it, of every linear layer of the merged model that the grid is for.

    {} where nothing can be watched: no training rows, or a model too large for this computer. The file's writer then rounds by itself.
    """
    where = place(model.facts(voice.base).parameters)
    rows = training_rows(voice) if where else []
    if not rows:
        return {}
    whole = METHODS["full"]().load(voice.base, torch.float32).eval()
    exact = dict(weights(voice))
    with torch.no_grad():
        for name, weight in whole.named_parameters():
            if name in exact:
                weight.copy_(exact[name])
    layers = {f"{name}.weight": layer for name, layer in whole.named_modules() if isinstance(layer, torch.nn.Linear)}
    layers = {name: layer for name, layer in layers.items() if name in exact and kind.wanted(exact[name])}
    return _watched(whole.to(where), layers, rows, kind, tell)


def _watched(whole: Any, layers: dict[str, torch.nn.Linear], rows: list[Row], kind: type[Grid], tell: Tell) -> dict[str, torch.Tensor]:
    """The rows go through the model once, twice over: as the exact layers would have them, and as the rounded ones do.

    Each layer is rounded when they reach it, so that it makes good for those before it too.
    """
    done: dict[str, torch.Tensor] = {}
    last: list[Any] = [None, None]  # layers that are given the same share what is known of it
    ids, positions, real = (part.to(whole.device) for part in laid(rows))
    head = whole.get_output_embeddings()

    def reached(layer: torch.nn.Linear, name: str, given: torch.Tensor) -> torch.Tensor:
        """given: [2 · pieces, width, in], the exact half first; gives [2 · pieces, width, out]."""
        exact, moved = given.chunk(2)
        if last[0] is not given:
            last[:] = given, inputs(moved[real], exact[real])
        weight, grid = layer.weight.data, kind(layer.weight.data)
        near = carried(weight + weight @ last[1].drift, last[1], grid)
        done[name] = grid.stored(near).cpu()
        tell(len(done), len(layers))
        return given[..., :0] if layer is head else torch.cat([linear(exact, weight, layer.bias), linear(moved, near, layer.bias)])

    for name, layer in layers.items():
        layer.forward = functools.partial(reached, layer, name)
    with torch.inference_mode():
        states = whole.get_decoder()(input_ids=ids.repeat(2, 1), position_ids=positions.repeat(2, 1), use_cache=False).last_hidden_state
        for name, layer in layers.items():
            if name not in done and layer is head:  # never called: the answers are not needed, which are long
                reached(layer, name, states)
    return done


def laid(rows: list[Row]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """ids and positions, int64 [pieces, width], rows end to end with positions that begin anew with each; and where a real token lies."""
    cut = groups(rows, Layout(True, WIDTH, 1))
    width = max(sum(len(row["input_ids"]) for row in group) for group in cut)
    ids, positions = torch.zeros(2, len(cut), width, dtype=torch.int64)
    real = torch.zeros(len(cut), width, dtype=torch.bool)
    for place, group in enumerate(cut):
        told = [token for row in group for token in row["input_ids"]]
        counted = [n for row in group for n in range(len(row["input_ids"]))]
        ids[place, :len(told)] = torch.tensor(told)
        positions[place] = torch.tensor(counted + list(range(width - len(told))))
        real[place, :len(told)] = True
    return ids, positions, real


def training_rows(voice: Voice) -> list[Row]:
    """Rows the voice was trained on, as the trainer saw them, up to TOKENS tokens; [] for what is no run, or when the data has gone."""
    try:
        order = run.find(voice.name.partition("@")[0]).config
        encoder = Encoder.of(order.data, voice.base, voice.template)
        rows = data.prepare(order.data, encoder, order.training.seed).train
    except StudioError:
        return []
    found, held = [], 0
    for row in rows:
        found.append({"input_ids": list(row["input_ids"])[:TOKENS - held]})
        held += len(found[-1]["input_ids"])
        if held >= TOKENS:
            break
    return found


def place(parameters: int) -> str | None:
    """Where the model can be watched in float32 beside what else runs: a torch device, or None."""
    first = device.devices()[0]
    free = first.free - chat.claimed()[1]
    if first.traits.cards and 6 * parameters < free:
        return first.torch
    ram = device.cpu().free if first.traits.cards else free
    return "cpu" if parameters <= CPU_EACH * device.cores() and 14 * parameters < ram else None
