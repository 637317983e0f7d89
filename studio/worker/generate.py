"""Token generation: sampling, stop texts, and continuous batching of the answers of one model.

`model.generate` is not used because it runs a fixed batch to its end. Here an answer joins or leaves the batch at any
token, and its text is streamed.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from typing import Any

import torch

from studio.worker import dynamic_rope
from studio.worker.head import last_position
from studio.worker.sampling import IncrementalText, Sampling, choose, logprobs_of

PREFILL_CHUNK = 512  # prompt tokens in one forward pass, so that a long prompt does not delay other answers


class Answer:
    """One answer being generated. finish_reason: None while it grows, then stop, length, cancelled or failed."""

    def __init__(
        self,
        prompt_ids: Sequence[int],
        sampling: Sampling,
        text: IncrementalText,
        end_ids: frozenset[int],
        context_length: int,
    ):
        """end_ids: tokens that end a turn. context_length: positions the model has for prompt and answer together."""
        self.prompt_ids = list(prompt_ids)
        self.sampling = sampling
        self.text = text
        self.end_ids = end_ids
        self.max_new_tokens = max(1, min(sampling.max_tokens, context_length - len(self.prompt_ids)))
        self.output_ids: list[int] = []
        self.written = ""  # what is readable of them
        self.finish_reason: str | None = None
        self.num_prefilled = 0  # prompt tokens in the cache
        self.cache: Any = None
        self.generator = torch.Generator().manual_seed(sampling.seed) if sampling.seed is not None else None
        self.logprobs: list[dict[str, Any]] = []
        self.error: Exception | None = None

    def take(self, logits: torch.Tensor) -> str:
        """Choose the next token from logits [vocabulary]; returns readable text. An exception ends this one only."""
        try:
            text = self._take(logits)
        except Exception as error:  # noqa: BLE001 - the other answers of the batch go on
            self.finish_reason, self.error = "failed", error
            return ""
        self.written += text
        return text

    def _take(self, logits: torch.Tensor) -> str:
        token = choose(logits, self.sampling, self.output_ids, self.generator, self.prompt_ids)
        if self.sampling.logprobs is not None:
            self.logprobs.append(logprobs_of(logits, token, self.sampling.logprobs))
        self.output_ids.append(token)
        if token in self.end_ids:
            self.finish_reason = "stop"
            return self.text.add(None)
        text = self.text.add(token)
        if self.text.stopped:
            self.finish_reason = "stop"
        elif len(self.output_ids) >= self.max_new_tokens:
            self.finish_reason = "length"
            text += self.text.add(None)
        return text


class Batch:
    """Answers of one model that advance together, one token each per step.

    Their key and value caches share one tensor per layer, padded on the left: [answers, heads, longest, head_dim].
    Models with another kind of cache (sliding windows, states), or whose rotary frequencies depend on the sequence
    length (LongRoPE, dynamic NTK), keep one cache per answer and are stepped one by one: a longer neighbour would
    change an answer. A family whose states are no cache of transformers' reads the whole sequence for every token.
    """

    def __init__(self, model: Any):
        self.model = model
        self.base_model = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.device = next(self.base_model.parameters()).device
        self.answers: list[Answer] = []
        self.cache: Any = None
        self.mask: torch.Tensor | None = None  # [answers, longest], 1 at real tokens
        self.has_cache = _has_cache(self.base_model)
        self.takes_positions = "position_ids" in inspect.signature(self.base_model.forward).parameters
        switch = dynamic_rope.switch(self.base_model.config.get_text_config())
        self.follows_length = switch is not None
        # Phi-3's own generate reads all tokens anew with the long factors; other families go on with both kinds
        begins_anew = "prepare_inputs_for_generation" in vars(type(self.base_model))
        self.longrope_switch = switch[1] if switch and switch[0] == "longrope" and begins_anew else None

    @torch.inference_mode()
    def prefill(self, answer: Answer) -> str | None:
        """Prefill the next chunk of an answer's prompt; after the last one take the first token and join the batch.

        Returns the text that became readable, or None while prompt tokens are left.
        """
        logits = self._prefill_chunk(answer)
        return None if logits is None else self._begin(answer, logits)

    @torch.inference_mode()
    def prefill_group(self, answers: Sequence[Answer]) -> None:
        """Prefill the prompt that all these answers have in common, once; they take their first tokens and join."""
        first, logits = answers[0], None
        while logits is None:
            logits = self._prefill_chunk(first)
        for answer in answers[1:]:
            answer.cache, answer.num_prefilled = copy.deepcopy(first.cache), first.num_prefilled
        for answer in answers:
            self._begin(answer, logits)

    def _begin(self, answer: Answer, logits: torch.Tensor) -> str:
        """Take the first token and join the batch."""
        text = answer.take(logits)
        if answer.finish_reason is None:
            self._join(answer)
        return text

    def _prefill_chunk(self, answer: Answer) -> torch.Tensor | None:
        """The logits [vocabulary] behind the prompt, on the CPU; None while prompt tokens are left."""
        end = (
            len(answer.prompt_ids)
            if self.follows_length or not self.has_cache
            else answer.num_prefilled + PREFILL_CHUNK
        )
        input_ids = torch.tensor([answer.prompt_ids[answer.num_prefilled : end]], device=self.device)
        # peft's model puts the method's virtual tokens, if any, before the first chunk
        model = self.model if answer.num_prefilled == 0 else self.base_model
        out = self._forward(answer, model, input_ids, logits_to_keep=1)
        answer.num_prefilled += input_ids.shape[1]
        if answer.num_prefilled < len(answer.prompt_ids):
            return None
        return out.logits[0, -1].float().cpu()

    def _forward(self, answer: Answer, model: Any, input_ids: torch.Tensor, **options: Any) -> Any:
        """The model's output for further tokens of one answer, whose cache takes them in."""
        if not self.has_cache:
            with last_position(self.base_model):
                return model(input_ids=input_ids, use_cache=False, **options)
        cache = self._new_cache() if answer.cache is None else answer.cache
        if self.takes_positions and (seen := _num_seen(cache)):  # Bamba would begin anew with every call
            options["position_ids"] = torch.arange(seen, seen + input_ids.shape[1], device=self.device)[None]
        with last_position(self.base_model):
            out = model(input_ids=input_ids, past_key_values=cache, use_cache=True, **options)
        answer.cache = out.past_key_values
        return out

    def _new_cache(self) -> Any:
        from transformers.cache_utils import DynamicCache

        return DynamicCache(config=self.base_model.config)

    @torch.inference_mode()
    def step(self) -> list[tuple[Answer, str]]:
        """Generate one token for each answer and drop those that ended. Returns (answer, text that became readable)."""
        self._drop_finished()
        if not self.answers:
            return []
        if self.cache is None:
            texts = [(answer, self._step_one(answer)) for answer in self.answers]
        else:
            texts = self._step_batch()
        self._drop_finished()
        return texts

    def _step_one(self, answer: Answer) -> str:
        ids = [answer.output_ids[-1]]
        length = len(answer.prompt_ids) + len(answer.output_ids)
        if self.longrope_switch and answer.cache.get_seq_length() <= self.longrope_switch < length:
            # computed anew with the long factors, as transformers' Phi-3 does
            answer.cache, ids = self._new_cache(), answer.prompt_ids + answer.output_ids
        if not self.has_cache:
            ids = answer.prompt_ids + answer.output_ids
        model = self.base_model if self.has_cache else self.model
        out = self._forward(answer, model, torch.tensor([ids], device=self.device))
        return answer.take(out.logits[0, -1].float().cpu())

    def _step_batch(self) -> list[tuple[Answer, str]]:
        inputs = {
            "input_ids": torch.tensor([[answer.output_ids[-1]] for answer in self.answers], device=self.device),
            "past_key_values": self.cache,
        }
        if len(self.answers) > 1:  # a single answer has no padding and needs no mask
            self.mask = torch.nn.functional.pad(self.mask, (0, 1), value=1)
            inputs |= {"attention_mask": self.mask, "position_ids": self.mask.sum(1, keepdim=True) - 1}
        logits = self.base_model(**inputs, use_cache=True).logits[:, -1].float().cpu()
        return [(answer, answer.take(row)) for answer, row in zip(self.answers, logits, strict=True)]

    def _join(self, answer: Answer) -> None:
        if (
            self.follows_length
            or not self.has_cache
            or any(type(layer).__name__ != "DynamicLayer" for layer in answer.cache.layers)
        ):
            self.answers.append(answer)
            return
        length = answer.cache.get_seq_length()
        if not self.answers:
            self.cache = answer.cache
            self.mask = torch.ones(1, length, dtype=torch.int64, device=self.device)
        else:
            if len(self.answers) == 1:  # its mask was not kept
                self.mask = torch.ones(1, self.cache.get_seq_length(), dtype=torch.int64, device=self.device)
            longest = max(length, self.mask.shape[1])
            for layer, joining in zip(self.cache.layers, answer.cache.layers, strict=True):
                layer.keys = torch.cat([_pad_left(layer.keys, longest), _pad_left(joining.keys, longest)])
                layer.values = torch.cat([_pad_left(layer.values, longest), _pad_left(joining.values, longest)])
            new = torch.nn.functional.pad(torch.ones_like(self.mask[:1, :1]).expand(1, length), (longest - length, 0))
            self.mask = torch.cat([torch.nn.functional.pad(self.mask, (longest - self.mask.shape[1], 0)), new])
        answer.cache = None
        self.answers.append(answer)

    def _drop_finished(self) -> None:
        keep = [index for index, answer in enumerate(self.answers) if answer.finish_reason is None]
        if len(keep) == len(self.answers):
            return
        self.answers = [self.answers[index] for index in keep]
        if self.cache is None:
            return
        if not keep:
            self.cache = self.mask = None
            return
        indices = torch.tensor(keep, device=self.device)
        self.mask = self.mask[indices]
        padding = int((self.mask.sum(0) == 0).sum())  # columns that are padding in every remaining answer
        self.mask = self.mask[:, padding:]
        for layer in self.cache.layers:
            layer.keys = layer.keys[indices][:, :, padding:].contiguous()
            layer.values = layer.values[indices][:, :, padding:].contiguous()


def _has_cache(model: Any) -> bool:
    """Whether the model keeps what it has read in a cache of transformers', as its `generate` decides it.

    RecurrentGemma keeps its states in its own layers, where several answers would mix.
    """
    takes_cache = "past_key_values" in inspect.signature(model.forward).parameters
    keeps_states = hasattr(model.base_model, "_setup_cache")
    return takes_cache and bool(model._supports_default_dynamic_cache()) and not keeps_states


def _num_seen(cache: Any) -> int:
    """Positions that a cache holds; 0 for one of states alone, whose models count none."""
    try:
        return cache.get_seq_length()
    except ValueError:
        return 0


def _pad_left(states: torch.Tensor, longest: int) -> torch.Tensor:
    """[answers, heads, length, head_dim] padded on the left to `longest` positions."""
    return torch.nn.functional.pad(states, (0, 0, longest - states.shape[2], 0))
