"""Conversations kept on disk while they stream: one file each, reopened, exported, or turned into training rows.

A file is a list of JSON lines: {"kind": "chat"} first, then {"kind": "message"} for what was said and {"kind": "piece"} for an
answer still being written. A crash costs the piece being written and nothing before it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from studio.chat import Delta
from studio.errors import DataError, StudioError
from studio.home import inside, room, slug, write_whole

EVERY = 0.5  # seconds between two pieces of an answer on disk
Message = dict[str, Any]


class Chat:
    """One kept conversation: its file."""

    def __init__(self, file: Path):
        self.file = file

    @property
    def id(self) -> str:
        return self.file.stem

    def lines(self) -> list[dict[str, Any]]:
        """Every whole line of the file. Raises StudioError when the file is gone."""
        try:
            raw = self.file.read_text(errors="replace")
        except FileNotFoundError:
            raise StudioError(f"The conversation {self.id} is gone.", "Choose another.", "chat") from None
        found = []
        for line in raw.splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue  # torn by a crash
        return found

    @property
    def head(self) -> dict[str, Any]:
        """{model, title, at, sampling, …} as the chat was begun."""
        return next((line for line in self.lines() if line.get("kind") == "chat"), {})

    def messages(self) -> list[Message]:
        """What was said, in order; an answer that never ended is there as far as it came, with "broken": True."""
        said: list[Message] = []
        open_piece = ""
        for line in self.lines():
            if line.get("kind") == "piece":
                open_piece += line["text"]
            elif line.get("kind") == "message":
                if open_piece and line["role"] != "assistant":
                    said.append({"role": "assistant", "content": open_piece, "broken": True})
                open_piece = ""
                said.append({key: value for key, value in line.items() if key not in ("kind", "at")})
            elif line.get("kind") == "back":
                open_piece, said = "", said[: line["to"]]
        if open_piece:
            said.append({"role": "assistant", "content": open_piece, "broken": True})
        return said

    def say(self, role: str, content: str, **more: Any) -> None:
        """Keep one message. more: model, usage, finish."""
        self._write({"kind": "message", "at": time.time(), "role": role, "content": content, **more})

    def back(self, to: int) -> None:
        """Forget all but the first `to` messages: retry, or edit an earlier question."""
        self._write({"kind": "back", "to": to})

    def correct(self, place: int, content: str) -> None:
        """Replace message number `place` (from 0) by hand; the rest stays."""
        said = self.messages()
        said[place] = {"role": said[place]["role"], "content": content, "corrected": True}
        self.back(0)
        for message in said:
            self.say(**message)

    def answer(self, deltas: Iterable[Delta], model: str) -> Iterator[Delta]:
        """Pass an answer through and keep it as it comes: closed early, it is kept as far as it came."""
        text, unsaved, last, usage, finish = "", "", time.monotonic(), None, "cancelled"
        try:
            for delta in deltas:
                text, unsaved = text + delta.text, unsaved + delta.text
                usage, finish = delta.usage or usage, delta.finish or finish
                if unsaved and time.monotonic() - last > EVERY:
                    self._write({"kind": "piece", "text": unsaved})
                    unsaved, last = "", time.monotonic()
                yield delta
        finally:
            self.say("assistant", text, model=model, finish=finish, usage=usage)
            if hasattr(deltas, "close"):
                deltas.close()

    def delete(self) -> None:
        self.file.unlink(missing_ok=True)

    def _write(self, line: dict[str, Any]) -> None:
        with open(self.file, "a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def create(model: str, system: str = "", **settings: Any) -> Chat:
    """A new conversation with a voice. settings: whatever the page wants back when it is reopened (sampling, the other side)."""
    name = f"{time.strftime('%Y-%m-%d-%H%M%S')}-{slug(model, 'model')[-30:].strip('-.')}-{os.urandom(2).hex()}"
    made = Chat(room("chats") / f"{name}.jsonl")
    made._write({"kind": "chat", "at": time.time(), "model": model, **settings})
    if system:
        made.say("system", system)
    return made


def find(identity: str) -> Chat:
    """A kept conversation by its id. Raises StudioError when there is none."""
    file = inside(room("chats"), f"{identity}.jsonl")
    if not file.is_file():
        raise StudioError(f"There is no conversation {identity!r}.", "Choose one from the list.", "chat")
    return Chat(file)


def listing() -> list[dict[str, Any]]:
    """{id, at, model, title, messages} of every conversation, newest first. The title is the first question."""
    rows = []
    for file in sorted(room("chats").glob("*.jsonl"), reverse=True):
        one = Chat(file)
        said, head = one.messages(), one.head
        title = next((message["content"] for message in said if message["role"] == "user"), "")
        rows.append({"id": one.id, "at": head.get("at"), "model": head.get("model"), "title": " ".join(title.split())[:80], "messages": len(said)})
    return rows


def row(messages: list[Message]) -> dict[str, Any]:
    """A training row in the chatml format. Raises DataError where no answer would be left to learn."""
    kept = [{"role": message["role"], "content": message["content"]} for message in messages if message["content"].strip()]
    while kept and kept[-1]["role"] != "assistant":
        kept.pop()
    if not any(message["role"] == "user" for message in kept):
        raise DataError("This conversation has no question with an answer.", "Ask something first, and keep the answer or correct it.", "chat")
    return {"messages": kept}


def to_rows(rows: Iterable[dict[str, Any]], name: str = "from-chat") -> Path:
    """Append training rows to the data file uploads/NAME.jsonl, made if need be; returns its path."""
    file = inside(room("uploads"), slug(name, "from-chat").removesuffix(".jsonl") + ".jsonl")
    before = file.read_text(encoding="utf-8") if file.is_file() else ""
    if before and not before.endswith("\n"):
        before += "\n"
    write_whole(file, before + "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in rows))
    return file


def export(identities: Iterable[str] | None = None) -> str:
    """Conversations as JSONL text: {id, model, messages} a line; all of them where none is named."""
    wanted = [find(one) for one in identities] if identities is not None else [Chat(file) for file in sorted(room("chats").glob("*.jsonl"))]
    return "".join(json.dumps({"id": one.id, "model": one.head.get("model"), "messages": one.messages()}, ensure_ascii=False) + "\n" for one in wanted)
