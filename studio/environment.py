"""python3 environment.py FOLDER REQUIREMENTS: creates a virtual environment with the packages on another computer.

Any Python there runs this file alone: it imports nothing of the studio and uses nothing newer than Python 3.6, so
that it can report a Python that is too old. It prints its progress; a failure ends with a line `@trouble
{"message": ..., "hint": ...}` and exit status 9.
"""

import fcntl
import filecmp
import json
import os
import shutil
import subprocess
import sys
import time

MIN_PYTHON = (3, 11)
PYTHONS = ("python3", "python3.13", "python3.12", "python3.11", "python3.14")
TROUBLE = 9
PROGRESS_PREFIXES = ("Collecting", "Downloading", "Installing", "Successfully", "ERROR", "WARNING: Retrying")
NO_NETWORK = (
    "NewConnectionError", "NameResolutionError", "ConnectTimeout", "ReadTimeout", "Connection refused",
    "Network is unreachable", "ProxyError", "Temporary failure in name resolution", "SSLError"
)  # fmt: skip
BY_HAND = "Or set a Python up there by hand, with the packages of requirements.txt, and name it under place.python."


class SetUpFailure(Exception):
    def __init__(self, message: str, hint: str):
        super().__init__(message)
        self.message, self.hint = message, hint


def main(folder: str, requirements: str) -> None:
    """Create the environment, unless it has these requirements already. A second caller waits for the first."""
    os.makedirs(os.path.dirname(folder) or ".", exist_ok=True)
    with open(folder + ".lock", "w") as lock:
        wait_for_lock(lock)
        done = os.path.join(folder, "installed.txt")
        if os.path.isfile(done) and filecmp.cmp(requirements, done, shallow=False):
            return
        python = find_python()
        report("Making a virtual environment with " + python)
        run([python, "-m", "venv", "--clear", folder])
        report("Installing the program's packages: the first time this takes some minutes.")
        options = ["--disable-pip-version-check", "--no-input", "--progress-bar", "off", "--retries", "2"]
        run([os.path.join(folder, "bin", "python"), "-m", "pip", "install", *options, "-r", requirements])
        shutil.copyfile(requirements, done)


def wait_for_lock(lock) -> None:
    """Lock the file; a set-up left running by a lost connection is waited for."""
    waited = False
    while True:
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if not waited:
                report("Another set-up is going on there; it is waited for.")
            waited = True
            time.sleep(0.5)


def find_python() -> str:
    """The first Python that is new enough and can create a virtual environment. Raises SetUpFailure."""
    versions = {}
    for name in PYTHONS:
        python = shutil.which(name)
        if python is None:
            continue
        output = subprocess.run(
            [python, "-c", "import sys; print(*sys.version_info[:2])"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        words = output.stdout.decode().split()
        if output.returncode or len(words) != 2:
            continue
        versions[python] = tuple(map(int, words))
        able = subprocess.run([python, "-c", "import ensurepip, venv"], stderr=subprocess.DEVNULL).returncode == 0
        if versions[python] >= MIN_PYTHON and able:
            return python
    fitting = [".".join(map(str, version)) for version in versions.values() if version >= MIN_PYTHON]
    if fitting:
        raise SetUpFailure(
            f"Python {fitting[0]} there cannot make a virtual environment: its venv is not installed.",
            f"Debian and Ubuntu: sudo apt install python{fitting[0]}-venv. {BY_HAND}",
        )
    newest = ".".join(map(str, max(versions.values()) if versions else sys.version_info[:2]))
    raise SetUpFailure(
        f"The Python there is {newest}, and the studio needs 3.11 or newer.",
        f"Install a newer one beside it (Debian and Ubuntu: sudo apt install python3.11 python3.11-venv). {BY_HAND}",
    )


def run(words: list) -> None:
    """Run a command and print its progress lines. Raises SetUpFailure."""
    lines = []
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    for line in process.stdout:
        lines.append(line.decode("utf-8", "replace").strip())
        if lines[-1].startswith(PROGRESS_PREFIXES):
            report(lines[-1][:200])
    if process.wait():
        raise diagnose("\n".join(lines[-60:]))


def diagnose(output: str) -> SetUpFailure:
    if "No space left on device" in output:
        return SetUpFailure(
            "The disk there is full: the packages were not installed.",
            "Free some gigabytes there, or give a folder on another disk as place.folder.",
        )
    if any(word in output for word in NO_NETWORK):
        return SetUpFailure(
            "That computer cannot reach the package index, so that nothing could be installed.",
            "Give it a way to pypi.org, or name a mirror in its pip configuration (PIP_INDEX_URL, "
            "~/.config/pip/pip.conf). " + BY_HAND,
        )
    errors = (
        [line for line in output.splitlines() if "ERROR" in line or "Error" in line]
        or output.splitlines()
        or ["it gave no reason"]
    )
    return SetUpFailure("The packages could not be installed there: " + errors[-1][:300], BY_HAND)


def report(text: str) -> None:
    try:
        print(text, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the connection was lost; the set-up continues


if __name__ == "__main__":
    try:
        main(sys.argv[1], sys.argv[2])
    except (SetUpFailure, OSError) as error:
        failure = error if isinstance(error, SetUpFailure) else diagnose(str(error))
        report("@trouble " + json.dumps({"message": failure.message, "hint": failure.hint}))
        sys.exit(TROUBLE)
