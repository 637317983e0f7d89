"""generation_config.json of a model: how its makers advise to sample, and what ends its answers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from studio import json_text
from studio.errors import reading_model_file

FILE = "generation_config.json"


def settings(folder: Path) -> dict[str, Any]:
    """The file's settings; {} without one. Raises ModelError for a damaged one."""
    file = folder / FILE
    if not file.is_file():
        return {}
    with reading_model_file(file):
        return dict(json_text.read(file.read_text(encoding="utf-8"), FILE))


def end_ids(settings: Mapping[str, Any]) -> list[int]:
    """The eos_token_id of this file or of config.json as a list: [] for none or an invalid one."""
    eos = settings.get("eos_token_id")
    ids = eos if isinstance(eos, list) else [eos]
    return [token for token in ids if isinstance(token, int) and not isinstance(token, bool) and token >= 0]
