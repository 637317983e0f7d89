"""The model server from outside: find it, start it, talk to it, end it. No torch: it is a process of its own.

One server a home. It holds a lock for as long as it lives, and tells address and key in a file that only its owner can read.
Ending it gives back every byte; killing it costs a restart and nothing else.
"""

from __future__ import annotations

import http.client
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from studio import device, run
from studio.device import default_environment
from studio.errors import DeviceError, ModelError, StudioError
from studio.events import Lock, is_locked
from studio.home import PROJECT, subfolder, write_atomic
from studio.talk import reference
from studio.talk.reference import ModelReference

STATUS = "/studio/status"
IDLE = float(os.environ.get("STUDIO_CHAT_IDLE", 900))  # seconds without a question after which the server ends itself
SIGN_OF_LIFE = 5.0  # seconds after which a waiting stream says that it is still at work
SILENCE = 30.0  # seconds without any sign after which a server counts as gone
START_WAIT = 60.0  # seconds from start to an open port
OVERHEAD = 700_000_000  # bytes of torch and its libraries, kernels and a few conversations, beside the weights
# The server's environment: threads that soon sleep while they wait, and no import of torch's compiler, which answers never use (1.4 s).
SERVER_ENVIRONMENT = {
    **device.thread_environment(),
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONUNBUFFERED": "1",
    "TORCHDYNAMO_DISABLE": "1",
}


class Delta(NamedTuple):
    """A piece of an answer. The last one has no text but finish (stop, length) and usage.

    usage: prompt_tokens, completion_tokens, tokens (the same), tokens_per_second, first_token_seconds, seconds.
    """

    text: str
    finish: str | None = None
    usage: dict[str, Any] | None = None


class ServerGone(StudioError):
    """The model server is not there, or went away in the middle of an answer."""

    def __init__(
        self,
        message: str = "The model server has ended.",
        hint: str = "Start it again: ask once more, or press restart.",
    ):
        super().__init__(message, hint, "server")


