"""Everything the page can say in English, gathered from its sources: what a language has to have."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from itertools import product

from studio.data.problem import KINDS
from studio.data.sample import samples
from studio.home import PROJECT
from studio.presets import PRESETS
from studio.recipes import RECIPES
from studio.ui.assets import STATIC
from studio.ui.tune_form import form

STRING = re.compile(r'"((?:[^"\\\n]|\\.)*)"')
MARK = re.compile(r'data-say(?:-label|-title|-placeholder)?="([^"]+)"')
SENTENCE = re.compile(r"^[A-Z0-9{≈+].*[a-z].* .*|^[a-z{+][\w,;.{}%+ ’'–-]* [\w,;.{}%+ ’'–-]*$")
CODE = re.compile(r"[<>=\\]|--|://|^\W*$|px|var\(|^M\d|::|\.studio|^[a-z]+-[a-z-]+( [a-z-]+)*$|rgba?\(")
NAMES = {
    "Fine-Tuning Studio",
    "Content-Type",
    "Escape",
    "Enter",
    "ArrowDown",
    "ArrowUp",
    "aria-label",
    "title",
    "placeholder",
}


def script_strings() -> set[str]:
    """Of the page's scripts: what `say` is given, and every literal of a list of labels that is said later."""
    found: set[str] = set()
    for file in sorted(STATIC.glob("*.js")):
        text = re.sub(r"^\s*//.*$", "", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
        text = re.sub(r'"class"?: ?`[^`]*`', "", text)
        text = re.sub(r'"\s*\+ "', "", text)  # a sentence over two lines
        found |= {json.loads(f'"{said}"') for said in re.findall(r'(?:say|told)\(\s*"((?:[^"\\\n]|\\.)*)"', text)}
        found |= {json.loads(f'"{said}"') for said in re.findall(r'"data-say(?:-\w+)?": "((?:[^"\\\n]|\\.)*)"', text)}
        for said in STRING.findall(text):
            plain = said.replace('\\"', '"')
            if re.match(r"^[A-Z][a-z]+", plain) and " " in plain and not CODE.search(plain):
                found.add(plain)
    for file in STATIC.glob("*.html"):
        found |= set(MARK.findall(file.read_text(encoding="utf-8")))
    return {said for said in found if said not in NAMES and re.search("[A-Za-z]", said)}


def knob_strings() -> set[str]:
    """Titles and help of every knob, names and advice of every method and stage, presets, samples, problems."""
    made = form()
    groups = [
        made["model"],
        made["data"],
        made["training"],
        made["evaluation"],
        *(kind["knobs"] for kind in [*made["methods"], *made["stages"], *made["rewards"]]),
        *(place["knobs"] for place in made["places"]),
    ]
    found = {knob[key] for knobs in groups for knob in knobs for key in ("title", "help") if knob[key]}
    found |= {kind[key] for kind in [*made["methods"], *made["stages"]] for key in ("label", "about", "advice")}
    found |= {reward[key] for reward in made["rewards"] for key in ("label", "about")}
    found |= set(made["metrics"].values()) | {group["title"] for group in made["groups"]}
    found |= {place[key] for place in made["places"] for key in ("label", "about")}
    found |= {text for preset in PRESETS.values() for text in (preset.label, preset.about)}
    found |= {text for recipe in RECIPES.values() for text in (recipe.title, recipe.about, recipe.expect)}
    found |= {sample[key] for sample in samples() for key in ("title", "description")}
    return found | {text for kind in KINDS.values() for text in (kind.reason, kind.hint)}


def glossary_strings() -> set[str]:
    words = json.loads((STATIC / "glossary.json").read_text(encoding="utf-8"))
    return {one[key] for one in words for key in ("word", "text", "yours") if one.get(key)}


def error_strings() -> set[str]:
    """Message and hint of every StudioError that is raised somewhere, values as {0} {1} …"""
    found: set[str] = set()
    for file in sorted((PROJECT / "studio").rglob("*.py")):
        if "commands" in file.parts or file.name == "__main__.py":  # they speak on the terminal
            continue
        for argument in _error_arguments(ast.parse(file.read_text(encoding="utf-8"))):
            found.update(numbered(text) for text in texts(argument))
    return {said for said in found if re.search(r"[A-Za-z]{2}", re.sub(r"\{\d+\}", "", said))}


def _error_arguments(tree: ast.AST) -> Iterator[ast.expr]:
    """Message and hint of the errors that a module makes; of a local name all that is assigned to it in the module."""
    assigned: dict[str, list[ast.expr]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.col_offset:
            assigned.setdefault(node.targets[0].id, []).append(node.value)
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and _name(node.func).endswith("Error")
            and _name(node.func) not in ("ValueError", "TypeError", "KeyError")
        ):
            for argument in node.args[:2]:
                yield argument
                if isinstance(argument, ast.Name):
                    yield from assigned.get(argument.id, ())


def constant_strings(*modules: str) -> set[str]:
    """Sentences in the source of modules that explain in words: causes, actions, notes."""
    found: set[str] = set()
    for module in modules:
        tree = ast.parse((PROJECT / "studio" / module).read_text(encoding="utf-8"))
        documents = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef)
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant | ast.JoinedStr) and id(node) not in documents | inner:
                found.update(
                    numbered(text)
                    for text in texts(node)
                    if re.match(r"^[A-Z{].* .*[.:)]?$", text, re.DOTALL) and text.rstrip()[-1:] in ".!?"
                )
    return found


