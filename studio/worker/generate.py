"""Answers, token by token: sampling, stop texts, and a batch of answers of one model that advance together.

No model.generate: here several conversations share a step, one can join or leave at any token, and the text is given out as
it is made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

CHUNK = 512  # prompt tokens read in one go, so that a long prompt does not hold up the others
COLD = 1e-4  # a temperature below which only the likeliest token is left, and logits divided by it may overflow
SHORTLIST = 256  # likeliest tokens looked at before a whole sort of the vocabulary is paid for


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. temperature 0: the likeliest. logprobs: how many alternatives to tell, None: none at all."""

    max_tokens: int = 512
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()  # (token, what is added to its logit)
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None


class Text:
    """Tokens to text as they come: whole characters only, nothing that may be the beginning of a stop text."""

    def __init__(self, decode: Callable[[list[int]], str], stops: Sequence[str] = (), first: str = ""):
        self.decode, self.stops = decode, [stop for stop in stops if stop]
        self.ids: list[int] = []
        self.begun = self.read = 0  # tokens whose text is settled; tokens already turned into text
        self.held, self.stopped = first, False

    def add(self, token: int | None) -> str:
        """The text that can be shown after one more token; None: there will be no more."""
        if token is not None:
            self.ids.append(token)
        before = self.decode(self.ids[self.begun : self.read])
        whole = self.decode(self.ids[self.begun :])
        if token is None or not whole.endswith("\ufffd"):
            self.held += whole[len(before) :]
            self.begun, self.read = self.read, len(self.ids)
        return self._release(token is None)

    def _release(self, last: bool) -> str:
        ends = [at for stop in self.stops if (at := self.held.find(stop)) >= 0]
        if ends:
            shown, self.held, self.stopped = self.held[: min(ends)], "", True
            return shown
        keep = (
            0
            if last
            else max((n for stop in self.stops for n in range(1, len(stop)) if self.held.endswith(stop[:n])), default=0)
        )
        cut = len(self.held) - keep
        shown, self.held = self.held[:cut], self.held[cut:]
        return shown


class Answer:
    """One answer being written. finish: None while it grows, then stop, length or cancelled."""

    def __init__(self, prompt: Sequence[int], sampling: Sampling, text: Text, ends: frozenset[int], room: int):
        """ends: tokens that end a turn. room: tokens the model can hold in all."""
        self.prompt, self.sampling, self.text, self.ends = list(prompt), sampling, text, ends
        self.limit = max(1, min(sampling.max_tokens, room - len(self.prompt)))
        self.new: list[int] = []
        self.finish: str | None = None
        self.done = 0  # prompt tokens read
        self.cache: Any = None
        self.random = torch.Generator().manual_seed(sampling.seed) if sampling.seed is not None else None
        self.odds: list[dict[str, Any]] = []
        self.error: Exception | None = None

    def take(self, logits: torch.Tensor) -> str:
        """Choose the next token from logits [vocabulary]; returns the text that became readable. A failure ends this answer alone."""
        try:
            return self._take(logits)
        except Exception as error:  # noqa: BLE001 - the other answers of the batch go on
            self.finish, self.error = "failed", error
            return ""

    def _take(self, logits: torch.Tensor) -> str:
        token = choose(logits, self.sampling, self.new, self.random)
        if self.sampling.logprobs is not None:
            self.odds.append(_odds(logits, token, self.sampling.logprobs))
        self.new.append(token)
        if token in self.ends:
            self.finish = "stop"
            return self.text.add(None)
        shown = self.text.add(token)
        if self.text.stopped:
            self.finish = "stop"
        elif len(self.new) >= self.limit:
            self.finish = "length"
            shown += self.text.add(None)
        return shown


