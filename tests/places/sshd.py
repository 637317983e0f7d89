"""A real sshd on loopback, with keys of its own, behind a wire that can be cut."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from tests.browser import free_port

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"
ABLE = Path(SSHD).exists() and shutil.which("ssh") and shutil.which("rsync")


class Wire:
    """Forwards a loopback port to another. cut(): nothing passes any more, either way, and nobody is told, as when a
    cable is pulled. refuse(): every connection ends and no other is let in. mend() undoes either.
    """

    def __init__(self, target: int):
        self.target, self.port = target, free_port()
        self.ends: list[socket.socket] = []
        self.whole = threading.Event()
        self.whole.set()
        self._listen()

    def cut(self) -> None:
        self.whole.clear()

    def refuse(self) -> None:
        for end in (self.listener, *self.ends):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)  # which wakes its thread
        self.ends.clear()
        self.listener.close()

    def mend(self) -> None:
        self.whole.set()
        if self.listener.fileno() < 0:
            self._listen()

    def _listen(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self.listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                threading.Thread(target=self._join, args=(near,), daemon=True).start()

    def _join(self, near: socket.socket) -> None:
        self.whole.wait()
        far = socket.create_connection(("127.0.0.1", self.target))
        self.ends += (near, far)
        for one, other in ((near, far), (far, near)):
            threading.Thread(target=self._pump, args=(one, other), daemon=True).start()

    def _pump(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(1 << 16):
                self.whole.wait()
                other.sendall(data)
        for end in (one, other):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def serving(folder: Path, **environment: str) -> Iterator[Wire]:
    """sshd with one allowed key. STUDIO_SSH_CONFIG must name `folder/ssh_config` for whoever is to be let in as host
    `there`.

    environment: what whoever is let in finds set, HOME and PATH among it.
    """
    port = free_port()
    for name in ("host", "me"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    os.chmod(folder, 0o700)
    shutil.copy(folder / "me.pub", folder / "authorized_keys")
    (folder / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {folder}/host\nAuthorizedKeysFile "
        f"{folder}/authorized_keys\nPidFile none\n"
        "StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n"
        + (f"SetEnv {' '.join(f'{key}={value}' for key, value in environment.items())}\n" if environment else "")
    )
    wire = Wire(port)
    (folder / "ssh_config").write_text(
        f"Host there\n  HostName 127.0.0.1\n  Port {wire.port}\n  User {getpass.getuser()}\n  "
        f"IdentityFile {folder}/me\n  IdentitiesOnly yes\n"
        f"  UserKnownHostsFile {folder}/known_hosts\n  StrictHostKeyChecking accept-new\n  LogLevel ERROR\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where sshd as root drops its privileges
    server = subprocess.Popen([SSHD, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 10
        while time.monotonic() < until:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.05)
        yield wire
    finally:
        server.terminate()
        server.wait()
        wire.refuse()
