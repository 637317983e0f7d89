"""The format of a file's rows, from their content, with the reason; or the error with what can be done about them."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from itertools import chain
from typing import Any

from studio.data.column_names import NAMED_PARTS, columns_of, listed
from studio.data.formats import Row, as_row, fitting, formats
from studio.data.formats.flags import HELD_OUT
from studio.data.layouts import matching, rewritten
from studio.data.mapping import BLANK
from studio.data.mapping_hints import layout_hint
from studio.data.rated import has_ratings
from studio.data.turn_hints import turn_keys
from studio.errors import DataError

REJECTED = frozenset(("rejected", "non_preferred_output", "rejected_response", "rejected_messages"))
SAMPLE_ROWS = 200  # rows
FEW_SHARE = 0.05  # share of the rows below which none of them counts
CONFIDENT_SHARE = 0.9  # share of the rows that must look like the format
IN_MESSAGES = (
    "These are conversations, written in a way that is not read. Write each as a row of its own: "
    '{"messages": [{"role", "content"}, …]}.'
)
TELLTALES: tuple[tuple[frozenset[str], str], ...] = (  # columns that say what a file is, what to do
    (
        frozenset(("custom_id", "response")),
        "A batch's output holds answers alone: put each beside the question that has its custom_id in the "
        "request file, as messages.",
    ),
    (frozenset(("conv_id", "speaker_idx", "utterance")), IN_MESSAGES),  # EmpatheticDialogues
    (frozenset(("personality", "utterances")), IN_MESSAGES),  # PersonaChat
    (frozenset(("free_messages", "guided_messages")), IN_MESSAGES),  # Blended Skill Talk
    (frozenset(("exportType", "state")), IN_MESSAGES),  # LobeChat
    (frozenset(("conversations", "projects", "tasks")), IN_MESSAGES),  # Grok
    (frozenset(("trajectory", "history", "info")), IN_MESSAGES),  # SWE-agent
    (frozenset(("input_ids",)), "These are numbers of tokens already. Choose the texts that they were made from."),
    (
        frozenset(("segments",)),
        "These are parts of finished texts, some of them to be learnt. Write each row as messages; an answer that is "
        "not to be learnt is marked with weight: 0.",
    ),
    (
        frozenset(("header", "title", "time")),
        "This is a list of activities, not of conversations: the answers stand in it as HTML, if at all.",
    ),
    (frozenset(("cell_type", "source")), "This is a notebook. Save it as a script, and name that .txt, to learn it."),
    (
        frozenset(("timestamp", "type", "payload")),
        "These are the events of a program's session. Write what was said as messages, one conversation a row.",
    ),
    (frozenset(("architectures",)), "This is a model's config.json: choose its folder as the model, not as the data."),
    (
        frozenset(("id", "name", "is_archived")),
        "This is Slack's list of channels. The messages stand in the folders beside it, a file for each day.",
    ),
    (
        frozenset(("id", "name", "team_id", "profile")),
        "This is Slack's list of people. The messages stand in the folders beside it, a file for each day.",
    ),
    (
        frozenset(("tokens", "ner_tags")),
        "These are words with tags. Write each row as a question with the text and an answer with what is to be found.",
    ),
)
SAVE_EACH = (
    "python -c \"import json, sys; [json.dump(rows, open(name + '.json', 'w')) for name, rows in "
    'json.load(sys.stdin).items()]"'
)
SAMPLE_ROWS = 200  # rows


@dataclass(frozen=True)
class Detection:
    """The format, and the reason in words. unsure: why the user should check the columns, or ""."""

    format: str
    reason: str
    unsure: str = ""


def detect(rows: list[Any], name: str = "the file", more: Row | None = None) -> Detection:
    """The format most of the rows fit. Raises DataError when none fits.

    Each row counts for the most specific format it fits (the order of formats()); a tie goes to the one more rows fit.
    more: what the layouts are to know beside the rows' own columns.
    """
    sampled = [row for row in map(as_row, rows[:SAMPLE_ROWS]) if isinstance(row, dict)]
    written = [rewritten(row | more if more else row, lambda *_: None) for row in sampled]
    fitting_rows = [fitting(row) for row in written if row is not None]
    counts, fits = Counter(names[0] for names in fitting_rows if names), Counter(chain.from_iterable(fitting_rows))
    if not counts and None in written:  # of a known layout, and faulty: each row's problem is reported
        best = "preference" if any("chosen" in row or not REJECTED.isdisjoint(row) for row in sampled) else "chatml"
        return Detection(best, f"The first {len(sampled)} rows look like {formats()[best].TITLE}.")
    if not counts or (counts.total() < FEW_SHARE * len(sampled) and None not in written):
        raise unknown_layout(columns_of(sampled), rows, name)
    best = max(formats(), key=lambda n: (counts[n], fits[n]))
    fit = fits[best] + written.count(None)  # of a known layout, and faulty: told as problems
    title = formats()[best].TITLE
    layouts = Counter(found[0].title for found in map(matching, sampled) if found)
    layout = f", written as {layouts.most_common(1)[0][0]}" if layouts else ""
    columns = listed(columns_of(sampled))
    reason = f"{fit} of the first {len(sampled)} rows look like {title}{layout} (columns {columns})."
    if fit >= CONFIDENT_SHARE * len(sampled):
        return Detection(best, reason)
    unsure = f"Only {fit} of the first {len(sampled)} rows look like {title}."
    other_names = [n for n in counts if n != best and any(n in names and best not in names for names in fitting_rows)]
    if other_names:
        others = ", ".join(formats()[n].TITLE for n in other_names)
        unsure += (
            f" Others look like {others}: rows that do not fit are refused; a file for each layout keeps them all."
        )
    return Detection(best, reason, unsure)


def match_names(columns: list[str], rows: list[Any]) -> dict[str, str] | None:
    """A mapping where the columns have names that are known but for case and blanks, or in Chinese; or None."""
    names = {column: column.strip(BLANK).lower() for column in reversed(columns)}
    parts = {part: c for c, name in names.items() if (part := NAMED_PARTS.get(name))}
    if "instruction" not in parts and "input" in parts:
        parts["instruction"] = parts.pop("input")
    if "messages" in parts and (keys := turn_keys([row for row in rows if isinstance(row, dict)], parts["messages"])):
        parts |= dict(zip(("role", "content"), keys))
    enough = {"instruction", "output"} <= set(parts) or "messages" in parts or "text" in parts
    return parts if enough and any(part != column for part, column in parts.items()) else None


def unknown_layout(columns: list[str], rows: list[Any], name: str) -> DataError:
    if not columns:
        content = "lists without names" if rows and isinstance(rows[0], list) else "no objects with named columns"
        hint = 'Write each row as an object, such as {"instruction": "…", "output": "…"}.'
        return DataError(f"The rows of {name} are {content}.", hint, name)
    message = f"The rows of {name} have none of the known layouts: {listed(columns)}."
    sampled = [row for row in map(as_row, rows[:SAMPLE_ROWS]) if isinstance(row, dict)]
    if hint := _way_out(columns, sampled, len(rows), name):
        return DataError(message, hint, name)
    return DataError(message, layout_hint(columns, sampled, name), "data.mapping")


def _way_out(columns: list[str], sampled: list[Row], count: int, name: str) -> str:
    """What to do with a file that is known for something else than rows to learn; "" for others."""
    if hint := next((hint for told, hint in TELLTALES if told <= set(columns)), ""):
        return hint
    if has_ratings(sampled):
        return (
            "These are rated answers. For stage dpo, pairs of a better and a worse one are made by: python -m studio "
            f"pairs {name} pairs.jsonl"
        )
    if count == 1 and not name.lower().endswith((".csv", ".tsv")):
        values = list(sampled[0].values())
        if sum(isinstance(value, list) for value in values) > 1:
            if "train" in columns and HELD_OUT.issuperset({*columns} - {"train"}):
                return (
                    f"Save each in a file of its own, and name them as data.train and data.eval: {SAVE_EACH} < {name}"
                )
            return "Where these hold lists of rows, save the one to train on in a file of its own."
        if len(columns) > 1 and all(isinstance(value, str) for value in values) and any(" " in c for c in columns):
            return (
                'Where these are questions and their answers, write each as a row: {"prompt": "…", "completion": "…"}.'
            )
    if len(columns) == 1 and (sign := re.fullmatch(r"\w+([^\w\s.?!'\"-])\w+(?:\1\w+)*", columns[0])):
        return f"If {sign[1]} parts the cells, say so in a line above the first: sep={sign[1]}"
    if any(len(column) > 40 or column.endswith((".", "?", "!")) for column in columns):
        names = ",".join(["prompt", "completion", *["more"] * (len(columns) - 2)])
        hint = f"If the first line is a row already, write the names of the columns in a line above it: {names}"
        other = layout_hint(columns, sampled, name)
        return f"{other} {hint}" if other.startswith("Say which column holds what") else hint
    return ""
