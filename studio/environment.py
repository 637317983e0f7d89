"""python3 environment.py FOLDER REQUIREMENTS: a virtual environment with the program's packages, made once on another computer.

Whatever Python is there runs this file alone: it imports nothing of the studio, and nothing in it is newer than Python 3.6, so that a Python that is
too old can say so. What it prints tells how far it is; a failure ends with a line `@trouble {"message": ..., "hint": ...}` and exit status 9.
"""

import fcntl
import filecmp
import json
import os
import shutil
import subprocess
import sys
import time

LEAST = (3, 11)
PYTHONS = ("python3", "python3.13", "python3.12", "python3.11", "python3.14")
TROUBLE = 9
TOLD = ("Collecting", "Downloading", "Installing", "Successfully", "ERROR", "WARNING: Retrying")
NO_NETWORK = (
    "NewConnectionError",
    "NameResolutionError",
    "ConnectTimeout",
    "ReadTimeout",
    "Connection refused",
    "Network is unreachable",
    "ProxyError",
    "Temporary failure in name resolution",
    "SSLError",
)
BY_HAND = "Or set a Python up there by hand, with the packages of requirements.txt, and name it under place.python."


class Trouble(Exception):
    def __init__(self, message: str, hint: str):
        super().__init__(message)
        self.message, self.hint = message, hint


def main(folder: str, requirements: str) -> None:
    """Nothing where the environment has these very requirements already. A second caller waits for the first."""
    os.makedirs(os.path.dirname(folder) or ".", exist_ok=True)
    with open(folder + ".lock", "w") as lock:
        take(lock)
        done = os.path.join(folder, "installed.txt")
        if os.path.isfile(done) and filecmp.cmp(requirements, done, shallow=False):
            return
        python = suitable()
        tell("Making a virtual environment with " + python)
        run([python, "-m", "venv", "--clear", folder])
        tell("Installing the program's packages: the first time this takes some minutes.")
        run(
            [
                os.path.join(folder, "bin", "python"),
                "-m",
                "pip",
                "install",
                "--disable-pip-version-check",
                "--no-input",
                "--progress-bar",
                "off",
                "--retries",
                "2",
                "-r",
                requirements,
            ]
        )
        shutil.copyfile(requirements, done)


def take(lock) -> None:
    """Hold the lock; a set-up that a lost connection left behind goes on, and is waited for."""
    waited = False
    while True:
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if not waited:
                tell("Another set-up is going on there; it is waited for.")
            waited = True
            time.sleep(0.5)


def suitable() -> str:
    """The first Python that is new enough and can make a virtual environment."""
    versions = {}
    for name in PYTHONS:
        python = shutil.which(name)
        if python is None:
            continue
        told = subprocess.run(
            [python, "-c", "import sys; print(*sys.version_info[:2])"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        words = told.stdout.decode().split()
        if told.returncode or len(words) != 2:
            continue
        versions[python] = tuple(map(int, words))
        able = subprocess.run([python, "-c", "import ensurepip, venv"], stderr=subprocess.DEVNULL).returncode == 0
        if versions[python] >= LEAST and able:
            return python
    fitting = [".".join(map(str, version)) for version in versions.values() if version >= LEAST]
    if fitting:
        raise Trouble(
            f"Python {fitting[0]} there cannot make a virtual environment: its venv is not installed.",
            f"Debian and Ubuntu: sudo apt install python{fitting[0]}-venv. {BY_HAND}",
        )
    newest = ".".join(map(str, max(versions.values()) if versions else sys.version_info[:2]))
    raise Trouble(
        f"The Python there is {newest}, and the studio needs 3.11 or newer.",
        f"Install a newer one beside it (Debian and Ubuntu: sudo apt install python3.11 python3.11-venv). {BY_HAND}",
    )


def run(words: list) -> None:
    """A command whose telling lines are passed on. Raises Trouble with the reason when it fails."""
    said = []
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    for line in process.stdout:
        said.append(line.decode("utf-8", "replace").strip())
        if said[-1].startswith(TOLD):
            tell(said[-1][:200])
    if process.wait():
        raise reason("\n".join(said[-60:]))


def reason(said: str) -> Trouble:
    if "No space left on device" in said:
        return Trouble(
            "The disk there is full: the packages were not installed.",
            "Free some gigabytes there, or give a folder on another disk as place.folder.",
        )
    if any(word in said for word in NO_NETWORK):
        return Trouble(
            "That computer cannot reach the package index, so that nothing could be installed.",
            "Give it a way to pypi.org, or name a mirror in its pip configuration (PIP_INDEX_URL, ~/.config/pip/pip.conf). "
            + BY_HAND,
        )
    errors = (
        [line for line in said.splitlines() if "ERROR" in line or "Error" in line]
        or said.splitlines()
        or ["it gave no reason"]
    )
    return Trouble("The packages could not be installed there: " + errors[-1][:300], BY_HAND)


def tell(text: str) -> None:
    try:
        print(text, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the connection was lost; what was begun goes on


if __name__ == "__main__":
    try:
        main(sys.argv[1], sys.argv[2])
    except (Trouble, OSError) as error:
        found = error if isinstance(error, Trouble) else reason(str(error))
        tell("@trouble " + json.dumps({"message": found.message, "hint": found.hint}))
        sys.exit(TROUBLE)
