"""merge, export, push, report: take a run away."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from studio import voice
from studio.export import KINDS, PRECISIONS, export


def add(parsers: Any, common: ArgumentParser) -> None:
    merge = parsers.add_parser("merge", parents=[common], help="work a run's adapter into its base: a whole model in a folder")
    take = parsers.add_parser("export", parents=[common], help="write a run as adapter, merged model, GGUF or Ollama folder")
    for one in (merge, take):
        one.add_argument("model", metavar="RUN", help="a run's id, a unique part of it, last, or RUN@checkpoint-N")
        one.add_argument("out", metavar="OUT", help="where to: a folder; for adapter a .zip, for gguf a .gguf file")
        one.add_argument("--no-proof", action="store_true", help="do not compare its answers with the run's")
        one.set_defaults(show=show)
    take.add_argument("--to", required=True, choices=KINDS)
    take.add_argument("--precision", choices=PRECISIONS, default="", help="of gguf (f16 unless told) and ollama (q8_0 unless told)")
    merge.set_defaults(run=lambda args: away(args, "merged", ""))
    take.set_defaults(run=lambda args: away(args, args.to, args.precision))


def away(args: Namespace, kind: str, precision: str) -> dict[str, Any]:
    return export(voice.name_of(args.model), kind, Path(args.out), precision, tell, not args.no_proof)


def tell(what: str, done: int, total: int) -> None:
    """Progress on standard error: one line a stage, a count where there is one."""
    print(f"{what} {done}/{total}" if total else f"{what}…", file=sys.stderr, flush=True)


def show(answer: dict[str, Any]) -> None:
    print(f"{answer['path']}  ({answer['bytes'] / 1e6:.1f} MB)")
    if answer["note"]:
        print(answer["note"])
    proof = answer["proof"]
    if proof:
        print(f"Proof: {proof['agree']} of {proof['prompts']} answers agree with the trained model word for word; {proof['stopped']} stopped by themselves.")
        for one in proof["differences"]:
            print(f"  asked    {one['question'][:100]!r}\n  trained  {one['trained'][:200]!r}\n  exported {one['exported'][:200]!r}")
