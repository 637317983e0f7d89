"""A judge: another model behind an OpenAI-style endpoint compares base and tuned answers to held-out questions.

Each pair is shown twice, the order swapped; only where both verdicts name the same answer does it win, else it is a tie
(Zheng et al. 2023, arXiv 2306.05685). A key comes from STUDIO_JUDGE_KEY alone and is written nowhere.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import ipaddress
import json
import math
import os
import re
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from studio.errors import ModelError, OrderError, RunError
from studio.run import Run
from studio.runs import evaluations
from studio.side_job import Progress, SideJob

KIND = "judge"
KEY = "STUDIO_JUDGE_KEY"
AT_ONCE = 4  # requests
TRIES = 4  # of a request that meets a busy or failing endpoint
LONGEST_WAIT = 60.0  # seconds between two tries
FAILURES = 3  # questions in a row that got no answer: the rest is not asked
REPLY_TOKENS = 512
PROMPT = """Two assistants answered the same question. Decide which answer is better: right, complete, to the point.
The order of the answers and their length do not matter.

[Question]
{question}

[A good answer, for comparison]
{reference}

[Answer A]
{answer_a}

[Answer B]
{answer_b}

Reply with [[A]] if A is better, [[B]] if B is better, or [[C]] if they are equally good. Reply with nothing else."""
SLOTS = re.compile(r"\{(question|reference|answer_a|answer_b)\}")
VERDICTS = {"A": "first", "B": "second", "C": "tie"}


class JudgeOrder(BaseModel):
    """Who judges, and how fast."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(max_length=500)
    model: str = Field(min_length=1, max_length=200)
    prompt: str = Field(PROMPT, max_length=20_000)
    rows: int = Field(100, ge=1, le=1000)
    per_minute: int = Field(120, ge=1, le=6000)
    minutes: float = Field(30, gt=0, le=24 * 60)
    timeout: float = Field(60, gt=0, le=600)


def order_of(settings: dict[str, Any]) -> JudgeOrder:
    """Raises OrderError: names a wrong setting, a prompt without both answers, a URL that may not be asked."""
    try:
        order = JudgeOrder.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        where = str(first["loc"][0])
        raise OrderError(f"judge.{where}: {first['msg']}.", "Correct it.", f"judge.{where}") from error
    missing = [name for name in ("question", "answer_a", "answer_b") if f"{{{name}}}" not in order.prompt]
    if missing:
        raise OrderError(
            f"The judge's prompt has no place for {', '.join(missing)}.",
            "Write {question}, {answer_a} and {answer_b} where they belong; {reference} is optional.",
            "judge.prompt",
        )
    check_url(order.url)
    return order


