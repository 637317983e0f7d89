"""The page's own scripts and styles: plain files in static/ that are written into the page's head."""

from __future__ import annotations

import re
from pathlib import Path

import gradio as gr
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from studio.ui import words

STATIC = Path(__file__).parent / "static"
# a sentence of a file in static/ that is shown in other languages too
TRANSLATED = re.compile(r'data-say="([^"]+)"\s*>[^<]*<')
LIBRARIES = ("vendored/markdown-it.min.js",)  # of others, as they are published; the licence stands beside each
URL_PREFIX = "/studio/"  # where those are fetched from, once
LOAD_FIRST = ("frames.js", "words.js", "elements.js", "page.js", "live.js")  # what every other script stands on


def read(name: str) -> str:
    """The text of a file in static/."""
    return (STATIC / name).read_text(encoding="utf-8")


def head() -> str:
    """Everything for <head>: the tables of words, then the scripts, those of LOAD_FIRST before the others."""
    others = sorted(path.name for path in STATIC.glob("*.js") if path.name not in LOAD_FIRST)
    libraries = "".join(f'<script src="{URL_PREFIX[1:]}{name}"></script>' for name in LIBRARIES)
    tables = words.script(), f"window.studioGlossary = {read('glossary.json')};"
    return libraries + "".join(f"<script>{text}</script>" for text in (*tables, *map(read, (*LOAD_FIRST, *others))))


def route() -> Mount:
    """Where the page fetches the libraries from."""
    return Mount(f"{URL_PREFIX}vendored", StaticFiles(directory=STATIC / "vendored"))


def styles() -> list[Path]:
    """studio.css first, then the tabs' own."""
    return sorted(STATIC.glob("*.css"), key=lambda path: (path.name != "studio.css", path.name))


def part(name: str, elem_id: str) -> None:
    """A part of the page, inside a gr.Blocks: studio.parts.NAME draws it, on static/NAME.html where there is one."""
    template = read(f"{name}.html") if (STATIC / f"{name}.html").is_file() else "<div></div>"
    gr.HTML(html_template=template, js_on_load=_mount(name), apply_default_css=False, elem_id=elem_id)


def _mount(name: str) -> str:
    """js_on_load of a gr.HTML: calls studio.parts.NAME(element, upload) once the scripts are there."""
    return f"""(function wait(tries) {{
  const part = window.studio && window.studio.parts && window.studio.parts[{name!r}];
  if (part) return part(element, typeof upload === "undefined" ? null : upload);
  if (tries) setTimeout(() => wait(tries - 1), 20);
}})(500);"""
