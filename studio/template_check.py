"""The check of a template before launch: one that would train the wrong tokens is refused, with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from studio.errors import TemplateError
from studio.kernels import IGNORE_INDEX
from studio.text.assistant_spans import ANSWER, QUESTION
from studio.tokens import Encoded, Encoder

SECOND, REPLY, RULE = "w3xj question", "w3xj answer", "k5vq rule"
PROBES: tuple[list[dict[str, Any]], ...] = (
    [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}],
    [
        {"role": "system", "content": RULE},
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": ANSWER},
    ],
    [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": ANSWER},
        {"role": "user", "content": SECOND},
        {"role": "assistant", "content": REPLY},
    ],
)
OTHERS = "Choose another template; `auto` takes the model's own."


def check(encoder: Encoder, samples: Sequence[Any] = ()) -> None:
    """Raise TemplateError when no token, every token, or the end of a turn would be trained wrongly.

    Two small made-up conversations show what the template does; then the user's own rows are looked at.
    """
    texts = [sample for sample in samples if isinstance(sample, str) or (isinstance(sample, dict) and "text" in sample)]
    if len(texts) < len(samples) or not samples:
        _probe(encoder, PROBES[0])
        for conversation in PROBES[1:]:
            try:
                encoder.render(conversation)
            except TemplateError:
                continue  # no system role, or no second turn: the rows that have one are refused one by one
            _probe(encoder, conversation)
        _prompt(encoder)
    results = encoder.encode_each(samples)
    encoded = [result for result in results if not isinstance(result, TemplateError)]
    if encoded:
        _rows(encoder, encoded, bool(texts))
    elif results:  # every row that was looked at would be dropped: the run would have nothing to train on
        raise results[0]


def _rows(encoder: Encoder, encoded: list[Encoded], texts: bool) -> None:
    if not any(e.n_trained for e in encoded):
        hint = "Raise max_length: the answers lie beyond it." if any(e.overflow for e in encoded) else OTHERS
        raise _refused(encoder, "no token of these rows would be trained", hint)
    if encoder.train_on != "all" and all(e.n_trained >= len(e.ids) - 1 for e in encoded):
        hint = (
            "Plain text has no questions and answers: set train_on to all."
            if texts
            else "Choose another template, or set train_on to all."
        )
        raise _refused(encoder, "every token would be trained, the questions too", hint)


def _probe(encoder: Encoder, conversation: list[dict[str, Any]]) -> None:
    """Look at one made-up conversation, token by token."""
    e = encoder.encode(conversation, whole=True)
    trained = [(a, b) for (a, b), label in zip(e.offsets, e.labels, strict=True) if label != IGNORE_INDEX]
    if not trained:
        raise _refused(encoder, "no token would be trained", OTHERS)
    trained_text = "".join(e.text[a:b] for a, b in _joined(trained))
    answers = [m["content"] for m in conversation if m["role"] == "assistant"]
    expected = answers[-1:] if encoder.train_on == "last" else answers
    for answer in answers:
        if answer not in e.text:
            raise _refused(encoder, "the answers do not stand in the text", OTHERS)
    for answer in expected:
        if answer not in trained_text:
            raise _refused(encoder, f"the answer is not what is trained, but {trained_text[:80]!r}", OTHERS)
    if encoder.train_on != "all":
        if len(trained) >= len(e.ids) - 1:
            raise _refused(
                encoder,
                "every token would be trained, the questions too",
                "Choose another template, or set train_on to all.",
            )
        for message in conversation:
            if message["role"] != "assistant" and message["content"] in trained_text:
                raise _refused(
                    encoder, f"the {message['role']}'s words would be trained as if the model had to say them", OTHERS
                )
    _ending(encoder, e, expected, trained)


def _ending(encoder: Encoder, e: Encoded, answers: list[str], trained: list[tuple[int, int]]) -> None:
    """The end of the turn stands behind the answer and is trained: else the model never stops."""
    if not encoder.template.stop_strings:
        raise _refused(
            encoder,
            "nothing ends a turn, so the model would never stop",
            "Choose a template that writes an end-of-turn token, such as chatml.",
        )
    if encoder.template.borrowed_stops and encoder.tokenizer.token_to_id(encoder.template.stop_strings[0]) is None:
        why = (
            f"nothing ends a turn but what opens the next ({encoder.template.stop_strings[0]}), "
            "and that is no token of this model's tokenizer"
        )
        raise _refused(encoder, why, "Choose a template that writes an end-of-turn token, such as chatml.")
    end, after = encoder.template.stop_strings[0], e.text.rindex(answers[-1]) + len(answers[-1])
    at = e.text.find(end, after)
    if at < 0:
        raise _refused(encoder, f"the last answer is not followed by the end of the turn ({end})", OTHERS)
    inside = [(a, b) for a, b in e.offsets if a < at + len(end) and b > at and a < b]
    if not inside or not set(inside) <= set(trained):
        raise _refused(
            encoder, f"the end of the turn ({end}) would not be trained, so the model would never stop", OTHERS
        )
    if any(message in e.text[after:at] for message in (QUESTION, SECOND)):
        raise _refused(encoder, "the end of the turn does not follow the answer", OTHERS)


def _prompt(encoder: Encoder) -> None:
    """What chat gives the model must lead to the place where the trained answer begins."""
    conversation = PROBES[0]
    asked = encoder.template.render(conversation[:-1], add_generation_prompt=True).text
    whole = encoder.template.render(conversation)
    if QUESTION not in asked:
        raise _refused(encoder, "the question does not stand in the prompt", OTHERS)
    if not whole.spans:
        return
    start = whole.spans[-1][0]
    same = next((n for n, (a, b) in enumerate(zip(asked, whole.text)) if a != b), min(len(asked), len(whole.text)))
    if same < start and whole.text[same:start].strip():
        missing = whole.text[same:start].strip()
        raise _refused(
            encoder,
            f"the prompt lacks the opening of the answer ({missing!r})",
            "The template must heed add_generation_prompt.",
        )


def _joined(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges that touch or overlap, or have only a blank between them, as one: tokenizers leave blanks out."""
    joined: list[tuple[int, int]] = []
    for start, stop in ranges:
        if joined and start <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(stop, joined[-1][1]))
        else:
            joined.append((start, stop))
    return joined


def _refused(encoder: Encoder, why: str, hint: str) -> TemplateError:
    return TemplateError(f"With the template {encoder.template.name!r} {why}.", hint, "data.template")
