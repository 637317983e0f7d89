"""Process trees: descendants, holders of a file, and how to kill them safely.

The system reuses process ids. So only our own descendants (an unreaped child keeps its id) or processes that hold a
trainer's lock file are signalled.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

KILL_WAIT = 10.0  # seconds
_SET_PARENT_DEATH_SIGNAL, _SET_TIMER_SLACK, _SET_CHILD_SUBREAPER = 1, 29, 36  # linux/prctl.h


def die_with_parent(parent: int) -> None:
    """Linux: this process gets SIGKILL when its parent dies. parent: the parent's id as the starter knew it.

    Ranks started by torchrun call this too: each has its own session, which no signal to the trainer's group reaches.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the call above
        os.kill(os.getpid(), signal.SIGKILL)


def prefer_oom_kill() -> None:
    """Linux: when memory runs out, the system kills this process before the page or the supervisor."""
    try:
        Path("/proc/self/oom_score_adj").write_text("500")
    except OSError:
        pass  # not Linux, or not permitted: the system then chooses the largest process


def adopt_orphans() -> None:
    """Linux: become the subreaper, so that orphaned grandchildren become our children."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1)


def set_timer_slack(milliseconds: float) -> None:
    """Linux: let the kernel delay this process's timers by so much, to group wake-ups (PR_SET_TIMERSLACK).

    Events such as a connection, a lock or a child still wake it at once. Threads and processes started later
    inherit it.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_TIMER_SLACK, ctypes.c_ulong(int(1e6 * milliseconds)))


def descendants() -> list[psutil.Process]:
    """All living descendants of this process."""
    return [process for process in psutil.Process().children(recursive=True) if is_alive(process)]


def descendants_of(pid: int) -> list[psutil.Process]:
    """All living descendants of a child of ours."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def holders(path: Path) -> list[psutil.Process]:
    """Other processes that have this file open, of this user only."""
    found, resolved = [], str(path.resolve())
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and any(file.path == resolved for file in process.open_files()):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def kill_all(find: Callable[[], list[psutil.Process]]) -> bool:
    """SIGKILL what find() returns, until it returns nothing. False if processes are left after KILL_WAIT."""
    until = time.monotonic() + KILL_WAIT
    while left := find():
        if time.monotonic() > until:
            return False
        for process in left:
            send_signal(process, signal.SIGKILL)
        psutil.wait_procs(left, timeout=0.2)
    return True


def send_signal(process: psutil.Process, number: int) -> None:
    """Send a signal; psutil first checks that the id still belongs to the same process."""
    try:
        process.send_signal(number)
    except (psutil.NoSuchProcess, PermissionError, psutil.AccessDenied):
        pass  # it has ended, or belongs to another user


def memory_kills() -> int:
    """How many processes the system (or this container) has killed for memory; 0 if unknown."""
    for file, key in ((Path("/sys/fs/cgroup/memory.events"), "oom_kill"), (Path("/proc/vmstat"), "oom_kill")):
        try:
            pairs = dict(line.split() for line in file.read_text().splitlines())
            return int(pairs[key])
        except (OSError, KeyError, ValueError):
            continue
    return 0


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@contextmanager
def kill_after(child: subprocess.Popen[str], seconds: float) -> Iterator[None]:
    """Context in which the child is killed after so many seconds."""
    timer = threading.Timer(seconds, child.kill)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def ended_in_order() -> Iterator[None]:
    """Context in which SIGTERM, and SIGHUP of a closed terminal, leave by way of every `finally`: SystemExit.

    A child that is forked meanwhile ends at once, as without it: where SystemExit is swallowed, in a callback of a weak
    reference, it would go on, and its parent would wait for it without end.
    """
    own = os.getpid()

    def leave(number: int, _: object) -> None:
        if os.getpid() != own:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        raise SystemExit(128 + number)

    heard = [
        number
        for number in (signal.SIGTERM, signal.SIGHUP)
        if threading.current_thread() is threading.main_thread() and signal.getsignal(number) is signal.SIG_DFL
    ]
    for number in heard:
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number in heard:
            signal.signal(number, signal.SIG_DFL)
