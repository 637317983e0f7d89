"""Problem: one thing found wrong with one row, and the table of all kinds there are."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

Severity = Literal["refused", "cut", "suspicious"]
OWN_HINT = {  # a part of the reasons that a kind's hint fits
    "wrong_type": "must be text",
    "columns": "cells, the header",
    "odd_call": "no JSON",
}
CORRECT = "Correct the text or value, or drop the row."
MAX_DETAILED_PER_KIND = 1000  # problems of a kind held with all detail; beyond it only their row numbers


class Kind(NamedTuple):
    """Why it matters, what to do about it, what becomes of such a row."""

    reason: str
    hint: str
    severity: Severity = "suspicious"


KINDS: dict[str, Kind] = {
    "not_json": Kind("This line is not JSON.", "Correct the line, or drop it.", "refused"),
    "not_a_row": Kind(
        "A row must be an object with named fields, or a list of messages.", "Write it as {…}.", "refused"
    ),
    "nan": Kind("NaN and Infinity are no JSON and no text.", "Write null or the text that is meant.", "refused"),
    "encoding": Kind(
        "The line holds bytes that are not UTF-8.", "Correct the text, or save the file as UTF-8.", "refused"
    ),
    "columns": Kind(
        "The row has more or fewer cells than the header.",
        "Quote cells that hold the separator or a line break.",
        "refused",
    ),
    "missing_field": Kind("A field this format needs is missing.", "Add it, or choose the columns by hand.", "refused"),
    "empty_field": Kind("A field this format needs is empty.", "Fill it, or drop the row.", "refused"),
    "wrong_type": Kind(
        "The field must be text.",
        "Write the text itself instead of an object, list or number; an answer in JSON as a text: json.dumps(…).",
        "refused",
    ),
    "unknown_role": Kind(
        "The role is none of system, user, assistant, tool.",
        "Rename it; or say who is who, in a column mapping: --column user=NAME --column assistant=NAME.",
        "refused",
    ),
    "role_order": Kind(
        "The turns are out of order: questions and answers must take turns.",
        "Reorder or merge the turns; or keep them as they are: --set data.problems.role_order=keep, or Keep on "
        "the page.",
        "refused",
    ),
    "assistant_first": Kind(
        "The first turn is the assistant's: it answers nothing.",
        "Put a question before it, or keep it as it is: --set data.problems.assistant_first=keep, or Keep on the page.",
        "refused",
    ),
    "no_assistant": Kind(
        "No turn is the assistant's: there is nothing to learn.", "Add the answer, or drop the row.", "refused"
    ),
    "broken_tags": Kind("The ChatML tags do not pair up.", "Every <|im_start|>role needs its <|im_end|>.", "refused"),
    "no_end": Kind(
        "The last turn is not the assistant's: what stands after the last answer is not learnt.",
        "Add the answer, or cut the row.",
    ),
    "placeholder": Kind(
        "A placeholder was never filled in: the model will say it literally.", "Fill it in and import again."
    ),
    "control_token": Kind(
        "The text holds a model's control token; it would end or start a turn.", "Remove it from the text."
    ),
    "marked_turns": Kind(
        "Marks in the text say who speaks (Human:, [INST], <|user|>): questions, answers and marks are all learnt as "
        "plain text.",
        "To learn the answers alone, as turns in the model's own template: --format transcript, or data.format: "
        "transcript.",
    ),
    "open_prompt": Kind(
        "Marks in the question say who speaks (Human: … Assistant:): it was read as turns, without the marks.",
        "Look at the turns in the preview. A question that goes on behind its last mark is left as it stands.",
    ),
    "media": Kind(
        "A mark stands for a picture, a sound or a film: trained is the mark alone, as text.",
        "Remove it, or drop the row.",
    ),
    "mojibake": Kind(
        "Letters were garbled by a wrong encoding on the way here.", "Save the source as UTF-8 and export again."
    ),
    "nul": Kind("The text holds invisible control characters.", "Remove them."),
    "bom": Kind(
        "A byte order mark stands in the text.", "Save as UTF-8 without BOM; at the start of the file it is left out."
    ),
    "crlf": Kind(
        "Lines end the Windows way (CR LF) inside the text: the model learns to write CR.", "Convert line ends to LF."
    ),
    "literal_break": Kind(
        "A line break stands there as the two signs \\n: the model learns to write them.",
        "Edit on the Data tab makes them line breaks; or read the file with json or csv where it is made.",
    ),
    "literal_escape": Kind(
        "Letters stand there as six signs, as in \\u00e9: the model learns to write these.",
        "Edit on the Data tab makes them letters; or read the file with json where it is made.",
    ),
    "duplicate": Kind("The row stands in the file already.", "Drop it, or it counts twice."),
    "near_duplicate": Kind(
        "The row says the same as an earlier one, but for case, spaces and punctuation.",
        "Drop it, or the two count double.",
    ),
    "leak": Kind(
        "This row of the evaluation data stands in the training data, but for case, spaces and punctuation: the "
        "score will flatter.",
        "Drop it from one of the two.",
    ),
    "secret": Kind(
        "This looks like an e-mail address, a key or a password: the model may repeat it to anyone.", "Remove it."
    ),
    "html": Kind("Remains of HTML stand in the text.", "Strip the tags and entities."),
    "unfinished": Kind("The answer seems to stop in mid-sentence.", "Complete it, or the model learns to break off."),
    "too_short": Kind("The answer is a single character.", "Check that the columns are right."),
    "too_long": Kind("The row is absurdly long.", "Check that several rows did not run together."),
    "same_answers": Kind("The chosen and the rejected answer are the same.", "Drop the row: it teaches nothing."),
    "prompt_in_side": Kind(
        "The answer begins with the question itself: the model learns to repeat it, or not to.",
        "Take the question off the answer.",
    ),
    "swapped_sides": Kind(
        "The pair seems to be the wrong way round: its rejected answer is the better one by score, or in another row.",
        "Swap the two answers, or drop the row.",
    ),
    "both_verdicts": Kind("The same answer is called good in one row and bad in another.", "Drop one of the two."),
    "legacy_encoding": Kind(
        "The file is not written in UTF-8.", "It was read all the same; look whether the letters are right."
    ),
    "nan_text": Kind(
        "The field holds only what a program writes for nothing or for an error: nan, N/A, #REF!",
        "Drop the row, or fill the cell.",
    ),
    "bad_answer": Kind(
        "The row's label calls its answer bad: it must not be learnt as an answer.",
        "Such rows are left out. Stage kto learns from both kinds; data.format: good learns the others of the file.",
        "refused",
    ),
    "no_choice": Kind(
        "The right choice is not named.",
        "Name it by its letter, its number or its own words. Numbers count from 0, or as first_choice says: "
        "--column first_choice=1",
        "refused",
    ),
    "marked_out": Kind(
        "The row is marked as one that is not to be learnt.",
        "Such rows are left out. To learn it, set the mark to 1, or take the column out.",
        "refused",
    ),
    "test_row": Kind(
        "The row is marked as one to test or validate with: a model that has learnt it scores too well on it.",
        "Put such rows into a file of their own and name it as data.eval; or leave them out: "
        "--set data.problems.test_row=drop, or Drop on the page.",
    ),
    "hidden_row": Kind(
        "The row is hidden in the sheet, by a filter or by hand; it is read like the others.",
        "To leave such rows out: --set data.problems.hidden_row=drop, or Drop on the page.",
    ),
    "table_row": Kind(
        "The row looks like units or totals of the table, not like data; it is read like the others.",
        "To leave such rows out: --set data.problems.table_row=drop, or Drop on the page.",
    ),
    "odd_call": Kind(
        "The turn is to call a function, but is no JSON with name and arguments: it is trained as words.",
        'Write it as {"name": …, "arguments": {…}}.',
    ),
    "odd_result": Kind(
        "A tool's result and the calls before it do not belong together: it is trained on as it stands.",
        "Give every call an id, and its result the same tool_call_id, in the turns behind it.",
    ),
    "odd_tools": Kind(
        "The tools are no JSON list of functions: the model does not see them.",
        'Write them as a list of {"name", "description", "parameters"}.',
    ),
    "unheeded_flag": Kind(
        "The turn is marked to be trained on, but only the assistant's turns are.",
        "An answer that is not to be learnt is marked with weight: 0; other turns are learnt with train_on: all.",
    ),
    "reasoning_dropped": Kind(
        "The template has no place for the reasoning of this row: it is not learnt.",
        "Set data.reasoning to keep, which writes it as <think>…</think>, or choose a template such as qwen3.",
    ),
    "odd_reasoning": Kind(
        "The marks of the reasoning do not pair up, or no answer follows them: the model learns to write it so.",
        "Write <think> before the reasoning and </think> behind it, and the answer after that.",
    ),
    "tools_dropped": Kind(
        "The template does not show the tools of this row: the model learns to answer without them.",
        "Choose a template that shows them, such as chatml or qwen3.",
    ),
    "over_context": Kind(
        "The row is longer than the model can read.",
        "Lower max_length to the model's own limit, or choose a model that reads more.",
        "cut",
    ),
    "over_limit": Kind(
        "The row has more tokens than the limit.", "Raise max_length, or choose to drop such rows.", "cut"
    ),
    "untrained": Kind(
        "After the cut no token of an answer is left.", "Raise max_length; such rows are dropped.", "cut"
    ),
    "unrenderable": Kind(
        "The template cannot render this conversation.", "Choose another template, or drop the row.", "refused"
    ),
}


@dataclass(frozen=True)
class Problem:
    """row and line count from 1; line is None where the file has no lines (Parquet, Arrow). value: in short."""

    row: int
    line: int | None
    field: str | None
    kind: str
    severity: Severity
    value: str
    reason: str
    hint: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def problem(
    kind: str, row: int, line: int | None = None, field: str | None = None, value: Any = "", reason: str = ""
) -> Problem:
    """A problem of a listed kind; `reason` says more than the kind's own sentence does."""
    about = KINDS[kind]
    hint = about.hint if not reason or OWN_HINT.get(kind, "") in reason else CORRECT
    return Problem(row, line, field, kind, about.severity, shorten(value), reason or about.reason, hint)


def shorten(value: Any, size: int = 80) -> str:
    """The value in at most `size` characters, on one line."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = " ".join(text[: size * 4].split())
    return text if len(text) <= size else text[: size - 1] + "…"
