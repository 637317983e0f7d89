"""Conversations with one model or two, one file each under STUDIO_HOME/chats, written while the answers stream in.

A file is {id, title, at, sides: [model name], blind, system, sampling, turns: [{prompt, sides: [model name in the order
shown], answers: [{text, state, usage, finish, error}], vote}]}. States of an answer: waiting, loading, writing, done,
stopped, failed.
"""

from __future__ import annotations

import json
import re
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from studio.errors import DataError, StudioError, as_studio_error
from studio.home import subfolder, write_atomic
from studio.talk import chat, votes

IN_PROGRESS = ("waiting", "loading", "writing")
WRITE = 1.0  # seconds between two writes of a file while answers stream in
NAME = re.compile(r"[0-9a-f]{12}")
Message = dict[str, Any]


class Conversation:
    """One conversation. saved: whether it has a file."""

    def __init__(self, values: dict[str, Any], saved: bool = True):
        self.values = values
        self.saved = saved
        self.deleted = False
        self.lock = threading.RLock()
        self.write_error: StudioError | None = None  # of the last write
        self._written_at = 0.0
        self._stop = threading.Event()

    @property
    def id(self) -> str:
        return self.values["id"]

    @property
    def turns(self) -> list[dict[str, Any]]:
        return self.values["turns"]

    @property
    def file(self) -> Path:
        return _file(self.id)

    def in_progress(self) -> bool:
        return bool(self.turns) and any(answer["state"] in IN_PROGRESS for answer in self.turns[-1]["answers"])

    def write(self, at_once: bool = True) -> None:
        """Write the file where it is due. A full disk does not end an answer: `write_error` keeps the reason."""
        with self.lock:
            due = at_once or time.monotonic() - self._written_at > WRITE
            if not self.saved or self.deleted or not due:
                return
            self.values["changed"] = time.time()
            self._written_at = time.monotonic()
            try:
                write_atomic(self.file, json.dumps(self.values, ensure_ascii=False, indent=1))
                self.write_error = None
            except OSError as error:
                self.write_error = as_studio_error(error)

    def ask(self, prompt: str) -> None:
        """Add a turn and answer it in threads of its own; returns at once. A blind conversation shuffles its sides."""
        sides = list(self.values["sides"])
        if self.values["blind"] and len(sides) == 2:
            sides = list(votes.shuffled(*sides))
        turn = {
            "prompt": prompt,
            "sides": sides,
            "vote": None,
            "answers": [{"text": "", "state": "waiting", "usage": None, "finish": None, "error": None} for _ in sides],
        }
        with self.lock:
            if self.deleted:
                raise _gone(self.id)
            self.turns.append(turn)
            self.values["title"] = self.values["title"] or " ".join(prompt.split())[:80]
            self._stop = threading.Event()
            self.write()
        threading.Thread(target=self._load, args=(turn, self._stop), daemon=True).start()

    def stop(self) -> None:
        """Stop the answers in progress; their text stays."""
        with self.lock:
            self._stop.set()
            for answer in self.turns[-1]["answers"] if self.turns else []:
                if answer["state"] in IN_PROGRESS:
                    answer["state"] = "stopped"
            self.write()

    # -- in threads

    def _load(self, turn: dict[str, Any], stop: threading.Event) -> None:
        with self.lock:
            for answer in turn["answers"]:
                if answer["state"] in IN_PROGRESS:
                    answer["state"] = "loading"
        try:
            chat.server().load(list(dict.fromkeys(turn["sides"])))
        except StudioError as error:
            self._fail(turn["answers"], error)
            return
        if stop.is_set():
            return
        for side, answer in zip(turn["sides"], turn["answers"], strict=True):
            messages = self.messages(turn, side)
            threading.Thread(target=self._answer, args=(side, messages, answer, stop), daemon=True).start()

    def _answer(self, side: str, messages: list[Message], answer: dict[str, Any], stop: threading.Event) -> None:
        stream = chat.server().stream(side, messages, **self.values["sampling"])
        try:
            for delta in stream:
                with self.lock:
                    if stop.is_set():
                        break
                    answer["text"] += delta.text
                    if delta.finish:
                        answer.update(finish=delta.finish, usage=delta.usage)
                    answer["state"] = "done" if delta.finish else "writing"
                self.write(at_once=False)
        except StudioError as error:
            self._fail([answer], error)
        finally:
            stream.close()
            if answer["state"] in IN_PROGRESS:
                answer["state"] = "stopped"
            self.write()

    def _fail(self, answers: list[dict[str, Any]], error: StudioError) -> None:
        with self.lock:
            for answer in answers:
                if answer["state"] in IN_PROGRESS:
                    answer.update(state="failed", error=error.as_dict())
            self.write()

    def messages(self, until: dict[str, Any], side: str) -> list[Message]:
        """The messages a side is asked: the system prompt, earlier turns with its own answers, the prompt of turn
        `until`.

        Answers keep their reasoning: the template decides what of it the model is shown again, as in training. A turn
        whose
        answer failed before its first word is left out: an empty answer would be an example to follow.
        """
        messages = [{"role": "system", "content": self.values["system"]}] if self.values["system"] else []
        for turn in self.turns:
            prompt = {"role": "user", "content": turn["prompt"]}
            if turn is until:
                messages.append(prompt)
                break
            answer = turn["answers"][turn["sides"].index(side) if side in turn["sides"] else 0]
            if answer["text"] or answer["state"] == "done":
                messages += [prompt, {"role": "assistant", "content": answer["text"]}]
        return messages


