"""The tuning methods: one file each, found by looking into this folder. To add one, add a file; nothing else."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from studio.method import Method
from studio.registry import discover

METHODS: dict[str, type[Method]] = discover(__path__, __name__, Method)
BY_PEFT_TYPE = {"IA3": "ia3", "PREFIX_TUNING": "prefix", "PROMPT_TUNING": "prompt", "P_TUNING": "p_tuning"}


def of_adapter(config: dict[str, Any], knobs: dict[str, Any]) -> Method:
    """The method of a saved adapter: by the knobs that the studio saved with it, else by peft's adapter_config.json.

    Kinds of peft that are no method here are attached and merged by peft alone, as LoRA is.
    """
    if knobs:
        return METHODS.get(knobs.get("name", ""), METHODS["lora"])(**knobs)
    kind = METHODS[BY_PEFT_TYPE.get(str(config.get("peft_type")), "lora")]
    virtual_tokens = config.get("num_virtual_tokens")
    # not validated: another program may allow more of them
    return kind.model_construct(virtual_tokens=virtual_tokens) if "virtual_tokens" in kind.model_fields else kind()


if TYPE_CHECKING:
    AnyMethod = Method
else:
    AnyMethod = Annotated[reduce(or_, METHODS.values()), Field(discriminator="name")]
