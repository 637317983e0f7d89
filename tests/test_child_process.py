"""How a process that ended with an error is told."""

from __future__ import annotations

import pytest

from studio.child_process import ProcessFailed, output_of


@pytest.mark.parametrize(("words", "told"), [
    ("os.kill(os.getpid(), signal.SIGKILL)", "killed (SIGKILL), most likely because memory ran out"),
    ("os.kill(os.getpid(), signal.SIGSEGV)", "crashed (SIGSEGV)"),
    ("sys.exit('no such column')", "^no such column$"),
    ("sys.exit(3)", "^exit code 3$"),
])  # fmt: skip
def test_by_a_signal_by_its_words_or_by_its_code(words: str, told: str) -> None:
    with pytest.raises(ProcessFailed, match=told.replace("(", r"\(").replace(")", r"\)")):
        output_of("-c", f"import os, signal, sys\n{words}")
