"""python -m studio.worker.doctor SPEC: the doctor's parts, each in a process of its own.

SPEC is JSON (studio/doctor.py).

Prints one JSON object per line: {part, state: "going"} when a part begins, {part, state, seconds, figures, why} at its
end.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from studio import process
from studio.worker import examine
from studio.worker.examine_memory import Bench
from studio.worker.isolation import Outcome, run_isolated

LATE = Outcome("skipped", "No time was left for it.", {})


def main(spec: dict[str, Any], tidy: Callable[[], Any] = lambda: None) -> None:
    """Run the parts. tidy: ends what a part has left running."""
    output = sys.stdout
    sys.stdout = sys.stderr  # for what trainers print
    unusable = False
    bench = Bench(Path(spec["work"]), bool(spec["short"]))
    for part, limit in spec["parts"]:
        print(json.dumps({"part": part, "state": "going"}), file=output, flush=True)
        start, left = time.monotonic(), spec["until"] - time.time()
        if unusable:
            outcome = Outcome("skipped", "The device cannot be used as it is; see its own part.", {})
        else:
            outcome = run_isolated(examine.part, (bench, part), min(limit, left)) if left > 5 else LATE
        if left < limit and time.time() > spec["until"]:
            outcome = LATE  # the total limit ended it, not its own
        tidy()
        unusable |= part == "devices" and outcome.state == "failed"
        line = {"part": part, **outcome._asdict(), "seconds": round(time.monotonic() - start, 1)}
        print(json.dumps(line), file=output, flush=True)


if __name__ == "__main__":
    process.die_with_parent(os.getppid())
    process.adopt_orphans()
    main(json.loads(sys.argv[1]), lambda: process.kill_all(process.descendants))
