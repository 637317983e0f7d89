"""Questions and answers in columns of their own: numbered, in lists, in objects, with places in a context."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from studio.data.formats import ReportProblem, Row, without
from studio.data.formats.fields import with_context
from studio.data.formats.messages import are_turns, is_turn, role_of_turn
from studio.data.formats.prompt import COLUMNS, MORE_ANSWERS
from studio.data.layouts import Layout
from studio.data.layouts.comparisons import REJECTED
from studio.data.roles import MESSAGE_COLUMNS

QUESTIONS = frozenset((*COLUMNS["prompt"], "human", "turn_user", "User", "Human", "Question", "Q"))
ANSWERS = frozenset((*COLUMNS["answer"], "gpt", "bot", "model", "Assistant", "Answer", "A"))
IN_TURN = frozenset(("message", "turn", "utterance"))  # CAMEL's
NUMBERED = re.compile(r"(.*?)[ _-]?(\d+)")
FIRST_COLUMNS = frozenset(
    f"{name}{sign}{n}" for name in QUESTIONS | IN_TURN for sign in ("", "_", " ", "-") for n in "01"
)
LISTS = (("questions", "answers"), ("prompts", "responses"), ("queries", "answers"), ("inputs", "outputs"))
SPANS = ("answers", "answer", "answers_spans", "answer_spans")
SPAN_TEXTS = ("text", "spans", "value")  # of the object
PLACES = frozenset(("answer_start", "answer_end", "start", "end", "types", "aliases", "normalized_value"))
OBJECTS = (
    *(("input", "output"), ("inputs", "outputs"), ("prompt", "response"), ("prompt", "completion")),
    *(("question", "answer"), ("request", "response"), ("instruction", "output"), ("query", "response")),
)
OBJECT_TEXTS = ("text", "content", "value", "message", "input", "output", "question", "answer", "prompt", "query",
            "completion", "response", "instruction")  # fmt: skip
PROMPTS = ("prompt", "input", "question", "query", "context", *MESSAGE_COLUMNS)
COMPLETIONS = ("completion", "response", "output", "answer", "answers", "target", *MORE_ANSWERS)
_COMPLETIONS = frozenset(COMPLETIONS)
PREFERENCE = frozenset(("chosen", *REJECTED))


# Turns in numbered columns: user_1, assistant_1, user_2, assistant_2; or message_1, message_2, in turn.
@lru_cache(maxsize=1024)
def turn_columns(columns: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """(question, answer) columns in the order of their numbers; () unless each has its other and there are several.

    One pair is enough where the names do not say who speaks: the user begins.
    """
    spoken = {int(end[2]): name for name in columns if (end := NUMBERED.fullmatch(name)) and end[1] in IN_TURN}
    if len(spoken) >= 2:
        names = [spoken[n] for n in sorted(spoken)]
        return () if len(names) % 2 else tuple(zip(names[::2], names[1::2]))
    questions: dict[int, str] = {}
    answers: dict[int, str] = {}
    for name in columns:
        if end := NUMBERED.fullmatch(name):
            sides = ((QUESTIONS, questions), (ANSWERS, answers))
            side = next((side for names, side in sides if end[1] in names), {})
            if int(end[2]) in side:
                return ()
            side[int(end[2])] = name
    if len(questions) < 2 or set(questions) != set(answers):
        return ()
    return tuple((questions[n], answers[n]) for n in sorted(questions))


def _match_numbered(row: Row) -> tuple[tuple[str, str], ...]:
    pairs = turn_columns(tuple(row))
    texts = all(row[name] is None or isinstance(row[name], str) for pair in pairs for name in pair)
    return pairs if pairs and texts else ()


def _rewrite_numbered(row: Row, pairs: tuple[tuple[str, str], ...], report: ReportProblem) -> Row | None:
    last = max((n for n, (q, a) in enumerate(pairs, 1) if (row[q] or "").strip() or (row[a] or "").strip()), default=0)
    turns = []
    for question, answer in pairs[:last]:  # a short conversation leaves its last columns empty
        for name, role in ((question, "user"), (answer, "assistant")):
            if not (row[name] or "").strip():
                return report("empty_field", name, row[name])
            turns.append({"role": role, "content": row[name]})
    return without(row, *(name for pair in pairs for name in pair)) | {"messages": turns}


# Questions and answers in two lists, as in CoQA: {"story", "questions": ["…"], "answers": ["…"]}.
def _match_lists(row: Row) -> tuple[str, str] | None:
    """The columns of questions and answers, which hold as many texts."""
    for questions, answers in LISTS:
        asked, answered = row.get(questions), _texts(row.get(answers))
        if not isinstance(asked, list) or not isinstance(answered, list) or len(asked) != len(answered) or not asked:
            continue
        if all(isinstance(text, str) for text in (*asked, *answered)):
            return questions, answers
    return None


def _texts(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    texts = next((value[key] for key in ("input_text", "texts", "text") if isinstance(value.get(key), list)), None)
    if texts is None:
        return value
    return [text[0] if isinstance(text, list) and text else text for text in texts]  # the first of several


def _rewrite_lists(row: Row, columns: tuple[str, str], report: ReportProblem) -> Row | None:
    (questions, answers), turns = columns, []
    for asked, answered in zip(row[questions], _texts(row[answers]), strict=True):
        turns += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    turns[0]["content"] = with_context(turns[0]["content"], row, questions)
    return without(row, questions, answers) | {"messages": turns}


# Answers with their places in a context, as SQuAD has them: {"context", "question", "answers": {"text": […], …}}.
def _match_spans(row: Row) -> tuple[str, Any] | None:
    """(the column of the answers, the answer that is learnt; None where there is none)."""
    if not any(isinstance(row.get(name), str) for name in COLUMNS["prompt"]):
        return None
    for name in SPANS:
        value = row.get(name)
        if value == [] and name == "answers":
            return name, None
        if isinstance(value, list) and value and all(isinstance(v, dict) and "answer_start" in v for v in value):
            return name, value[0].get("text")
        if isinstance(value, dict) and not PLACES.isdisjoint(value):
            texts = next((value[key] for key in SPAN_TEXTS if key in value), None)
            text = texts[0] if isinstance(texts, list) and texts else texts
            return name, text if isinstance(text, str) else None
    return None


def _rewrite_spans(row: Row, answered: tuple[str, Any], report: ReportProblem) -> Row | None:
    name, answer = answered
    if not isinstance(answer, str) or not answer.strip():
        return report("empty_field", name, row[name], "The question has no answer in this row.")
    return without(row, name) | {"answer": answer}


# Question and answer inside objects: {"input": {"messages": […]}, "output": {"role", "content"}}.
def _match_objects(row: Row) -> tuple[str, str] | None:
    """The columns of question and answer: both are objects with a text, or one is an object with turns."""
    for question, answer in OBJECTS:
        values = (row.get(question), row.get(answer))
        inner = [_inner(value) for value in values]
        objects = [isinstance(value, dict) for value in values]
        if None not in inner and any(objects) and (all(objects) or any(isinstance(value, list) for value in inner)):
            return question, answer
    return None


def _inner(value: Any) -> Any:
    """The text of an object with one text, or its turns; None for other objects."""
    if isinstance(value, str) or are_turns(value):
        return value
    if not isinstance(value, dict):
        return None
    if is_turn(value):
        return [value]
    turns = next((value[name] for name in MESSAGE_COLUMNS if isinstance(value.get(name), list)), None)
    if are_turns(turns):
        return turns
    texts = [text for name, text in value.items() if name in OBJECT_TEXTS and isinstance(text, str) and text.strip()]
    others = any(isinstance(value[name], (str, list, dict)) for name in value.keys() - OBJECT_TEXTS)
    return texts[0] if len(texts) == 1 and not others else None


def _rewrite_objects(row: Row, columns: tuple[str, str], report: ReportProblem) -> Row | None:
    question, answer = columns
    tools = row[question].get("tools") if isinstance(row[question], dict) else None
    asked, answered = _inner(row[question]), _inner(row[answer])
    rest = without(row, question, answer) | ({"tools": tools} if tools else {})
    if isinstance(asked, str) and isinstance(answered, str):
        return rest | {"prompt": asked, "completion": answered}
    turns = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
    turns = [*turns, *([{"role": "assistant", "content": answered}] if isinstance(answered, str) else answered)]
    return rest | {"messages": turns}


# TRL's conversational prompt and completion: both are lists of messages.
def _match_messages(row: Row) -> tuple[str, str] | None:
    """The columns of prompt and completion."""
    if _COMPLETIONS.isdisjoint(row) or not PREFERENCE.isdisjoint(row):
        return None
    asked = next((n for n in PROMPTS if are_turns(row.get(n))), None)
    answers = [n for n in COMPLETIONS if n in row and n != asked]
    if asked is None or not answers or (asked in MESSAGE_COLUMNS and role_of_turn(row[asked][-1]) == "assistant"):
        return None
    return asked, next((n for n in answers if row[n] not in (None, "")), answers[0])


def _rewrite_messages(row: Row, columns: tuple[str, str], report: ReportProblem) -> Row | None:
    asked, answer = columns
    completion = row[answer]
    if isinstance(completion, list) and len(completion) == 1 and isinstance(completion[0], str):  # ChatQA's answers
        completion = completion[0]
    if isinstance(completion, str):
        completion = [{"role": "assistant", "content": completion}]
    elif is_turn(completion):
        completion = [completion]
    if not are_turns(completion):
        reason = f"{answer} must be a list of messages, as {asked} is, or a text."
        return report("wrong_type" if completion else "empty_field", answer, completion, reason)
    rest = without(row, asked, answer, None if asked in MESSAGE_COLUMNS else "messages")
    return rest | {"messages": [*row[asked], *completion]}


LAYOUTS = (
    Layout("turns in numbered columns", _match_numbered, _rewrite_numbered, FIRST_COLUMNS, texts=True),
    Layout(
        "questions and answers in two lists",
        _match_lists,
        _rewrite_lists,
        frozenset(questions for questions, _ in LISTS),
    ),
    Layout(
        "answers with their places in a context, as in SQuAD, of which the first is learnt",
        _match_spans,
        _rewrite_spans,
        frozenset(SPANS),
    ),
    Layout(
        "question and answer inside objects",
        _match_objects,
        _rewrite_objects,
        frozenset(question for question, _ in OBJECTS),
        order=80,
    ),
    Layout(
        "prompt and completion as lists of messages, as TRL writes them",
        _match_messages,
        _rewrite_messages,
        frozenset(PROMPTS),
    ),
)
