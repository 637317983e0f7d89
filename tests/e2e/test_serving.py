"""`python -m studio serve` on the real run: the README's examples as printed, Ctrl-C, and what two adapters on one base
cost.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from studio.home import PROJECT
from studio.talk import chat

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
PART = (PROJECT / "README.md").read_text().partition("## Use it from a program")[2]
SHELL = re.search(r"```bash\n(.*?)```", PART, re.S)[1].replace("\\\n", " ").splitlines()
OPENAI = re.search(r"```python\n(from openai.*?)```", PART, re.S)[1]


def answers(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.skipif(answers(8000), reason="the README's port is taken on this computer")
def test_the_readmes_examples_as_printed(trained: dict[str, Any]) -> None:
    """In a shell; `python` there is this one.

    The last answer is the tuned model's; then Ctrl-C ends it without a trace.
    """
    environment = {
        **os.environ,
        "STUDIO_HOME": str(trained["home"]),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HF_HUB_OFFLINE": "1",
        "STUDIO_CHAT_THREADS": "1",
    }
    serving = subprocess.Popen(
        ["bash", "-c", f"exec env {SHELL[0]}"],
        cwd=PROJECT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        until = time.monotonic() + 300
        while not answers(8000) and serving.poll() is None and time.monotonic() < until:
            time.sleep(0.2)
        if shutil.which("curl"):
            listed, said = (
                subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=300).stdout
                for line in SHELL[1:]
            )
            assert [one["id"] for one in json.loads(listed)["data"]] == [trained["run"], "base"]
            assert json.loads(said)["choices"][0]["message"]["content"]
        told = subprocess.run([sys.executable, "-c", OPENAI], capture_output=True, text=True, timeout=300)
        assert "Try:" in told.stdout, told.stderr
    finally:
        serving.send_signal(signal.SIGINT)
        text, _ = serving.communicate(timeout=30)
    assert serving.returncode == 0
    assert "Traceback" not in text
    assert text.endswith("Ended.\n")
    assert not answers(8000)


def test_two_adapters_on_one_base_take_turns(
    trained: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Asked alternately they answer each with its own words, no slower than one asked again and again; memory grows by
    the adapter.
    """
    monkeypatch.setenv("STUDIO_HOME", str(trained["home"]))
    monkeypatch.setenv("STUDIO_CHAT_THREADS", "1")
    other = tmp_path / "other"
    shutil.copytree(trained["folder"] / "model", other)
    _halved(other / "adapter_model.safetensors")
    size = (other / "adapter_model.safetensors").stat().st_size
    names, server, held = [trained["run"], str(other)], chat.server(), []
    try:
        for name in ("base", *names):
            server.load([name])
            held.append(server.status()["memory"])
        texts = {name: _answer(server, name)[0] for name in names}
        assert texts[names[0]] != texts[names[1]]
        asked = [names[n // 2 % 2] for n in range(10)]  # each twice in a row: the first of two comes after a switch
        first = [_answer(server, name, 1)[1] for name in asked]
        assert {name: _answer(server, name)[0] for name in names} == texts
    finally:
        chat.end()
    grown = [after - before for before, after in zip(held, held[1:], strict=False)]
    switched, stayed = min(first[2::2]), min(first[3::2])  # the quickest: other work shares this computer
    print(
        f"\nfirst token after a switch {1000 * switched:.0f} ms, without {1000 * stayed:.0f} ms; "
        f"memory {held[0] / 1e6:.0f} MB with the base, then {', '.join(f'+{one / 1e6:.0f}' for one in grown)} MB "
        f"for adapters of {size / 1e6:.0f} MB in their files"
    )
    assert switched < 1.5 * stayed + 0.5, "a generous bound"
    assert max(grown) < 3 * size + held[0] / 10, "not another base"


def _halved(file: Path) -> None:
    from safetensors.torch import load_file, save_file

    save_file({name: weight / 2 for name, weight in load_file(file).items()}, file, metadata={"format": "pt"})


def _answer(server: chat.Server, name: str, tokens: int = 12) -> tuple[str, float]:
    """(text, seconds to the first token)"""
    parts = list(
        server.stream(name, [{"role": "user", "content": "How do I clean a window?"}], temperature=0, max_tokens=tokens)
    )
    return "".join(part.text for part in parts), parts[-1].usage["first_token_seconds"]
