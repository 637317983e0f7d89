"""The bundled catalogue: whole, as large as others counted, and there without the Hub."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from studio import model, template
from studio.base import catalogue
from studio.base.source import ModelOrder
from studio.home import PROJECT
from tests import fake_hub
from tests.catalogue import compressed

ENTRIES = catalogue.entries()
# parameters as others count them: keras-hub's presets, and the models' cards
COUNTED = {
    "Qwen/Qwen3-0.6B": 596_049_920,
    "Qwen/Qwen3-8B": 8_190_735_360,
    "Qwen/Qwen3-30B-A3B-Instruct-2507": 30_532_122_624,
    "Qwen/Qwen2.5-0.5B-Instruct": 494_032_768,
    "Qwen/Qwen2.5-72B-Instruct": 72_706_203_648,
    "meta-llama/Llama-3.1-8B-Instruct": 8_030_261_248,
    "google/gemma-2-9b-it": 9_241_705_984,
    "google/gemma-3-270m-it": 268_098_176,
    "google/gemma-3-4b-it": 4_300_079_472,
    "microsoft/Phi-3.5-mini-instruct": 3_821_079_552,
    "mistralai/Mistral-7B-Instruct-v0.3": 7_248_023_552,
    "HuggingFaceTB/SmolLM3-3B": 3_075_098_624,
    "BSC-LT/salamandra-7b-instruct": 7_768_117_248,
}


@pytest.mark.parametrize("name", ENTRIES)
def test_an_entry_is_whole_and_its_shapes_add_up(name: str) -> None:
    entry, facts = ENTRIES[name], model.from_catalogue(name)
    assert facts.parameters == entry["parameters"] == COUNTED.get(name, entry["parameters"])
    assert facts.context == entry["context"]
    assert facts.linears()
    assert entry["kind"] in ("base", "instruct")
    assert entry["thinking"] in ("no", "both", "always")
    assert entry["template"] in (None, "model", *template.names())
    assert (entry["template"] is None) == (entry["kind"] == "base")
    assert set(entry["from"]) <= set(json.loads(catalogue.FILE.read_text())["sources"])


def test_there_are_some_sixty_of_every_size() -> None:
    sizes = [entry["parameters"] for entry in ENTRIES.values()]
    assert len(sizes) >= 60
    assert min(sizes) < 2e8
    assert max(sizes) > 7e10


def test_layers_of_one_line_are_written_out_in_order() -> None:
    shapes = {
        "a.weight": [3, 2],
        "l.0.q.weight": [2, 2],
        "l.0.n.weight": [2],
        "l.1.q.weight": [2, 2],
        "l.1.n.weight": [2],
    }
    lines = compressed(shapes)
    assert lines == {"a.weight": [3, 2], "l.#.q.weight": [2, [2, 2]], "l.#.n.weight": [2, [2]]}
    assert list(catalogue.expanded(lines)) == list(shapes)
    with pytest.raises(ValueError, match="in other layers"):
        compressed(shapes | {"l.2.q.weight": [4, 4], "l.2.n.weight": [2]})


def test_without_the_hub_the_catalogue_answers(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setattr("studio.base.headers.unreachable", lambda: "no network")
    assert model.facts_of(ModelOrder(source="Qwen/Qwen3-4B")).parameters == 4_022_468_096
    with pytest.raises(Exception, match="could not be asked"):
        model.facts_of(ModelOrder(source="nobody/nothing"))


def test_models_of_the_terminal(home: Path) -> None:
    command = [sys.executable, "-m", "studio", "models", "--device", "RTX 4060", "--json", "--home", str(home)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
    rows = {row["model"]: row for row in json.loads(done.stdout)}
    small, large, gated = (
        rows[name] for name in ("Qwen/Qwen3-0.6B", "Qwen/Qwen2.5-72B-Instruct", "google/gemma-3-1b-it")
    )
    assert all(small["fits"][method]["fits"] for method in ("full", "lora", "qlora"))
    assert small["fits"]["qlora"].keys() >= {"fits", "total", "max_length", "method"}
    assert not any(answer["fits"] for answer in large["fits"].values())
    assert large["smallest"]["memory"] > 40 * 2**30
    assert "HF_TOKEN" in gated["access"]
    assert small["access"] is None


def test_refreshed_from_a_hub(tmp_path: Path, tiny_model: Path) -> None:
    """In a process of its own: the endpoint is read when huggingface_hub is imported."""
    folder = tmp_path / "tiny"
    shutil.copytree(tiny_model, folder)
    (folder / "README.md").write_text("---\nlicense: other\nlicense_name: mine\n---\nA model.\n")
    config = json.loads((folder / "config.json").read_text())
    entry = {"model": "owner/tiny", "licence": "mit", "gated": False, "context": 1, "parameters": 1}
    entry["config"] = {"hidden_size": 1, "model_type": "none"}
    file = tmp_path / "catalogue.json"
    file.write_text(json.dumps({"sources": {}, "models": [entry]}))
    code = "import sys; from pathlib import Path; from tests import catalogue; catalogue.refresh(Path(sys.argv[1]))"
    with fake_hub.serving({"owner/tiny": folder}, closed=("owner/tiny",)) as (endpoint, _):
        variables = {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0"}
        subprocess.run([sys.executable, "-c", code, str(file)], cwd=PROJECT, env=os.environ | variables, check=True)
    fresh = json.loads(file.read_text())["models"][0]
    assert (fresh["licence"], fresh["gated"]) == ("mine", True)
    assert fresh["parameters"] == model.facts(folder).parameters
    assert fresh["config"] == {key: config[key] for key in ("hidden_size", "model_type")}
