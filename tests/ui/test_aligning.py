"""A finished run's page: preference data among the uploads, and the run that one click orders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from studio import origin, queue, run
from studio.errors import StudioError
from studio.home import subfolder
from studio.ui import aligning
from tests.ui.fakes import FakeRun

NAME = "2026-11-22-1200-first"


@pytest.fixture
def finished(home: Path, tiny_model: Path) -> FakeRun:
    """A run that looks finished: events, and a result whose manifest names the base."""
    fake = FakeRun(NAME, steps=3, model=str(tiny_model))
    fake.start(alive=False)
    fake.train()
    fake.say("end", state="finished")
    result = fake.folder / "model"
    result.mkdir()
    (result / "adapter_model.safetensors").write_bytes(save({"weight": torch.ones(1)}))
    manifest = {"model": {"source": str(tiny_model)}, "template": "model", "base": str(tiny_model), "step": 3}
    (result / "manifest.json").write_text(json.dumps(manifest))
    return fake


def upload(name: str, rows: list[dict[str, Any]]) -> str:
    file = subfolder("uploads") / name
    file.write_text(json.dumps(rows))
    return str(file)


PAIRS = [{"prompt": f"Q {n}?", "chosen": f"Yes, {n}.", "rejected": "No."} for n in range(12)]
ANSWERS = [{"instruction": f"Q {n}?", "output": f"A {n}."} for n in range(9)]


def test_one_click_orders_what_suits_the_data(finished: FakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "advance", lambda: None)
    upload("answers.json", ANSWERS)
    assert aligning.preferences({"id": NAME})["sources"] == []
    file = upload("pairs.json", PAIRS)
    told = aligning.preferences({"id": NAME})
    assert [(one["name"], one["stage"]) for one in told["sources"]] == [("pairs.json", "dpo")]
    assert told["fault"] is None
    shown = aligning.alignment({"id": NAME, "name": file})["order"]
    assert (shown["start"], shown["stage"]["name"], shown["data"]["train"]) == (NAME, "dpo", file)
    ordered = run.find(aligning.align(NAME, file)["run"])
    assert (ordered.config.start, ordered.config.method.rank) == (NAME, 16)
    copied = ordered.start / "adapter_model.safetensors"
    assert copied.read_bytes() == (finished.folder / "model" / copied.name).read_bytes()
    assert ordered.state() == "queued"
    further = run.find(aligning.align(NAME, upload("more.json", ANSWERS))["run"])
    assert (further.config.start, further.config.stage.name) == (NAME, "sft")
    with pytest.raises(StudioError, match="no file"):
        aligning.align(NAME, "nowhere.json")


def test_after_full_fine_tuning_the_whole_model_is_the_base(finished: FakeRun) -> None:
    config = finished.folder / "config.yaml"
    config.write_text(config.read_text().replace("name: lora\n  rank: 16\n  alpha: 32", "name: full"))
    shown = aligning.alignment({"id": NAME, "name": upload("pairs.json", PAIRS)})["order"]
    assert "start" not in shown
    assert (shown["model"]["source"], shown["method"]["name"]) == (str(finished.folder / "model"), "full")
    merged = origin.order_after(run.find(NAME), upload("pairs.json", PAIRS), base=Path("/merged"))
    assert (merged.start, merged.model.source, merged.data.template) == (None, "/merged", "auto")


def test_what_cannot_go_on_says_why(finished: FakeRun) -> None:
    upload("pairs.json", PAIRS)
    config = finished.folder / "config.yaml"
    config.write_text(config.read_text().replace("name: lora\n  rank: 16\n  alpha: 32", "name: prompt"))
    told = aligning.preferences({"id": NAME, "lang": "zh"})
    assert "不能继续训练" in told["fault"]["message"]
    shutil.rmtree(finished.folder / "model")
    assert "还没有结果" in aligning.preferences({"id": NAME, "lang": "zh"})["fault"]["message"]
