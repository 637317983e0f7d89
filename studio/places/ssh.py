"""Another computer, reached by the system's ssh and rsync: the user's keys, agent, known hosts and ~/.ssh/config
apply.

One folder there has code/HASH (this program), venv (created once, unless a Python is named), relay/NAME (the
bundles) and the studio's home with its runs.
"""

from __future__ import annotations

import json
import os
import re
import selectors
import shlex
import shutil
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from studio import credentials, program
from studio.errors import DeviceError, RunError
from studio.home import slug, subfolder, write_atomic
from studio.knob import LOADING
from studio.place import Bundle, Machine, RemotePlace, Unreachable
from studio.places.ssh_trouble import RSYNC_LOST, SSH_LOST, trouble

STILL_RUNNING = "still running"  # in the message of run.delete for a run that is alive


class Ssh(RemotePlace):
    """On another computer over SSH."""

    label: ClassVar[str] = "Another computer over SSH"
    about: ClassVar[str] = (
        "A rented GPU or the big machine in the office: data goes there, curves and the result come back."
    )
    kind: Literal["ssh"] = Field("ssh", title="Place", description="Another computer over SSH.")
    host: str = Field(title="Computer", min_length=1, max_length=255)
    """As you type it after ssh: gpu-box, me@203.0.113.7, or a name of your ~/.ssh/config. It must let you in without a
    password (a key)."""
    port: int | None = Field(None, ge=1, le=65535, title="Port", description="Left out: as ssh finds it, usually 22.")
    python: str = Field("auto", min_length=1, max_length=500, title="Python there", json_schema_extra=LOADING)
    """A Python that has the studio's packages. auto: one is set up there the first time (some minutes)."""
    folder: str = Field(
        "~/.fine-tuning-studio", min_length=1, max_length=500, title="Folder there", json_schema_extra=LOADING
    )
    """Where the program, its runs and its models live there."""

    @field_validator("host")
    @classmethod
    def _is_a_host(cls, value: str) -> str:
        if not re.fullmatch(r"([\w.+-]+@)?[A-Za-z0-9_\[][\w.:\[\]-]*", value):
            raise ValueError("write it as after ssh: gpu-box or me@203.0.113.7")
        return value

    @field_validator("folder", "python")
    @classmethod
    def _is_a_path(cls, value: str) -> str:
        if not re.fullmatch(r"auto|(~|/)[\w./ @+-]*", value):
            raise ValueError("write a path that begins with / or ~/")
        return value.rstrip("/") or "/"

    @property
    def address(self) -> str:
        return self.host if self.port is None else f"{self.host}:{self.port}"

    def auto_values(self, seconds: float | None) -> dict[str, tuple[Any, str]]:
        return {"python": (None, "one is set up there the first time")}

    def machine(self) -> Machine | None:
        """As reported when something was last sent there."""
        try:
            return Machine(**json.loads(self._machine_file.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    @property
    def _machine_file(self) -> Path:
        return subfolder("cache") / f"ssh-{slug(self.address)}.json"

    # -- the interface

    def send(self, bundle: Bundle) -> None:
        for tool in ("ssh", "rsync"):
            if shutil.which(tool) is None:
                hint = f"Install {tool}, or train on this computer."
                raise DeviceError(f"There is no {tool} on this computer.", hint, "place")
        self._run(
            f"mkdir -p {self._path('code')} {self._path('relay')} && command -v rsync >/dev/null || "
            "{ code=$?; command -v rsync >/dev/null || { echo rsync: not found >&2; exit 127; }; exit $code; }"
        )
        bundle.tell("sending", f"{self.address} answers")
        code = f"{self.folder}/code/{program.fingerprint()}"
        with tempfile.TemporaryDirectory() as staging:
            for name, source in program.files().items():
                os.symlink(source, Path(staging, name))
            Path(staging, "requirements.txt").write_text(program.requirements())
            self._copy(["-aL", "--exclude=__pycache__", f"{staging}/"], code)
        self._copy(
            ["-a", "--delete", "--exclude=/answer.json", "--exclude=/ask-*", f"{bundle.folder}/"],
            f"{self.folder}/relay/{bundle.name}",
        )
        if self.python == "auto":
            self._set_up(code, bundle.tell)
        answer = json.loads(self._run(self._studio("studio devices --json"), limit=120).splitlines()[-1])
        write_atomic(self._machine_file, json.dumps(_machine(answer)))

    def _set_up(self, code: str, tell: Callable[[str, str], None]) -> None:
        """Create a virtual environment with the program's packages, or a new one if they have changed."""
        script = (
            "command -v python3 >/dev/null || { echo python3: not found; exit 127; }; "
            f"exec python3 {_path(f'{code}/studio/environment.py')}"
        )
        lines: list[str] = []
        with self._opened(f"{script} {self._path('venv')} {_path(f'{code}/requirements.txt')}") as ssh:
            for line in _lines(ssh):
                text = line.decode("utf-8", "replace")
                lines += [text] if text else []
                if lines and not lines[-1].startswith("@trouble"):
                    tell("setting up", text)
        if ssh.returncode:
            raise trouble(ssh.returncode, "\n".join(lines), self.host, self.address)

    def output(self, bundle: Bundle, events: int, log: int) -> Iterator[bytes]:
        words = f"{_path(f'{self.folder}/relay/{bundle.name}')} {bundle.attempt} {events} {log}"
        last_lines: deque[str] = deque(maxlen=20)
        with self._opened(self._studio(f"studio.relay {words}")) as ssh:
            for line in _lines(ssh):
                if line and not line.startswith(b"@"):
                    last_lines.append(line.decode("utf-8", "replace"))
                yield line
        if ssh.returncode in SSH_LOST or ssh.returncode < 0:
            raise trouble(ssh.returncode, "\n".join(last_lines), self.host, self.address)

    def ask(self, bundle: Bundle, word: str) -> None:
        self._run(f"touch {_path(f'{self.folder}/relay/{bundle.name}/ask-{word}')}", limit=30)

    def fetch(self, bundle: Bundle, target: Path) -> None:
        self._copy(["-a"], str(target), source=f"{self.folder}/relay/{bundle.name}/run/model/")

    def remove(self, name: str) -> str:
        """Delete the run with the newest program there, which refuses while the run is alive."""
        bundle = _path(f"{self.folder}/relay/{name}")
        newest = f'cd "$(ls -td {self._path("code")}/*/ | head -n 1)"'
        try:
            self._run(
                f"test -d {bundle} || exit 0; {newest} && {self._python_command()} -m studio.relay --remove {bundle}",
                limit=60,
            )
        except DeviceError as error:
            if STILL_RUNNING in error.message:
                hint = "Resume it here, and stop it; then delete it."
                raise RunError(f"{name} still runs on {self.address}.", hint, "run") from error
            raise
        return ""

    # -- ssh and rsync

    def _ssh(self) -> list[str]:
        """The ssh command: it asks no questions and notices a dead connection after about 15 seconds."""
        config = os.environ.get("STUDIO_SSH_CONFIG")
        options = ["-oBatchMode=yes", "-oConnectTimeout=10", "-oServerAliveInterval=5", "-oServerAliveCountMax=3"]
        return ["ssh", *(["-F", config] if config else []), *options, *(["-p", str(self.port)] if self.port else [])]

    @contextmanager
    def _opened(self, command: str) -> Iterator[subprocess.Popen[bytes]]:
        """A remote command whose standard output and errors are read as one stream; killed when the block ends."""
        ssh = subprocess.Popen(
            [*self._ssh(), self.host, command],
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            yield ssh
        finally:
            ssh.kill()
            ssh.wait()

    def _studio(self, module: str) -> str:
        """The shell command that runs `python -m MODULE` of the sent program; module: with its arguments."""
        return f"cd {_path(f'{self.folder}/code/{program.fingerprint()}')} && exec {self._python_command()} -m {module}"

    def _python_command(self) -> str:
        python = f"{self._path('venv')}/bin/python" if self.python == "auto" else _path(self.python)
        return f"env STUDIO_HOME={self._path('home')} PYTHONUNBUFFERED=1 {python}"

    def _path(self, name: str) -> str:
        return _path(f"{self.folder}/{name}")

    def _run(self, command: str, limit: float = 60) -> str:
        """Run a remote command and return its output. Raises Unreachable, or DeviceError with the command's message."""
        try:
            done = subprocess.run(
                [*self._ssh(), self.host, command],
                env=_environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=limit,
            )
        except subprocess.TimeoutExpired:
            raise Unreachable(f"{self.address} did not answer within {limit:.0f} s.") from None
        if done.returncode:
            raise trouble(done.returncode, done.stderr or done.stdout, self.host, self.address)
        return done.stdout

    def _copy(self, words: list[str], target: str, source: str | None = None) -> None:
        """rsync to the place, or from it if a remote source is given."""
        ends = [f"{self.host}:{source}", f"{target}/"] if source else [f"{self.host}:{target}/"]
        done = subprocess.run(
            ["rsync", *words, "--mkpath", "--timeout=60", "-e", shlex.join(self._ssh()), *ends],
            env=_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise trouble(
                done.returncode, done.stderr, self.host, self.address, RSYNC_LOST, fetching=source is not None
            )


def _environment() -> dict[str, str]:
    """ssh's, without the secrets of the Hub and the studio; those of a cloud may be for the command it connects by."""
    clouds = [name for name in os.environ if name.startswith(("AWS_", "AZURE_", "GOOGLE_", "CLOUDFLARE_"))]
    return credentials.child_environment(*clouds)


def _path(path: str) -> str:
    """A path quoted for the remote shell, which expands a leading ~."""
    if path.startswith("~"):
        return '"$HOME"' + (shlex.quote(path[1:]) if len(path) > 1 else "")
    return shlex.quote(path)


def _lines(process: subprocess.Popen[bytes]) -> Iterator[bytes]:
    """Yield a process's lines; b"" about every second without any."""
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            if not selector.select(timeout=0.5):
                yield b""
                continue
            data = os.read(process.stdout.fileno(), 1 << 16)
            if not data:
                break
            *lines, rest = (rest + data).split(b"\n")
            yield from (line for line in lines if line)
    if rest and not rest.startswith(b"@"):  # not an incomplete relay line, which will be repeated
        yield rest
    until = time.monotonic() + 10
    while process.poll() is None and time.monotonic() < until:
        yield b""
        time.sleep(0.1)


def _machine(answer: dict) -> dict:
    """A Machine's fields from the output of `devices --json`."""
    devices = answer["here"]
    first = devices[0]
    card = None if first["kind"] == "cpu" else first["name"]
    return {"card": card, "count": len(devices), "memory": first["memory"], "ram": None if card else first["memory"]}