# -- all conversations

_open: dict[str, Conversation] = {}  # used in this process
_guard = threading.Lock()


def new(
    sides: list[str], blind: bool = False, system: str = "", sampling: dict[str, Any] | None = None, saved: bool = True
) -> Conversation:
    values = {
        "id": uuid.uuid4().hex[:12],
        "title": "",
        "at": time.time(),
        "sides": sides,
        "blind": blind,
        "system": system,
        "sampling": sampling or {},
        "turns": [],
    }
    conversation = Conversation(values, saved)
    with _guard:
        _open[conversation.id] = conversation
    return conversation


def find(name: str) -> Conversation:
    """Return a conversation by its id; answers cut off by the end of their process are stopped. Raises StudioError."""
    with _guard:
        if name not in _open:
            _open[name] = Conversation(_read(name))
        return _open[name]


def _read(name: str) -> dict[str, Any]:
    try:
        values = json.loads(_file(name).read_text(encoding="utf-8"))
        for turn in values["turns"]:
            for answer in turn["answers"]:
                if answer["state"] in IN_PROGRESS:
                    answer["state"] = "stopped"
        return values
    except FileNotFoundError:
        raise _gone(name) from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        message = f"The conversation {name!r} cannot be read: its file is damaged."
        hint = f"Look at {_file(name)}, or delete it there."
        raise StudioError(message, hint, "conversation") from error


def _gone(name: str) -> StudioError:
    return StudioError(f"There is no conversation {name!r}.", "It may have been deleted.", "conversation")


def listing(most: int = 100) -> list[dict[str, Any]]:
    """{id, title, changed, sides} of the newest conversations, the newest first."""
    files = sorted(subfolder("chats").glob("*.json"), key=lambda file: file.stat().st_mtime, reverse=True)[:most]
    rows = []
    for file in files:
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
            rows.append({key: values.get(key) for key in ("id", "title", "changed", "sides")})
        except (OSError, ValueError, AttributeError, RecursionError):
            continue
    return rows


def delete(name: str) -> None:
    """Stop and remove a conversation."""
    conversation = find(name)
    with conversation.lock:
        conversation.deleted = True  # before its file: an answer in progress must not write it again
        conversation.stop()
    with _guard:
        _open.pop(name, None)
        _file(name).unlink(missing_ok=True)


def _file(name: str) -> Path:
    if not NAME.fullmatch(name):
        raise StudioError(f"{name!r} is no conversation.", "Open one from the list.", "conversation")
    return subfolder("chats") / f"{name}.json"


# -- as training rows


def row(messages: list[Message]) -> dict[str, Any]:
    """Convert messages to a row in the chatml format. Raises DataError where no answer would be left to learn."""
    trained = [
        {"role": message["role"], "content": message["content"]} for message in messages if message["content"].strip()
    ]
    while trained and trained[-1]["role"] != "assistant":
        trained.pop()
    if not any(message["role"] == "user" for message in trained):
        hint = "Ask something first, and keep the answer or correct it."
        raise DataError("This conversation has no question with an answer.", hint, "chat")
    return {"messages": trained}
