"""Conversations to ids and labels: the one place that decides what is trained on.

The preview, the statistics, the trainer and the chat server all call this. No torch: `tokenizers` on tokenizer.json.
"""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from studio import model, new_tokens
from studio.base.tokenizer_files import added_bos
from studio.data.order import DataOrder
from studio.errors import ModelError, StudioError, TemplateError, reading_model_file
from studio.kernels import IGNORE_INDEX
from studio.rendering import Conversation, Reasoning, Renderer, Span
from studio.template import Message, Rendered, Template, load

TrainOn = Literal["assistant", "last", "all"]
TooLong = Literal["cut", "drop", "split"]


def make_labels(rendered: Rendered, ids: list[int], offsets: Sequence[Span], train_on: TrainOn) -> list[int]:
    """The label of every token: its id where it is trained, else IGNORE_INDEX. Not shifted, as in transformers.

    offsets: [start, end) in characters of rendered.text for each token.
    """
    if train_on == "all":
        labels = list(ids)
        for first, last in tokens_in_spans(offsets, rendered.masked_spans):
            labels[first:last] = [IGNORE_INDEX] * (last - first)
    else:
        labels = [IGNORE_INDEX] * len(ids)
    for first, last in tokens_in_spans(offsets, rendered.spans[-1:] if train_on == "last" else rendered.spans):
        labels[first:last] = ids[first:last]
    for first, last in tokens_ending_in_spans(offsets, rendered.masked_spans):
        labels[first:last] = [IGNORE_INDEX] * (last - first)
    labels[:1] = [IGNORE_INDEX] * len(labels[:1])  # nothing stands before the first token to predict it from
    return labels


def tokens_in_spans(offsets: Sequence[Span], spans: Sequence[Span]) -> list[Span]:
    """[first, last) token of every span: the tokens that hold a character of it. Offsets run from left to right.

    Tokenizers leave a blank that belongs to the next token out of its offsets, or give it no width; such a token is
    taken to begin where the one before ended.
    """
    ends = [end for _, end in offsets]
    ranges = []
    for start, stop in spans:
        if stop <= start:
            continue
        first = bisect_right(ends, start)
        last = bisect_left(ends, stop, first) + 1
        while last < len(offsets) and offsets[last][0] < stop:  # further bytes of one character share its offsets
            last += 1
        ranges.append((first, min(last, len(offsets))))
    return ranges


def tokens_ending_in_spans(offsets: Sequence[Span], spans: Sequence[Span]) -> list[Span]:
    """[first, last) token of every span: the tokens whose last character it holds.

    The first of them is often a blank that stands before a word. Tokens that share their offsets (bytes of one
    character, and what a byte-fallback tokenizer fuses with them) go together.
    """
    ranges = []
    for start, stop in spans:
        for first, last in tokens_in_spans(offsets, [(start, stop)]):
            while first < last and offsets[last - 1][1] > stop:
                last -= 1
            ranges.append((first, last))
    return ranges


@dataclass(frozen=True)
class Encoded:
    """One conversation in tokens. labels: see make_labels. offsets: characters of `text` for each token.

    overflow: tokens beyond max_length; with too_long="drop" the row is to be dropped, else they are gone from ids.
    left_out: kinds of problems: what the template cannot write (see Rendered).
    second: of two answers to one prompt, where in `ids` the second one's sequence begins; 0 for one sequence.
    good: the verdict on an answer. question: of a prompt that the model answers itself, the Question as JSON.
    """

    ids: list[int]
    labels: list[int]
    text: str
    offsets: list[Span]
    overflow: int
    n_trained: int
    left_out: tuple[str, ...] = ()
    second: int = 0
    good: bool = True
    question: str = ""

    @property
    def longest(self) -> int:
        """Tokens of its longest sequence."""
        return max(self.second, len(self.ids) - self.second)


