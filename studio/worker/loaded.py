"""Speakers: voices with their weights in memory. One base in memory serves every adapter that was trained on it.

Every adapter gets a tree of modules of its own whose weights are the base's own tensors: nothing is switched when another
is asked, two can answer at once, kinds of adapters that peft cannot mix on one model stand side by side, and memory grows
by the adapter only.
"""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import torch

from studio import device, model, token_rows
from studio.base.quantization import Quantization
from studio.errors import ModelError
from studio.method import Method
from studio.methods import METHODS
from studio.talk import chat
from studio.talk.reference import ModelReference
from studio.talk.stopping import end_tokens, text_stops
from studio.tokens import Encoder
from studio.worker import memory, torch_devices
from studio.worker.generate import Answer, Batch, Sampling, Text

THINKING = "<think>"


class LoadedModel:
    """A voice that can answer: its model on a device, its encoder, what ends its turns."""

    def __init__(self, voice: ModelReference, loaded: Any, encoder: Encoder | None = None):
        self.voice, self.model = voice, loaded
        self.batch = Batch(loaded)
        self.encoder = encoder or Encoder(voice.tokenizer, voice.template)
        config = self.batch.inner.config.get_text_config()
        virtual = getattr(voice.method, "virtual_tokens", 0)  # they stand before the conversation, and take positions
        self.room = int(getattr(config, "max_position_embeddings", 0) or 1 << 20) - virtual
        self.ends = frozenset(end_tokens(voice, self.encoder.tokenizer))
        self.stops = text_stops(voice, self.encoder.tokenizer)
        special = {token for token, one in self.encoder.tokenizer.get_added_tokens_decoder().items() if one.special}
        self.hidden = special - {*(voice.manifest.get("special_answers") or ()), *voice.added.ids.values()}

    def decode(self, ids: list[int]) -> str:
        """Text of tokens; special ones are left out unless they were trained as part of answers, or a stop text may hold one."""
        shown = ids if self.stops else [token for token in ids if token not in self.hidden]
        return self.encoder.tokenizer.decode(shown, skip_special_tokens=False)

    def answer(self, messages: list[dict[str, Any]] | str, sampling: Sampling, **extra: Any) -> Answer:
        """An answer to be written; to a text, what follows it. extra: variables of the chat template, like tools.

        Raises TemplateError, and ModelError when the conversation is longer than the model's context.
        """
        plain = isinstance(messages, str)
        ids = self.encoder.tokenizer.encode(messages).ids if plain else self.encoder.prompt_ids(messages, **extra)
        if len(ids) >= self.room:
            raise ModelError(
                f"The conversation has {len(ids)} tokens; {self.voice.name} can hold {self.room}.",
                "Start a new one, or shorten it.",
                "messages",
            )
        if plain:
            return Answer(ids, sampling, Text(self.decode, sampling.stop), self.ends, self.room)
        opening = self.encoder.prompt(messages, **extra).rstrip()
        first = (
            THINKING + "\n" if opening.endswith(THINKING) else ""
        )  # the template opened the thinking; show that it did
        return Answer(ids, sampling, Text(self.decode, (*self.stops, *sampling.stop), first), self.ends, self.room)


