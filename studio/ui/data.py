"""The Data tab: a file's format, its problems, and exactly what will be trained on. Drawn by static/data.js."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from studio import config, data
from studio.config import RunConfig
from studio.data import examples, new_files
from studio.data.column_names import mapping_in, without_options
from studio.data.editing import scan
from studio.data.editing.fixes import FIXES
from studio.data.editing.log import pending
from studio.data.editing.record import edit_summary, record_of
from studio.data.lengths import suggested
from studio.data.pasting import read_pasted
from studio.data.rated import has_ratings
from studio.data.ratings import pairs_of
from studio.errors import StudioError
from studio.home import slug
from studio.json_text import whole_number
from studio.new_tokens import describe_unseen
from studio.registry import attributes
from studio.stages import learning_from
from studio.text import sandbox
from studio.ui import files, measure, rights, who, words
from studio.ui.data_rows import page_of, preview_of
from studio.ui.who import VISITOR, WATCHER

# of a data set, told as they are
FACTS = ("source", "format", "container", "unused", "encoding", "rows", "refused", "columns", "fingerprint")
SHOWN = 8  # row numbers named beside a kind of problem
Question = dict[str, Any]


@rights.read(WATCHER, VISITOR, waits=True)
def inspect(question: Question) -> Question:
    """{order, lang} -> format, reason, rows, problems; or {error, columns, suggested (the mapping of its hint)}."""
    found = answer_of(_inspect, question)
    if "error" not in found:
        return found
    known, hint = answer_of(_columns, question), found["error"]["hint"] or ""
    suggested_mapping = mapping_in(hint)
    return found | {
        "error": found["error"] | ({"hint": without_options(hint)} if suggested_mapping else {}),
        "columns": known.get("columns", []),
        "rated": known.get("rated", False),
        "suggested": suggested_mapping,
    }


@rights.read(WATCHER, VISITOR, waits=True)
def rows(question: Question) -> Question:
    """{order, lang, start, search, kind} -> some rows in short, and how many there are; or {error}."""
    return answer_of(
        lambda run_config, lang: page_of(
            read(run_config),
            whole_number(question.get("start")),
            str(question.get("search") or "")[:200],
            str(question.get("kind") or ""),
        ),
        question,
    )


@rights.read(WATCHER, VISITOR, waits=True)
def preview(question: Question) -> Question:
    """{order, lang, row} -> one row as conversation, as rendered text and as tokens; or {error}."""
    return answer_of(
        lambda run_config, lang: preview_of(run_config, read(run_config), whole_number(question.get("row")), lang),
        question,
    )


@rights.read(WATCHER, VISITOR, waits=True)
def lengths(question: Question) -> Question:
    """{order, lang} -> sorted token lengths of the counted rows, and sums; or {error}."""
    return answer_of(_lengths, question)


def answer_of(job: Any, question: Question) -> Question:
    """The job's answer about the order in a question; a refusal as {error: {message, hint, where}}."""
    lang = words.language(question.get("lang"))
    order = question.get("order")
    if not measure.names_data(order):
        return {"nothing": True}
    try:
        run_config = config.build({"data": order["data"], "model": order.get("model", "starter")})
        files.allow(run_config)
        with sandbox.allowance():
            return job(run_config, lang)
    except StudioError as error:
        return {"error": words.explain(error, lang)}


def read(run_config: RunConfig) -> data.Dataset:
    """The first source of an order, read (or opened from where it is kept)."""
    return measure.read(run_config.data.sources()[0].source, run_config)


def _inspect(run_config: RunConfig, lang: str) -> Question:
    found = read(run_config)
    kinds = []
    for kind, count in found.counts.items():
        first = next((problem for problem in found.problems if problem.kind == kind), None)
        kinds.append(
            _kind(kind, count, found.by_kind[kind][:SHOWN], run_config)
            | {"value": first.value if first else "", "mend": _mend(kind, first)}
        )
    left = sum(measure.read(source.source, run_config).rows for source in run_config.data.sources()[1:])
    try:
        kept = len(found.decide(run_config.data.problems).conversations)
        stopped = None
    except StudioError as error:
        kept, stopped = 0, words.explain(error, lang)
    held = measure.held_out(run_config, kept)
    made = record_of(Path(run_config.data.sources()[0].source))
    return attributes(found, *FACTS) | {
        "edits": pending(found.fingerprint) if who.owns() else 0,
        "made": made and edit_summary(made),
        "reason": words.translate(found.reason, lang),
        "unsure": without_options(words.translate(found.unsure, lang)),
        "suggested": mapping_in(found.unsure),
        "notes": [words.translate(note, lang) for note in found.notes],
        "classes": data.classification_mapping(found.columns, found.unused, found.format),
        "kept": kept,
        "problems": kinds,
        "train": kept - held,
        "held": held,
        "others": left,
        "stopped": stopped,
        "stages": learning_from(found.examples),
        "compared": (compared := examples.describe(found)),
        "cautions": [words.translate(caution, lang) for caution in examples.cautions(compared)],
        "rated": compared is None and has_ratings(data.first_rows(found.source, run_config.data.encoding)),
    }


