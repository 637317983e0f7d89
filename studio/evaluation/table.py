"""The table of an evaluation as files: CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from studio.evaluation.results import SIDES
from studio.evaluation.scores import NAMES


def as_json(results: Mapping[str, Any]) -> str:
    return json.dumps(results, ensure_ascii=False, indent=1)


def as_csv(table: Sequence[Mapping[str, Any]]) -> str:
    """Row, prompt, reference, answers, how they ended, scores; with UTF-8's mark, so that spreadsheets read Chinese.

    A text that a spreadsheet would carry out as a formula begins with an apostrophe; as_json has it as it is.
    """
    names = [name for name in NAMES if any(name in row["scores"]["tuned"] for row in table)]
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(
        ["row", "prompt", "reference", *SIDES, "change", *(f"{side}_finish" for side in SIDES)]
        + [f"{side}_{name}" for side in SIDES for name in names]
    )
    for row in table:
        texts = [_inert(row[key]) for key in ("prompt", "reference", *SIDES, "change")]
        ends = [row["finish"][side] for side in SIDES]
        values = [row["scores"][side].get(name, "") for side in SIDES for name in names]
        writer.writerow([row.get("data_row") or row["row"], *texts, *ends, *values])
    return "\ufeff" + out.getvalue()


def _inert(text: Any) -> Any:
    """A text that is no formula: one that begins as such gets an apostrophe before it, unless it is a number."""
    if not isinstance(text, str) or not text.startswith(("=", "+", "-", "@", "\t", "\r")):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text