class LoadedModels:
    """All voices in memory, by name, and the bases they share."""

    def __init__(self, place: str | None = None, precision: torch.dtype | None = None):
        self.place, self.dtype = place or where(), precision or dtype()
        self.bases: dict[tuple[Path, Quantization | None], Any] = {}
        self.named: dict[str, LoadedModel] = {}

    def load(self, voice: ModelReference) -> LoadedModel:
        """Put a voice into memory; one that is there already is given back."""
        if voice.name not in self.named:
            if self.place != "cpu":
                torch_devices.refuse_unusable(device.devices()[0])
            self.named[voice.name] = speaker = LoadedModel(voice, self._model(voice), self._encoder(voice))
            warm(speaker)
        return self.named[voice.name]

    def unload(self, name: str) -> None:
        """Take a voice out; its base goes with the last voice that stands on it."""
        self.named.pop(name, None)
        needed = {one.voice.base for one in self.named.values() if not one.voice.whole}
        self.bases = {key: base for key, base in self.bases.items() if key[0] in needed}
        memory.empty_cache()

    def _encoder(self, voice: ModelReference) -> Encoder:
        """With the tokenizer of another voice on the same base, if there is one: it takes as much memory as a small adapter."""
        made = copy.copy(
            next((one.encoder for one in self.named.values() if one.voice.tokenizer == voice.tokenizer), None)
        ) or Encoder(voice.tokenizer, voice.template)
        made.template = voice.template
        return made

    def _model(self, voice: ModelReference) -> Any:
        held = self._held(voice)
        if voice.whole and voice.checkpoint:
            wrapped = voice.method.wrap(token_rows.add_rows(self._fresh(voice.base, held), voice.added))
            voice.method.load_checkpoint(wrapped, voice.result)
            return _ready(token_rows.merge_rows(wrapped), self.dtype, voice.method)
        if voice.whole:
            return _ready(self._fresh(voice.result, None), self.dtype, voice.method)
        key = (voice.base, held)
        if key not in self.bases:
            self.bases[key] = _ready(self._fresh(*key), self.dtype, None)
        base = self.bases[key]
        if voice.result is None:
            return base
        return _ready(voice.method.attach(tree(base), voice.result), self.dtype, voice.method)

    def _held(self, voice: ModelReference) -> Quantization | None:
        """The base in 16 bits where that fits the device beside what else runs, else as it stood in training (4 bits for QLoRA)."""
        there = (voice.base, None) in self.bases
        return (
            None
            if there or 1.2 * model.facts(voice.base).bytes < device.devices()[0].free - chat.reserved_by_training()[1]
            else voice.held
        )

    def _fresh(self, folder: Path, held: Quantization | None) -> Any:
        """A model from its files, on the device; held: in fewer bits."""
        if held is None:
            return METHODS["full"]().load(folder, self.dtype).to(self.place)
        return held.unpacked(METHODS["full"]().load(folder, self.dtype, **held.options(self.dtype)))


def where() -> str:
    """The torch device for answers: the first the driver shows, STUDIO_CHAT_DEVICE if set."""
    return os.environ.get("STUDIO_CHAT_DEVICE") or device.devices()[0].torch


def dtype() -> torch.dtype:
    """bf16 where the device multiplies in it; fp16 on older cards; else float32."""
    return {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[device.devices()[0].precision]


def tree(base: Any) -> Any:
    """The base's modules anew, their weights and buffers (and 4-bit states) the very same tensors."""
    shared: list[Any] = [*base.parameters(), *base.buffers()]
    shared += [state for weight in base.parameters() if (state := getattr(weight, "quant_state", None)) is not None]
    return copy.deepcopy(base, {id(thing): thing for thing in shared})


def warm(speaker: LoadedModel) -> None:
    """One short answer, thrown away: the first real one then finds kernels compiled and pages in memory."""
    ids = (speaker.encoder.prompt_ids([{"role": "user", "content": "Hi"}]) or [0]) * 2
    answer = Answer(ids[:32], Sampling(max_tokens=2, temperature=0), Text(lambda _: ""), frozenset(), speaker.room)
    while answer.finish is None:
        if speaker.batch.read(answer) is not None:
            speaker.batch.step()


def _ready(loaded: Any, precision: torch.dtype, method: Method | None) -> Any:
    """For answering only: no gradients, no dropout, adapters in the base's precision as autocast had them in training."""
    for weight in loaded.parameters():
        weight.requires_grad_(False)
        if weight.is_floating_point() and weight.dtype == torch.float32 != precision and method is not None:
            weight.data = weight.data.to(precision)
    return loaded.eval()
