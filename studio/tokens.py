"""Conversations to ids and labels: the one place that decides what is trained on.

The preview, the statistics, the trainer and the chat server all call this. No torch: `tokenizers` on tokenizer.json.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from studio.errors import ModelError, TemplateError, model_file
from studio.template import Message, Rendered, Template, load
from studio.text.gate import check

if TYPE_CHECKING:
    from studio.data import DataOrder

IGNORED = -100  # label of a token that is read and not trained on (torch's cross entropy skips it)
TrainOn = Literal["assistant", "last", "all"]
TooLong = Literal["cut", "drop", "split"]
Conversation = list[Message] | dict[str, Any] | str


@dataclass(frozen=True)
class Encoded:
    """One conversation in tokens. labels: the id where trained, else -100; a row's first token never is: nothing predicts it.

    offsets: characters of `text` per token.
    cut: tokens beyond max_length; with too_long="drop" the row is to be dropped, else they are gone from ids.
    """

    ids: list[int]
    labels: list[int]
    text: str
    offsets: list[tuple[int, int]]
    cut: int
    n_trained: int


class Encoder:
    """Turns conversations into Encoded with one model's tokenizer and one template. max_length in tokens, None: no limit."""

    def __init__(
        self,
        model_folder: str | Path,
        template: Template,
        max_length: int | None = None,
        too_long: TooLong = "cut",
        train_on: TrainOn = "assistant",
    ):
        self.folder, self.template = Path(model_folder), template
        self.max_length, self.too_long, self.train_on = max_length, too_long, train_on
        self.tokenizer = _tokenizer(self.folder)

    @classmethod
    def of(cls, order: DataOrder, model_folder: str | Path, template: Template | None = None) -> Encoder:
        """As an order says. template: where it is loaded already."""
        return cls(model_folder, template or load(order.template, model_folder), order.max_length, order.too_long, order.train_on)

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

    def prompt_ids(self, messages: list[Message], **extra: Any) -> list[int]:
        """The ids a model is given to answer: the conversation so far and the opening of the assistant's turn."""
        text = self.template.render(messages, add_generation_prompt=True, **extra).text
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def render(self, one: Conversation, **extra: Any) -> Rendered:
        """The text that is encoded, with its trainable spans."""
        if isinstance(one, dict) and "text" in one:
            one = one["text"]
        if isinstance(one, str):  # plain text: all of it, and its end
            text = one + self.template.special.get("eos_token", "")
            return Rendered(text, [(0, len(text))])
        if isinstance(one, dict):
            tools = one.get("tools")
            one, extra = one["messages"], {"tools": tools, **extra} if isinstance(tools, list) else extra
        rendered = self.template.render(one, **extra)
        if any("tool_calls" in message for message in one):
            _calls_stand(one, rendered, self.template.name)
        return rendered

    def _label(self, rendered: Rendered, ids: list[int], offsets: list[tuple[int, int]], whole: bool) -> Encoded:
        spans = rendered.spans[-1:] if self.train_on == "last" else rendered.spans
        labels = list(ids) if self.train_on == "all" else [IGNORED] * len(ids)
        for first, last in covered(offsets, spans) if self.train_on != "all" else ():
            labels[first:last] = ids[first:last]
        labels[:1] = [IGNORED] * len(labels[:1])  # nothing stands before the first token to predict it from
        over = max(0, len(ids) - self.max_length) if self.max_length else 0
        if over and self.too_long != "drop" and not whole:
            ids, labels, offsets = ids[: self.max_length], labels[: self.max_length], offsets[: self.max_length]
        trained = len(labels) - labels.count(IGNORED)
        return Encoded(list(ids), labels, rendered.text, list(offsets), over, trained)

    def caution(self) -> str:
        """A sentence where no single token ends the turns that are trained, or "": programs other than this one then write on."""
        stops = self.template.stop
        if not stops or any(self.tokenizer.token_to_id(stop) is not None for stop in stops):
            return ""
        parts = len(self.tokenizer.encode(stops[0], add_special_tokens=False).ids)
        return (f"The template {self.template.name!r} ends a turn with {stops[0]!r}, which is {parts} plain tokens in this model: "
                "programs that stop at a token only will write on. Choose a template whose end is one token (auto does), "
                f"or add the token: data.new_tokens: [{stops[0]!r}].")

    def gate(self, samples: Iterable[Conversation] = ()) -> None:
        """Refuse, before a device is touched, what would train wrongly. Raises TemplateError with the reason."""
        check(self, list(samples))


def _calls_stand(messages: list[Message], rendered: Rendered, name: str) -> None:
    """Refuse a conversation whose calls of tools the template leaves out: the model would learn to say nothing in their place."""
    said = " ".join(rendered.text[start:stop] for start, stop in rendered.spans)
    for call in (call for message in messages for call in message.get("tool_calls") or ()):
        function = call.get("function", call) if isinstance(call, dict) else None
        wanted = function.get("name") if isinstance(function, dict) else None
        if not isinstance(wanted, str) or wanted not in said:
            hint = "Choose one that writes them, such as chatml or qwen3."
            raise TemplateError(f"The template {name!r} leaves out the calls of tools.", hint, "data.template")


def covered(offsets: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
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
    with model_file(file):
        made = Tokenizer.from_file(str(file))
    made.no_truncation()
    made.no_padding()
    return made
