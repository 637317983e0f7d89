"""The diary: whole lines from two writers, torn ends, full disks; and the lock that means alive."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio import events
from studio.home import PROJECT


@pytest.fixture
def diary(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


def test_there_and_back(diary: Path) -> None:
    events.append(diary, "step", step=1, loss=float("nan"), path="a", nested={"x": [float("inf"), 1.5]})
    told, cursor = events.read(diary)
    assert cursor == diary.stat().st_size
    assert told[0]["loss"] is None
    assert told[0]["nested"] == {"x": [None, 1.5]}
    assert events.read(diary, cursor) == ([], cursor)


def test_unknown_kind(diary: Path) -> None:
    with pytest.raises(ValueError, match="unknown kind"):
        events.append(diary, "steps")


def test_reader_takes_whole_lines_only(diary: Path) -> None:
    events.append(diary, "note", text="one")
    whole = diary.stat().st_size
    with open(diary, "ab") as file:
        file.write(b'{"at":1,"kind":"note","text":"tw')
    told, cursor = events.read(diary)
    assert (len(told), cursor) == (1, whole)
    events.append(diary, "note", text="three")
    told, _ = events.read(diary, cursor)
    assert [event["text"] for event in told] == ["three"]


def test_a_line_that_lacks_only_its_newline_counts_once_it_is_closed(diary: Path) -> None:
    events.append(diary, "end", state="finished")
    os.truncate(diary, diary.stat().st_size - 1)
    assert events.read(diary)[0] == []
    events.close_torn(diary)
    events.close_torn(diary)
    assert [event["state"] for event in events.read(diary)[0]] == ["finished"]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"null",
        b"7",
        b"[]",
        b"\xff\xfe",
        b'{"kind":"note"}',
        b'{"at":1,"kind":"phase"}',
        b'{"at":1,"kind":"end","state":"well"}',
        b'{"at":1,"kind":"step","step":"3","loss":1}',
        b'{"at":1,"kind":"song"}',
        b"[" * 5000,
    ],
)
def test_what_is_no_event_is_passed_over(diary: Path, line: bytes) -> None:
    diary.write_bytes(line + b"\n")
    events.append(diary, "note", text="on")
    assert [event.get("text") for event in events.read(diary)[0]] == ["on"]
    assert events.last(diary, ("phase", "end")) is None


def test_a_plan_names_its_kind_of_loss(diary: Path) -> None:
    events.append(diary, "plan", steps=16, loss="chunked", optimizer="adamw_torch_fused")
    events.append(diary, "step", step=1, loss="chunked")
    assert [event["kind"] for event in events.read(diary)[0]] == ["plan"], "a step's loss is a number"


def test_line_separators_inside_text_do_not_split_it(diary: Path) -> None:
    events.append(diary, "sample", prompt="a\u2028b\x85c\rd\ne", answer="")
    assert events.read(diary)[0][0]["prompt"] == "a\u2028b\x85c\rd\ne"


def test_limit(diary: Path) -> None:
    for number in range(100):
        events.append(diary, "note", text="x" * number)
    told, cursor = [], 0
    while True:
        new, after = events.read(diary, cursor, limit=64)
        if after == cursor:
            break
        told, cursor = told + new, after
    assert [len(event["text"]) for event in told] == list(range(100))


@given(kinds=st.lists(st.sampled_from(["phase", "step", "note", "end"]), max_size=30), block=st.integers(1, 300))
def test_last_is_what_a_whole_reading_gives(
    tmp_path_factory: pytest.TempPathFactory, kinds: list[str], block: int
) -> None:
    diary = tmp_path_factory.mktemp("last") / "events.jsonl"
    fields = {
        "phase": {"name": "training"},
        "step": {"step": 1, "loss": 1.0},
        "note": {"text": "é" * 20},
        "end": {"state": "failed"},
    }
    with open(diary, "w") as file:
        for number, kind in enumerate(kinds):
            file.write(json.dumps({"at": number, "kind": kind, **fields[kind]}) + "\n")
        file.write('{"at": 99, "kind": "end", "sta')
    wanted = [event for event in events.read(diary)[0] if event["kind"] in ("phase", "end")]
    assert events.last(diary, ("phase", "end"), block) == (wanted[-1] if wanted else None)


def _write(diary: Path, name: str) -> None:
    for number in range(200):
        events.append(diary, "note", text=name, number=number, padding="x" * 500)


def test_two_writers(diary: Path) -> None:
    context = multiprocessing.get_context("fork")
    both = [context.Process(target=_write, args=(diary, name)) for name in "ab"]
    for one in both:
        one.start()
    for one in both:
        one.join()
    told = events.read(diary)[0]
    assert diary.read_bytes().count(b"\n") == 400
    for name in "ab":
        assert [event["number"] for event in told if event["text"] == name] == list(range(200))


def test_full_disk_leaves_the_diary_as_it_was(diary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events.append(diary, "note", text="one")
    before, write = diary.read_bytes(), os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:7]))
    with pytest.raises(OSError, match="No space"):
        events.append(diary, "note", text="two")
    monkeypatch.undo()
    assert diary.read_bytes() == before


def test_half_a_line_and_dead(diary: Path) -> None:
    code = "from pathlib import Path; from studio import events\n"
    code += f"for n in range(9): events.append(Path({str(diary)!r}), 'step', step=n, loss=1.0)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, env={**os.environ, "STUDIO_CRASH_AT": "events.half#4"}
    )
    assert done.returncode == -signal.SIGKILL
    assert not diary.read_bytes().endswith(b"\n")
    events.append(diary, "step", step=9, loss=1.0)
    assert [event["step"] for event in events.read(diary)[0]] == [0, 1, 2, 9]


def test_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not events.is_locked(path)
    first, second = events.Lock(path), events.Lock(path)
    assert first.acquire()
    assert events.is_locked(path)
    assert not second.acquire(wait=0.05)
    first.release()
    first.release()
    assert not events.is_locked(path)
    assert second.acquire()
    second.release()


def test_lock_is_free_when_its_holder_dies(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    code = f"import time; from pathlib import Path; from studio import events; lock = events.Lock(Path({str(path)!r}));"
    code += "print(lock.acquire(), flush=True); time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", code], cwd=PROJECT, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"True\n"
    assert events.is_locked(path)
    holder.kill()
    holder.wait()
    assert not events.is_locked(path)


def test_an_heir_keeps_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    lock = events.Lock(path)
    assert lock.acquire()
    heir = subprocess.Popen(["sleep", "60"], pass_fds=[lock.descriptor])
    lock.release()
    assert events.is_locked(path)
    heir.kill()
    heir.wait()
    assert not events.is_locked(path)


def test_compared_answers_have_no_perplexity() -> None:
    assert events.perplexity({"loss": 1.0}) == pytest.approx(2.718281828)
    assert events.perplexity({"loss": 1.0, "preference": {"accuracy": 0.5}}) is None
