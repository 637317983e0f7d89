"""The page's process starts in seconds and never loads torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from studio.home import PROJECT

PROBE = """
import sys
{code}
HEAVY = ('torch', 'peft', 'trl', 'bitsandbytes', 'accelerate')
heavy = sorted(name for name in sys.modules if name.split('.')[0] in HEAVY)
print('HEAVY', heavy[:5])
print('GRADIO', 'gradio' in sys.modules)
stubs = sys.modules.get('gradio.component_meta')
print('STUBS', stubs is not None and stubs.create_or_modify_pyi.__module__ == 'gradio.component_meta')
"""


def _probe(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(code=code)], cwd=PROJECT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_page_never_loads_torch(home: Path) -> None:
    out = _probe("import app; page = app.build()")
    assert "HEAVY []" in out
    assert "GRADIO True" in out
    assert "STUBS False" in out


def test_terminal_loads_neither(home: Path) -> None:
    out = _probe("import studio.__main__ as terminal; terminal.parser()")
    assert "HEAVY []" in out
    assert "GRADIO False" in out


def test_supervisor_loads_neither(home: Path) -> None:
    out = _probe("import studio.supervise")
    assert "HEAVY []" in out
    assert "GRADIO False" in out


def test_a_quick_command_loads_its_own_module_alone(home: Path) -> None:
    """models answers in two seconds: nothing that reads data is imported for it."""
    code = "import studio.__main__ as terminal; terminal.parser('models')"
    out = _probe(f"{code}; print('READERS', sorted({{'numpy', 'pyarrow'}} & set(sys.modules)))")
    assert "READERS []" in out
    assert "GRADIO False" in out
