"""The client of the model server, which is a process of its own: find, start, ask and end it.

This side imports no torch.

There is one server per home. It holds a lock while it lives and writes its address and key to a file that only its
owner can read. Ending it returns all its memory; killing it costs a restart and nothing else.
"""

from __future__ import annotations

import contextlib
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

from studio import credentials, device, json_text
from studio.device import default_environment
from studio.errors import DeviceError, ModelError, StudioError
from studio.events import Lock, is_locked
from studio.home import PROJECT, subfolder, write_atomic

STATUS = "/studio/status"
IDLE = float(os.environ.get("STUDIO_CHAT_IDLE", 900))  # seconds without a request after which the server ends itself
HEARTBEAT = 5.0  # seconds between two signs of life of a waiting stream
TIMEOUT = 30.0  # seconds without a sign of life after which a server counts as gone
START_WAIT = 60.0  # seconds from start to an open port
# waiting threads soon sleep; torch's compiler, which answers never use, is not imported (1.4 s)
SERVER_ENVIRONMENT = {
    **device.thread_environment(),
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONUNBUFFERED": "1",
    "TORCHDYNAMO_DISABLE": "1",
}


class Delta(NamedTuple):
    """A part of an answer. The last one has finish (stop or length) and usage instead of text.

    usage: prompt_tokens, completion_tokens, tokens (the same), tokens_per_second, first_token_seconds, seconds.
    """

    text: str
    finish: str | None = None
    usage: dict[str, Any] | None = None


class ServerGone(StudioError):
    """The model server is not running, or ended in the middle of an answer."""

    def __init__(
        self,
        message: str = "The model server has ended.",
        hint: str = "Start it again: ask once more, or press restart.",
    ):
        super().__init__(message, hint, "server")


