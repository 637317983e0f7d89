"""What a worker tells the process that began it (side_job.py, job_process.py), an error as its last line."""

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


def answer_order(answer: Callable[[dict[str, Any]], Any]) -> None:
    """Write what `answer` makes of the order, from and to the files that the command line names last."""
    try:
        answered = answer(json.loads(Path(sys.argv[-2]).read_text(encoding="utf-8")))
    except StudioError as error:
        print(json.dumps({"error": error.as_dict()}))
        sys.exit(2)
    Path(sys.argv[-1]).write_text(json.dumps(answered, ensure_ascii=False), encoding="utf-8")
