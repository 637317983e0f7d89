"""What a page asks once a second: only what is new since its last question. Reads, never changes anything.

Every answer is small (POINTS_PER_ANSWER rows, LOG_BYTES of log) and says with `more` that the page should ask again at
once. Answers are encoded by orjson: the web framework's own encoder takes tens of milliseconds for a thousand rows.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import orjson
from starlette.responses import Response

from studio import run
from studio.errors import RunError, StudioError
from studio.events import latest
from studio.forecast import time_left
from studio.home import inside, subfolder
from studio.json_text import whole_number
from studio.run import ALIVE, Run
from studio.runs import checkpoints
from studio.side_job import FolderJob
from studio.ui import device, log_window, rights, who
from studio.ui.tail import Tail, Tails
from studio.ui.who import VISITOR, WATCHER

POINTS_PER_ANSWER = 2000  # rows in an answer
MAX_POINTS = 40_000  # points a page holds of a run; a longer history comes thinned to that
MAX_EVENTS = 400  # other events in an answer
UNREADABLE = (OSError, TypeError, ValueError, KeyError, AttributeError, IndexError)  # of a run's damaged files
FRESH = 0.8  # seconds for which the list of runs is not read again

tails = Tails()


class RunsSnapshot(NamedTuple):
    """All runs at one moment.

    rows: the table, the newest first. mark: changes when a row that is not alive does. runs: by id, with their rows.
    unread: what to say of those that cannot be read: {message, hint, where}.
    """

    rows: list[dict[str, Any]]
    mark: str
    runs: dict[str, tuple[Run, dict[str, Any]]]
    unread: list[dict[str, str | None]]


class Listing:
    """The table of all runs, read at most once in FRESH seconds and only where events have changed."""

    def __init__(self) -> None:
        self._lock, self._at, self._seen = threading.Lock(), float("-inf"), RunsSnapshot([], "", {}, [])
        self._known: dict[str, tuple[Any, dict[str, Any]]] = {}

    def rows(self) -> list[dict[str, Any]]:
        return self.snapshot().rows

    def snapshot(self) -> RunsSnapshot:
        with self._lock:
            if time.monotonic() - self._at > FRESH:
                read = [(run_, self._row(run_)) for run_ in run.runs()]
                found = {run_.id: (run_, row) for run_, row in read if row is not None}
                rows = [row for _, row in found.values()]
                unread = run.unreadable() + [
                    run.unreadable_error(run_.folder) for run_, row in read if row is None and run_.folder.is_dir()
                ]
                self._known = {name: self._known[name] for name in found if name in self._known}
                errors = [error.as_dict() for error in unread]
                self._seen = RunsSnapshot(rows, _mark_of([*rows, *errors]), found, errors)
                self._at = time.monotonic()
            return self._seen

    def invalidate(self) -> None:
        """Read again at the next question: something was changed here."""
        with self._lock:
            self._at = float("-inf")

    def _row(self, run_: Run) -> dict[str, Any] | None:
        """One run's row; the last one known where the run cannot be read just now; None without one."""
        mark = _mark(run_)
        known = self._known.get(run_.id)
        if known and known[0] == mark and known[1]["state"] not in ("queued", *ALIVE):
            return known[1]
        try:
            row = status(tails.of(run_))
        except UNREADABLE:  # deleted between two looks, or not readable
            return known[1] if known and run_.folder.is_dir() else None
        self._known[run_.id] = (mark, row)
        return row


listing = Listing()


def _mark(run_: Run) -> tuple[Any, ...]:
    """Changes when anything the row shows may have changed."""
    marks: list[Any] = []
    for path in (run_.events_file, run_.result, run_.folder):
        try:
            stat = path.stat()
            marks.append((stat.st_ino, stat.st_size, stat.st_mtime_ns))
        except OSError:
            marks.append(None)
    return tuple(marks)


def status(tail: Tail) -> dict[str, Any]:
    """The summary of the surface, and what a page shows beside it: percent, seconds left, bytes on disk."""
    run_ = tail.run  # it caches its config, so no YAML is read again
    row = run.summary(run_, tail.digest())
    if row["state"] == "lost":  # it may have ended between our reading and the lock's answer
        row = run.summary(run_, tail.refresh().digest())
    row["memory_now"] = tail.recent[-1][1].get("memory") if tail.recent else None
    row["percent"] = _percent(row)
    row["left"] = _left(row, tail)
    row["bytes"] = run_.size() if row["state"] not in ALIVE else None
    row["ended"] = _ended(row["state"], tail)
    row["loss"] = row["best_eval_loss"] if row["best_eval_loss"] is not None else row["train_loss"]
    row["points"] = tail.points
    if row["state"] == "queued":
        queued = latest(tail.others, "phase")
        row["order"] = queued.get("order") or queued.get("at", 0.0)
    return row


def _ended(state: str, tail: Tail) -> float | None:
    """When a run ended, in seconds, UTC; of a lost one, when it was last heard of. None of one that has not ended."""
    if state == "queued" or state in ALIVE:
        return None
    return latest(tail.others, "end").get("at") or tail.run.events_file.stat().st_mtime


def _percent(row: dict[str, Any]) -> float | None:
    if row["state"] == "finished":
        return 100.0
    return round(100.0 * row["step"] / row["steps"], 1) if row["steps"] else None


