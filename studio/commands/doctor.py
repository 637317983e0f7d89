"""doctor: what works on this computer, tried in under ten minutes and said in plain words."""

from __future__ import annotations

import sys
from argparse import Namespace
from typing import Any

from studio import doctor, queue
from studio.commands import Commands, Failed, counted

SIGNS = {"ok": "works", "failed": "FAILED", "skipped": "left out"}


def add(commands: Commands) -> None:
    about = "try on this computer whether every method trains, resumes, fits and chats as it should"
    parser = commands.add("doctor", about, run, show)
    parser.add_argument(
        "--only",
        default="",
        metavar="PART,…",
        help=f"{', '.join(part.part for part in doctor.PARTS)}; or methods, memory",
    )
    parser.add_argument("--short", action="store_true", help="smaller models and fewer variants: about a minute")


def run(args: Namespace) -> dict[str, Any]:
    """The report, under the names of the surface. Raises Failed where a part failed."""
    doctor.tidy()
    only = [name.strip() for name in args.only.split(",") if name.strip()]
    answer = doctor.check(only, args.short, _tell)
    queue.advance()  # what was ordered meanwhile
    if any(part["state"] == "failed" for part in answer["parts"]):
        raise Failed(answer)
    return answer


def _tell(part: dict[str, Any]) -> None:
    if part["state"] == "going":
        print(f"… {part['name']}", file=sys.stderr, flush=True)
    else:
        print(
            f"{SIGNS[part['state']]:>8}  {part['name']} ({part['seconds']:.0f} s). {part['why']}",
            file=sys.stderr,
            flush=True,
        )


def show(answer: dict[str, Any]) -> None:
    """Print the summary; each part was printed when it was done."""
    for one in answer["devices"]:
        print(f"{one['kind']}: {one['name']}, {one['memory'] / 2**30:.1f} GiB; driver: {one['driver']}; {one['torch']}")
    for note in answer["notices"]:
        print(f"- {note}")
    counts = {state: sum(part["state"] == state for part in answer["parts"]) for state in SIGNS}
    print(
        ", ".join(f"{count} {SIGNS[state]}" for state, count in counts.items() if count)
        + f", in {counted(round(answer['seconds']), 'second')}."
    )
    if not answer["usable"]:
        print("The device cannot be used for training as it is.")
    print(f"The report to send along with a question: {answer['report']}")
