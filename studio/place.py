"""Place: the interface of where a run is trained. One file each in places/; this computer is one of them.

A run is a folder, so a remote run is the same folder on another computer. What is sent is a bundle: the order,
the data and model files it names, the changes made since. There, `python -m studio.relay BUNDLE` executes it and
reports on its standard output. Here, `python -m studio.follow RUN` runs in place of the trainer: it sends the
bundle, copies the reported lines into the run's events.jsonl and log.txt, forwards requests, and fetches the
result.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from pydantic import BaseModel

from studio.knob import KNOBS


class Machine(NamedTuple):
    """A place's hardware.

    card: its name in cards.py, None for a CPU; count: of cards; memory: bytes of one card, None if unknown; ram: bytes;
    price: US dollars an hour, None if free or unknown.
    """

    card: str | None
    count: int = 1
    memory: int | None = None
    ram: int | None = None
    price: float | None = None

    def cost(self, seconds: float | None) -> float | None:
        """US dollars for a run of so many seconds, without set-up; None if price or time is unknown."""
        if seconds is None or self.price is None:
            return None
        return round(self.price * seconds / 3600, 4)


class Bundle(NamedTuple):
    """What is sent to a place.

    name: the run's id here, and the bundle's name at the place; folder: holds order.yaml, changes.json and
    files/; attempt: of the run here, from 1; expected: returns the expected seconds of the run or None. It is a
    function because it encodes the data. tell: called with a phase ("sending", "setting up") and a line of
    progress, about every second, "" without news.
    """

    name: str
    folder: Path
    attempt: int
    expected: Callable[[], float | None] = lambda: None
    tell: Callable[[str, str], None] = lambda phase, line: None


class Unreachable(Exception):
    """The place does not answer now. What was started there continues; a later attempt may succeed."""


class Place(BaseModel, ABC):
    """Where a run is trained. A place that is not `remote` is this computer; nothing is sent."""

    model_config = KNOBS

    label: ClassVar[str]
    about: ClassVar[str]
    remote: ClassVar[bool] = False
    list_position: ClassVar[int] = 0  # in lists of places, ascending
    hardware: ClassVar[Mapping[str, Machine]] = {}  # what can be rented there, by the name after "kind:"

    @property
    @abstractmethod
    def address(self) -> str:
        """The name shown to users: "me@gpu-box"."""

    def auto_values(self, seconds: float | None) -> dict[str, tuple[Any, str]]:
        """What each of its own knobs set to `auto` comes to: {knob: (value, why)}. seconds: of the run, as forecast."""
        return {}

    def machine(self) -> Machine | None:
        """Its hardware; None if unknown before something was sent there. Uses no network."""
        return None


class RemotePlace(Place):
    """Another computer, which executes bundles."""

    remote: ClassVar[bool] = True
    list_position: ClassVar[int] = 1

    @abstractmethod
    def send(self, bundle: Bundle) -> None:
        """Send the program and the bundle, calling bundle.tell regularly. Idempotent. Raises Unreachable."""

    @abstractmethod
    def output(self, bundle: Bundle, events: int, log: int) -> Iterator[bytes]:
        """Start the bundle's run, or reconnect to it, and yield the relay's lines; b"" at least every second without
        any.

        events, log: bytes of the remote events.jsonl and log.txt that are known here; lines may be repeated. Ends
        when the relay has ended. Raises Unreachable if the connection is lost, StudioError if the relay cannot be
        started.
        """

    @abstractmethod
    def ask(self, bundle: Bundle, word: str) -> None:
        """Send a request: stop, discard, pause, save, evaluate or sample. Raises Unreachable."""

    @abstractmethod
    def fetch(self, bundle: Bundle, target: Path) -> None:
        """Copy the result's files (the run's model/) into an empty folder here. Raises StudioError, Unreachable."""

    def remove(self, name: str) -> str:
        """Delete a run's files at the place. Returns what is left there, or "". Raises RunError while it is alive."""
        return f"What was sent stays at {self.address}."
