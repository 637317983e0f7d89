"""Models in memory. Every adapter trained on a base shares that one base.

Each adapter gets its own tree of modules whose weights are the base's tensors. Nothing is switched between requests,
adapters that peft cannot mix on one model stand side by side, and memory grows by the adapter only.
"""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import torch

from studio import device, loading, model, token_rows
from studio.base.quantization import Quantization
from studio.errors import ModelError
from studio.method import Method
from studio.methods import METHODS
from studio.talk import room
from studio.talk.reference import ModelReference
from studio.talk.stopping import end_tokens, text_stops
from studio.template import THINKING
from studio.text.call_marks import SPECIAL
from studio.text.written_calls import Channels
from studio.tokens import Encoder
from studio.worker import dynamic_rope, memory, torch_devices
from studio.worker.generate import Answer, Batch
from studio.worker.loss import context_length
from studio.worker.sampling import IncrementalText, Sampling

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


class LoadedModel:
    """A model on its device with its encoder, its end tokens and its batch of running answers."""

    def __init__(self, reference: ModelReference, loaded: Any, encoder: Encoder | None = None):
        self.reference = reference
        self.model = loaded
        self.batch = Batch(loaded)
        self.encoder = encoder or Encoder(reference.tokenizer, reference.template)
        tokenizer = self.encoder.tokenizer
        virtual_tokens = getattr(reference.method, "virtual_tokens", 0)  # they take positions before the conversation
        self.context_length = context_length(self.batch.base_model, virtual_tokens)
        self.end_ids = frozenset(end_tokens(reference, tokenizer))
        self.stop_texts = text_stops(reference, tokenizer)
        special = {token_id for token_id, token in tokenizer.get_added_tokens_decoder().items() if token.special}
        trained = {*(reference.manifest.get("special_answers") or ()), *reference.added_tokens.ids.values()}
        marks = {tokenizer.token_to_id(mark) for mark in SPECIAL}
        self.hidden_ids = special - trained - marks
        self.has_channels = tokenizer.token_to_id("<|channel|>") is not None

    def decode(self, ids: list[int]) -> str:
        """Decode tokens without special ones, except those that were trained in answers or may be in a stop text."""
        shown = ids if self.stop_texts else [token for token in ids if token not in self.hidden_ids]
        return self.encoder.tokenizer.decode(shown, skip_special_tokens=False)

    def answer(self, messages: list[dict[str, Any]] | str, sampling: Sampling, **template_variables: Any) -> Answer:
        """Return the answer to a conversation, or the continuation of a text, ready to be prefilled.

        Raises TemplateError, and ModelError when the conversation is longer than the model's context.
        """
        if isinstance(messages, str):
            ids = self.encoder.tokenizer.encode(messages).ids
            text = IncrementalText(self.decode, sampling.stop)
        else:
            ids = self.encoder.prompt_ids(messages, **template_variables)
            prompt = self.encoder.prompt(messages, **template_variables).rstrip()
            first = THINKING + "\n" if prompt.endswith(THINKING) else ""  # opened by the template, shown in the answer
            channels = Channels() if self.has_channels else None
            text = IncrementalText(self.decode, (*self.stop_texts, *sampling.stop), first, channels)
        if len(ids) >= self.context_length:
            message = f"The conversation has {len(ids)} tokens; {self.reference.name} can hold {self.context_length}."
            hint = "Start a new one, or shorten it."
            raise ModelError(message, hint, "messages")
        return Answer(ids, sampling, text, self.end_ids, self.context_length)