class Server:
    """A handle on this home's model server, running or not. Cheap to make; keeps nothing that the files do not say."""

    def ready(self) -> bool:
        """Whether its process lives and its port is open. It may still be loading; see status()."""
        return is_locked(lock().path) and _told() is not None

    def status(self) -> dict[str, Any]:
        """{models, doing, busy, pid, memory (bytes of RAM), seconds}. Raises ServerGone."""
        return self._call("GET", STATUS, timeout=5)

    def models(self) -> list[str]:
        """Names of the voices in memory. Raises ServerGone."""
        return self.status()["models"]

    def load(self, names: Sequence[str]) -> list[str]:
        """Put voices into memory (see studio/talk/reference.py for the names), starting the server if need be; returns all that are loaded.

        Raises StudioError: no such voice, or a DeviceError where a running training would be starved of memory.
        """
        if not self.ready():
            start()
        return self._call("POST", "/studio/load", {"names": list(names)})["models"]

    def unload(self, names: Sequence[str]) -> list[str]:
        """Take voices out; the process stays. Raises ServerGone."""
        return self._call("POST", "/studio/unload", {"names": list(names)})["models"]

    def stream(self, model: str, messages: list[dict[str, Any]], **sampling: Any) -> Iterator[Delta]:
        """The answer as it is written. Closing the iterator stops the model. Raises ServerGone, ModelError, TemplateError.

        sampling: max_tokens, temperature (0: always the likeliest), top_p, top_k, repetition_penalty, seed, stop.
        """
        began = time.monotonic()
        body = {
            "model": model,
            "messages": messages,
            "stream": True,
            "stream_options": {"include_usage": True},
            **sampling,
        }
        connection, answer = self._open("POST", "/v1/chat/completions", body, timeout=SILENCE)
        finish = None
        try:
            for line in answer:
                if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
                    continue
                event = json.loads(line[6:])
                if "error" in event:
                    raise _error(event)
                if event.get("usage"):
                    usage = event["usage"]
                    yield Delta(
                        "",
                        finish or "stop",
                        {**usage, "tokens": usage["completion_tokens"], "seconds": round(time.monotonic() - began, 2)},
                    )
                    return
                choice = event["choices"][0]
                finish = choice["finish_reason"] or finish
                if choice["delta"].get("content"):
                    yield Delta(choice["delta"]["content"])
            raise ServerGone("The model server went away in the middle of the answer.")
        except (OSError, http.client.HTTPException) as error:
            raise ServerGone("The model server went away in the middle of the answer.") from error
        finally:
            connection.close()

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None, timeout: float = 30) -> dict[str, Any]:
        connection, answer = self._open(method, path, body, timeout)
        try:
            return json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise ServerGone() from error
        finally:
            connection.close()

    def _open(
        self, method: str, path: str, body: dict[str, Any] | None, timeout: float
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        told = _told() if is_locked(lock().path) else None
        if told is None:
            raise ServerGone("The model server is not running.")
        connection = http.client.HTTPConnection(urlsplit(told["address"]).netloc, timeout=timeout)
        try:
            data = json.dumps(body).encode() if body is not None else None
            connection.request(
                method, path, data, {"Authorization": f"Bearer {told['key']}", "Content-Type": "application/json"}
            )
            while path != STATUS and not select.select([connection.sock], [], [], SIGN_OF_LIFE)[0]:
                self._call("GET", STATUS, timeout=SILENCE)  # it may take its time, as long as it lives
            answer = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise ServerGone(
                "The model server does not answer."
                if isinstance(error, TimeoutError)
                else "The model server has ended."
            ) from error
        except ServerGone:
            connection.close()
            raise
        if answer.status >= 400:
            event = json.loads(answer.read() or b"{}")
            connection.close()
            raise _error(event)
        return connection, answer


def server() -> Server:
    """The handle on this home's model server. Starts nothing; `load` does."""
    return Server()


def start() -> None:
    """Start the server, detached, and wait until its port is open. Raises DeviceError with the end of its log when it does not come up."""
    with Lock(subfolder("locks") / "chat-start"):
        if is_locked(lock().path) and _told():
            return
        _file().unlink(missing_ok=True)
        environment = {**os.environ, **SERVER_ENVIRONMENT, **default_environment()}
        command = [sys.executable, "-m", "studio.worker.serve", "--page", "--detach"]
        with open(log(), "wb") as output:
            subprocess.run(
                command, cwd=PROJECT, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        until = time.monotonic() + START_WAIT
        while time.monotonic() < until:
            if is_locked(lock().path) and _told():
                return
            time.sleep(0.02)
    tail = log().read_text(errors="replace").strip().splitlines()[-3:]
    raise DeviceError(
        f"The model server did not start: {' '.join(tail) or 'it gave no reason'}", f"Its log is {log()}.", "server"
    )


def end(wait: float = 10.0) -> int:
    """End the server; every byte it held goes back. Returns the bytes of RAM it held, 0 when there was none."""
    if not is_locked(lock().path):
        return 0
    memory = 0
    try:
        memory = server().status()["memory"]
        server()._call("POST", "/studio/end")
    except ServerGone:
        pass
    until = time.monotonic() + wait
    while is_locked(lock().path) and time.monotonic() < until:
        time.sleep(0.02)
    if is_locked(lock().path):
        raise DeviceError(
            "The model server did not end when asked.",
            f"End the process {(_told() or {}).get('pid')} yourself.",
            "server",
        )
    _file().unlink(missing_ok=True)
    return memory


def end_if_idle(wanted: Sequence[device.Device]) -> int:
    """End the server where a run takes an accelerator and nobody is being answered: the next question starts it again, beside what is left then.

    Returns the bytes of RAM it held. On a CPU it stays: `check_room` sees to its RAM.
    """
    if not is_locked(lock().path) or all(one.kind == "cpu" for one in wanted):
        return 0
    try:
        told = server().status()
        return 0 if told["busy"] or told["doing"] else end()
    except StudioError:
        return 0


def check_room(loaded: Sequence[ModelReference], wanted: Sequence[ModelReference]) -> None:
    """Raise DeviceError where `wanted` beside `loaded` would not fit, or would take what a running training still needs."""
    need = reference.size([*loaded, *wanted], True) - reference.size(list(loaded), True) + (0 if loaded else OVERHEAD)
    first = device.devices()[0]
    names = ", ".join(one.name for one in wanted)
    training, reserve = reserved_by_training()
    if need <= first.free - reserve:
        return
    if training and need <= first.free:
        raise DeviceError(
            f"{names} needs {_gb(need)}, and {_gb(first.free)} of {first.name} are free, but the running training {training} will still "
            f"take {_gb(reserve)} of them: it would run out of memory.",
            "Wait until it has ended, stop it, or load a smaller model.",
            "memory",
        )
    raise DeviceError(
        f"{names} needs {_gb(need)}, but only {_gb(first.free)} of {first.name} are free.",
        "End what else uses the memory, or load a smaller model.",
        "memory",
    )


def reserved_by_training() -> tuple[str, int]:
    """The running training and the bytes it was estimated to need and has not taken yet; ("", 0) when there is none."""
    for one in run.runs():
        diary = one.events()
        if one.state(diary) in run.ALIVE:
            said = run.summary(one)
            return one.id, max(0, (said["estimated_memory"] or 0) - (said["peak_memory"] or 0))
    return "", 0


def memory_of(pid: int) -> int:
    """Bytes of RAM a process holds for itself; 0 when it is gone."""
    import psutil

    try:
        return psutil.Process(pid).memory_info().rss
    except psutil.Error:
        return 0


# -- the server's side: it lives as long as it holds the lock


def lock() -> Lock:
    return Lock(subfolder("locks") / "chat")


def announce(address: str, key: str) -> None:
    """Tell where the server listens, in a file that nobody else may read."""
    write_atomic(_file(), json.dumps({"address": address, "key": key, "pid": os.getpid()}), mode=0o600)


def log() -> Path:
    """What the server printed since it was started."""
    return subfolder("cache") / "chat-server.log"


def _file() -> Path:
    return subfolder("locks") / "chat.json"


def _told() -> dict[str, Any] | None:
    try:
        return json.loads(_file().read_text())
    except (OSError, ValueError):
        return None


def _error(event: dict[str, Any]) -> StudioError:
    said = event.get("error") or {}
    told = said.get("studio") or {
        "message": said.get("message", "The model server refused."),
        "hint": "",
        "where": None,
    }
    kind = DeviceError if told["where"] in ("memory", "server") else ModelError
    return kind(told["message"], told["hint"], told["where"])


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
