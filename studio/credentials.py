"""Removes passwords and tokens from the process's environment.

The system shows a process's environment as it was at its start (/proc/PID/environ, `ps e`), whatever the process
removes later. So a program that was given secrets replaces itself (execve) without them and passes them through a
pipe. A child gets no secret but those that it needs: through a pipe too where it reads one (`receive`), else in its
environment.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

PASSWORDS = ("STUDIO_PASSWORD", "STUDIO_WATCH_PASSWORD")
# HF_TOKEN, STUDIO_JUDGE_KEY, OAUTH_CLIENT_SECRET, WANDB_API_KEY, AWS_SECRET_ACCESS_KEY, STUDIO_WEBHOOK, …
SECRET = re.compile(r"(^|_)(PASSWORD|PASSWD|TOKEN|SECRET|KEY|WEBHOOK)$", re.IGNORECASE)
HUB = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")  # what huggingface_hub reads
SECRETS_DESCRIPTOR = "STUDIO_SECRETS_FROM"  # the file descriptor to read them from
LARGEST = 60_000  # bytes; a pipe buffers 65,536


def take() -> dict[str, str]:
    """Return the passwords. Call it first in a program.

    They are in no environment afterwards. Other secrets, such as the Hub's token, are set again for this process
    and its children, but the system no longer shows them for this one.
    """
    secrets = _read_handed_over() if SECRETS_DESCRIPTOR in os.environ else _restart_without_secrets()
    os.environ.update({name: value for name, value in secrets.items() if name not in PASSWORDS})
    return {name: value for name, value in secrets.items() if name in PASSWORDS}


def receive() -> None:
    """Set the secrets that the starter of this program handed over; nothing where it did not."""
    if SECRETS_DESCRIPTOR in os.environ:
        os.environ.update(_read_handed_over())


def child_environment(*kept: str) -> dict[str, str]:
    """This process's environment for a child: of the secrets in it only those named."""
    return {name: value for name, value in os.environ.items() if name in kept or not SECRET.search(name)}


@contextmanager
def handed_over(*kept: str, **others: str) -> Iterator[dict[str, Any]]:
    """Arguments of subprocess for a program that calls `receive`: env, and a pipe that holds the secrets.

    kept: names of secrets; all without any. others: secrets that are not in this process's environment.
    """
    named = {name: value for name, value in os.environ.items() if SECRET.search(name) and (not kept or name in kept)}
    data, environment = json.dumps(named | others).encode(), child_environment()
    if not (named or others) or len(data) > LARGEST:
        yield {"env": environment | named | others}
        return
    reading, writing = os.pipe()
    try:
        os.write(writing, data)
        os.close(writing)
        yield {"env": environment | {SECRETS_DESCRIPTOR: str(reading)}, "pass_fds": (reading,)}
    finally:
        os.close(reading)


@contextmanager
def hub_token(token: str | None) -> Iterator[None]:
    """Inside, requests to the Hub carry this token. For one thread at a time."""
    before = os.environ.get(HUB[0])
    if token:
        os.environ[HUB[0]] = token
    try:
        yield
    finally:
        if token:
            os.environ.pop(HUB[0])
            os.environ.update({HUB[0]: before} if before else {})


def _read_handed_over() -> dict[str, str]:
    with os.fdopen(int(os.environ.pop(SECRETS_DESCRIPTOR)), "rb") as pipe:
        return json.loads(pipe.read())


def _restart_without_secrets() -> dict[str, str]:
    """Replace this process if there are secrets. Returns them only if that is not needed or not possible."""
    secrets = {name: os.environ.pop(name) for name in list(os.environ) if SECRET.search(name)}
    data = json.dumps(secrets).encode()
    if not secrets or not sys.orig_argv[1:] or len(data) > LARGEST:
        return secrets
    reading, writing = os.pipe()
    os.write(writing, data)
    os.close(writing)
    os.set_inheritable(reading, True)
    try:
        os.execve(
            sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, SECRETS_DESCRIPTOR: str(reading)}
        )
    except OSError:
        os.close(reading)
        return secrets