def _kind(kind: str, count: int, rows: Any, run_config: RunConfig) -> Question:
    """A kind of problem: how many rows have it, the first of them, and what is decided; fixed: nothing to decide."""
    about, is_of_file = data.KINDS[kind], kind in scan.FILE_KINDS
    return {
        "kind": kind,
        "count": count,
        **about._asdict(),
        "rows": [] if is_of_file else [int(row) for row in rows],
        "delete": not is_of_file,
        "fixed": is_of_file,
        "default": {"refused": "drop"}.get(about.severity, "keep"),
        "decision": run_config.data.problems.get(kind),
    }


def _mend(kind: str, first: data.Problem | None) -> str | None:
    """What mends the rows of a kind, if anything does: turns are mended where the first of its rows has turns."""
    has_turns = first is not None and "[" in (first.field or "")
    fix = FIXES.get(kind)
    return fix.label if fix and (fix.text or has_turns) else None


def _columns(run_config: RunConfig, lang: str) -> Question:
    source, encoding = run_config.data.sources()[0].source, run_config.data.encoding
    return {"columns": data.columns(source, encoding), "rated": has_ratings(data.first_rows(source, encoding))}


def _lengths(run_config: RunConfig, lang: str) -> Question:
    dataset = read(run_config)
    found = measure.lengths(run_config, dataset)
    if found is None:
        return {"nothing": True}
    order = found.tokens.argsort()
    best = suggested(found.tokens, _context(found, run_config)) if len(order) else 0
    return {
        "lengths": found.tokens[order].tolist(),
        "suggested": best,
        "trained": int(found.trained.sum()),
        "tokens": int(found.tokens.sum()),
        "of": found.of,
        "failed": found.noted.counts["unrenderable"],
        "why": " ".join(words.translate(text, lang) for text in found.why if text),
        "texts": found.texts,
        "unseen": words.translate(describe_unseen(found.unseen), lang),
        "fingerprint": dataset.fingerprint,
        "told": _told(found.noted, run_config, lang) + _beyond(found, run_config),
    }


def _context(found: measure.Lengths, run_config: RunConfig) -> int | None:
    """Tokens of a row that the model can read beside the tokens put before it and its answer."""
    taken = run_config.virtual_tokens + run_config.stage.answer_tokens
    return found.context and found.context - taken


def _beyond(found: measure.Lengths, run_config: RunConfig) -> list[Question]:
    """Rows longer than the model's context although the cut leaves them so. virtual: tokens put before each row."""
    context = _context(found, run_config)
    if context is None or run_config.data.max_length <= context or not (count := int((found.tokens > context).sum())):
        return []
    return [
        _kind("over_context", count, [], run_config)
        | {"limit": context, "virtual": run_config.virtual_tokens, "fixed": True}
    ]


def _told(noted: data.TemplateProblems, run_config: RunConfig, lang: str) -> list[Question]:
    """What template and model make of the rows: of each kind how many, which, and why."""
    found = []
    for kind, count in noted.counts.items():
        if kind == "unrenderable":
            continue
        first = next(problem for problem in noted.problems if problem.kind == kind)
        rows = [problem.row for problem in noted.problems if problem.kind == kind][:SHOWN]
        words_of = {"reason": words.translate(first.reason, lang), "hint": words.translate(first.hint, lang)}
        found.append(_kind(kind, count, rows, run_config) | words_of | {"fixed": not kind.endswith("_dropped")})
    return found


@rights.job(waits=True)
def rated_pairs(source: str) -> dict[str, Any]:
    """A data set of pairs out of a file of ratings: best and worst answers. Returns {source, name, pairs, left_out}."""
    files.allow(config.build({"data": {"train": source}}))
    rows, left_out = pairs_of(source)
    path = new_files.new_file(rows, f"pairs-from-{slug(Path(source).stem)}"[:60])
    return {"source": str(path), "name": path.name, "pairs": len(rows), "left_out": left_out}


@rights.job(waits=True)
def paste_rows(text: str, header: str = "auto") -> dict[str, Any]:
    """A new data set of pasted text. header: what the first line of a table holds. Returns {source, name, header}."""
    pasted = read_pasted(text, header)
    path = new_files.new_text(pasted.text, "pasted", pasted.ending)
    return {"source": str(path), "name": path.name, "header": pasted.header}