def auto_strings() -> set[str]:
    """The reasons of what each auto comes to: of the rules that give one, and of methods and places."""
    functions = {"auto.py": ("layout", "_why_not_packed", "fused_kernels"), "auto_values.py": None}
    for folder in ("methods", "places"):
        functions |= {f"{folder}/{file.name}": ("auto_values",) for file in (PROJECT / "studio" / folder).glob("*.py")}
    found: set[str] = set()
    for module, names in functions.items():
        for node in ast.walk(ast.parse((PROJECT / "studio" / module).read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and (names is None or node.name in names):
                found |= _reasons(node)
    return found


def progress_strings() -> set[str]:
    """What a worker or the model server says it is doing, values as {0} {1} …"""
    found: set[str] = set()
    for file in (PROJECT / "studio" / "worker").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.keyword)
                and node.arg == "doing"
                or isinstance(node, ast.Assign)
                and any(isinstance(target, ast.Attribute) and target.attr == "doing" for target in node.targets)
            ):
                found.update(map(numbered, texts(node.value)))
    return {text for text in found if re.search("[a-z]", text)}


def _reasons(function: ast.AST) -> set[str]:
    """Texts in a function that begin small and have several words, values as {0} {1} …"""
    inner = {id(part) for node in ast.walk(function) if isinstance(node, ast.JoinedStr) for part in node.values}
    expressions = [node for node in ast.walk(function) if isinstance(node, ast.Constant | ast.JoinedStr)]
    said = {numbered(text) for node in expressions if id(node) not in inner for text in texts(node)}
    return {text for text in said if re.match(r"^[a-z{]", text) and " " in text}


def remedy_strings() -> set[str]:
    """Every out-of-memory remedy of studio/forecast/remedies.py: what to change, and what it costs."""
    source = (PROJECT / "studio" / "forecast" / "remedies.py").read_text(encoding="utf-8")
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    return {
        numbered(text)
        for call in calls
        if _name(call.func) == "Remedy"
        for argument in call.args[1:3]
        for text in texts(argument)
    }


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def texts(node: ast.expr) -> Iterator[str]:
    """What an expression of text can come to, every value in it as \\0."""
    if isinstance(node, ast.Constant):
        yield str(node.value) if isinstance(node.value, str) else "\0"
    elif isinstance(node, ast.JoinedStr):
        yield from map("".join, product(*(list(texts(part)) for part in node.values)))
    elif isinstance(node, ast.IfExp):
        yield from texts(node.body)
        yield from texts(node.orelse)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        yield from map("".join, product(list(texts(node.left)), list(texts(node.right))))
    else:
        yield "\0"


def numbered(text: str) -> str:
    """Values, each \\0, as {0} {1} …"""
    parts = text.split("\0")
    return "".join(part + (f"{{{n}}}" if n < len(parts) - 1 else "") for n, part in enumerate(parts)).strip()
