"""Passwords and tokens that were given in the environment, taken out of it.

The system shows a process's environment as it was at its start (/proc/PID/environ, `ps e`), whatever the process
removes later. So a
program that was given secrets starts once more without them, as the same process, and hands them over through a pipe.
"""

from __future__ import annotations

import json
import os
import sys

PASSWORDS = ("STUDIO_PASSWORD", "STUDIO_WATCH_PASSWORD")
SECRETS = (*PASSWORDS, "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "OAUTH_CLIENT_SECRET", "STUDIO_API_KEY", "STUDIO_WEBHOOK")
HANDED = "STUDIO_SECRETS_FROM"  # number of the descriptor to read them from
LARGEST = 60_000  # bytes; a pipe holds 65,536 before anybody reads


def take() -> dict[str, str]:
    """The passwords. At the start of a program, before anything else.

    They are in no environment from now on. The Hub's token and the other secrets are set again for this process and
    those it starts,
    which need them, but stand in no place where the system shows them of this one.
    """
    found = _handed() if HANDED in os.environ else _start_again()
    os.environ.update({name: value for name, value in found.items() if name not in PASSWORDS})
    return {name: value for name, value in found.items() if name in PASSWORDS}


def _handed() -> dict[str, str]:
    with os.fdopen(int(os.environ.pop(HANDED)), "rb") as pipe:
        return json.loads(pipe.read())


def _start_again() -> dict[str, str]:
    """Does not return where there are secrets; else, or where the program cannot be started again, what was found."""
    found = {name: os.environ.pop(name) for name in SECRETS if name in os.environ}
    data = json.dumps(found).encode()
    if not found or not sys.orig_argv[1:] or len(data) > LARGEST:
        return found
    reading, writing = os.pipe()
    os.write(writing, data)
    os.close(writing)
    os.set_inheritable(reading, True)
    try:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, HANDED: str(reading)})
    except OSError:
        os.close(reading)
        return found
