"""Conversations of the Chat tab: one file each under STUDIO_HOME/chats, written on while the answers stream in.

{id, title, at, sides: [voice name], blind, system, sampling, turns: [{prompt, sides: [voice name in the order shown], answers:
[{text, state, usage, finish, error}], vote}]}. States of an answer: waiting, loading, writing, done, stopped, failed.
"""

from __future__ import annotations

import json
import random
import re
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from studio import chat
from studio.errors import StudioError
from studio.home import room, write_whole

GOING = ("waiting", "loading", "writing")
WRITE = 1.0  # seconds between two writes of a conversation while answers stream in
NAME = re.compile(r"[0-9a-f]{12}")


class Talk:
    """One conversation: in memory while it is answered, else its file."""

    def __init__(self, values: dict[str, Any]):
        self.values, self.lock, self._written = values, threading.RLock(), 0.0
        self._stop = threading.Event()

    @property
    def id(self) -> str:
        return self.values["id"]

    @property
    def turns(self) -> list[dict[str, Any]]:
        return self.values["turns"]

    def going(self) -> bool:
        return bool(self.turns) and any(answer["state"] in GOING for answer in self.turns[-1]["answers"])

    def write(self, at_once: bool = True) -> None:
        with self.lock:
            if at_once or time.monotonic() - self._written > WRITE:
                self.values["changed"] = time.time()
                write_whole(_file(self.id), json.dumps(self.values, ensure_ascii=False, indent=1))
                self._written = time.monotonic()

    def ask(self, prompt: str) -> None:
        """Add a turn and answer it in threads of its own; returns at once."""
        sides = list(self.values["sides"])
        if self.values["blind"]:
            random.shuffle(sides)
        turn = {"prompt": prompt, "sides": sides, "vote": None,
                "answers": [{"text": "", "state": "waiting", "usage": None, "finish": None, "error": None} for _ in sides]}
        with self.lock:
            self.turns.append(turn)
            self.values["title"] = self.values["title"] or " ".join(prompt.split())[:80]
            self._stop = threading.Event()
            self.write()
        threading.Thread(target=self._load, args=(turn, self._stop), daemon=True).start()

    def stop(self) -> None:
        """Stop what is being written; what is there stays."""
        with self.lock:
            self._stop.set()
            for answer in self.turns[-1]["answers"] if self.turns else []:
                if answer["state"] in GOING:
                    answer["state"] = "stopped"
            self.write()

    # -- in threads

    def _load(self, turn: dict[str, Any], stop: threading.Event) -> None:
        for answer in turn["answers"]:
            answer["state"] = "loading"
        try:
            chat.server().load(list(dict.fromkeys(turn["sides"])))
        except StudioError as error:
            self._fail(turn["answers"], error)
            return
        threads = [threading.Thread(target=self._answer, args=(turn, place, stop), daemon=True) for place in range(len(turn["sides"]))]
        for thread in threads:
            thread.start()

    def _answer(self, turn: dict[str, Any], place: int, stop: threading.Event) -> None:
        answer = turn["answers"][place]
        stream = chat.server().stream(turn["sides"][place], self.messages(turn, turn["sides"][place]), **self.values["sampling"])
        try:
            for delta in stream:
                with self.lock:
                    if stop.is_set():
                        break
                    answer["text"] += delta.text
                    answer["state"] = "writing"
                    if delta.finish:
                        answer.update(state="done", finish=delta.finish, usage=delta.usage)
                self.write(at_once=False)
        except StudioError as error:
            self._fail([answer], error)
        finally:
            stream.close()
            if answer["state"] in GOING:
                answer["state"] = "stopped"
            self.write()

    def _fail(self, answers: list[dict[str, Any]], error: StudioError) -> None:
        with self.lock:
            for answer in answers:
                if answer["state"] in GOING:
                    answer.update(state="failed", error=error.as_dict())
            self.write()

    def messages(self, until: dict[str, Any], side: str) -> list[dict[str, str]]:
        """What a side is asked: the system prompt, the earlier turns with its own answers, the new prompt."""
        said = [{"role": "system", "content": self.values["system"]}] if self.values["system"] else []
        for turn in self.turns:
            said.append({"role": "user", "content": turn["prompt"]})
            if turn is until:
                break
            mine = turn["sides"].index(side) if side in turn["sides"] else 0
            said.append({"role": "assistant", "content": without_thoughts(turn["answers"][mine]["text"])})
        return said


def without_thoughts(text: str) -> str:
    """An answer without its folded thinking, which is no part of the conversation that goes on."""
    return re.sub(r"<think>.*?(</think>|$)", "", text, flags=re.DOTALL).strip()


# -- the conversations that there are

_open: dict[str, Talk] = {}  # those that were asked in this process
_guard = threading.Lock()


def new(sides: list[str], blind: bool, system: str, sampling: dict[str, Any]) -> Talk:
    talk = Talk({"id": uuid.uuid4().hex[:12], "title": "", "at": time.time(), "sides": sides, "blind": blind, "system": system,
                 "sampling": sampling, "turns": []})
    with _guard:
        _open[talk.id] = talk
    return talk


def find(name: str) -> Talk:
    """A conversation by its id. Raises StudioError. Answers that were cut off by the page's end count as stopped."""
    with _guard:
        if name in _open:
            return _open[name]
    try:
        values = json.loads(_file(name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StudioError(f"There is no conversation {name!r}.", "It may have been deleted.", "conversation") from error
    for turn in values["turns"]:
        for answer in turn["answers"]:
            if answer["state"] in GOING:
                answer["state"] = "stopped"
    with _guard:
        return _open.setdefault(name, Talk(values))


def listing(most: int = 100) -> list[dict[str, Any]]:
    """{id, title, changed, sides} of each, the newest first."""
    files = sorted(room("chats").glob("*.json"), key=lambda file: file.stat().st_mtime, reverse=True)[:most]
    found = []
    for file in files:
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
            found.append({key: values.get(key) for key in ("id", "title", "changed", "sides")})
        except (OSError, ValueError):
            continue
    return found


def delete(name: str) -> None:
    """Remove a conversation. What it is still being told is thrown away."""
    talk = find(name)
    talk.stop()
    with _guard:
        _open.pop(name, None)
    _file(name).unlink(missing_ok=True)


def _file(name: str) -> Path:
    if not NAME.fullmatch(name):
        raise StudioError(f"{name!r} is no conversation.", "Open one from the list.", "conversation")
    return room("chats") / f"{name}.json"
