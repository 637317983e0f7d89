"""Conversations to ids and labels: the one place that decides what is trained on.

The preview, the statistics, the trainer and the chat server all call this. No torch: `tokenizers` on tokenizer.json.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from studio import model, new_tokens
from studio.errors import ModelError, StudioError, TemplateError, reading_model_file
from studio.kernels import IGNORE_INDEX
from studio.template import Message, Rendered, Template, added_bos, load
from studio.text import tool_calls
from studio.text.template_check import check

if TYPE_CHECKING:
    from studio.data import DataOrder

TrainOn = Literal["assistant", "last", "all"]
TooLong = Literal["cut", "drop", "split"]
Reasoning = Literal["auto", "keep", "drop", "mask_empty"]
THOUGHT = re.compile(r"<think>\n?(.*?)\n?</think>\s*", re.DOTALL)
NO_THOUGHT = re.compile(
    r"\s*(?:<((?:\w+:)?think\w*)>\s*</\1>|◁think▷\s*◁/think▷)\s*"
)  # a block of reasoning that holds none
THOUGHT_ENDS = re.compile(r"\s*</((?:\w+:)?think\w*)>\s*")  # of one that the prompt has opened
Conversation = list[Message] | dict[str, Any] | str


@dataclass(frozen=True)
class Encoded:
    """One conversation in tokens. labels: the id where trained, else IGNORE_INDEX; a row's first token never is: nothing predicts it.

    offsets: characters of `text` per token.
    overflow: tokens beyond max_length; with too_long="drop" the row is to be dropped, else they are gone from ids.
    left_out: kinds of problems: what the template has no place for (see Rendered).
    """

    ids: list[int]
    labels: list[int]
    text: str
    offsets: list[tuple[int, int]]
    overflow: int
    n_trained: int
    left_out: tuple[str, ...] = ()


class Encoder:
    """Turns conversations into Encoded with one model's tokenizer and one template. max_length in tokens, None: no limit.

    added: tokens that the model's tokenizer gets (data.new_tokens).
    reasoning: keep it in every row (refuse rows where the template cannot), drop it, or mask the empty block that some templates write
    where a row has none; auto: mask_empty, and what the template has no place for is dropped and told.
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
        self.folder, self.template, self.added = Path(model_folder), template, tuple(added)
        self.tokenizer_folder = new_tokens.tokenizer_folder(model_folder, added)
        self.max_length, self.too_long, self.train_on, self.reasoning = max_length, too_long, train_on, reasoning
        self.tokenizer, self.bos = _tokenizer(self.tokenizer_folder), added_bos(self.folder)
        self.num_embeddings, self.context_length = _limits(self.folder, self.tokenizer)
        if (
            added
            and self.num_embeddings is not None
            and new_tokens.assign_ids(self.folder, added).size > self.num_embeddings
        ):
            self.num_embeddings = None  # every token gets a row
        self.context_limit: int | None = (
            None  # tokens beyond which a row is refused; set for an order, whose model will be given the row
        )
        self.num_virtual_tokens = 0  # tokens that the method puts before every row; the context is without them

    @classmethod
    def from_order(
        cls, order: DataOrder, model_folder: str | Path, template: Template | None = None, num_virtual_tokens: int = 0
    ) -> Encoder:
        """As an order says. template: where it is loaded already. num_virtual_tokens: tokens that the method puts before every row."""
        made = cls(
            model_folder,
            template or load(order.template, new_tokens.tokenizer_folder(model_folder, order.new_tokens)),
            order.max_length,
            order.too_long,
            order.train_on,
            order.reasoning,
            order.new_tokens,
        )
        made.context_limit, made.num_virtual_tokens = (
            made.context_length and made.context_length - num_virtual_tokens,
            num_virtual_tokens,
        )
        return made

    def encode(self, one: Conversation, **extra: Any) -> Encoded:
        """ids and labels of one conversation. Raises TemplateError when it cannot be rendered.

        A conversation is a list of messages, a dict {"messages", "tools"?} or {"text"} as a Dataset gives it, or a text.
        extra: variables of the template, and whole=True to leave nothing out beyond max_length.
        """
        return self.encode_batch([one], **extra)[0]

    def encode_batch(self, many: Sequence[Conversation], whole: bool = False, **extra: Any) -> list[Encoded]:
        """As encode, many at a time (the tokenizer uses every core)."""
        rendered = [self.render(one, **extra) for one in many]
        found = self.tokenizer.encode_batch([one.text for one in rendered], add_special_tokens=False)
        return [self._label(one, e.ids, e.offsets, whole) for one, e in zip(rendered, found, strict=True)]

    def encode_each(self, many: Sequence[Conversation], **options: Any) -> list[Encoded | TemplateError]:
        """As encode_batch, with the reason in the place of each that cannot be encoded."""
        try:
            return list(self.encode_batch(many, **options))
        except TemplateError:
            return [self._encoded_or_why(one, **options) for one in many]

    def _encoded_or_why(self, one: Conversation, **options: Any) -> Encoded | TemplateError:
        try:
            return self.encode(one, **options)
        except TemplateError as error:
            return error

    def describe_overlong(self, e: Encoded) -> str:
        """In words, by how much a row is longer than the model can read; "" where it is not."""
        size = len(e.ids) - (
            e.overflow if self.too_long != "drop" and self.max_length and len(e.ids) > self.max_length else 0
        )
        if self.context_limit is None or size <= self.context_limit:
            return ""
        words = f"The row has {size} tokens; {self.folder.name} can read {self.context_limit} of a row."
        return (
            f"{words[:-1]}: its method puts {self.num_virtual_tokens} before each."
            if self.num_virtual_tokens
            else words
        )

    def prompt_ids(self, messages: list[Message], **extra: Any) -> list[int]:
        """The ids a model is given to answer: the conversation so far and the opening of the assistant's turn."""
        return self.tokenizer.encode(self.prompt(messages, **extra), add_special_tokens=False).ids

    def prompt(self, messages: list[Message], **extra: Any) -> str:
        """As prompt_ids, as text."""
        tried = [self._tried(given, add_generation_prompt=True, **extra) for given in _as_templates_want(messages)]
        texts = [one.text for one in tried if isinstance(one, Rendered)]
        called = [message for message in messages if message.get("tool_calls")]
        whole = (text for text in texts if not any(tool_calls.missing(message, text) for message in called))
        text = next(whole, texts[0] if texts else None)
        if text is None:
            raise tried[0]
        return text

    def render(self, one: Conversation, **extra: Any) -> Rendered:
        """The text that is encoded, with its trainable spans. Raises TemplateError where the template would leave out or garble a call of a tool."""
        if isinstance(one, dict) and "text" in one:
            one = one["text"]
        if isinstance(one, str):  # plain text: its beginning as the tokenizer has it, all of it, and its end
            text = (self.bos if not one.startswith(self.bos) else "") + one + self.template.special.get("eos_token", "")
            return Rendered(text, [(0, len(text))])
        if isinstance(one, dict):
            tools = one.get("tools")
            one, extra = one["messages"], {"tools": tools, **extra} if isinstance(tools, list) else extra
        messages, left_out = self._with_reasoning(one)
        rendered = self._with_calls(messages, **extra)
        answers = [message for message in messages if message["role"] == "assistant"]
        spans = rendered.spans if len(rendered.spans) == len(answers) else None
        left_out |= self._unspoken(answers, rendered, spans)
        if extra.get("tools") and any(name not in rendered.text for name in tool_calls.names_of(extra["tools"])):
            left_out.add("tools_dropped")
        masked = self._masked(answers, rendered.text, spans)
        trained = (
            rendered.spans
            if spans is None
            else [(max(a, *(stop for start, stop in masked if start == a), a), b) for a, b in spans]
        )
        return replace(rendered, spans=trained, masked=masked, left_out=tuple(sorted(left_out)))

    def _with_calls(self, messages: list[Message], **extra: Any) -> Rendered:
        """Rendered, with every call of a tool whole in its turn: arguments are given as they are, or as the template takes them."""
        if not any("tool_calls" in message for message in messages):
            return self.template.render(messages, **extra)
        tried = [self._tried(given, **extra) for given in _as_templates_want(messages)]
        lost = ""
        for one in tried:
            if isinstance(one, Rendered):
                missing = _missing_calls(messages, one)
                if not missing:
                    return one
                lost = lost or missing
        if not lost:
            raise tried[0]
        raise TemplateError(
            f"The template {self.template.name!r} leaves out the calls of tools: {lost}.",
            "Choose one that writes them, such as chatml or qwen3.",
            "data.template",
        )

    def _tried(self, messages: list[Message], **extra: Any) -> Rendered | TemplateError:
        try:
            return self.template.render(messages, **extra)
        except TemplateError as error:
            return error

    def _with_reasoning(self, messages: list[Message]) -> tuple[list[Message], set[str]]:
        """The messages with their reasoning where the template takes it, and what had to be left out."""
        if not any(
            "reasoning_content" in m or (m["role"] == "assistant" and "</think>" in m["content"]) for m in messages
        ):
            return messages, set()
        made, left_out, key = [], set(), self.template.reasoning_key
        for message in messages:
            thought = message.get("reasoning_content")
            rest = {name: value for name, value in message.items() if name != "reasoning_content"}
            if self.reasoning == "drop":
                answer = THOUGHT.sub("", message["content"]) if message["role"] == "assistant" else message["content"]
                left_out |= {"reasoning_dropped"} if thought or answer != message["content"] else set()
                rest["content"] = answer
            elif thought and key:
                rest[key] = thought
            elif thought and self.reasoning == "keep":
                rest["content"] = f"<think>\n{thought.strip()}\n</think>\n\n{message['content']}"
            elif thought:
                left_out.add("reasoning_dropped")
            made.append(rest)
        return made, left_out

    def _unspoken(self, answers: list[Message], rendered: Rendered, spans: list[tuple[int, int]] | None) -> set[str]:
        """Whether reasoning that the template was given does not stand in its turn. Raises TemplateError where it is to be kept."""
        for n, message in enumerate(answers):
            inline = THOUGHT.search(message["content"])
            thought = next(
                (
                    message[key]
                    for key in ("reasoning_content", "reasoning", "thinking")
                    if isinstance(message.get(key), str)
                ),
                None,
            )
            thought = (thought or (inline.group(1) if inline else "")).strip()
            if thought and thought not in (rendered.text[slice(*spans[n])] if spans else rendered.text):
                if self.reasoning == "keep":
                    raise TemplateError(
                        f"The template {self.template.name!r} leaves out the reasoning of answer {n + 1}.",
                        "Choose one that keeps the reasoning of every turn, such as qwen3, or set data.reasoning to auto.",
                        "data.template",
                    )
                return {"reasoning_dropped"}
        return set()

    def _masked(self, answers: list[Message], text: str, spans: list[tuple[int, int]] | None) -> list[tuple[int, int]]:
        """What is never trained: turns of weight 0, and blocks of reasoning that the template wrote empty."""
        if spans is None:
            if any(message.get("weight") == 0 or message.get("untrained") for message in answers):
                raise TemplateError(
                    f"With the template {self.template.name!r} answers cannot be told apart, and some of them are not to be trained.",
                    "Choose another template, such as chatml.",
                    "data.template",
                )
            return []
        found = []
        for message, (start, stop) in zip(answers, spans, strict=True):
            empty = _empty_thought(text, start, stop) if self.reasoning != "keep" else start
            if message.get("weight") == 0:
                found.append((start, stop))
                continue
            found += self._untrained(message, text, start, stop)
            if empty > start and (self.reasoning == "mask_empty" or not NO_THOUGHT.match(message["content"])):
                found.append((start, empty))
        return found

    def _untrained(self, message: Message, text: str, start: int, stop: int) -> list[tuple[int, int]]:
        """Where the parts of an answer stand that are not to be trained. Raises TemplateError where the template writes the answer otherwise."""
        if not message.get("untrained"):
            return []
        said = message["content"]
        blank = len(said) - len(said.lstrip())
        at = text.find(said.strip(), start, stop)
        if at < 0:
            raise TemplateError(
                f"The template {self.template.name!r} writes an answer otherwise than the data, and parts of it are not to be trained.",
                "Choose another template, such as chatml.",
                "data.template",
            )
        return [(max(at + a - blank, at), at + b - blank) for a, b in message["untrained"]]

    def _label(self, rendered: Rendered, ids: list[int], offsets: list[tuple[int, int]], whole: bool) -> Encoded:
        self._refuse_beyond(ids)
        spans = rendered.spans[-1:] if self.train_on == "last" else rendered.spans
        labels = list(ids) if self.train_on == "all" else [IGNORE_INDEX] * len(ids)
        for first, last in tokens_in_spans(offsets, rendered.masked) if self.train_on == "all" else ():
            labels[first:last] = [IGNORE_INDEX] * (last - first)
        for first, last in tokens_in_spans(offsets, spans):
            labels[first:last] = ids[first:last]
        for first, last in tokens_ending_in_spans(offsets, rendered.masked):
            labels[first:last] = [IGNORE_INDEX] * (last - first)
        labels[:1] = [IGNORE_INDEX] * len(labels[:1])  # nothing stands before the first token to predict it from
        over = max(0, len(ids) - self.max_length) if self.max_length else 0
        if over and self.too_long != "drop" and not whole:
            ids, labels, offsets = ids[: self.max_length], labels[: self.max_length], offsets[: self.max_length]
        trained = len(labels) - labels.count(IGNORE_INDEX)
        return Encoded(list(ids), labels, rendered.text, list(offsets), over, trained, rendered.left_out)

    def _refuse_beyond(self, ids: list[int]) -> None:
        """Raise TemplateError for a token that the model's embedding table has no row for: on a GPU it would end the process."""
        if self.num_embeddings is not None and ids and max(ids) >= self.num_embeddings:
            token = max(ids)
            raise TemplateError(
                f"The token {self.tokenizer.id_to_token(token)!r} has the number {token}, but {self.folder.name} has only "
                f"{self.num_embeddings} rows in its embedding table.",
                "Choose a template without that token, such as alpaca, or take it out of the data.",
                "data.template",
            )

    def end_of_turn_warning(self) -> str:
        """A sentence where no single token ends the turns that are trained, or "": programs other than this one then write on."""
        stops = self.template.stop_strings
        if not stops or any(self.tokenizer.token_to_id(stop) is not None for stop in stops):
            return ""
        parts, lacking = (
            len(self.tokenizer.encode(stops[0], add_special_tokens=False).ids),
            self.template.control_tokens - set(self.tokenizer.get_vocab()),
        )
        return (
            f"The template {self.template.name!r} ends a turn with {stops[0]!r}, which is {parts} plain tokens in this model: "
            "programs that stop at a token only will write on. Choose a template whose end is one token (auto does), "
            f"or add what it lacks: data.new_tokens: {json.dumps(sorted(lacking | {stops[0]}, key=len, reverse=True), ensure_ascii=False)}."
        )

    def new_tokens_note(self) -> str:
        """A sentence for tokens that are to be added and need not be, or ""."""
        return new_tokens.describe_known(self.folder, self.added)

    def check_template(self, samples: Iterable[Conversation] = ()) -> None:
        """Refuse, before a device is touched, what would train wrongly. Raises TemplateError with the reason."""
        check(self, list(samples))


