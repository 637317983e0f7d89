"""`python -m studio chat`: one question, a conversation, what can be typed in it, and what an unknown name is told."""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from studio import page
from studio.__main__ import main
from studio.commands import export
from studio.export import folders
from studio.home import PROJECT, subfolder
from studio.talk import chat, chats
from tests.ui.fakes import FakeRun, FakeServer

RUN = "2026-11-22-1200-mine"


@pytest.fixture
def server(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    """A finished run, and a server that was there before us and stays."""
    run = FakeRun(RUN, steps=20)
    run.start(alive=False)
    run.train().finish()
    monkeypatch.setattr(chats, "_open", {})
    fake = FakeServer()
    yield fake
    fake.close()


def typed(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))


def said(asked: dict[str, Any]) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in asked["messages"]]


def test_one_question_as_json(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chat", "last", "--prompt", "Hello?", "--base", "--temperature", "0", "--seed", "3", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["model"], answer["base"]["model"]) == (RUN, f"base:{RUN}")
    assert answer["answer"] == server.answer(RUN, "")
    assert (answer["tokens_per_second"], answer["finish"]) == (21.5, "stop")
    assert {ask["seed"] for ask in server.asked} == {3}
    assert not list(subfolder("chats").glob("*.json")), "a single question is no conversation to keep"


def test_a_conversation(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(
        monkeypatch,
        "/system Be brief.",
        "one",
        "two",
        "/retry",
        "/keep mine",
        "/reset",
        "three",
        "/nothing",
        "/quit",
        "never",
    )
    assert main(["chat", RUN]) == 0
    told, answer = capsys.readouterr(), server.answer(RUN, "")
    assert told.out == f"{answer}\n" * 4
    assert "/retry" in told.err, "what can be typed is told for what cannot"
    one = [("system", "Be brief."), ("user", "one")]
    two = [*one, ("assistant", answer), ("user", "two")]
    assert [said(ask) for ask in server.asked] == [one, two, two, [("system", "Be brief."), ("user", "three")]]
    row = json.loads((subfolder("uploads") / "mine.jsonl").read_text())
    assert [message["role"] for message in row["messages"]] == ["system", "user", "assistant", "user", "assistant"]
    assert [chats.find(one["id"]).turns[0]["prompt"] for one in chats.listing()] == ["three", "one"]


def test_a_conversation_as_json_prints_one_document(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(monkeypatch, "one", "two")
    assert main(["chat", RUN, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"] == RUN


def test_ctrl_c_stops_the_answer_and_not_the_conversation(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.pause, sleep = 0.05, time.sleep

    def once(seconds: float) -> None:
        sleep(max(seconds, 0.3 if seconds == 0.02 else 0))
        if seconds == 0.02:
            monkeypatch.setattr("studio.commands.chat.time.sleep", sleep)
            raise KeyboardInterrupt

    monkeypatch.setattr("studio.commands.chat.time.sleep", once)
    typed(monkeypatch, "one", "two")
    assert main(["chat", RUN]) == 0
    first, second = (turn["answers"][0] for turn in chats.find(chats.listing()[0]["id"]).turns)
    assert (first["state"], second["state"]) == ("stopped", "done")
    assert 0 < len(first["text"]) < len(second["text"])


def test_an_unknown_run_is_told_the_nearest(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    for other in ("2026-11-22-1100-qlora-big", "2026-11-22-1101-prefix"):
        FakeRun(other, steps=1).start(alive=False)
    assert main(["chat", "qlora-bgi", "--json"]) == 2
    hint = json.loads(capsys.readouterr().out)["error"]["hint"]
    assert hint.startswith("Runs: 2026-11-22-1100-qlora-big")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_asked_to_end_while_it_loads_it_leaves_no_server(
    number: int, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[bool] = []
    monkeypatch.setattr(chat.Server, "ready", lambda self: False)
    monkeypatch.setattr(chat.Server, "load", lambda self, names: os.kill(os.getpid(), number) or time.sleep(5))
    monkeypatch.setattr(chat, "end", lambda: ended.append(True))
    with pytest.raises(SystemExit) as left:
        main(["chat", "base", "--prompt", "Hello?"])
    assert (left.value.code, ended) == (128 + number, [True])
    assert signal.getsignal(number) is signal.SIG_DFL


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_asked_to_end_an_export_leaves_nothing_half_written(
    number: int, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(args: argparse.Namespace, kind: str) -> None:
        with folders.atomic(tmp_path / "out") as temporary:
            temporary.write_bytes(b"half")
            os.kill(os.getpid(), number)
            time.sleep(5)

    monkeypatch.setattr(export, "away", away)
    with pytest.raises(SystemExit) as left:
        main(["merge", "one", str(tmp_path / "out")])
    assert left.value.code == 128 + number
    assert not list(tmp_path.glob(".out*"))
    assert signal.getsignal(number) is signal.SIG_DFL


def test_ctrl_c_before_anything_has_begun_is_a_word(tmp_path: Path) -> None:
    """While it is still being imported: here by a library that stands for all of them."""
    (tmp_path / "yaml.py").write_text("import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(5)\n")
    done = subprocess.run(
        [sys.executable, "-m", "studio", "methods"],
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert (done.returncode, done.stderr, done.stdout) == (130, "interrupted\n", "")


def test_ctrl_c_while_the_page_is_built_is_a_word(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(page, "_serve", interrupted)
    with pytest.raises(SystemExit) as left:
        page.main([])
    assert (left.value.code, capsys.readouterr().err) == (130, "interrupted\n")