class Encoder:
    """Encodes conversations with one model's tokenizer and one template. max_length in tokens, None: no limit.

    added: tokens that the model's tokenizer gets (data.new_tokens). reasoning: see Renderer.
    """

    def __init__(
        self,
        model_folder: str | Path,
        template: Template,
        max_length: int | None = None,
        too_long: TooLong = "cut",
        train_on: TrainOn = "assistant",
        reasoning: Reasoning = "auto",
        added: Sequence[str] = (),
    ):
        self.folder = Path(model_folder)
        self.template = template
        self.added = tuple(added)
        self.max_length = max_length
        self.too_long = too_long
        self.train_on = train_on
        self.reasoning = reasoning
        self.tokenizer_folder = new_tokens.tokenizer_folder(model_folder, added)
        self.tokenizer = _tokenizer(self.tokenizer_folder)
        self.bos = added_bos(self.folder)
        self.num_embeddings, self.context_length = _limits(self.folder)
        if self.num_embeddings is not None and added:
            self.num_embeddings = max(self.num_embeddings, new_tokens.assign_ids(self.folder, added).size)
        self.context_limit: int | None = None  # tokens beyond which a row is refused; from_order sets it
        self.num_virtual_tokens = 0  # tokens that the method puts before every row; not in context_limit
        self.num_answer_tokens = 0  # tokens kept free behind every row; not in context_limit

    @classmethod
    def from_order(
        cls, order: DataOrder, model_folder: str | Path, template: Template | None = None, num_virtual_tokens: int = 0
    ) -> Encoder:
        """The encoder that an order describes. template: one that is loaded already.

        num_virtual_tokens: tokens that the method puts before every row; they count against the model's context.
        """
        if template is None:
            template = load(order.template, new_tokens.tokenizer_folder(model_folder, order.new_tokens))
        encoder = cls(model_folder, template, **cls.settings(order), added=order.new_tokens)
        encoder.num_virtual_tokens, encoder.num_answer_tokens = num_virtual_tokens, order.answer_tokens
        if encoder.context_length:
            encoder.context_limit = encoder.context_length - num_virtual_tokens - order.answer_tokens
        return encoder

    @staticmethod
    def settings(order: DataOrder) -> dict[str, Any]:
        """What decides of an order how rows are encoded, as names of this class."""
        return {
            "max_length": order.max_length,
            "too_long": "drop" if order.examples == "prompts" else order.too_long,  # half a question is none
            "train_on": order.train_on if order.examples == "answers" else "last",
            "reasoning": order.reasoning,
        }

    @property
    def renderer(self) -> Renderer:
        return Renderer(self.template, self.reasoning, self.bos)

    def render(self, conversation: Conversation, **variables: Any) -> Rendered:
        """The text that is encoded, with its trained spans. Raises TemplateError (see Renderer.render)."""
        return self.renderer.render(conversation, **variables)

    def encode(self, conversation: Conversation, **options: Any) -> Encoded:
        """ids and labels of one conversation. Raises TemplateError when it cannot be rendered.

        A conversation is a list of messages, a dict {"messages", "tools"?} or {"text"} of a Dataset, or a text.
        options: variables of the template, and whole=True to leave nothing out beyond max_length.
        """
        return self.encode_batch([conversation], **options)[0]

    def encode_batch(
        self, conversations: Sequence[Conversation], whole: bool = False, **variables: Any
    ) -> list[Encoded]:
        """As encode, many at a time (the tokenizer uses every core)."""
        texts = [self.render(conversation, **variables) for conversation in conversations]
        encodings = self.tokenizer.encode_batch([rendered.text for rendered in texts], add_special_tokens=False)
        return [
            self._encoded(rendered, encoding.ids, encoding.offsets, whole)
            for rendered, encoding in zip(texts, encodings, strict=True)
        ]

    def encode_each(self, conversations: Sequence[Conversation], **options: Any) -> list[Encoded | TemplateError]:
        """As encode_batch, with the error in place of each conversation that cannot be encoded."""
        try:
            return list(self.encode_batch(conversations, **options))
        except TemplateError:
            return [self._encode_or_error(conversation, **options) for conversation in conversations]

    def _encode_or_error(self, conversation: Conversation, **options: Any) -> Encoded | TemplateError:
        try:
            return self.encode(conversation, **options)
        except TemplateError as error:
            return error

    def _encoded(self, rendered: Rendered, ids: list[int], offsets: list[Span], whole: bool) -> Encoded:
        self._check_embeddings(ids)
        labels = make_labels(rendered, ids, offsets, self.train_on)
        overflow = max(0, len(ids) - self.max_length) if self.max_length else 0
        if overflow and self.too_long != "drop" and not whole:
            ids, labels, offsets = ids[: self.max_length], labels[: self.max_length], offsets[: self.max_length]
        n_trained = len(labels) - labels.count(IGNORE_INDEX)
        return Encoded(list(ids), labels, rendered.text, list(offsets), overflow, n_trained, rendered.left_out)

    def _check_embeddings(self, ids: list[int]) -> None:
        """Raise TemplateError for a token without a row in the embedding table: on a GPU it would end the process."""
        if self.num_embeddings is not None and ids and max(ids) >= self.num_embeddings:
            beyond = sorted({number for number in ids if number >= self.num_embeddings})
            names = json.dumps([self.tokenizer.id_to_token(number) for number in beyond], ensure_ascii=False)
            raise TemplateError(
                f"The token {self.tokenizer.id_to_token(beyond[-1])!r} has the number {beyond[-1]}, "
                f"but {self.folder.name} has only {self.num_embeddings} rows in its embedding table.",
                f"Have rows made and trained for what lacks them (data.new_tokens: {names}), choose a template without "
                "such tokens, such as alpaca, or take them out of the data.",
                "data.template",
            )

    def describe_overlong(self, encoded: Encoded) -> str:
        """A sentence that says by how much a row is longer than the model can read; "" where it is not."""
        size = encoded.longest
        if self.too_long != "drop" and self.max_length and size > self.max_length:
            size -= encoded.overflow  # encoded whole; it will be cut
        if self.context_limit is None or size <= self.context_limit:
            return ""
        sentence = f"The row has {size} tokens; {self.folder.name} can read {self.context_limit} of a row"
        if self.num_answer_tokens:
            return f"{sentence}: {self.num_answer_tokens} are kept free for the answer."
        if self.num_virtual_tokens:
            return f"{sentence}: its method puts {self.num_virtual_tokens} before each."
        return f"{sentence}."

    def prompt(self, messages: list[Message], **variables: Any) -> str:
        """The text a model is given to answer: the conversation so far and the opening of the assistant's turn."""
        return self.renderer.prompt(messages, **variables)

    def prompt_ids(self, messages: list[Message], **variables: Any) -> list[int]:
        """As prompt, in tokens."""
        return self.tokenizer.encode(self.prompt(messages, **variables), add_special_tokens=False).ids

    def end_of_turn_warning(self) -> str:
        """A sentence where no single token ends a trained turn, or "": other programs then do not stop there."""
        stops = self.template.stop_strings
        if not stops or any(self.tokenizer.token_to_id(stop) is not None for stop in stops):
            return ""
        num_parts = len(self.tokenizer.encode(stops[0], add_special_tokens=False).ids)
        lacking = (self.template.control_tokens - set(self.tokenizer.get_vocab())) | {stops[0]}
        return (
            f"The template {self.template.name!r} ends a turn with {stops[0]!r}, which is {num_parts} plain tokens in "
            "this model: programs that stop at a token only will write on. Choose a template whose end is one token "
            "(auto does), or add what it lacks: data.new_tokens: "
            f"{json.dumps(sorted(lacking, key=len, reverse=True), ensure_ascii=False)}."
        )

    def unseen_tokens(self, seen: Container[int]) -> list[str]:
        """The tokens added that are not among the ids seen: their rows of the embedding get nothing to learn from."""
        return new_tokens.unseen(self.folder, self.added, seen)

    def new_tokens_note(self) -> str:
        """A sentence for tokens that are to be added and need not be, or ""."""
        return new_tokens.describe_known(self.folder, self.added)


def _limits(folder: Path) -> tuple[int | None, int | None]:
    """(rows of the embedding table, context length); None where not known."""
    try:
        facts = model.facts(folder)
    except (StudioError, OSError):  # only a tokenizer is here
        return None, None
    return facts.rows, facts.context


def _tokenizer(folder: Path) -> Any:
    from tokenizers import Tokenizer  # late: a compiled library that the page's first second does not need

    file = folder / "tokenizer.json"
    if not file.is_file():
        present = (
            "only a sentencepiece tokenizer.model" if (folder / "tokenizer.model").is_file() else "no tokenizer.json"
        )
        raise ModelError(
            f"The model in {folder.name} has {present}.",
            "Load it once with transformers and save its tokenizer "
            "(AutoTokenizer.from_pretrained(…).save_pretrained(…)).",
            "model",
        )
    with reading_model_file(file):
        tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
