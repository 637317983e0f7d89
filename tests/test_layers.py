"""The floors and the two walls of the house, read from the source of every module."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted((ROOT / "studio").rglob("*.py"))
TORCH = {"torch", "peft", "trl", "bitsandbytes", "accelerate"}


def _name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


NAMES = {_name(path): path for path in MODULES}


def _imports(path: Path, top_only: bool, types: bool = False) -> set[str]:
    """Dotted names a module imports; `from studio import run` counts as studio.run.

    types: whether TYPE_CHECKING blocks count.
    """
    tree = ast.parse(path.read_text())
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test) and not types:
                continue
            if top_only and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                continue
            if isinstance(child, ast.Import):
                found.update(alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and child.level == 0 and child.module:
                found.update(
                    f"{child.module}.{alias.name}" if f"{child.module}.{alias.name}" in NAMES else child.module
                    for alias in child.names
                )
            visit(child)

    visit(tree)
    return found


def _room(name: str) -> str:
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else ""


@pytest.mark.parametrize("name", NAMES)
def test_walls(name: str) -> None:
    everything, top = _imports(NAMES[name], top_only=False), _imports(NAMES[name], top_only=True)
    roots = {found.split(".")[0] for found in everything}
    if _room(name) != "ui":
        assert "gradio" not in roots, "gradio belongs in studio/ui"
        if _room(name) not in ("__main__", "commands", "page"):
            assert not [found for found in everything if found.startswith("studio.ui")], (
                "only the top floor knows the page"
            )
    if _room(name) != "worker":
        assert not TORCH & {found.split(".")[0] for found in top}, "torch at the top of a file belongs in studio/worker"
        # A method's load, wrap and attach run in a worker, and may import from it there.
        known = top if _room(name) == "methods" else everything
        assert not [found for found in known if found.startswith("studio.worker")], (
            "workers are started, never imported"
        )
    if _room(name) == "ui":
        assert not TORCH & roots


def _graph(types: bool = False) -> dict[str, set[str]]:
    """Module -> modules of this project it imports, inside functions too: a late import is for start-up time, not for a
    knot. types: those it names only in types too.
    """
    return {
        name: {found for found in _imports(path, False, types) if found in NAMES and found != name} - {"studio"}
        for name, path in NAMES.items()
    }


def test_no_cycle() -> None:
    graph, done, path = _graph(types=True), set(), []

    def walk(name: str) -> None:
        assert name not in path, "cycle: " + " -> ".join([*path[path.index(name) :], name])
        if name in done:
            return
        path.append(name)
        for other in sorted(graph[name]):
            walk(other)
        path.pop()
        done.add(name)

    for name in graph:
        walk(name)


def test_floors() -> None:
    """Every module stands on a floor above all it imports; the floor numbers are in studio/__init__.py."""
    from studio import FLOORS

    floor = {module: number for number, modules in FLOORS.items() for module in modules.split()}
    missing = [name for name in NAMES if "." in name and _room(name) not in floor]
    assert not missing, f"no floor for {missing}"
    wrong = [
        f"{name} (floor {floor[_room(name)]}) imports {other} (floor {floor[_room(other)]})"
        for name, others in _graph().items()
        if "." in name
        for other in others
        if _room(name) != _room(other)
        and floor[_room(other)] > floor[_room(name)]
        and (_room(name), _room(other)) != ("methods", "worker")
    ]  # load, wrap and attach run in a worker
    assert not wrong, "\n".join(wrong)


def test_names_are_nouns() -> None:
    banned = {"utils", "helpers", "common", "misc", "manager", "engine", "handler", "service"}
    assert not [name for name in NAMES if banned & set(name.split(".")[-1].split("_"))]
