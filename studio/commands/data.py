"""inspect, preview: what a file holds, and what of it would be trained on."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from typing import Any

from studio import data, new_tokens, template
from studio.base import source
from studio.commands import Commands, add_reading_options, counted, mapping_of
from studio.data import examples
from studio.data.column_names import options
from studio.data.roles import display_text
from studio.errors import DataError, ModelError
from studio.kernels import IGNORE_INDEX
from studio.registry import attributes
from studio.stages import learning_from
from studio.terminal import CUT, DIM, END, TRAINED
from studio.tokens import Encoded, Encoder

FACTS = (
    "format", "container", "stage", "rows", "refused", "reason", "unsure", "columns", "counts", "unused", "notes",
    "encoding", "fingerprint",
)  # fmt: skip


def add(commands: Commands) -> None:
    about = "what a data file is, what is wrong with it, how long its rows are"
    inspect = commands.add("inspect", about, look, _show_look)
    _what(inspect)
    about = "one row as conversation, as text and as tokens, the trained ones coloured"
    preview = commands.add("preview", about, row, _show_row)
    _what(preview)
    preview.add_argument("--row", type=int, default=1, metavar="N", help="the row's number in the file, from 1")
    preview.add_argument(
        "--train-on", choices=("assistant", "last", "all"), default="assistant", help="which tokens are learnt"
    )


def _what(parser: ArgumentParser) -> None:
    parser.add_argument(
        "file", metavar="FILE", help="a file, sample:NAME, a Hub id with :split, or dataset_info.json:NAME"
    )
    parser.add_argument(
        "--model",
        metavar="M",
        help="whose tokenizer counts: a folder, a Hub id; left out: the starter, if it can be had",
    )
    parser.add_argument("--template", default="auto", metavar="T", help="auto, model, or one of `templates`")
    parser.add_argument(
        "--new-token", action="append", default=[], metavar="TOKEN", help="add a special token, as data.new_tokens does"
    )
    parser.add_argument("--max-length", type=int, default=1024, metavar="N", help="the limit in tokens")
    parser.add_argument(
        "--reasoning", default="auto", choices=("auto", "keep", "drop", "mask_empty"), help="what becomes of thinking"
    )
    add_reading_options(parser)


def _read(args: Namespace) -> data.Dataset:
    report = _progress if sys.stderr.isatty() else None
    return data.read(args.file, args.format, mapping_of(args), report=report, encoding=args.encoding)


def _fetching(what: str, done: int, total: int) -> None:
    print(f"{what}: {done / total:4.0%}" if total else what, file=sys.stderr, flush=True)


def _progress(done: int, total: int) -> None:
    print(f"\r{done / max(1, total):4.0%}", end="\n" if done >= total else "", file=sys.stderr, flush=True)


def _encoder(args: Namespace, train_on: str = "assistant") -> Encoder:
    if args.max_length < 1:
        hint = "Give the limit in tokens, such as 1024."
        raise DataError(f"--max-length {args.max_length} leaves no token.", hint, "--max-length")
    folder = source.fetch(source.ModelOrder(source=args.model or "starter"), report=_fetching)
    added = tuple(args.new_token)
    try:
        new_tokens.check(added)
    except ValueError as error:
        hint = "Write it as --new-token '<tool>', once for each."
        raise DataError(f"--new-token cannot be taken: {error}.", hint, "--new-token") from error
    chosen = template.load(args.template, new_tokens.tokenizer_folder(folder, added))
    encoder = Encoder(folder, chosen, args.max_length, "cut", train_on, args.reasoning, added)
    encoder.context_limit = encoder.context_length
    return encoder


def look(args: Namespace) -> dict[str, Any]:
    """The verdict on a file. tokens is null where no model was named and the starter cannot be had."""
    dataset = _read(args)
    compared = examples.describe(dataset)
    answer: dict[str, Any] = attributes(dataset, *FACTS) | {
        "problems": [problem.as_dict() for problem in dataset.problems],
        "stages": learning_from(dataset.examples), "compared": compared, "cautions": examples.cautions(compared),
        "tokens": None, "template": None,
    }  # fmt: skip
    try:
        encoder = _encoder(args, _train_on(dataset, "assistant"))
    except ModelError as error:
        if args.model:
            raise
        print(f"tokens are not counted: {error}", file=sys.stderr)
        return answer
    used, tokens = encoder.template, data.statistics(dataset, encoder)
    more, counts = tokens.pop("problems"), tokens.pop("counts")
    unseen = new_tokens.describe_unseen(tokens.pop("unseen_tokens"))
    refused = sum(count for kind, count in counts.items() if data.KINDS[kind].severity == "refused")
    return answer | {
        "refused": dataset.refused + refused, "counts": answer["counts"] | counts,
        "problems": [*answer["problems"], *more], "tokens": tokens,
        "cautions": [*answer["cautions"], *([unseen] if unseen else [])],
        "template": {"name": used.name, "stop": used.stop_strings, "shows_tools": used.shows_tools},
    }  # fmt: skip


def _train_on(dataset: data.Dataset, otherwise: str) -> str:
    """What is learnt of a row: all of plain text, the last answer where answers are compared."""
    if dataset.format == "text":
        return "all"
    return otherwise if dataset.examples == "answers" else "last"


def row(args: Namespace) -> dict[str, Any]:
    """One row, as it would be trained on."""
    dataset = _read(args)
    numbers = dataset.conversations.rows
    if args.row not in numbers:
        faults = "; ".join(
            f"{p.kind}: {p.reason}" for p in dataset.problems if p.row == args.row and p.severity == "refused"
        )
        if faults:
            hint = "Correct the row, or look at another."
            raise DataError(f"Row {args.row} of {args.file} was refused: {faults}", hint, f"{args.file}:{args.row}")
        raise DataError(f"{args.file} has no row {args.row}.", f"Its rows are 1 to {dataset.rows}.", "--row")
    conversation = dataset.conversations[numbers.index(args.row)]
    encoder = _encoder(args, "all" if "text" in conversation else _train_on(dataset, args.train_on))
    e = encoder.encode(conversation, whole=True)
    noted = data.TemplateProblems()
    noted.check(conversation, e, encoder)
    problems = [p.as_dict() for p in (*dataset.problems, *noted.problems) if p.row == args.row]
    return {
        "row": args.row,
        "conversation": conversation["messages"] or [{"role": "text", "content": conversation["text"]}],
        "text": e.text, "tokens": _tokens(e, args.max_length), "stop": encoder.template.stop_strings,
        "template": encoder.template.name,
        "trained": e.n_trained, "over": e.overflow, "problems": problems,
        "caution": encoder.end_of_turn_warning(), "note": encoder.new_tokens_note(),
        **_compared(conversation, encoder, args.max_length),
    }  # fmt: skip


def _tokens(e: Encoded, limit: int) -> list[dict[str, Any]]:
    """{id, text, trained}, and cut where it lies beyond the limit, of every token."""
    tokens, at = [], 0
    for n, ((_, end), label) in enumerate(zip(e.offsets, e.labels, strict=True)):
        token = {"id": e.ids[n], "text": e.text[at : max(at, end)], "trained": label != IGNORE_INDEX}
        tokens.append(token | ({"cut": True} if n >= limit else {}))
        at = max(at, end)
    return tokens


def _compared(conversation: dict[str, Any], encoder: Encoder, limit: int) -> dict[str, Any]:
    """The rejected side of a pair, {answer, text, tokens, trained, over}, or {"label"} of an answer with a verdict."""
    if "rejected" not in conversation:
        return {"label": conversation["label"]} if "label" in conversation else {}
    other = examples.rejected_side(conversation)
    e = encoder.encode(other, whole=True)
    side = {"answer": display_text(other["messages"][-1]), "text": e.text, "tokens": _tokens(e, limit)}
    return {"rejected": side | {"trained": e.n_trained, "over": e.overflow}}


def _show_look(answer: dict[str, Any]) -> None:
    tokens = answer["tokens"]
    print(
        f"{answer['format']} in {answer['container']}: {counted(answer['rows'], 'row')}, "
        f"{answer['refused']:,} refused. {answer['reason']}"
    )
    if answer["unsure"]:
        print(f"unsure: {answer['unsure']}")
    for note in answer["notes"]:
        print(f"note: {note}")
    if answer["unused"]:
        print(f"columns not used: {', '.join(answer['unused'][:20])}{', …' if len(answer['unused']) > 20 else ''}")
        if classes := data.classification_mapping(answer["columns"], answer["unused"], answer["format"]):
            print(f"{'':9} To learn {classes['answer']} as the answer to {classes['prompt']}: {options(classes)}")
    for kind, count in answer["counts"].items():
        _show_kind(kind, count, [p for p in answer["problems"] if p["kind"] == kind])
    if answer["stage"] != "sft":
        print(
            f"Learnt from by stage {' or '.join(answer['stages'])}."
            + (" With data.format chosen sft learns the chosen answers." if answer["format"] == "preference" else "")
            + (" With data.format good sft learns the good answers." if answer["format"] == "kto" else "")
        )
        print(", ".join(f"{name.replace('_', ' ')}: {value}" for name, value in answer["compared"].items()))
        for caution in answer["cautions"]:
            print(f"caution: {caution}")
    if tokens is None or not tokens["max"]:
        return
    print(
        f"tokens with {answer['template']['name']}: {tokens['min']} to {tokens['max']}, median {tokens['median']}, "
        f"95 % up to {tokens['p95']}"
    )
    print(
        f"{tokens['total']:,} tokens in all, {tokens['trained_share']:.0%} trained; "
        f"{counted(tokens['over_limit'], 'row')} over the limit, {counted(tokens['tokens_lost'], 'token')} lost; "
        f"suggested max_length {tokens['suggested_max_length']}"
    )
    most = max((count for _, count in tokens["histogram"]), default=1)
    first = next((n for n, (_, count) in enumerate(tokens["histogram"]) if count), 0)
    for upto, count in tokens["histogram"][first:]:
        print(f"{upto:>8} {'█' * round(40 * count / most)}{' ' if count else ''}{count:,}")


def _show_kind(kind: str, count: int, problems: list[dict[str, Any]]) -> None:
    """What is wrong, in which rows, and the first place in full."""
    about = data.KINDS[kind]
    numbers = list(dict.fromkeys(str(p["row"]) for p in problems))
    rows = ", ".join(numbers)
    told = {(p["reason"], p["hint"]) for p in problems}
    reason, hint = told.pop() if len(told) == 1 else (about.reason, about.hint)
    print(
        f"{count:>8,}  {kind} ({about.severity}): {reason} {hint}\n"
        f"          {'row' if len(numbers) == 1 else 'rows'} {rows[:100]}{' …' if len(rows) > 100 else ''}"
    )
    if problems and problems[0]["field"]:
        first = problems[0]
        own = "" if first["reason"] == reason else f" {first['reason']}"
        print(f"          first: row {first['row']}, {first['field']}: {first['value'] or '(empty)'}{own}")
    elif problems and problems[0]["reason"] != reason:
        print(f"          first: row {problems[0]['row']}: {problems[0]['reason']}")


def _show_row(answer: dict[str, Any]) -> None:
    for message in answer["conversation"]:
        print(f"[{message['role']}] {display_text(message)}")
    stops, rejected = answer["stop"], answer.get("rejected")
    if "label" in answer:
        print(f"verdict: {'good' if answer['label'] else 'bad'}")
    print("\nchosen:" if rejected else "")
    _show_tokens(answer["tokens"], stops)
    if rejected:
        print("\nrejected:")
        _show_tokens(rejected["tokens"], stops)
    trained = f"{answer['trained']} and {rejected['trained']}" if rejected else answer["trained"]
    count = f"{len(answer['tokens'])} and {len(rejected['tokens'])}" if rejected else len(answer["tokens"])
    print(
        f"\n{count} tokens, {trained} {'compared' if rejected else 'trained'}, "
        f"{answer['over'] + (rejected['over'] if rejected else 0)} beyond the limit; "
        f"a turn ends with {', '.join(stops) or 'nothing'}"
    )
    if answer["caution"]:
        print(f"warning: {answer['caution']}")
    if answer["note"]:
        print(f"note: {answer['note']}")
    for p in answer["problems"]:
        print(f"{p['kind']}: {p['reason']} {p['hint']}")


def _show_tokens(tokens: list[dict[str, Any]], stops: list[str]) -> None:
    """The tokens in one text: coloured, or the trained ones in brackets."""
    colour, line = sys.stdout.isatty(), []
    for token in tokens:
        text = token["text"]
        if any(stop in text for stop in stops) or not text.strip(" "):
            text = text.replace("\n", "⏎\n")
        if colour:
            seen = TRAINED if token["trained"] else DIM
            line.append(f"{CUT if token.get('cut') else seen}{text}{END}")
        else:
            line.append(f"⟦{text}⟧" if token["trained"] and not token.get("cut") else text)
    print("".join(line))
