"""HH-RLHF: chosen and rejected are whole conversations as text, with Human: and Assistant: before the turns."""

from __future__ import annotations

import re

from studio.data.formats import ReportProblem, Row, without

TITLE = "Human: and Assistant: in text, as in HH-RLHF"
TEXTS = True
KEYS = frozenset(("chosen",))
TURN = re.compile(r"(?:\A|\n\n)\s*(Human|Assistant|H|A): ?", re.DOTALL)
ROLES = {"H": "user", "A": "assistant"}


def match(row: Row) -> bool:
    return all(
        isinstance(row.get(n), str) and row[n].lstrip().startswith(("Human:", "H:")) for n in ("chosen", "rejected")
    )


def rewrite(row: Row, matches: bool, report: ReportProblem) -> Row | None:
    chosen, rejected = _turns(row["chosen"]), _turns(row["rejected"])
    shared = next((n for n, (a, b) in enumerate(zip(chosen, rejected)) if a != b), min(len(chosen), len(rejected)))
    shared = min(shared, len(chosen) - 1)  # where both answers are the same
    if chosen[shared:][1:] or rejected[shared:][1:] or chosen[shared]["role"] != "assistant" or not shared:
        reason = "The two conversations must be the same up to one last answer."
        return report("wrong_type", "rejected", row["rejected"].strip(), f"{reason} They part at turn {shared + 1}.")
    rest = without(row, "chosen", "rejected")
    return rest | {"prompt": chosen[:shared], "chosen": chosen[shared:], "rejected": rejected[shared:]}


def _turns(text: str) -> list[dict[str, str]]:
    pieces = TURN.split(text)[1:]
    return [
        {"role": ROLES[speaker[0]], "content": content.strip()}
        for speaker, content in zip(pieces[::2], pieces[1::2], strict=True)
    ]
