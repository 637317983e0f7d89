"""A run repeated without some of its rows, measured on the same held-out rows."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from studio import data, preflight, queue
from studio.config import RunConfig
from studio.data.editing.operations import Delete
from studio.data.editing.rows import encoded as as_line
from studio.data.editing.rows import rows_of
from studio.data.editing.saving import write
from studio.data.editing.state import State
from studio.errors import OrderError
from studio.home import slug, subfolder, temporary_path
from studio.influence import dataset_of
from studio.run import Run
from studio.talk import reference
from studio.tokens import Encoder


def without(run: Run, rows: list[dict[str, Any]]) -> RunConfig:
    """The order without some rows {source, row}, on new files, with the same held-out rows. Raises OrderError."""
    config = run.config
    encoder = Encoder.from_order(config.data, reference.resolve(run.id).base)
    trained: dict[str, set[int]] = {source.source: set() for source in config.data.sources()}
    for dataset, conversation, _ in data.training_examples(config.data, encoder, config.training.seed):
        trained[dataset.source].add(int(conversation["row"]))
    dropped: dict[str, set[int]] = {}
    for entry in rows:
        source = entry.get("source", next(iter(trained)))
        if entry.get("row") not in trained.get(source, set()):
            hint = "Choose rows from the lists."
            raise OrderError(f"The run was not trained on row {entry.get('row')} of {source}.", hint, "rows")
        dropped.setdefault(source, set()).add(entry["row"])
    if not dropped:
        raise OrderError("No row was chosen.", "Choose at least one row.", "rows")
    changes: dict[str, Any] = {}
    shared = isinstance(config.data.eval, float | int) and config.data.eval > 0
    held = data.held_out(config.data, encoder, config.training.seed) if shared else []
    sources = [source.model_dump() for source in config.data.sources()]
    for source in sources:
        name = source["source"]
        gone = dropped.get(name, set())
        if shared:  # what was held out before must not be trained on now
            gone = gone | (set(dataset_of(config, name).conversations.rows) - trained[name])
        if gone:
            source["source"] = _edited(config, name, gone)
    changes["train"] = sources if isinstance(config.data.train, list) else sources[0]["source"]
    if held:
        changes["eval"] = str(_held_file(run, held))
    count = sum(map(len, dropped.values()))
    plain = config.model_dump(mode="json", exclude_unset=True)
    plain["data"] = {**plain["data"], **changes}
    plain["name"] = f"{config.name or run.id} without {count} {'row' if count == 1 else 'rows'}"[:80]
    return RunConfig.model_validate(plain)


def _edited(config: RunConfig, source: str, rows: set[int]) -> str:
    order, dataset = config.data, dataset_of(config, source)
    state = State(rows_of(source, dataset, order.format, order.mapping, order.encoding), [])
    state.apply(Delete(op="delete", rows=sorted(rows)))
    return write(dataset, state)["file"]


def _held_file(run: Run, conversations: list[dict[str, Any]]) -> Path:
    """The held-out conversations as a data file of their own among the uploads."""
    lines = [
        as_line({key: row[key] for key in ("messages", "tools", "text") if row.get(key)}) + b"\n"
        for row in conversations
    ]
    content = b"".join(lines)
    name = f"{slug(run.id)[:60]}-held-out-{hashlib.sha256(content).hexdigest()[:8]}.jsonl"
    path = subfolder("uploads") / name
    draft = temporary_path(path)
    draft.write_bytes(content)
    draft.replace(path)
    return path


def again(run: Run, rows: list[dict[str, Any]]) -> Run:
    """Queue the run anew without these rows."""
    config = without(run, rows)
    preflight.check(config)
    return queue.submit(config)
