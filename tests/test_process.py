"""What a process asks of the kernel for itself."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest

from studio import process
from studio.home import PROJECT

WAITS = """import time
from studio import process
process.set_timer_slack({milliseconds})
began, count = time.monotonic(), 0
while time.monotonic() - began < 0.5:
    time.sleep(0.001)
    count += 1
print(count)"""


def waits(milliseconds: float) -> int:
    """How many waits of a millisecond a process makes in half a second."""
    done = subprocess.run(
        [sys.executable, "-c", WAITS.format(milliseconds=milliseconds)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's timer slack is Linux's")
def test_waits_that_are_in_no_hurry_end_together() -> None:
    """About twenty milliseconds each, where nothing else wakes it; a busy computer may hide that once."""
    assert any(4 * waits(20) < waits(0.05) for _ in range(5))


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's timer slack is Linux's")
def test_what_comes_meanwhile_is_not_kept_waiting() -> None:
    """A byte that arrives ends a wait of a minute at once, whatever the slack."""
    code = """import select, subprocess, time
from studio import process
other = subprocess.Popen(["sh", "-c", "sleep 0.1; echo x"], stdout=subprocess.PIPE)
process.set_timer_slack(8000)
began = time.monotonic()
select.select([other.stdout], [], [], 60.0)
print(time.monotonic() - began)"""
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 30


@pytest.mark.skipif(not hasattr(os, "fork"), reason="where a process can fork")
def test_a_forked_child_of_a_command_ends_when_it_is_ended() -> None:
    """It may be where an exception is swallowed; a pool, which ends its workers so, would wait for it without end."""

    def swallow(ready: object) -> None:
        for _ in range(2):
            with contextlib.suppress(BaseException):
                ready.set()
                time.sleep(30)

    context = multiprocessing.get_context("fork")
    ready = context.Event()
    with process.ended_in_order():
        child = context.Process(target=swallow, args=(ready,))
        child.start()
        assert ready.wait(30)
        child.terminate()
        child.join(10)
    ended = child.exitcode
    child.kill()
    assert ended == -signal.SIGTERM