def choose(logits: torch.Tensor, sampling: Sampling, new: Sequence[int], random: torch.Generator | None) -> int:
    """One token id. Nucleus sampling: the smallest set of likeliest tokens whose probabilities reach top_p (arXiv 1904.09751)."""
    if sampling.repetition_penalty != 1.0 and new:  # CTRL, arXiv 1909.05858, section 4.1
        seen = torch.tensor(sorted(set(new)))
        logits = logits.clone()
        logits[seen] = torch.where(
            logits[seen] > 0, logits[seen] / sampling.repetition_penalty, logits[seen] * sampling.repetition_penalty
        )
    if sampling.presence_penalty or sampling.frequency_penalty or sampling.logit_bias:
        logits = adjusted(logits, sampling, new)
    if sampling.temperature < COLD:
        return int(logits.argmax())
    odds = torch.softmax(logits / sampling.temperature, -1)
    if sampling.top_k or sampling.top_p < 1:
        top, ids = odds.topk(min(sampling.top_k or SHORTLIST, len(odds)))
        if sampling.top_k:
            top = top / top.sum()  # top_p is a share of what top_k has left, as in transformers
        elif top.sum() < sampling.top_p:
            top, ids = odds.sort(descending=True)
        keep = int((top.cumsum(0) - top < sampling.top_p).sum()) or 1
        odds = top[:keep] / top[:keep].sum()
        return int(ids[torch.multinomial(odds, 1, generator=random)])
    return int(torch.multinomial(odds, 1, generator=random))


def adjusted(logits: torch.Tensor, sampling: Sampling, new: Sequence[int]) -> torch.Tensor:
    """Logits less c * frequency_penalty + (c > 0) * presence_penalty of every token that was written c times, and with logit_bias, as OpenAI's
    reference of its API defines them. Raises ValueError for a token that the vocabulary does not have."""
    logits = logits.clone()
    if new:
        seen, counts = torch.tensor(new).unique(return_counts=True)
        logits[seen] -= counts * sampling.frequency_penalty + sampling.presence_penalty
    for token, value in sampling.logit_bias:
        if token >= len(logits):
            raise ValueError(f"logit_bias names the token {token}, but the vocabulary has {len(logits)}")
        logits[token] += value
    return logits


def _odds(logits: torch.Tensor, token: int, count: int) -> dict[str, Any]:
    logs = torch.log_softmax(logits, -1)
    best, ids = logs.topk(count) if count else (logs[:0], logs[:0])
    return {
        "token": token,
        "logprob": float(logs[token]),
        "top": [(int(i), float(p)) for i, p in zip(ids, best, strict=True)],
    }


