"""How much of a row a model reads: GPT-2's learned positions, virtual tokens before them, positions that are
stretched.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from studio import config, model, preflight
from studio.errors import DataError
from studio.model import ModelFacts


def facts_with(tiny_model: Path, **changes: Any) -> ModelFacts:
    one = model.facts(tiny_model)
    return one.model_copy(update={"config": {**one.config, **changes}})


def test_context(tiny_model: Path) -> None:
    assert facts_with(tiny_model).context == 512
    assert (
        facts_with(
            tiny_model, rope_scaling={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}
        ).context
        == 2048
    )
    assert (
        facts_with(
            tiny_model, rope_scaling={"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 32}
        ).context
        == 512
    )
    assert facts_with(tiny_model).model_copy(update={"max_position_embeddings": None}).context is None


@pytest.mark.parametrize(("method", "longest"), [("lora", 60), ("prompt", 50)])
def test_rows_beyond_learned_positions_are_refused_before_a_run(
    method: str, longest: int, tiny_model: Path, home: Path, tmp_path: Path
) -> None:
    """With the default max_length of 1024: on a GPU the position that is not there would end the process."""
    folder = tmp_path / "gpt2"
    shutil.copytree(tiny_model, folder)
    told = json.loads((folder / "config.json").read_text())
    told["max_position_embeddings"] = longest
    (folder / "config.json").write_text(json.dumps(told))
    data = tmp_path / "rows.jsonl"
    lines = [{"instruction": "Hi", "output": "Yes."}, {"instruction": "Go on.", "output": "word and word " * 8}]
    data.write_text("\n".join(map(json.dumps, lines)))
    order = config.build({"model": str(folder), "data": {"train": str(data)}, "method": method})
    with pytest.raises(DataError, match=rf"Row 2 of .*gpt2 can read {longest - order.virtual_tokens} of a row"):
        preflight.check(order)
    room = longest - order.virtual_tokens
    preflight.check(order.with_changes(data={"max_length": room, "train": str(data)}))
