"""Process trees: whom we started, who holds a file, and how to end them without ever trusting a process id.

An id is reused. So we signal only our own descendants (the kernel keeps an unreaped child's id for us) or processes that are seen
to hold the very file a trainer holds.
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

_SET_PARENT_DEATH_SIGNAL, _SET_TIMER_SLACK, _SET_CHILD_SUBREAPER = 1, 29, 36  # linux/prctl.h


def die_with_parent(parent: int) -> None:
    """Linux: SIGKILL for this process when its parent is gone. parent: the parent's id as the starter knew it.

    A rank started by torchrun calls this too: it lives in a session of its own, out of reach of its grandparent's group.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:  # it died before we asked
        os.kill(os.getpid(), signal.SIGKILL)


def prefer_oom_kill() -> None:
    """Linux: when memory runs out, the system ends this process before the page or the supervisor."""
    try:
        Path("/proc/self/oom_score_adj").write_text("500")
    except OSError:
        pass  # not Linux, or a sandbox that does not allow it: the system then chooses by size, which is us as well


def adopt_orphans() -> None:
    """Linux: grandchildren whose parent dies become our children, so that we see them and can end them."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1)


def set_timer_slack(milliseconds: float) -> None:
    """Linux: waits of this process with a time limit may last so much longer, so that the kernel lets them end together (PR_SET_TIMERSLACK).

    What is waited for still wakes at once: a connection, a lock, a child. Holds for threads and processes that are started from now on, too.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_TIMER_SLACK, ctypes.c_ulong(int(1e6 * milliseconds)))


def descendants() -> list[psutil.Process]:
    """All living descendants of this process."""
    return [one for one in psutil.Process().children(recursive=True) if is_alive(one)]


def descendants_of(pid: int) -> list[psutil.Process]:
    """All living descendants of a child of ours."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def holders(path: Path) -> list[psutil.Process]:
    """Processes that have this file open, ourselves left out. What belongs to other users is not seen."""
    found, wanted = [], str(path.resolve())
    for one in psutil.process_iter():
        try:
            if one.pid != os.getpid() and any(file.path == wanted for file in one.open_files()):
                found.append(one)
        except (psutil.Error, OSError):
            continue
    return found


def kill_all(find: Callable[[], list[psutil.Process]], wait: float = 10.0) -> bool:
    """SIGKILL all that find() gives, again until it gives none. False when some are left after `wait` seconds."""
    until = time.monotonic() + wait
    while left := find():
        if time.monotonic() > until:
            return False
        for one in left:
            send_signal(one, signal.SIGKILL)
        psutil.wait_procs(left, timeout=0.2)
    return True


def send_signal(one: psutil.Process, number: int) -> None:
    """A signal, after psutil has compared the id's start time with the one it was found with."""
    try:
        one.send_signal(number)
    except (psutil.NoSuchProcess, PermissionError, psutil.AccessDenied):
        pass  # it is gone, or was never ours to signal


def memory_kills() -> int:
    """How often this system (in a container: the container) has killed a process for memory; 0 where it does not tell."""
    for file, key in ((Path("/sys/fs/cgroup/memory.events"), "oom_kill"), (Path("/proc/vmstat"), "oom_kill")):
        try:
            pairs = dict(line.split() for line in file.read_text().splitlines())
            return int(pairs[key])
        except (OSError, KeyError, ValueError):
            continue
    return 0


def is_alive(one: psutil.Process) -> bool:
    try:
        return one.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@contextmanager
def kill_after(child: subprocess.Popen[str], seconds: float) -> Iterator[None]:
    """Inside, a child is killed once it has gone on for so long."""
    timer = threading.Timer(seconds, child.kill)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
