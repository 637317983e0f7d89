"""What a worker prints for the process that began it (side_job.py): a JSON object a line, and an error as its last."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from studio.errors import StudioError


def emit(kind: str, **fields: Any) -> None:
    print(json.dumps({"kind": kind, **fields}, ensure_ascii=False), flush=True)


def run_on_order(main: Callable[[dict[str, Any]], None]) -> None:
    """Call `main` with the order in the file that the command line names; exit status 2 after a StudioError."""
    try:
        main(json.loads(Path(sys.argv[1]).read_text()))
    except StudioError as error:
        emit("error", **error.as_dict())
        sys.exit(2)
