"""What a run has left on another computer, as far as it is known here."""

from __future__ import annotations

from studio.errors import DeviceError
from studio.place import Unreachable
from studio.run import Run
from studio.runs import launch


def mark(run: Run) -> None:
    """Note that the place has answered: files of the run may be there from now on."""
    (run.folder / "remote" / "answered").touch()


def known(run: Run) -> bool:
    return any((run.folder / "remote" / name).exists() for name in ("answered", "state.json"))


def remove(run: Run) -> str:
    """Delete the run's files at its place. Returns what is left there, or "". Raises RunError while it runs there."""
    if not launch.is_remote(run) or not known(run):
        return ""
    place = run.config.place
    try:
        return place.remove(run.id)
    except (Unreachable, DeviceError) as error:
        return f"What was sent to {place.address} stays there, since it could not be deleted now ({error})"