class Batch:
    """Answers of one model that advance together, one token each a step.

    Their key and value caches lie in one tensor per layer, padded on the left: [answers, heads, longest, width]. Models with
    another kind of cache (sliding windows, states) keep one cache per answer and take turns. So do models whose positions are turned by the
    length of what is read (LongRoPE, dynamic NTK): a longer neighbour would change an answer.
    """

    def __init__(self, model: Any):
        self.model = model
        self.inner = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.device = next(self.inner.parameters()).device
        self.rows: list[Answer] = []
        self.cache: Any = None
        self.mask: torch.Tensor | None = None  # [answers, longest], 1 where a real token lies
        self.stretched, self.switch = _stretched(self.inner.config.get_text_config())

    @torch.inference_mode()
    def read(self, answer: Answer) -> str | None:
        """Read the next part of an answer's prompt; at its end take the first token and join. None: there is more to read."""
        from transformers.cache_utils import DynamicCache

        part = torch.tensor(
            [answer.prompt[answer.done : None if self.stretched else answer.done + CHUNK]], device=self.device
        )
        self._unstretch()
        # virtual tokens, if the method has any, stand before the first part; peft's model puts them there
        model = self.model if answer.done == 0 else self.inner
        cache = DynamicCache(config=self.inner.config) if answer.cache is None else answer.cache
        out = model(input_ids=part, past_key_values=cache, use_cache=True, logits_to_keep=1)
        answer.cache = out.past_key_values
        answer.done += part.shape[1]
        if answer.done < len(answer.prompt):
            return None
        shown = answer.take(out.logits[0, -1].float().cpu())
        if answer.finish is None:
            self._join(answer)
        return shown

    @torch.inference_mode()
    def step(self) -> list[tuple[Answer, str]]:
        """One more token for every answer; those that ended leave. Returns (answer, text that became readable)."""
        self._drop([n for n, row in enumerate(self.rows) if row.finish is not None])
        if not self.rows:
            return []
        shown = [(row, self._alone(row)) for row in self.rows] if self.cache is None else self._together()
        self._drop([n for n, row in enumerate(self.rows) if row.finish is not None])
        return shown

    def _alone(self, row: Answer) -> str:
        told = [row.new[-1]]
        if self.switch and row.cache.get_seq_length() <= self.switch < len(row.prompt) + len(row.new):
            from transformers.cache_utils import (
                DynamicCache,
            )  # all is read anew with the long factors, as transformers' Phi-3 does

            row.cache, told = DynamicCache(config=self.inner.config), row.prompt + row.new
        ids = torch.tensor([told], device=self.device)
        self._unstretch()
        out = self.inner(input_ids=ids, past_key_values=row.cache, use_cache=True)
        row.cache = out.past_key_values
        return row.take(out.logits[0, -1].float().cpu())

    def _unstretch(self) -> None:
        """Dynamic NTK remembers the longest answer so far: forget it, so that the next forward pass looks at its own length."""
        if self.stretched != "dynamic":
            return
        for module in self.inner.modules():
            if hasattr(module, "max_seq_len_cached") and hasattr(module, "original_inv_freq"):
                module.register_buffer("inv_freq", module.original_inv_freq.to(self.device), persistent=False)
                module.max_seq_len_cached = module.original_max_seq_len

    def _together(self) -> list[tuple[Answer, str]]:
        ids = torch.tensor([[row.new[-1]] for row in self.rows], device=self.device)
        if len(self.rows) == 1:  # nothing is padded: no mask to build
            out = self.inner(input_ids=ids, past_key_values=self.cache, use_cache=True)
        else:
            self.mask = torch.nn.functional.pad(self.mask, (0, 1), value=1)
            places = self.mask.sum(1, keepdim=True) - 1
            out = self.inner(
                input_ids=ids, past_key_values=self.cache, use_cache=True, attention_mask=self.mask, position_ids=places
            )
        logits = out.logits[:, -1].float().cpu()
        return [(row, row.take(logits[n])) for n, row in enumerate(self.rows)]

    def _join(self, answer: Answer) -> None:
        plain = not self.stretched and all(type(layer).__name__ == "DynamicLayer" for layer in answer.cache.layers)
        if not plain:
            self.rows.append(answer)
            return
        length = answer.cache.get_seq_length()
        if not self.rows:
            self.cache, answer.cache = answer.cache, None
            self.mask = torch.ones(1, length, dtype=torch.int64, device=self.device)
        else:
            if len(self.rows) == 1:  # a single row kept no mask
                self.mask = torch.ones(1, self.cache.get_seq_length(), dtype=torch.int64, device=self.device)
            longest = max(length, self.mask.shape[1])
            for ours, theirs in zip(self.cache.layers, answer.cache.layers, strict=True):
                ours.keys = torch.cat([_left(ours.keys, longest), _left(theirs.keys, longest)])
                ours.values = torch.cat([_left(ours.values, longest), _left(theirs.values, longest)])
            new = torch.nn.functional.pad(torch.ones_like(self.mask[:1, :1]).expand(1, length), (longest - length, 0))
            self.mask = torch.cat([torch.nn.functional.pad(self.mask, (longest - self.mask.shape[1], 0)), new])
            answer.cache = None
        self.rows.append(answer)

    def _drop(self, gone: list[int]) -> None:
        if not gone:
            return
        keep = [n for n in range(len(self.rows)) if n not in gone]
        self.rows = [self.rows[n] for n in keep]
        if self.cache is None:
            return
        if not keep:
            self.cache = self.mask = None
            return
        chosen = torch.tensor(keep, device=self.device)
        self.mask = self.mask[chosen]
        empty = int((self.mask.sum(0) == 0).sum())  # columns that are padding for all who stay
        self.mask = self.mask[:, empty:]
        for layer in self.cache.layers:
            layer.keys = layer.keys[chosen][:, :, empty:].contiguous()
            layer.values = layer.values[chosen][:, :, empty:].contiguous()


def _stretched(config: Any) -> tuple[str, int | None]:
    """("longrope" or "dynamic", else "", and of LongRoPE the length at which it switches) of a text model's config."""
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = {str(one.get("rope_type")) for one in (rope, *(part for part in rope.values() if isinstance(part, dict)))}
    if "longrope" in kinds:
        return "longrope", rope.get("original_max_position_embeddings") or getattr(
            config, "original_max_position_embeddings", None
        )
    return ("dynamic", None) if any("dynamic" in kind for kind in kinds) else ("", None)


def _left(kept: torch.Tensor, longest: int) -> torch.Tensor:
    """[1 or n, heads, length, width] padded on the left to `longest` places."""
    return torch.nn.functional.pad(kept, (0, 0, longest - kept.shape[2], 0))
