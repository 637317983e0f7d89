"""templates, formats: what there is."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from studio import template
from studio.data.formats import formats


def add(parsers: Any, common: ArgumentParser) -> None:
    parsers.add_parser("templates", parents=[common], help="the chat templates there are").set_defaults(run=templates)
    parsers.add_parser("formats", parents=[common], help="the data formats there are").set_defaults(run=listed)


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
