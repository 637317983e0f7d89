"""Turns: the one thread that computes. Every answer being written gets its step in turn; nothing else touches a model."""

from __future__ import annotations

import queue
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from studio.errors import ModelError, StudioError
from studio.talk.reference import BASE, BASE_PREFIX, of_base, resolve

Deliver = Callable[[dict[str, Any]], None]


@dataclass
class Asked:
    """A question on its way: where its events go ({"text"}, {"finish"}, {"error"}), and whether somebody still listens."""

    name: str
    messages: list[dict[str, Any]] | str  # a text is gone on with as it stands
    sampling: dict[str, Any]
    deliver: Deliver
    extra: dict[str, Any] = field(default_factory=dict)  # variables of the chat template, like tools
    cancelled: bool = False
    answer: Any = None
    at: float = field(default_factory=time.monotonic)
    first: float | None = None  # seconds to the first token

    def usage(self) -> dict[str, Any]:
        """Tokens and seconds so far; the speed counts from the first token on."""
        made, read = len(self.answer.new), len(self.answer.prompt)
        seconds = time.monotonic() - self.at - (self.first or 0.0)
        return {
            "prompt_tokens": read,
            "completion_tokens": made,
            "total_tokens": read + made,
            "first_token_seconds": round(self.first or 0.0, 3),
            "tokens_per_second": round((made - 1) / seconds, 1) if made > 1 and seconds > 0 else None,
        }