class LoadedModels:
    """All models in memory, by name, and the bases they share."""

    def __init__(self, torch_device: str | None = None, dtype: torch.dtype | None = None):
        self.device = torch_device or default_device()
        self.dtype = dtype or DTYPES[device.devices()[0].precision]
        self.bases: dict[tuple[Path, Quantization | None], Any] = {}
        self.by_name: dict[str, LoadedModel] = {}

    def load(self, reference: ModelReference) -> LoadedModel:
        """Load a model into memory, or return it if it is loaded."""
        if reference.name not in self.by_name:
            if self.device != "cpu":
                torch_devices.refuse_unusable(device.devices()[0])
            loaded_model = LoadedModel(reference, self._model(reference), self._encoder(reference))
            self.by_name[reference.name] = loaded_model
            warm_up(loaded_model)
        return self.by_name[reference.name]

    def unload(self, name: str) -> None:
        """Remove a model; a base goes with the last model that stands on it."""
        self.by_name.pop(name, None)
        references = [loaded_model.reference for loaded_model in self.by_name.values()]
        needed = {reference.base for reference in references if not reference.standalone}
        self.bases = {key: base for key, base in self.bases.items() if key[0] in needed}
        memory.empty_cache()

    def _encoder(self, reference: ModelReference) -> Encoder:
        """An encoder that shares a loaded model's tokenizer, which takes as much memory as a small adapter."""
        for loaded_model in self.by_name.values():
            if loaded_model.reference.tokenizer == reference.tokenizer:
                encoder = copy.copy(loaded_model.encoder)
                encoder.template = reference.template
                return encoder
        return Encoder(reference.tokenizer, reference.template)

    def _model(self, reference: ModelReference) -> Any:
        quantization = self._quantization(reference)
        if reference.standalone and reference.checkpoint:
            base = token_rows.add_rows(self._load_weights(reference.base, quantization), reference.added_tokens)
            wrapped = reference.method.wrap(base)
            reference.method.load_checkpoint(wrapped, reference.result)
            return _for_inference(token_rows.merge_rows(wrapped), self.dtype, reference.method)
        if reference.standalone:
            return _for_inference(self._load_weights(reference.result, None), self.dtype, reference.method)
        key = (reference.base, quantization)
        if key not in self.bases:
            self.bases[key] = _for_inference(self._load_weights(*key), self.dtype, None)
        base = self.bases[key]
        if reference.result is None:
            return base
        own = copy.deepcopy(base) if loading.changes_base(reference.result) else share_weights(base)
        adapted = reference.method.attach(own, reference.result)
        return _for_inference(adapted, self.dtype, reference.method)

    def _quantization(self, reference: ModelReference) -> Quantization | None:
        """None (16 bits) where the base fits beside a running training, else the quantization of the training."""
        if (reference.base, None) in self.bases:
            return None
        free = device.devices()[0].free - room.reserved_by_training()[1]
        return None if 1.2 * model.facts(reference.base).bytes < free else reference.quantization

    def _load_weights(self, folder: Path, quantization: Quantization | None) -> Any:
        if quantization is None:
            base = METHODS["full"]().load(folder, self.dtype).to(self.device)
        else:
            base = loading.load_packed(folder, self.dtype, quantization)
        return dynamic_rope.each_as_alone(base)


def default_device() -> str:
    """The torch device for answers: STUDIO_CHAT_DEVICE, or the first one the driver shows."""
    return os.environ.get("STUDIO_CHAT_DEVICE") or device.devices()[0].torch


def share_weights(base: Any) -> Any:
    """Copy the base's modules; parameters, buffers and 4-bit states stay the same tensors."""
    shared: list[Any] = [*base.parameters(), *base.buffers()]
    shared += [state for weight in base.parameters() if (state := getattr(weight, "quant_state", None)) is not None]
    return copy.deepcopy(base, {id(tensor): tensor for tensor in shared})


def warm_up(loaded_model: LoadedModel) -> None:
    """Generate one short answer and drop it, so that the first real one finds kernels compiled and pages in memory."""
    ids = (loaded_model.encoder.prompt_ids([{"role": "user", "content": "Hi"}]) or [0]) * 2
    sampling, text = Sampling(max_tokens=2, temperature=0), IncrementalText(lambda _: "")
    answer = Answer(ids[:32], sampling, text, frozenset(), loaded_model.context_length)
    loaded_model.batch.prefill_group([answer])
    while answer.finish_reason is None:
        loaded_model.batch.step()


def _for_inference(loaded: Any, dtype: torch.dtype, method: Method | None) -> Any:
    """Freeze a model, without dropout. Adapters take the base's dtype, as autocast computed them in training."""
    for weight in loaded.parameters():
        weight.requires_grad_(False)
        if weight.is_floating_point() and weight.dtype == torch.float32 != dtype and method is not None:
            weight.data = weight.data.to(dtype)
    return loaded.eval()