class Server:
    """A stateless handle on this home's model server, running or not."""

    def ready(self) -> bool:
        """Whether its process lives and its port is open. It may still be loading; see status()."""
        return _address() is not None

    def status(self) -> dict[str, Any]:
        """{models, doing, busy, pid, memory (bytes of RAM), seconds}. Raises ServerGone."""
        return self._call("GET", STATUS, timeout=5)

    def models(self) -> list[str]:
        """Names of the models in memory. Raises ServerGone."""
        return self.status()["models"]

    def load(self, names: Sequence[str]) -> list[str]:
        """Load models by name (see reference.resolve), starting the server if need be; returns all that are loaded.

        Raises StudioError for an unknown name, and DeviceError where a running training would run out of memory.
        """
        if not self.ready():
            start()
        token = next(filter(None, map(os.environ.get, credentials.HUB)), None)  # the server has none of its own
        return self._call("POST", "/studio/load", {"names": list(names), "token": token})["models"]

    def unload(self, names: Sequence[str]) -> list[str]:
        """Remove models from memory; the process stays. Raises ServerGone."""
        return self._call("POST", "/studio/unload", {"names": list(names)})["models"]

    def stream(self, model: str, messages: list[dict[str, Any]], **sampling: Any) -> Iterator[Delta]:
        """Yield the answer as it is generated; closing the iterator stops the model.

        sampling: max_tokens, temperature (0 is greedy), top_p, top_k, repetition_penalty, seed, stop. Raises
        ServerGone, ModelError, TemplateError.
        """
        started = time.monotonic()
        body = {
            "model": model,
            "messages": messages,
            "stream": True,
            "stream_options": {"include_usage": True},
            **sampling,
        }
        connection, response = self._open("POST", "/v1/chat/completions", body, timeout=TIMEOUT)
        finish = None
        try:
            for line in response:
                if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
                    continue
                event = json.loads(line[6:])
                if "error" in event:
                    raise _error(event)
                if event.get("usage"):
                    seconds = round(time.monotonic() - started, 2)
                    usage = {**event["usage"], "tokens": event["usage"]["completion_tokens"], "seconds": seconds}
                    yield Delta("", finish or "stop", usage)
                    return
                choice = event["choices"][0]
                finish = choice["finish_reason"] or finish
                if choice["delta"].get("content"):
                    yield Delta(choice["delta"]["content"])
            raise ServerGone("The model server went away in the middle of the answer.")
        except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: half a line
            raise ServerGone("The model server went away in the middle of the answer.") from error
        finally:
            connection.close()

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None, timeout: float = 30) -> dict[str, Any]:
        connection, response = self._open(method, path, body, timeout)
        try:
            return json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise ServerGone() from error
        finally:
            connection.close()

    def _open(
        self, method: str, path: str, body: dict[str, Any] | None, timeout: float
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        address = _address()
        if address is None:
            raise ServerGone("The model server is not running.")
        connection = http.client.HTTPConnection(urlsplit(address["address"]).netloc, timeout=timeout)
        headers = {"Authorization": f"Bearer {address['key']}", "Content-Type": "application/json"}
        try:
            data = json.dumps(body).encode() if body is not None else None
            connection.request(method, path, data, headers)
            while path != STATUS and not select.select([connection.sock], [], [], HEARTBEAT)[0]:
                self._call("GET", STATUS, timeout=TIMEOUT)  # it may take its time, as long as it lives
            response = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            slow = isinstance(error, TimeoutError)
            raise ServerGone("The model server does not answer." if slow else "The model server has ended.") from error
        except ServerGone:
            connection.close()
            raise
        if response.status >= 400:
            with contextlib.closing(connection):
                raise _refusal(response)
        return connection, response


def server() -> Server:
    """The handle on this home's model server. Starts nothing; `load` does."""
    return Server()


def start() -> None:
    """Start the server, detached, and wait until its port is open. Raises DeviceError with the end of its log."""
    with Lock(subfolder("locks") / "chat-start"):
        if server().ready():
            return
        _file().unlink(missing_ok=True)
        environment = {**credentials.child_environment(), **SERVER_ENVIRONMENT, **default_environment()}
        command = [sys.executable, "-m", "studio.worker.serve", "--page", "--detach"]
        with open(log(), "wb") as output:
            subprocess.run(
                command, cwd=PROJECT, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        deadline = time.monotonic() + START_WAIT
        while time.monotonic() < deadline:
            if server().ready():
                return
            time.sleep(0.02)
    tail = " ".join(log().read_text(errors="replace").strip().splitlines()[-3:])
    message = f"The model server did not start: {tail or 'it gave no reason'}"
    raise DeviceError(message, f"Its log is {log()}.", "server")


def end(wait: float = 10.0) -> int:
    """End the server. Returns the bytes of RAM it held, 0 when there was none."""
    if not is_locked(lock().path):
        return 0
    memory = 0
    try:
        memory = server().status()["memory"]
        server()._call("POST", "/studio/end")
    except ServerGone:
        pass
    deadline = time.monotonic() + wait
    while is_locked(lock().path) and time.monotonic() < deadline:
        time.sleep(0.02)
    if is_locked(lock().path):
        pid = (_address() or {}).get("pid")
        raise DeviceError("The model server did not end when asked.", f"End the process {pid} yourself.", "server")
    _file().unlink(missing_ok=True)
    return memory


def end_if_idle(taken: Sequence[device.Device]) -> int:
    """End the server where a run takes an accelerator and nothing is being answered; the next question starts it again.

    Returns the bytes of RAM it held. On a CPU it stays: room.check sees to its RAM.
    """
    if not is_locked(lock().path) or all(accelerator.kind == "cpu" for accelerator in taken):
        return 0
    try:
        status = server().status()
        return 0 if status["busy"] or status["doing"] else end()
    except StudioError:
        return 0


# -- for the server, which lives as long as it holds the lock


def lock() -> Lock:
    return Lock(subfolder("locks") / "chat")


def announce(address: str, key: str) -> None:
    """Write the server's address and key to a file that nobody else may read."""
    write_atomic(_file(), json.dumps({"address": address, "key": key, "pid": os.getpid()}), mode=0o600)


def log() -> Path:
    """The file of the server's output since it was started."""
    return subfolder("cache") / "chat-server.log"


def _file() -> Path:
    return subfolder("locks") / "chat.json"


def _address() -> dict[str, Any] | None:
    """{address, key, pid} of the living server; None without one, or while its port is not open yet."""
    return (json_text.read_or_default(_file(), {}) or None) if is_locked(lock().path) else None


def _refusal(response: http.client.HTTPResponse) -> StudioError:
    """What a refusal says; a server that is about to end answers in plain text, or half."""
    try:
        return _error(json.loads(response.read() or b"{}"))
    except (OSError, http.client.HTTPException, ValueError):
        return ServerGone("The model server has ended.")


def _error(event: dict[str, Any]) -> StudioError:
    """The StudioError that the server sent, or one of OpenAI's shape."""
    error = event.get("error") or {}
    if "studio" not in error:
        return ModelError(error.get("message", "The model server refused."))
    fields = error["studio"]
    kind = DeviceError if fields["where"] in ("memory", "server") else ModelError
    return kind(fields["message"], fields["hint"], fields["where"])