def check_url(url: str) -> None:
    """Raise OrderError for what is no plain http(s) address, and for one that leads to a host's own services.

    Link-local addresses hand out a cloud's credentials. A key is sent without encryption to this computer only.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise OrderError(f"{url!r} is no address: {error}.", "Write it as https://host/v1.", "judge.url") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise OrderError(
            "The judge's address must be http or https, with a host and without a user, a query or a key in it.",
            f"Write it as https://host/v1; a key comes from {KEY} in the environment.",
            "judge.url",
        )
    try:
        found = socket.getaddrinfo(parts.hostname, port or 443, type=socket.SOCK_STREAM)
    except OSError as error:
        raise OrderError(f"{parts.hostname} is not known: {error}.", "Check the address.", "judge.url") from error
    addresses = [ipaddress.ip_address(entry[4][0].partition("%")[0]) for entry in found]
    plain = [getattr(address, "ipv4_mapped", None) or address for address in addresses]
    if any(each.is_link_local or each.is_multicast or each.is_unspecified for each in plain):
        raise OrderError(
            f"{parts.hostname} leads to a service of the host itself, which is not asked.",
            "Give the address of a model server.",
            "judge.url",
        )
    if os.environ.get(KEY) and parts.scheme == "http" and not all(each.is_loopback for each in plain):
        raise OrderError(
            f"The key in {KEY} would travel unencrypted to {parts.hostname}.", "Use https, or unset it.", "judge.url"
        )


def job(run: Run, progress: Progress = lambda _: None) -> SideJob:
    return SideJob(run, KIND, "The judging", progress)


def table_of(run: Run) -> list[dict[str, Any]]:
    """The held-out answers of both models. Raises RunError where there are none."""
    table = evaluations.results(run).get("table") or []
    if not table:
        raise RunError(
            f"{run.id} has no answers to judge yet.", "Evaluate it by answers first; the judge reads those.", "run"
        )
    return table


def judge(
    run: Run, order: JudgeOrder, progress: Progress = lambda _: None, table: list[dict[str, Any]] | None = None
) -> dict[str, Any]:
    """{win_rate, low, high, wins, ties, losses, flipped, unreadable, rows: [{row, verdict, …}], …}, kept in the run.

    verdict: tuned, base or tie. flipped: pairs where the place decided. Raises StudioError.
    """
    rows = [row for row in (table or table_of(run)) if row["base"].strip() or row["tuned"].strip()][: order.rows]
    if not rows:
        raise RunError(
            "Base and tuned model answered every question with nothing: there is nothing to compare.",
            "Look at the answers in the table of the evaluation, or train longer.",
            "run",
        )
    task, began = job(run, progress), time.time()
    with task.working(device=False):
        endpoint = Endpoint(order, task.folder / "cache.jsonl", task.stop_requested)
        verdicts, why = _judged(rows, order, endpoint, task)
        if not verdicts:
            raise task.stopped() if why == "stopped" else ModelError("The judge gave no verdict.", why, "judge.url")
        return task.keep(
            {
                "run": run.id,
                "at": round(began, 3),
                "seconds": round(time.time() - began, 1),
                "state": "done" if len(verdicts) == len(rows) else "stopped",
                "why": why,
                **order.model_dump(),
                **_summary(verdicts),
                "of": len(rows),
                "rows": verdicts,
            }
        )


def _judged(
    rows: list[dict[str, Any]], order: JudgeOrder, endpoint: Endpoint, task: SideJob
) -> tuple[list[dict[str, Any]], str]:
    """(verdicts in the order of the rows, why not all of them or "")."""
    verdicts: list[dict[str, Any]] = []
    until, why, failures = time.monotonic() + 60 * order.minutes, "", 0
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        for start in range(0, len(rows), AT_ONCE):
            if task.stop_requested():
                why = "stopped"
            elif time.monotonic() > until:
                why = f"The time of {order.minutes:g} minutes was over."
            if why:
                break
            batch = rows[start : start + AT_ONCE]
            futures = [pool.submit(_verdict, row, order.prompt, endpoint) for row in batch]
            for row, future in zip(batch, futures, strict=True):
                try:
                    verdicts.append({"row": row["row"], "prompt": row["prompt"], **future.result()})
                    failures = 0
                except (ModelError, RunError) as error:
                    failures += 1
                    why = error.message if failures >= FAILURES or endpoint.refused else ""
            task.tell("judging", start + len(batch), len(rows))
    return verdicts, "" if len(verdicts) == len(rows) else why or "Some questions got no answer."


def _verdict(row: dict[str, Any], prompt: str, endpoint: Endpoint) -> dict[str, Any]:
    """{verdict, flipped, unreadable} of one pair, shown in both orders."""
    seen = [
        _read(endpoint.ask(_filled(prompt, row, first, second)))
        for first, second in (("base", "tuned"), ("tuned", "base"))
    ]
    names = [{"first": "base", "second": "tuned"}, {"first": "tuned", "second": "base"}]
    winners = [name.get(verdict or "", "tie") for name, verdict in zip(names, seen, strict=True)]
    agree = winners[0] == winners[1]
    return {
        "verdict": winners[0] if agree else "tie",
        "flipped": not agree and "tie" not in winners,
        "unreadable": None in seen,
    }


def _filled(prompt: str, row: dict[str, Any], first: str, second: str) -> str:
    texts = {
        "question": row["prompt"],
        "reference": row.get("reference") or "",
        "answer_a": row[first],
        "answer_b": row[second],
    }
    return SLOTS.sub(lambda slot: texts[slot[1]], prompt)


def _read(reply: str) -> str | None:
    """first, second or tie, as the reply's last [[A]], [[B]] or [[C]] says, or a reply of that letter alone."""
    text = re.sub(r"<think>.*?</think>", "", reply, flags=re.S).strip()
    marks = re.findall(r"\[\[([ABC])\]\]", text) or re.findall(r"^\W*([ABC])\W*$", text)
    return VERDICTS[marks[-1]] if marks else None


