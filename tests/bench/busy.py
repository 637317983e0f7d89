"""bench busy: how fast the page answers while a training uses the CPU, beside how fast it does alone.

First what the page takes of the processor while nobody looks, beside a bare page of gradio's. Then a real run of the
starter is started as the page starts one, in steps of about a second. Meanwhile the page is asked what an open page
asks (the list, the news of the run, the device) and for its first view, over HTTP; the same questions before the run
began are the measure. Then the run's page is opened in a browser without a GPU, in turn with nobody looking: the run's
speed, and what all processes of the browser take.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from studio import queue, run
from studio.base import source
from studio.base.source import ModelOrder
from studio.errors import StudioError
from studio.home import PROJECT
from studio.run import Run
from tests.bench import idle, watched
from tests.bench.isolated_home import isolated_home
from tests.bench.served import Served

LIMIT = 300.0  # milliseconds
EVERY = 0.2  # seconds between two questions
PATIENCE = 300.0  # seconds until the first step must be there
FIRST = "/studio/ask/studio-bar/poll"
STEPS = (
    "data.max_length=128",
    "data.eval=0",
    "training.batch_size=1",
    "training.accumulation=1",
)  # short, so that a round holds many


def add(parser: argparse.ArgumentParser) -> None:
    """The options of `bench busy`."""
    parser.add_argument(
        "--seconds",
        type=float,
        default=30.0,
        help="how long each part is measured, and each of four rounds with and without a page open",
    )
    parser.add_argument("--data", default="sample", help="what is trained on meanwhile")
    parser.set_defaults(run=measure, show=show)


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """The table as a list of rows {what, value, unit, limit}; milliseconds."""
    source.fetch(ModelOrder(source="starter"))
    with isolated_home() as place:
        served = Served(place)
        try:
            return _rows(served, place, args)
        finally:
            served.end()


def _rows(served: Served, place: Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    _ask(served, None, 5.0)  # what is computed once
    print("the page with nobody looking", file=sys.stderr, flush=True)
    still = idle.cost(served, args.seconds)
    print("the page alone", file=sys.stderr, flush=True)
    alone = _ask(served, None, args.seconds)
    one = train(place, args.data)
    try:
        print("the page beside a training", file=sys.stderr, flush=True)
        steps = len(_steps(one))
        beside = _ask(served, one.id, args.seconds)
        steps = len(_steps(one)) - steps
        print("the run with and without a page open", file=sys.stderr, flush=True)
        looked = _watched(served, one, args.seconds)
    finally:
        queue.stop(one, discard=True)
        while one.alive():
            time.sleep(0.2)
    if not steps:
        raise StudioError("The run made no step while the page was asked.", "Give more --seconds.", "seconds")
    rows = [
        {
            "what": f"{what}, {when}, {name}",
            "value": round(value, 1),
            "unit": "ms",
            "limit": LIMIT if when == "training" and name == "p95" else None,
        }
        for when, told in (("alone", alone), ("training", beside))
        for what, times in told.items()
        for name, value in (
            ("median", statistics.median(times)),
            ("p95", statistics.quantiles(times, n=20)[-1]),
            ("most", max(times)),
        )
    ]
    return [*still, *rows, {"what": "steps trained meanwhile", "value": steps, "unit": "", "limit": None}, *looked]


def _watched(served: Served, one: Run, seconds: float) -> list[dict[str, Any]]:
    """What an open page costs run and processor; nothing where there is no browser to open it in."""
    try:
        return watched.cost(served.address, one, seconds)
    except FileNotFoundError:
        print("no Chromium here: what watching costs is not measured", file=sys.stderr)
        return []


def train(place: Path, data: str, *more: str) -> Run:
    """A run of the starter in `place`, started as from a terminal, when its first step is made. more: settings."""
    settings = (f"data.train={data}", "training.epochs=1000", "training.save_every=100000", *STEPS, *more)
    order = ["train", "sample", "--detach", "--json", *(word for setting in settings for word in ("--set", setting))]
    done = subprocess.run([sys.executable, "-m", "studio", *order], cwd=PROJECT, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise StudioError(f"The run did not start: {last}", "Try it with `python -m studio train`.", "run")
    one, until = run.find(json.loads(done.stdout)["run"]), time.monotonic() + PATIENCE
    while not _steps(one) and time.monotonic() < until and one.alive():
        time.sleep(0.5)
    return one


def _steps(one: Run) -> list[dict[str, Any]]:
    return [event for event in one.events() if event["kind"] == "step"]


def _ask(served: Served, watched: str | None, seconds: float) -> dict[str, list[float]]:
    """Milliseconds of every answer: of the open page's questions, and of its first view every tenth time."""
    times: dict[str, list[float]] = {"question": [], "first view": []}
    place: dict[str, Any] = {"generation": None, "points": 0, "others": 0, "stride": 1}
    connection, until = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60), time.monotonic() + seconds
    while time.monotonic() < until:
        news = {"id": watched, "log": None, **place} if watched else None
        told, answer = _timed(connection, "POST", FIRST, {"device": True, "list": None, "also": [], "run": news})
        times["question"].append(told)
        if watched and answer.get("run"):
            place |= {
                "generation": answer["run"]["generation"],
                "points": answer["run"]["points"],
                "others": answer["run"]["next"],
            }
        if len(times["question"]) % 10 == 1:
            times["first view"].append(_timed(connection, "GET", "/", None)[0])
        time.sleep(EVERY)
    connection.close()
    return times


def _timed(
    connection: http.client.HTTPConnection, how: str, path: str, ask: dict[str, Any] | None
) -> tuple[float, dict[str, Any]]:
    began = time.perf_counter()
    connection.request(
        how,
        path,
        None if ask is None else json.dumps(ask),
        {"Content-Type": "application/json"} if ask is not None else {},
    )
    answer = connection.getresponse()
    body, spent = answer.read(), 1000 * (time.perf_counter() - began)
    if answer.status != 200:
        raise StudioError(
            f"The page answered {how} {path} with {answer.status}.",
            "Read what python app.py says in a terminal.",
            "page",
        )
    return spent, json.loads(body) if ask is not None else {}


def show(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        limit = (
            f"(limit {row['limit']:g})"
            if row["limit"] is not None
            else f"(at least {row['least']:g})"
            if "least" in row
            else ""
        )
        print(f"{row['what']:34} {row['value']:>9} {row['unit']:4} {limit}")
