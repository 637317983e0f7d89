"""What goes wrong with another computer, and what the Runs page says of it: keys, disks, a restart in the middle."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from studio import config, follow, queue, run
from studio.errors import DeviceError, StudioError
from studio.place import Unreachable
from studio.places.ssh import Ssh
from studio.places.ssh_trouble import RSYNC_LOST, trouble
from studio.run import Run
from studio.runs import remote
from tests.places import sshd
from tests.places.test_ssh import check_result, faked, order, over, until, wire  # noqa: F401 - a fixture

pytestmark = pytest.mark.skipif(not sshd.ABLE, reason="no sshd, ssh or rsync on this computer")


@pytest.mark.parametrize(
    ("code", "said", "kind", "cause", "action"),
    [
        (
            255,
            "ssh: Could not resolve hostname gpu-box: Temporary failure in name resolution",
            Unreachable,
            "resolve",
            "",
        ),
        (255, "client_loop: send disconnect: Broken pipe", Unreachable, "Broken pipe", ""),
        (255, "", Unreachable, "was lost", ""),
        (-9, "", Unreachable, "was lost", ""),
        (
            255,
            "me@gpu-box: Permission denied (publickey,password).",
            DeviceError,
            "without a password",
            "ssh-copy-id me@gpu-box",
        ),
        (
            255,
            "No ED25519 host key is known for gpu-box and you have requested strict checking.\nHost key "
            "verification failed.",
            DeviceError,
            "known hosts",
            "answer yes",
        ),
        (127, "bash: line 1: rsync: command not found", DeviceError, "not installed", "rsync"),
        (
            1,
            "mkdir: cannot create directory '/data': Permission denied",
            DeviceError,
            "does not let the studio write",
            "place.folder",
        ),
        (11, "rsync: write failed: No space left on device (28)", DeviceError, "disk of gpu-box is full", "df -h"),
        (
            9,
            '@trouble {"message": "No venv.", "hint": "Install it."}',
            DeviceError,
            "could not be set up: No venv.",
            "Install it.",
        ),
    ],
)
def test_every_trouble_has_its_words(code: int, said: str, kind: type, cause: str, action: str) -> None:
    found = trouble(code, said, "me@gpu-box", "gpu-box")
    assert isinstance(found, kind)
    assert cause in str(found)
    assert action in (found.hint if isinstance(found, StudioError) else "")


def test_a_full_disk_is_said_to_be_the_right_ones() -> None:
    words = 'rsync: [receiver] write failed on "/home/me/model": No space left on device (28)'
    assert "this computer" in str(trouble(11, words, "there", "there", RSYNC_LOST, fetching=True))
    assert "of there" in str(trouble(11, words, "there", "there", RSYNC_LOST))


def test_another_host_key_and_the_way_out(wire: sshd.Wire, home: Path, tmp_path: Path) -> None:  # noqa: F811
    place = Ssh(host="there", folder=str(tmp_path / "there"))
    assert place._run("echo in") == "in\n"
    known = tmp_path / "ssh" / "known_hosts"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "other")], check=True)
    name = known.read_text().split()[0]
    key = " ".join((tmp_path / "other.pub").read_text().split()[:2])
    known.write_text(f"{name} {key}\n")
    with pytest.raises(DeviceError, match="another host key") as caught:
        place._run("echo in")
    advised = caught.value.hint.split("`")[1]
    assert advised.startswith("ssh-keygen ")
    subprocess.run(shlex.split(advised), check=True, capture_output=True)
    assert place._run("echo in") == "in\n"


def test_one_that_restarts_in_the_middle(
    wire: sshd.Wire,  # noqa: F811
    home: Path,
    tmp_path: Path,
    tiny_model: Path,
    tiny_data: Path,
) -> None:
    """Every process there is gone at once. The run says so here, and goes on from its checkpoint there."""
    one = queue.submit(config.build(faked(tmp_path, tiny_model, tiny_data, max_steps=40)))
    there = until_saved(one, tmp_path / "there")
    for process in psutil.process_iter(["cmdline"]):
        if any(str(tmp_path / "there") in word for word in process.info["cmdline"] or []):
            process.send_signal(signal.SIGKILL)
    assert until(one, over) == "lost"
    assert run.summary(one)["cause"]
    queue.resume(one)
    assert until(one, over) == "finished", run.summary(one)
    assert [event["step"] for event in run.current_events(one.events()) if event["kind"] == "step"] == list(
        range(1, 41)
    )
    check_result(one, 40)
    assert remote.remove(one) == ""
    assert not there.exists()


def test_a_full_disk_there(
    wire: sshd.Wire,  # noqa: F811
    home: Path,
    tmp_path: Path,
    tiny_model: Path,
    tiny_data: Path,
) -> None:
    """Before anything is sent, and told by the run there: the page must not take it for the disk of this computer."""
    one = run.create(config.build(order(tmp_path, tiny_model, tiny_data, max_steps=2)))
    with small(tmp_path / "there", "200k"):
        assert follow.main(str(one.folder)) == 1
    assert run.summary(one)["cause"] == "The disk of there is full."
    told = follow.Follow(one, 1)
    told._handle_event(
        {
            "kind": "end",
            "at": 1.0,
            "state": "failed",
            "reason": "disk",
            "cause": "The disk is full.",
            "action": "Free some space.",
        },
        10,
    )
    assert (told.end["cause"], "there" in told.end["action"]) == ("The disk of there is full.", True)


def test_what_ssh_says_of_a_dead_wire_is_no_sign_of_life(
    home: Path, tmp_path: Path, tiny_model: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ssh prints why it cannot connect where the run's lines would stand: the run stays `reconnecting` meanwhile."""
    one = run.create(config.build(order(tmp_path, tiny_model, tiny_data, max_steps=2)))
    training = b'@event 9 {"kind": "phase", "at": 1.0, "name": "training"}'
    end = b'@event 99 {"kind": "end", "at": 2.0, "state": "stopped"}'
    refused = b"ssh: connect to host there port 22: Connection refused"
    connections = iter([[b"@ready", training], [refused], [refused], [b"@ready", end]])

    def output(*_: object) -> Iterator[bytes]:
        lines = next(connections)
        yield from lines
        if end not in lines:
            raise Unreachable("The connection to there was lost.")

    followed = follow.Follow(one, 1)
    monkeypatch.setattr(follow, "RETRY_DELAYS", (0.0,))
    monkeypatch.setattr(followed, "place", SimpleNamespace(address="there", send=lambda bundle: None, output=output))
    followed.forwarded_stop = "discard"  # there is no result to fetch
    followed.execute()
    names = [event.get("name") or event.get("text") for event in one.events() if event["kind"] in ("phase", "note")]
    assert names.count("reconnecting") == names.count("The connection to there is back.") == 1
    assert names.index("reconnecting") < names.index("The connection to there is back.")


def until_saved(one: Run, there: Path) -> Path:
    """Wait for a checkpoint there; the run's folder there."""
    until(one, lambda state: any(there.glob("home/runs/*/checkpoints/*/manifest.json")))
    (folder,) = there.glob("home/runs/*")
    return folder


@contextmanager
def small(folder: Path, size: str) -> Iterator[None]:
    """A disk of that size; skipped where this process may not mount one."""
    folder.mkdir()
    if (
        os.geteuid()
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True
        ).returncode
    ):
        pytest.skip("no disk may be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
