"""An OpenAI-style chat endpoint that is asked for verdicts, or, by a subclass, for something else."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

import httpx2

from studio import json_text
from studio.errors import ModelError, RunError
from studio.evaluation.endpoint import KEY, EndpointOrder

TRIES = 4  # of a request that meets a busy or failing endpoint
LONGEST_WAIT = 60.0  # seconds between two tries
LISTENING = 0.2  # seconds between two looks whether to stop


class Endpoint:
    """An OpenAI-style chat endpoint: no faster than ordered, asked again when busy, each reply kept.

    name: in sentences. section: of an order's keys. key: the environment variable that holds the key.
    """

    name = "The judge"
    section = "judge"
    key = KEY
    reply_tokens = 512

    def __init__(self, order: EndpointOrder, cache: Path, is_stopped: Callable[[], bool]):
        self.order, self.cache, self.is_stopped = order, cache, is_stopped
        self.refused = False  # by the endpoint, in a way that asking again does not change
        self._lock, self._next = threading.Lock(), 0.0
        self._known = self._cached()
        key = os.environ.get(self.key)
        self._client = httpx2.Client(
            timeout=order.timeout, follow_redirects=False, headers={"Authorization": f"Bearer {key}"} if key else {}
        )

    def _cached(self) -> dict[str, str]:
        known: dict[str, str] = {}
        for line in json_text.read_lines(self.cache):
            known |= line
        return known

    def ask(self, prompt: str) -> str:
        """The reply. Raises ModelError where the endpoint gives none, RunError where the job was stopped."""
        digest = hashlib.sha256("\0".join((self.order.url, self.order.model, prompt)).encode()).hexdigest()
        if digest in self._known:
            return self._known[digest]
        reply = self._asked(prompt)
        with self._lock:
            self._known[digest] = reply
            json_text.append_line(self.cache, {digest: reply})
        return reply

    def _asked(self, prompt: str) -> str:
        body = {
            "model": self.order.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0,
            "max_tokens": self.reply_tokens,
        }
        why, hint = "", f"Check its address, its model and {self.key}."
        for attempt in range(TRIES):
            self._wait_for_turn()
            pause = 2.0**attempt
            try:
                answer = self._posted(body)
            except httpx2.ConnectError:
                why = f"nothing can be reached at {self.order.url}"
            except httpx2.HTTPError as error:
                why = f"{type(error).__name__}: {error}"
            else:
                if answer.status_code == 200:
                    return self._content(answer)
                why = f"status {answer.status_code}: {answer.text[:200]}"
                if answer.status_code not in (408, 409, 425, 429) and answer.status_code < 500:
                    self.refused = True
                    if answer.status_code in (401, 403):
                        hint = (
                            f"Start this program anew with {self.key}=KEY in its environment. The key of `python -m "
                            "studio serve` is what it prints, or what STUDIO_API_KEY holds when it starts."
                        )
                    break
                after = answer.headers.get("Retry-After", "")
                pause = float(after) if after.replace(".", "", 1).isdigit() else pause
            if attempt < TRIES - 1:
                self._sleep(min(pause, LONGEST_WAIT))
        raise ModelError(f"{self.name} does not answer: {why}", hint, f"{self.section}.url")

    def _posted(self, body: dict[str, Any]) -> httpx2.Response:
        """The endpoint's answer. It is waited for in another thread, so that a stop is heard meanwhile; a daemon, so
        that what nobody waits for any more does not hold the process.
        """
        answer: Future[httpx2.Response] = Future()

        def post() -> None:
            try:
                answer.set_result(self._client.post(f"{self.order.url.rstrip('/')}/chat/completions", json=body))
            except BaseException as error:  # noqa: BLE001 - raised where it is waited for
                answer.set_exception(error)

        threading.Thread(target=post, daemon=True).start()
        while not wait([answer], LISTENING).done:
            self._check_stop()
        return answer.result()

    def _check_stop(self) -> None:
        if self.is_stopped():
            raise RunError("The judging was stopped as asked.", "Start it again when you like.", "run")

    def _content(self, answer: httpx2.Response) -> str:
        try:
            return str(answer.json()["choices"][0]["message"]["content"] or "")
        except (ValueError, LookupError, TypeError) as error:
            self.refused = True
            message = f"{self.name}: the answer is not one of an OpenAI-style endpoint."
            hint = "The address mostly ends in /v1."
            raise ModelError(message, hint, f"{self.section}.url") from error

    def _wait_for_turn(self) -> None:
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next)
            self._next = turn + 60 / self.order.per_minute
        self._sleep(turn - now)

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._check_stop()
            time.sleep(min(left, LISTENING))
