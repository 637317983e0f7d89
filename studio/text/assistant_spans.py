"""Which characters an assistant wrote, where a template has no {% generation %} tag to say so.

Each answer is rendered once more with a mark at its beginning and end; the marks show where the template put it. The
trained span then runs from where the model is asked to begin (the end of the generation prompt) to the end of the turn,
both included in what the template itself writes: a thinking block before the answer, calls of tools behind it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any

from studio.errors import StudioError

Message = dict[str, Any]
Run = Callable[[list[Message], bool], str]  # run(messages, add_generation_prompt) -> text

BEGIN, END = "\ufdd2", "\ufdd3"  # noncharacters: never valid in text that is exchanged
QUESTION, ANSWER = "q7zk question", "q7zk answer"
OPENING = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}]
TOKEN = re.compile(r"<[^<>\n]{1,60}>|\[/?[A-Z_]{2,30}\]")


def clean(text: str) -> str:
    """The text without our marks: nobody's data may forge a span."""
    return text.replace(BEGIN, "").replace(END, "") if BEGIN in text or END in text else text


def turn_ends(run: Run, special: dict[str, str]) -> list[str]:
    """What the template writes after an answer to end a turn; [] when it writes nothing.

    The first is what ends the last turn of a conversation; where earlier turns end otherwise, that is the second.
    """
    last = _after(run(OPENING, False))
    tokens = _control_tokens(last, special)
    if not tokens:
        return []
    try:
        middle = _after(
            run([*OPENING, {"role": "user", "content": QUESTION}, {"role": "assistant", "content": ""}], False)
        )
    except StudioError:  # a template of one turn
        return [tokens[0]]
    shared = [n for n in range(1, len(tokens) + 1) if middle.startswith("".join(tokens[:n]))]
    if shared:
        return ["".join(tokens[: shared[-1]])]
    other = _control_tokens(middle, special)
    return [tokens[0], *other[:1]]


def openers(run: Run, tail: str) -> list[str]:
    """The control tokens that open the turn after an answer, for a template that writes nothing behind one (GLM's).

    There the model stops by beginning the next turn, the user's or a tool's. A token that opens the assistant's turn
    too is left out. tail: what stands between a question and the place where the model begins to answer.
    """
    tokens = []
    for role in ("user", "tool"):
        try:
            text = run([*OPENING, {"role": role, "content": QUESTION}, {"role": "assistant", "content": ""}], False)
        except StudioError:
            continue
        opens = TOKEN.match(text, text.index(ANSWER) + len(ANSWER)) if ANSWER in text else None
        if opens and opens.group() not in tail:
            tokens.append(opens.group())
        elif role == "user":
            return []
    return list(dict.fromkeys(tokens))


def _after(text: str) -> str:
    return text[text.index(ANSWER) + len(ANSWER) :].lstrip() if ANSWER in text else ""


def _control_tokens(tail: str, special: dict[str, str]) -> list[str]:
    """The control tokens the tail begins with, one directly after the other; else its first line."""
    known = sorted(filter(None, special.values()), key=len, reverse=True)
    tokens: list[str] = []
    rest = tail
    while rest:
        token = next((t for t in known if rest.startswith(t)), None) or (
            m.group() if (m := TOKEN.match(rest)) else None
        )
        if token is None:
            break
        tokens.append(token)
        rest = rest[len(token) :]
    line = tail.strip().split("\n")[0].strip()
    return tokens or ([line] if line else [])


def prompt_tail(run: Run) -> str:
    """What stands between a question and the place where the model begins to answer."""
    text = run([{"role": "user", "content": QUESTION}], True)
    return text[text.rindex(QUESTION) + len(QUESTION) :] if QUESTION in text else ""


def spans(run: Run, messages: list[Message], text: str, tail: str, ends: list[str]) -> list[tuple[int, int]] | None:
    """[start, end) of every assistant turn in `text`, which is run(messages, False). None where it is not known."""
    answers = [n for n, message in enumerate(messages) if message["role"] == "assistant"]
    marks = _marks(run, messages, text) if answers else []
    if marks is None or len(marks) != len(answers):
        return _turn_by_turn(run, messages, text, answers, ends)
    answer_spans, before = [], 0
    for k, (n, (opened, closed)) in enumerate(zip(answers, marks, strict=True)):
        limit = marks[k + 1][0] if k + 1 < len(marks) else len(text)
        at = text.rfind(tail, before, opened) if tail else -1
        start = at + len(tail) if at >= 0 else min(opened, _common(run(messages[:n], True), text))
        before = _first(text, ends, closed, limit) or closed
        answer_spans.append((max(start, answer_spans[-1][1] if answer_spans else 0), before))
    return answer_spans


def _marks(run: Run, messages: list[Message], text: str) -> list[tuple[int, int]] | None:
    """(beginning, end) of each answer's words in `text`; None when marking changes what the template does."""
    marked = run([_marked(m) if m["role"] == "assistant" else m for m in messages], False)
    if marked.replace(BEGIN, "").replace(END, "") != text:
        return None
    answer_marks, opened, at = [], None, 0
    for piece in re.split(f"([{BEGIN}{END}])", marked):
        if piece == BEGIN:
            opened = at
        elif piece == END:
            answer_marks.append((at if opened is None else opened, at))
            opened = None
        else:
            at += len(piece)
    return answer_marks


def _marked(message: Message) -> Message:
    """The message with marks around its words; blanks at either end stay outside, where templates trim them.

    A turn that says nothing and calls tools has them around the name of the first.
    """
    content = message["content"]
    core = content.strip()
    if not core:
        return _marked_call(message)
    at = content.index(core)
    return message | {"content": content[:at] + BEGIN + core + END + content[at + len(core) :]}


def _marked_call(message: Message) -> Message:
    first, *others = message.get("tool_calls") or [None]
    function = first.get("function", first) if isinstance(first, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        return message
    named = function | {"name": BEGIN + function["name"] + END}
    return message | {"tool_calls": [first | {"function": named} if "function" in first else named, *others]}


def _turn_by_turn(
    run: Run, messages: list[Message], text: str, answers: list[int], ends: list[str]
) -> list[tuple[int, int]] | None:
    """What each assistant turn adds to the conversation before it; needs a template that keeps earlier turns."""
    answer_spans = []
    for n in answers:
        start, whole = _common(run(messages[:n], True), text), run(messages[: n + 1], False)
        shared = _common(whole, text)
        if shared <= start:
            return None
        stop = _first(text, ends, start, shared)
        if stop is None and ends and n < len(messages) - 1:
            return None  # behind this turn the template wrote otherwise when it was the last
        stop = stop or len(text[:shared].rstrip())
        begun = next((end for end in ends if text.startswith(end, stop)), "")  # the end is what opens the next turn
        answer_spans.append((start, stop if text.endswith(begun, start, stop) else stop + len(begun)))
    return answer_spans


def _first(text: str, ends: list[str], start: int, limit: int) -> int | None:
    """Where the first of these ends ends, between start and limit."""
    places = [(at, at + len(end)) for end in ends if (at := text.find(end, start, limit)) >= 0]
    return min(places)[1] if places else None


def _common(a: str, b: str) -> int:
    """How many characters two texts have in common from their beginning."""
    return min(len(a), len(b)) if a.startswith(b) or b.startswith(a) else len(os.path.commonprefix((a, b)))
