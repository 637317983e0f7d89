"""What went wrong with another computer, in words: from the exit status and the last lines of ssh, rsync or the command there."""

from __future__ import annotations

import json
import re

from studio.environment import TROUBLE
from studio.errors import DeviceError, StudioError
from studio.place import Unreachable

SSH_LOST = (255,)  # ssh's own exit status when the connection, not the command, failed
RSYNC_LOST = (12, 20, 30, 35, 255)  # rsync's for a stream that broke, a signal, timeouts; or ssh's
FULL = "No space left on device"


def trouble(
    code: int, said: str, host: str, address: str, lost: tuple[int, ...] = SSH_LOST, fetching: bool = False
) -> Exception:
    """Unreachable, or the DeviceError that says what to do.

    host: as typed after ssh. A negative code: killed here by a signal. fetching: files were written here, not there.
    """
    words = said.strip().splitlines() or ["it gave no reason"]
    last = " ".join(words[-3:])[-500:]
    if code == TROUBLE and words[-1].startswith("@trouble "):
        told = json.loads(words[-1].partition(" ")[2])
        return DeviceError(f"{address} could not be set up: {told['message']}", told["hint"], "place")
    if code < 0 or code in lost:
        return _refused(said, host, address, last) or Unreachable(
            f"{address}: {last}" if said.strip() else f"The connection to {address} was lost."
        )
    if FULL in said and fetching:
        return DeviceError(
            "The disk of this computer is full: the result could not be fetched.",
            "Free some space here, then resume the run.",
            "disk",
        )
    if FULL in said:
        return DeviceError(
            f"The disk of {address} is full.", "Free some space there (`df -h` shows it), then resume the run.", "disk"
        )
    if code == 127:
        return DeviceError(
            f"Something is not installed on {address}: {last}",
            f"Look there with `ssh {host}`: python3 (3.11 or newer) and rsync are needed.",
            "place",
        )
    if "Permission denied" in said or "Read-only file system" in said:
        return DeviceError(
            f"{address} does not let the studio write there: {last}",
            "Give a folder that you may write to as place.folder.",
            "place",
        )
    return DeviceError(
        f"{address} cannot be used: {last}",
        f"Look there with `ssh {host}`: Python 3.11 with venv, rsync and room on the disk are needed.",
        "place",
    )


def _refused(said: str, host: str, address: str, last: str) -> StudioError | None:
    """ssh has reached the place, or knows it never will: trying again would change nothing."""
    if "REMOTE HOST IDENTIFICATION HAS CHANGED" in said:
        found = re.search(r"^\s*(ssh-keygen -f .*)$", said, re.MULTILINE)
        forget = found[1] if found else f"ssh-keygen -R {host.rpartition('@')[2]}"
        return DeviceError(
            f"{address} shows another host key than before: it was set up anew, or somebody stands in between.",
            f"Ask who runs it. If the key is rightly new, type `{forget}`, then `ssh {host}` once, and resume the run.",
            "place",
        )
    if "Host key verification failed" in said:
        return DeviceError(
            f"{address} is not among this computer's known hosts.",
            f"Type `ssh {host}` in a terminal once, compare the key it shows, answer yes, and resume the run.",
            "place",
        )
    if "Permission denied" in said:
        return DeviceError(
            f"{address} does not let this computer in without a password: {last}",
            f"`ssh-copy-id {host}` puts your key there; a key with a passphrase goes into the agent with `ssh-add`. `ssh {host}` "
            "must work without asking for anything; then resume the run.",
            "place",
        )
    if re.search(
        r"Bad configuration option|no such identity|Too many authentication failures|Bad owner or permissions", said
    ):
        return DeviceError(
            f"ssh to {address} is not set up: {last}",
            f"Type `ssh {host}` in a terminal: it must work without asking for anything.",
            "place",
        )
    return None