def _empty_thought(text: str, start: int, stop: int) -> int:
    """Where a block of reasoning ends that begins a turn, or was begun by the prompt before it, and holds nothing; else `start`."""
    whole, rest = NO_THOUGHT.match(text, start, stop), THOUGHT_ENDS.match(text, start, stop)
    if whole:
        return whole.end()
    return rest.end() if rest and text[max(0, start - 40) : start].rstrip().endswith(f"<{rest[1]}>") else start


def _as_templates_want(messages: list[Message]) -> list[list[Message]]:
    """The messages as they are, and with the arguments of calls as objects and as text: templates want one or the other."""
    if not any(message.get("tool_calls") for message in messages):
        return [messages]
    ways = [
        messages,
        tool_calls.with_arguments(messages, as_text=False),
        tool_calls.with_arguments(messages, as_text=True),
    ]
    return [way for n, way in enumerate(ways) if way not in ways[:n]]


def _missing_calls(messages: list[Message], rendered: Rendered) -> str:
    """What of the calls does not stand in the trained span of its own turn; "" when all do."""
    answers = [message for message in messages if message["role"] == "assistant"]
    if len(rendered.spans) == len(answers):
        turns = [rendered.text[start:stop] for start, stop in rendered.spans]
    else:  # the template marks answers otherwise than one by one
        turns = [" ".join(rendered.text[start:stop] for start, stop in rendered.spans)] * len(answers)
    return next(
        (
            lost
            for message, turn in zip(answers, turns, strict=True)
            if message.get("tool_calls") and (lost := tool_calls.missing(message, turn))
        ),
        "",
    )


