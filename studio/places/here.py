"""This computer: the trainer is started locally."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from studio.place import Place


class Here(Place):
    """On this computer."""

    label: ClassVar[str] = "This computer"
    about: ClassVar[str] = "The run trains where this page runs."
    kind: Literal["here"] = Field("here", title="Place", description="This computer.")

    @property
    def address(self) -> str:
        return "this computer"