def _summary(verdicts: list[dict[str, Any]]) -> dict[str, Any]:
    counts = {name: sum(row["verdict"] == name for row in verdicts) for name in ("tuned", "base", "tie")}
    rate = (counts["tuned"] + counts["tie"] / 2) / len(verdicts)
    low, high = wilson(rate, len(verdicts))
    return {
        "win_rate": rate,
        "low": low,
        "high": high,
        "wins": counts["tuned"],
        "ties": counts["tie"],
        "losses": counts["base"],
        "flipped": sum(row["flipped"] for row in verdicts),
        "unreadable": sum(row["unreadable"] for row in verdicts),
    }


def describe(found: dict[str, Any]) -> str:
    return (
        f"The tuned model wins {found['win_rate']:.0%} ({found['low']:.0%} to {found['high']:.0%}): "
        f"{found['wins']} better, {found['ties']} equal, {found['losses']} worse of {found['of']}."
    )


def wilson(rate: float, count: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927); a tie counts as half a win, which makes it a little too wide."""
    middle = (rate + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(rate * (1 - rate) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return max(0.0, middle - half), min(1.0, middle + half)


class Endpoint:
    """An OpenAI-style chat endpoint: no faster than ordered, asked again when busy, each reply kept."""

    def __init__(self, order: JudgeOrder, cache: Path, is_stopped: Callable[[], bool]):
        self.order, self.cache, self.is_stopped = order, cache, is_stopped
        self.refused = False  # by the endpoint, in a way that asking again does not change
        self._lock, self._next = threading.Lock(), 0.0
        self._known = self._cached()
        key = os.environ.get(KEY)
        self._client = httpx2.Client(
            timeout=order.timeout, follow_redirects=False, headers={"Authorization": f"Bearer {key}"} if key else {}
        )

    def _cached(self) -> dict[str, str]:
        try:
            lines = self.cache.read_text(encoding="utf-8").splitlines()
        except OSError:
            return {}
        known = {}
        for line in lines:
            try:
                known |= json.loads(line)
            except ValueError:  # cut off
                continue
        return known

    def ask(self, prompt: str) -> str:
        """The reply. Raises ModelError where the endpoint gives none, RunError where the job was stopped."""
        digest = hashlib.sha256("\0".join((self.order.url, self.order.model, prompt)).encode()).hexdigest()
        if digest in self._known:
            return self._known[digest]
        reply = self._asked(prompt)
        with self._lock, open(self.cache, "a", encoding="utf-8") as file:
            self._known[digest] = reply
            file.write(json.dumps({digest: reply}, ensure_ascii=False) + "\n")
        return reply

    def _asked(self, prompt: str) -> str:
        body = {
            "model": self.order.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0,
            "max_tokens": REPLY_TOKENS,
        }
        why = ""
        for attempt in range(TRIES):
            self._wait_for_turn()
            pause = 2.0**attempt
            try:
                answer = self._client.post(f"{self.order.url.rstrip('/')}/chat/completions", json=body)
            except httpx2.HTTPError as error:
                why = f"{type(error).__name__}: {error}"
            else:
                if answer.status_code == 200:
                    return self._content(answer)
                why = f"status {answer.status_code}: {answer.text[:200]}"
                if answer.status_code not in (408, 409, 425, 429) and answer.status_code < 500:
                    self.refused = True
                    break
                after = answer.headers.get("Retry-After", "")
                pause = float(after) if after.replace(".", "", 1).isdigit() else pause
            if attempt < TRIES - 1:
                self._sleep(min(pause, LONGEST_WAIT))
        raise ModelError(f"The judge does not answer: {why}", f"Check its address, its model and {KEY}.", "judge.url")

    def _content(self, answer: httpx2.Response) -> str:
        try:
            return str(answer.json()["choices"][0]["message"]["content"] or "")
        except (ValueError, LookupError, TypeError) as error:
            self.refused = True
            raise ModelError(
                "The judge's answer is not one of an OpenAI-style endpoint.",
                "The address mostly ends in /v1.",
                "judge.url",
            ) from error

    def _wait_for_turn(self) -> None:
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next)
            self._next = turn + 60 / self.order.per_minute
        self._sleep(turn - now)

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self.is_stopped():
                raise RunError("The judging was stopped as asked.", "Start it again when you like.", "run")
            time.sleep(min(left, 0.2))
