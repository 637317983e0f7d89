"""HH-RLHF: chosen and rejected are whole conversations as text, with Human: and Assistant: before the turns."""

from __future__ import annotations

import re

from studio.data.formats import ReportProblem, Row
from studio.data.tracked_row import without

TITLE = "Human: and Assistant: in text, as in HH-RLHF"
TEXTS = True
KEYS = frozenset(("chosen",))
TURN = re.compile(r"(?:\A|\n\n)\s*(Human|Assistant|H|A): ?", re.DOTALL)
ROLES = {"H": "user", "A": "assistant"}


def fits(row: Row) -> bool:
    return all(
        isinstance(row.get(n), str) and row[n].lstrip().startswith(("Human:", "H:")) for n in ("chosen", "rejected")
    )


def rewrite(row: Row, report: ReportProblem) -> Row | None:
    chosen, rejected = _turns(row["chosen"]), _turns(row["rejected"])
    same = next((n for n, (a, b) in enumerate(zip(chosen, rejected)) if a != b), min(len(chosen), len(rejected)))
    same = min(same, len(chosen) - 1)  # where both answers are the same
    if chosen[same:][1:] or rejected[same:][1:] or chosen[same]["role"] != "assistant" or not same:
        reason = "The two conversations must be the same up to one last answer."
        report("wrong_type", "rejected", row["rejected"].strip(), f"{reason} They part at turn {same + 1}.")
        return None
    left = without(row, "chosen", "rejected")
    return left | {"prompt": chosen[:same], "chosen": chosen[same:], "rejected": rejected[same:]}


def _turns(text: str) -> list[dict[str, str]]:
    pieces = TURN.split(text)[1:]
    return [
        {"role": ROLES[who[0]], "content": said.strip()} for who, said in zip(pieces[::2], pieces[1::2], strict=True)
    ]
