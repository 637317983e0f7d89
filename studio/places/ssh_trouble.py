"""Errors of another computer, from the exit status and last lines of ssh, rsync or the remote command."""

from __future__ import annotations

import json
import re

from studio.environment import TROUBLE
from studio.errors import DeviceError, StudioError
from studio.place import Unreachable

SSH_LOST = (255,)  # ssh's own exit status when the connection, not the command, failed
RSYNC_LOST = (12, 20, 30, 35, 255)  # rsync's for a broken stream, a signal, timeouts; or ssh's
FULL = "No space left on device"


def trouble(
    code: int, output: str, host: str, address: str, lost: tuple[int, ...] = SSH_LOST, fetching: bool = False
) -> Exception:
    """Return Unreachable, or a DeviceError that says what to do.

    code: exit status, negative if killed by a signal here. host: as typed after ssh. lost: exit statuses of a lost
    connection. fetching: whether files were written here, not there.
    """
    lines = output.strip().splitlines() or ["it gave no reason"]
    last = " ".join(lines[-3:])[-500:]
    if code == TROUBLE and lines[-1].startswith("@trouble "):
        failure = json.loads(lines[-1].partition(" ")[2])
        return DeviceError(f"{address} could not be set up: {failure['message']}", failure["hint"], "place")
    if code < 0 or code in lost:
        return _refused(output, host, address, last) or Unreachable(
            f"{address}: {last}" if output.strip() else f"The connection to {address} was lost."
        )
    if FULL in output and fetching:
        hint = "Free some space here, then resume the run."
        return DeviceError("The disk of this computer is full: the result could not be fetched.", hint, "disk")
    if FULL in output:
        hint = "Free some space there (`df -h` shows it), then resume the run."
        return DeviceError(f"The disk of {address} is full.", hint, "disk")
    if code == 127:
        hint = f"Look there with `ssh {host}`: python3 (3.11 or newer) and rsync are needed."
        return DeviceError(f"Something is not installed on {address}: {last}", hint, "place")
    if "Permission denied" in output or "Read-only file system" in output:
        hint = "Give a folder that you may write to as place.folder."
        return DeviceError(f"{address} does not let the studio write there: {last}", hint, "place")
    hint = f"Look there with `ssh {host}`: Python 3.11 with venv, rsync and room on the disk are needed."
    return DeviceError(f"{address} cannot be used: {last}", hint, "place")


def _refused(output: str, host: str, address: str, last: str) -> StudioError | None:
    """The error of a refused connection, which a new attempt would not change; None for any other."""
    if "REMOTE HOST IDENTIFICATION HAS CHANGED" in output:
        command = re.search(r"^\s*(ssh-keygen -f .*)$", output, re.MULTILINE)
        forget = command[1] if command else f"ssh-keygen -R {host.rpartition('@')[2]}"
        return DeviceError(
            f"{address} shows another host key than before: it was set up anew, or somebody stands in between.",
            f"Ask who runs it. If the key is rightly new, type `{forget}`, then `ssh {host}` once, and resume the run.",
            "place",
        )
    if "Host key verification failed" in output:
        hint = f"Type `ssh {host}` in a terminal once, compare the key it shows, answer yes, and resume the run."
        return DeviceError(f"{address} is not among this computer's known hosts.", hint, "place")
    if "Permission denied" in output:
        return DeviceError(
            f"{address} does not let this computer in without a password: {last}",
            f"`ssh-copy-id {host}` puts your key there; a key with a passphrase goes into the agent with "
            f"`ssh-add`. `ssh {host}` "
            "must work without asking for anything; then resume the run.",
            "place",
        )
    if re.search(
        r"Bad configuration option|no such identity|Too many authentication failures|Bad owner or permissions", output
    ):
        hint = f"Type `ssh {host}` in a terminal: it must work without asking for anything."
        return DeviceError(f"ssh to {address} is not set up: {last}", hint, "place")
    return None