def _left(row: dict[str, Any], tail: Tail) -> float | None:
    """Seconds to the last step: from the estimate at first, then from the run's pace and the pauses still to come.

    None where it will not come to the last step, or nothing is known of it.
    """
    plan = latest(tail.others, "plan")
    if row["state"] not in ALIVE or row["state"] == "stopping" or not plan:
        return None
    seconds = time_left.remaining(
        tail.columns["step"], tail.columns["time"], time_left.pauses(tail.others), plan, tail.columns["tokens"]
    )
    return None if seconds is None else round(seconds, 1)


# -- the one question a page asks


@rights.read(WATCHER, VISITOR)
def poll(question: dict[str, Any]) -> Response:
    """{list?, run?, also?, device?} -> what is new for each. Unknown or deleted runs answer with `gone`."""
    answer: dict[str, Any] = {"at": time.time()}
    seen = listing.snapshot()
    answer["now"] = [row for row in seen.rows if row["state"] in ALIVE]
    answer["waiting"] = sum(row["state"] == "queued" for row in seen.rows)
    answer["count"] = len(seen.rows)
    if "list" in question:
        unread = [error if who.owns() else {**error, "hint": ""} for error in seen.unread]  # a hint names the path
        news = {"mark": seen.mark, "rows": seen.rows, "unread": unread}
        answer["list"] = None if question["list"] == seen.mark else news
    if question.get("run"):
        answer["run"] = _part(question["run"], seen)
    answer["also"] = [_part(item, seen) for item in (question.get("also") or [])[:8]]
    if question.get("device"):
        answer["device"] = device.panel(answer["now"][0] if answer["now"] else None)
    return json_response(answer)


def _mark_of(rows: list[dict[str, Any]]) -> str:
    """The mark of the rows that stand still; the moving ones are in `now` anyway."""
    still = [row["id"] if row.get("state") in ALIVE else row for row in rows]
    return hashlib.sha1(orjson.dumps(still), usedforsecurity=False).hexdigest()[:12]


def _part(question: dict[str, Any], seen: RunsSnapshot) -> dict[str, Any]:
    """One run's news. ask: {id, generation, points, others, log}; log: {file, at} or null for none."""
    name = str(question.get("id", ""))
    try:
        run_, row = seen.runs.get(name) or (get_run(name), None)
    except StudioError as error:
        return {"id": name, "gone": error.message}
    tail = tails.of(run_)
    same = question.get("generation") == tail.generation
    start = whole_number(question.get("points")) if same else 0
    other = whole_number(question.get("others")) if same else 0
    if start > tail.points:
        start, other, same = 0, 0, False
    stride = max(1, -(-tail.points // MAX_POINTS)) if start == 0 else max(1, whole_number(question.get("stride")) or 1)
    stop = min(tail.points, start + POINTS_PER_ANSWER * stride)
    part: dict[str, Any] = {
        "id": name,
        "generation": tail.generation,
        "fresh": not same,
        "start": start,
        "points": stop,
        "stride": stride,
        "names": list(tail.columns),
        "columns": tail.rows(start, stop, stride),
        "others": tail.others[other : other + MAX_EVENTS],
        "next": min(len(tail.others), other + MAX_EVENTS),
        "status": (row or status(tail)) | {"signs": tail.signs()},
        "checkpoints": checkpoints.steps(run_.checkpoints),
    }
    part["more"] = stop < tail.points or part["next"] < len(tail.others)
    if question.get("log") is not None:
        part["log"] = log_window.since(run_, question["log"])
    return part


def get_run(name: str) -> Run:
    """The run of exactly this id. Raises StudioError; never leaves the folder of runs."""
    run_ = Run(inside(subfolder("runs"), name.replace("\0", "")))
    if run_.id != name or name.startswith(".") or not run.is_run(run_.folder):
        raise RunError(f"There is no run {name!r}.", "It may have been deleted. All runs stand in the list.", "run")
    return run_


def run_of(question: dict[str, Any]) -> Run:
    """The run whose id a question names. Raises as get_run."""
    return get_run(str(question.get("id", "")))


def changed(run_: Run) -> dict[str, Any]:
    """What a job that makes or changes a run returns: {run, state}; the list is read again."""
    listing.invalidate()
    return {"run": run_.id, "state": run_.state()}


def stop_side_job(task: FolderJob) -> dict[str, Any]:
    """Ask a job beside a run to end. Returns {run, state}."""
    task.request_stop()
    return {"run": task.id, "state": task.status()["state"]}


def side_job_response(
    question: dict[str, Any], status: dict[str, Any], results: dict[str, Any], shown: Callable[[], dict[str, Any]]
) -> Response:
    """How a job beside a run stands: {**status, mark, results}; results: shown(), unless the page has that mark's."""
    mark = str(results.get("at", ""))
    news = {"results": shown()} if results and question.get("mark") != mark else {}
    return json_response({**status, "mark": mark, **news})


def json_response(answer: dict[str, Any]) -> Response:
    """An answer as a response of its own, made once by orjson; of what it refuses (numbers beyond 64 bits, half
    surrogates) by the json module, with null for NaN as orjson has it.
    """
    try:
        body = orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)
    except TypeError:
        plain = json.dumps(answer, default=lambda value: value.tolist())
        body = json.dumps(json.loads(plain, parse_constant=lambda _: None)).encode()
    return Response(body, media_type="application/json")
