"""templates, formats: what there is."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from studio import template
from studio.commands import Commands
from studio.data.formats import formats


def add(commands: Commands) -> None:
    commands.add("templates", "the chat templates there are", templates, show_templates)
    commands.add("formats", "the data formats there are", listed, show_formats)


def templates(args: Namespace) -> list[dict[str, Any]]:
    """Every template with whose format it is and what ends a turn."""
    return [
        {
            "name": name,
            "about": loaded.about,
            "stop": loaded.stop_strings,
            "shows_tools": loaded.shows_tools,
            "shows_reasoning": bool(loaded.reasoning_key),
        }
        for name, loaded in ((name, template.load(name)) for name in template.names())
    ]


def listed(args: Namespace) -> list[dict[str, Any]]:
    """Every format with the columns it knows."""
    return [
        {
            "name": name,
            "title": form.TITLE,
            "about": form.ABOUT,
            "stage": getattr(form, "STAGE", "sft"),
            "columns": {part: list(names) for part, names in form.COLUMNS.items()},
        }
        for name, form in formats().items()
    ]


def show_templates(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        shown = [what for what in ("tools", "reasoning") if row[f"shows_{what}"]]
        print(f"{row['name']}\n  {row['about']}")
        print(f"  ends a turn: {' '.join(row['stop'])}; shows {' and '.join(shown) or 'neither tools nor reasoning'}")


def show_formats(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        print(f"{row['title']}  (format: {row['name']})\n  {row['about']}")
        for part, names in row["columns"].items():
            print(f"    {part:16} {', '.join(names)}")