class BatchScheduler(threading.Thread):
    """Loads voices and writes answers. Other threads call ask, load and unload only; answers come through `deliver`."""

    def __init__(self, threads: int, names: Sequence[str] = ()):
        """names: voices that are going to be loaded first; told from the start, since a question to them waits for them."""
        super().__init__(name="turns", daemon=True)
        self.threads = threads
        self.inbox: queue.Queue[Callable[[], None]] = queue.Queue()
        self.doing, self.failure = "starting", ""
        self.names = list(names)
        self.touched = time.monotonic()
        self._speakers: Any = None
        self._reading: dict[str, list[Asked]] = {}
        self._writing: dict[str, list[Asked]] = {}

    # -- from other threads

    def ask(self, asked: Asked) -> None:
        self.inbox.put(lambda: self._begin(asked))

    def load(self, names: list[str], deliver: Deliver) -> None:
        self.inbox.put(lambda: self._load(names, deliver))

    def unload(self, names: list[str], deliver: Deliver) -> None:
        self.inbox.put(lambda: self._unload(names, deliver))

    @property
    def busy(self) -> int:
        """Answers being read or written."""
        return sum(map(len, self._reading.values())) + sum(map(len, self._writing.values()))

    # -- in this thread

    def run(self) -> None:
        self._prepare()
        while True:
            while not self.inbox.empty() or not self.busy:
                self.inbox.get()()
            self.touched = time.monotonic()
            for name in list(self._speakers.named):
                try:
                    self._turn(name)
                except Exception as error:  # noqa: BLE001 - out of memory and the like end these answers, not the server
                    traceback.print_exc()
                    self._fail(name, error)

    def _prepare(self) -> None:
        """The heavy imports, after the port is open."""
        self.doing = "loading torch"
        import torch

        from studio.worker.loaded import LoadedModels

        torch.set_num_threads(self.threads)
        self._speakers, self.doing = LoadedModels(), ""

    def _load(self, names: list[str], deliver: Deliver) -> None:
        from studio.talk.chat import check_room

        try:
            for name in names:
                if name in self._speakers.named:
                    continue
                self.doing = f"loading {name}"
                found = self._voice(name)
                check_room([*(one.voice for one in self._speakers.named.values())], [found])
                began = time.monotonic()
                self._speakers.load(found)
                print(f"loaded {name} in {time.monotonic() - began:.1f} s", flush=True)
            deliver({"done": list(self._speakers.named)})
        except StudioError as error:
            deliver({"error": error})
        except Exception as error:  # noqa: BLE001 - whatever a model's files hold, the server goes on and says so
            traceback.print_exc()
            deliver(
                {
                    "error": ModelError(
                        f"{name} could not be loaded: {_short(error)}.",
                        "Look at the server's log for the whole story.",
                        "model",
                    )
                }
            )
        finally:
            self.doing, self.names, self.touched = "", list(self._speakers.named), time.monotonic()

    def _voice(self, name: str) -> Any:
        """`base` is the base of what is loaded already; else the starter."""
        loaded = [one.voice for one in self._speakers.named.values() if not one.voice.name.startswith(BASE_PREFIX)]
        return (
            of_base(loaded[0].base)
            if name == BASE and loaded
            else resolve(name, lambda what, *_: setattr(self, "doing", what))
        )

    def _unload(self, names: list[str], deliver: Deliver) -> None:
        for name in names:
            for asked in self._reading.pop(name, []) + self._writing.pop(name, []):
                asked.deliver({"error": ModelError(f"{name} was unloaded.", "Load it again.", "model")})
            self._speakers.unload(name)
        self.names = list(self._speakers.named)
        deliver({"done": self.names})

    def _begin(self, asked: Asked) -> None:
        from studio.worker.generate import Sampling

        try:
            if asked.name not in self._speakers.named:
                raise ModelError(
                    f"There is no model {asked.name!r} here.",
                    f"Loaded: {', '.join(self._speakers.named) or 'none'}.",
                    "model",
                )
            asked.answer = self._speakers.named[asked.name].answer(
                asked.messages, Sampling(**asked.sampling), **asked.extra
            )
        except StudioError as error:
            asked.deliver({"error": error})
            return
        except Exception as error:  # noqa: BLE001 - a request that nobody foresaw ends itself, not the server
            traceback.print_exc()
            asked.deliver(
                {
                    "error": ModelError(
                        f"The question could not be read: {_short(error)}.",
                        "Look at the server's log for the whole story.",
                        "messages",
                    )
                }
            )
            return
        self._reading.setdefault(asked.name, []).append(asked)

    def _turn(self, name: str) -> None:
        """One part of one waiting prompt, then one token for every answer of this model."""
        batch = self._speakers.named[name].batch
        reading, writing = self._reading.get(name, []), self._writing.setdefault(name, [])
        for asked in [one for one in reading if one.cancelled]:
            reading.remove(asked)
        for asked in writing:
            if asked.cancelled:
                asked.answer.finish = asked.answer.finish or "cancelled"
        if reading:
            asked = reading[0]
            shown = batch.read(asked.answer)
            if shown is not None:
                reading.pop(0)
                writing.append(asked)
                asked.first = time.monotonic() - asked.at
                self._tell(asked, shown)
        fresh = batch.step()
        for asked in list(writing):
            for answer, shown in fresh:
                if answer is asked.answer:
                    self._tell(asked, shown)
            if asked.answer.finish is not None:
                writing.remove(asked)

    def _tell(self, asked: Asked, shown: str) -> None:
        odds, asked.answer.odds = asked.answer.odds, []
        if shown or odds:
            asked.deliver({"text": shown, "odds": [self._named(asked.name, one) for one in odds]})
        if asked.answer.error is not None:
            error = asked.answer.error
            asked.deliver(
                {
                    "error": ModelError(
                        f"The answer could not be written: {_short(error)}.",
                        "Change the settings of the question.",
                        "sampling",
                    )
                }
            )
        elif asked.answer.finish is not None:
            asked.deliver({"finish": asked.answer.finish, "usage": asked.usage()})

    def _named(self, name: str, odds: dict[str, Any]) -> dict[str, Any]:
        """Token ids to text, in OpenAI's shape."""
        tokenizer = self._speakers.named[name].encoder.tokenizer

        def one(token: int, logprob: float) -> dict[str, Any]:
            text = tokenizer.decode([token], skip_special_tokens=False)
            return {"token": text, "logprob": logprob, "bytes": list(text.encode())}

        return {**one(odds["token"], odds["logprob"]), "top_logprobs": [one(*pair) for pair in odds["top"]]}

    def _fail(self, name: str, error: Exception) -> None:
        from studio.worker.generate import Batch

        told = ModelError(
            f"{name} could not go on: {_short(error)}.",
            "Ask again, with a shorter conversation if memory was short.",
            "model",
        )
        for asked in self._reading.pop(name, []) + self._writing.pop(name, []):
            asked.deliver({"error": told})
        speaker = self._speakers.named[name]
        speaker.batch = Batch(speaker.model)


def _short(error: BaseException) -> str:
    text = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {text[0][:200]}".rstrip(". ")
