"""Removes passwords and tokens from the process's environment.

The system shows a process's environment as it was at its start (/proc/PID/environ, `ps e`), whatever the process
removes later. So a program that was given secrets replaces itself (execve) without them and passes them through a
pipe.
"""

from __future__ import annotations

import json
import os
import re
import sys

PASSWORDS = ("STUDIO_PASSWORD", "STUDIO_WATCH_PASSWORD")
# HF_TOKEN, STUDIO_JUDGE_KEY, OAUTH_CLIENT_SECRET, WANDB_API_KEY, AWS_SECRET_ACCESS_KEY, STUDIO_WEBHOOK, …
SECRET = re.compile(r"(^|_)(PASSWORD|PASSWD|TOKEN|SECRET|KEY|WEBHOOK)$", re.IGNORECASE)
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
