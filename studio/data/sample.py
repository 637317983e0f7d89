"""The data that comes with the program: small files that teach a behaviour one can see in chat after a short run."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from studio.errors import DataError
from studio.home import PROJECT

FOLDER = PROJECT / "studio" / "samples"


@lru_cache(maxsize=1)
def _index() -> list[dict[str, Any]]:
    return json.loads((FOLDER / "index.json").read_text(encoding="utf-8"))


def samples() -> list[dict[str, Any]]:
    """{name, title, description, rows, prompts}; prompts: five questions to try in chat that are not in the data."""
    return [{key: value for key, value in entry.items() if key != "file"} for entry in _index()]


def sample_path(name: str) -> Path:
    """The file of `sample:NAME`; "sample" alone is the first. Raises DataError for an unknown name."""
    sample = name.removeprefix("sample").removeprefix(":") or _index()[0]["name"]
    for entry in _index():
        if entry["name"] == sample:
            return FOLDER / entry["file"]
    hint = f"There are: {', '.join(e['name'] for e in _index())}."
    raise DataError(f"There is no sample named {sample!r}.", hint, "data.train")
