"""merge, export, push, report: take a run away."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from studio.commands import Commands, counted
from studio.errors import ExportError
from studio.export.folders import ALLOWED, KINDS, PRECISIONS, export
from studio.export.push import push
from studio.export.report import report
from studio.home import PROJECT, write_atomic
from studio.run import find
from studio.talk import reference

# the page's, without importing it
LANGUAGES = ("en", *sorted(folder.parent.name for folder in (PROJECT / "studio/ui/strings").glob("*/page.json")))

OTHER_PROMPTS = "The questions have other tokens there than in training."


def add(commands: Commands) -> None:
    about = "work a run's adapter into its base: a whole model in a folder"
    merge = commands.add("merge", about, lambda args: away(args, "merged"), show)
    merge.set_defaults(imatrix=False)
    about = "write a run as adapter, merged model, GGUF or Ollama folder"
    take = commands.add("export", about, lambda args: away(args, args.to), show)
    for one in (merge, take):
        one.add_argument("model", metavar="RUN", help="a run's id, a unique part of it, last, or RUN@checkpoint-N")
        one.add_argument("out", metavar="OUT", help="where to: a folder; for adapter a .zip, for gguf a .gguf file")
        one.add_argument("--no-proof", action="store_true", help="do not compare its answers with the run's")
    take.add_argument("--to", required=True, choices=KINDS)
    take.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="",
        help="gguf: f16 unless told; ollama: q8_0 unless told; merged: the base's unless told",
    )
    take.add_argument(
        "--imatrix",
        action="store_true",
        help="q4_k_m, q5_k_m and q6_k: weigh each column by what training rows put through it",
    )
    merge.add_argument(
        "--precision",
        choices=ALLOWED["merged"],
        default="",
        help="instead of the base's: f16 keeps more of the change than bf16, f32 all of it",
    )
    give = commands.add("push", "send a run's result to the Hugging Face Hub, private unless told (HF_TOKEN)", to_hub)
    give.add_argument("model", metavar="RUN")
    give.add_argument("repo", metavar="OWNER/NAME")
    give.add_argument("--public", action="store_true", help="everybody may see it")
    page = commands.add("report", "one HTML file about a run that needs no network", as_page)
    page.add_argument("model", metavar="RUN")
    page.add_argument("out", metavar="OUT", nargs="?", help="where to; left out: report.html in the run's folder")
    page.add_argument("--lang", choices=LANGUAGES, default="en", help="the language of its words (en)")


def away(args: Namespace, kind: str) -> dict[str, Any]:
    return export(
        reference.canonical_name(args.model),
        kind,
        Path(args.out),
        args.precision,
        tell,
        not args.no_proof,
        args.imatrix,
    )


def tell(what: str, done: int, total: int) -> None:
    """Progress on standard error: one line a stage, a count where there is one."""
    print(f"{what} {done}/{total}" if total else f"{what}…", file=sys.stderr, flush=True)


def show(answer: dict[str, Any]) -> None:
    print(f"{answer['path']}  ({answer['bytes'] / 2**20:.1f} MiB)")
    if answer["note"]:
        print(answer["note"])
    if answer["proof"]:
        print("\n".join(proven(answer["proof"])))


def proven(proof: dict[str, Any]) -> list[str]:
    """What a proof says, in lines."""
    if "failed" in proof:
        failed = proof["failed"]
        return [f"The file stands, but the proof could not be made: {failed['message']} {failed['hint']}".rstrip()]
    ids = proof["tokenizer"]
    lines = [
        f"Proof by {proof['by']}: {proof['agree']} of {proof['prompts']} answers are the trained model's, "
        f"token for token; "
        f"{proof['stopped']} stopped at an end token; {ids['same']} of {ids['texts']} texts give the same ids."
    ]
    if not proof["same_prompts"]:
        lines.append(OTHER_PROMPTS)
    lines += [
        f"  text     {one['text'][:80]!r}\n  trained  {one['trained'][:16]}\n  exported {one['exported'][:16]}"
        for one in ids["differences"]
    ]
    loss = proof.get("loss")
    if loss:
        losses = [f"{name} {loss[name]:.4f}" for name in ("trained", "merged", "exported") if loss[name] is not None]
        lines.append(f"Held-out loss: {', '.join(losses)} ({counted(loss['rows'], 'row')}).")
    lines += proof.get("unmeasured", [])
    for one in proof["differences"]:
        lines.append(
            f"  asked    {one['question'][:100]!r}\n  trained  {one['trained'][:200]!r}\n"
            f"  exported {one['exported'][:200]!r}"
        )
    lines += [line for other in proof.get("also", []) for line in proven(other)]
    return lines + [f"Not asked: {reason}" for reason in proof.get("not_asked", [])]


def to_hub(args: Namespace) -> dict[str, Any]:
    return push(find(args.model), args.repo, not args.public, progress=sent)


def sent(what: str, done: int, total: int) -> None:
    print(f"{what}  {done / 2**20:.1f} of {total / 2**20:.1f} MiB", file=sys.stderr, flush=True)


def as_page(args: Namespace) -> dict[str, Any]:
    """Write the report; without OUT, into the run's folder."""
    one = find(args.model)
    out = Path(args.out).expanduser().absolute() if args.out else one.folder / "report.html"
    text = report(one)
    if args.lang != "en":
        from studio.ui.translated_html import translated  # with it comes gradio, which takes seconds

        text = translated(text, args.lang)
    try:
        write_atomic(out, text)
    except OSError as error:
        hint = "Give a path in a folder that exists and that you may write to."
        raise ExportError(f"{out} cannot be written: {error.strerror}.", hint, "OUT") from error
    return {"path": str(out), "bytes": out.stat().st_size}
