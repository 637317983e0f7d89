"""The choice of the next token, and its text: sampling, penalties, stop texts."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from studio.text.call_marks import longest_beginning
from studio.text.written_calls import CHANNELS, Channels

MIN_TEMPERATURE = 1e-4  # below it decoding is greedy: divided by it, logits may overflow
TOP_CANDIDATES = 256  # tokens that top_p looks at before it sorts the whole vocabulary
CUT_CHARACTER = re.compile("\ufffd{1,3}$")  # of a UTF-8 character whose last byte is missing: at most three bytes


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. temperature 0: greedy; logprobs: number of alternatives to report, or None."""

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


class IncrementalText:
    """Decodes tokens one at a time; withholds incomplete characters and the possible start of a stop text."""

    def __init__(
        self,
        decode: Callable[[list[int]], str],
        stops: Sequence[str] = (),
        first: str = "",
        channels: Channels | None = None,
    ):
        """first: what the prompt has begun. channels: where the model writes its answer in gpt-oss's."""
        self.decode, self.channels = decode, channels
        self.stop_texts = [stop for stop in stops if stop]
        self.ids: list[int] = []
        self.prefix_offset = self.read_offset = 0  # decoding restarts at the first; the second ends the released tokens
        self.pending = first
        self.stopped = False

    def add(self, token: int | None) -> str:
        """Return the text that became readable with one more token.

        None flushes what is withheld, but for the beginning of a character that the answer's end has cut.
        """
        if token is not None:
            self.ids.append(token)
        prefix = self.decode(self.ids[self.prefix_offset : self.read_offset])
        text = self.decode(self.ids[self.prefix_offset :])
        if token is None or not text.endswith("\ufffd"):
            new = text[len(prefix) :]
            self.pending += CUT_CHARACTER.sub("", new) if token is None else new
            if self.channels:
                self.pending = self.channels.plain(self.pending)
            self.prefix_offset, self.read_offset = self.read_offset, len(self.ids)
        return self._release(token is None)

    def _release(self, last: bool) -> str:
        stops = [start for stop in self.stop_texts if (start := self.pending.find(stop)) >= 0]
        if stops:
            text = self.pending[: min(stops)]
            self.pending, self.stopped = "", True
            return text
        marks = (*self.stop_texts, *(CHANNELS if self.channels else ()))
        withheld = 0 if last else longest_beginning(self.pending, marks)
        cut = len(self.pending) - withheld
        text, self.pending = self.pending[:cut], self.pending[cut:]
        return text


def choose(
    logits: torch.Tensor,
    sampling: Sampling,
    output_ids: Sequence[int],
    generator: torch.Generator | None,
    prompt_ids: Sequence[int] = (),
) -> int:
    """Return one token id.

    Nucleus sampling keeps the smallest set of likeliest tokens whose probabilities reach top_p (arXiv 1904.09751). The
    repetition penalty is CTRL's (arXiv 1909.05858, section 4.1), over prompt and answer as in transformers and vLLM.
    """
    if sampling.repetition_penalty != 1.0 and (output_ids or prompt_ids):
        repeated = torch.tensor(sorted({*output_ids, *prompt_ids}))
        scores, penalty = logits[repeated], sampling.repetition_penalty
        logits = logits.clone()
        logits[repeated] = torch.where(scores > 0, scores / penalty, scores * penalty)
    if sampling.presence_penalty or sampling.frequency_penalty or sampling.logit_bias:
        logits = penalized(logits, sampling, output_ids)
    if sampling.temperature < MIN_TEMPERATURE:
        return int(logits.argmax())
    probabilities = torch.softmax(logits / sampling.temperature, -1)
    if not sampling.top_k and sampling.top_p >= 1:
        return int(torch.multinomial(probabilities, 1, generator=generator))
    top, ids = probabilities.topk(min(sampling.top_k or TOP_CANDIDATES, len(probabilities)))
    if sampling.top_k:
        top = top / top.sum()  # top_p is a share of what top_k leaves, as in transformers
    elif top.sum() < sampling.top_p:
        top, ids = probabilities.sort(descending=True)
    keep = int((top.cumsum(0) - top < sampling.top_p).sum()) or 1
    return int(ids[torch.multinomial(top[:keep] / top[:keep].sum(), 1, generator=generator)])


def penalized(logits: torch.Tensor, sampling: Sampling, output_ids: Sequence[int]) -> torch.Tensor:
    """Return logits with penalties and logit_bias applied as OpenAI's API reference defines them.

    A token generated c times loses c * frequency_penalty + (c > 0) * presence_penalty. Raises ValueError for a biased
    token outside the vocabulary.
    """
    logits = logits.clone()
    if output_ids:
        repeated, counts = torch.tensor(output_ids).unique(return_counts=True)
        logits[repeated] -= counts * sampling.frequency_penalty + sampling.presence_penalty
    for token, value in sampling.logit_bias:
        if token >= len(logits):
            raise ValueError(f"logit_bias names the token {token}, but the vocabulary has {len(logits)}")
        logits[token] += value
    return logits


def logprobs_of(logits: torch.Tensor, token: int, count: int) -> dict[str, Any]:
    """The log probability of the chosen token and of the `count` likeliest ones."""
    logprobs = torch.log_softmax(logits, -1)
    values, ids = logprobs.topk(count) if count else (logprobs[:0], logprobs[:0])
    top = [(int(token_id), float(value)) for token_id, value in zip(ids, values, strict=True)]
    return {"token": token, "logprob": float(logprobs[token]), "top": top}
