"""Place: the contract of where a run is trained. One file each in places/; this computer is one of them.

A run is a folder, so a run elsewhere is the same folder elsewhere. What is sent lies in a box: the order, the data and model
files it names, the changes made since. There, `python -m studio.relay BOX` carries it out and tells of it, line by line, on its
standard output. Here, `python -m studio.follow RUN` stands where the trainer would: it sends the box, takes the lines into the
run's events.jsonl and log.txt, passes on what the run is asked, and fetches the result.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar, NamedTuple

from pydantic import BaseModel, ConfigDict


class Machine(NamedTuple):
    """What a place computes with, as far as it is known here.

    card: its name as cards.py knows it, None for a CPU; count: how many; memory: bytes of one card where known, else None;
    ram: bytes; price: US dollars an hour, None where it costs nothing or is not known.
    """

    card: str | None
    count: int = 1
    memory: int | None = None
    ram: int | None = None
    price: float | None = None

    def cost(self, seconds: float | None) -> float | None:
        """US dollars for a run of so many seconds, setting up not counted; None where price or time is not known."""
        return None if seconds is None or self.price is None else round(self.price * seconds / 3600, 4)


class Bundle(NamedTuple):
    """What is sent, and under which name it stands at the place.

    name: the run's id here; folder: holds order.yaml, changes.json and files/; attempt: of the run here, from 1; expected: how many
    seconds the run will take, None where that is not known. It encodes the data to count them, so it is asked only where it is needed.
    tell: called with a phase ("sending", "setting up") and a line of what is being done; every second or so, "" where there is nothing new.
    """

    name: str
    folder: Path
    attempt: int
    expected: Callable[[], float | None] = lambda: None
    tell: Callable[[str, str], None] = lambda phase, line: None


class Unreachable(Exception):
    """The place does not answer now. What was started there goes on; asking again later may succeed."""


class Place(BaseModel, ABC):
    """Where a run is trained. One that is not `remote` is this computer, and nothing is sent there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: ClassVar[str]
    about: ClassVar[str]
    remote: ClassVar[bool] = False

    @property
    @abstractmethod
    def address(self) -> str:
        """Shown to people: "me@gpu-box"."""

    def machine(self) -> Machine | None:
        """What it computes with; None where that is not known before something was sent there. Asks no network."""
        return None


class RemotePlace(Place):
    """Another computer: what it takes to carry a box out there."""

    remote: ClassVar[bool] = True

    @abstractmethod
    def send(self, bundle: Bundle) -> None:
        """Bring the program and the box there. Idempotent. Raises StudioError where that cannot work, Unreachable.

        box.tell is called as soon as the place has answered, and while it takes long.
        """

    @abstractmethod
    def output(self, bundle: Bundle, events: int, log: int) -> Iterator[bytes]:
        """Start the box's run there, or come back to it, and yield the relay's lines; b"" at least every second while there are none.

        events, log: bytes of the run's events.jsonl and log.txt there that are known here. What was told already may be
        told again. Ends when the relay has ended. Raises Unreachable when the connection is lost, StudioError when the relay cannot
        be started.
        """

    @abstractmethod
    def ask(self, bundle: Bundle, word: str) -> None:
        """Pass a request on: stop, discard, pause, save, evaluate or sample. Raises Unreachable."""

    @abstractmethod
    def fetch(self, bundle: Bundle, target: Path) -> None:
        """Bring the result's files (the run's model/) into an empty folder here. Raises StudioError, Unreachable."""

    def remove(self, name: str) -> str:
        """Take away what a run has at the place. Returns a sentence about what stays there, or nothing.

        Raises RunError while it still runs there, StudioError, Unreachable.
        """
        return f"What was sent stays at {self.address}."