def tokens_in_spans(offsets: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """[first, last) token of every span: the tokens that hold a character of it. Offsets run from left to right.

    Tokenizers leave a blank that belongs to the next token out of its offsets, or give it no width; such a token is
    taken to begin where the one before ended.
    """
    ends, found = [end for _, end in offsets], []
    for start, stop in spans:
        if stop <= start:
            continue
        first = bisect_right(ends, start)
        last = bisect_left(ends, stop, first) + 1
        while last < len(offsets) and offsets[last][0] < stop:  # further bytes of one character share its offsets
            last += 1
        found.append((first, min(last, len(offsets))))
    return found


def tokens_ending_in_spans(
    offsets: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int]]
) -> list[tuple[int, int]]:
    """[first, last) token of every span: the tokens whose last character it holds. (The first one is often a blank that stands before a word.)"""
    return [
        (first, last - (first < last and offsets[last - 1][1] > stop))
        for start, stop in spans
        for first, last in tokens_in_spans(offsets, [(start, stop)])
    ]


def _limits(folder: Path, tokenizer: Any) -> tuple[int | None, int | None]:
    """(rows of the embedding table where the tokenizer has tokens beyond it, tokens the model reads); None: no limit is known."""
    try:
        facts = model.facts(folder)
    except (StudioError, OSError):  # only a tokenizer is here
        return None, None
    last = max([tokenizer.get_vocab_size() - 1, *tokenizer.get_added_tokens_decoder()])
    return facts.rows if last >= facts.rows else None, facts.context


def _tokenizer(folder: Path) -> Any:
    from tokenizers import Tokenizer  # late: a compiled library that the page's first second does not need

    file = folder / "tokenizer.json"
    if not file.is_file():
        held = "only a sentencepiece tokenizer.model" if (folder / "tokenizer.model").is_file() else "no tokenizer.json"
        raise ModelError(
            f"The model in {folder.name} has {held}.",
            "Load it once with transformers and save its tokenizer (AutoTokenizer.from_pretrained(…).save_pretrained(…)).",
            "model",
        )
    with reading_model_file(file):
        made = Tokenizer.from_file(str(file))
    made.no_truncation()
    made.no_padding()
    return made
