"""SFT: supervised fine-tuning, the plain way."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from studio.stage import Stage


class SFT(Stage):
    """Cross entropy of the answers' tokens."""

    name: Literal["sft"] = Field("sft", frozen=True, title="Stage", description="Supervised fine-tuning.")
    list_position: ClassVar[int] = 0
    label: ClassVar[str] = "SFT"
    about: ClassVar[str] = "Learns to write the answers of the data, token by token."
    advice: ClassVar[str] = (
        "Take it first, with questions and good answers. The other stages go on from a model that can already answer."
    )
