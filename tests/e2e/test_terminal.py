"""The main job from the terminal, on the real starter model and the bundled sample."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from studio.__main__ import main
from tests.conftest import terminal


@pytest.mark.slow
def test_training_lowers_the_held_out_loss_by_a_third(trained: dict[str, Any]) -> None:
    assert trained["state"] == "finished"
    assert trained["eval_loss"] < trained["eval_loss_before"] * 2 / 3


@pytest.mark.slow
def test_a_run_is_a_folder(trained: dict[str, Any]) -> None:
    folder: Path = trained["folder"]
    names = {path.name for path in folder.iterdir()}
    assert {"config.yaml", "events.jsonl", "log.txt", "lock", "checkpoints", "model"} <= names
    result = {path.name for path in (folder / "model").iterdir()}
    assert {
        "adapter_config.json",
        "adapter_model.safetensors",
        "tokenizer.json",
        "chat_template.jinja",
        "manifest.json",
    } <= result
    assert not [path for path in folder.rglob("*") if path.name.startswith(".") and path.suffix == ".tmp"]


@pytest.mark.slow
def test_runs_and_show_tell_the_same(trained: dict[str, Any]) -> None:
    listed = json.loads(terminal(["runs", "--json"], trained["home"]).stdout)
    shown = json.loads(terminal(["show", "last", "--json"], trained["home"]).stdout)
    assert [run["id"] for run in listed] == [shown["id"]] == [trained["run"]]
    assert listed[0]["state"] == shown["state"] == "finished"
    assert shown["step"] == shown["steps"]
    assert shown["trainable"] == 4_884_480, "rank 16 on all linears of the starter: 16 · Σ(in + out)"
    assert shown["parameters"] == 134_515_008
    for key in (
        "id",
        "name",
        "state",
        "cause",
        "action",
        "model",
        "method",
        "data",
        "step",
        "steps",
        "epoch",
        "train_loss",
        "eval_loss",
        "eval_loss_before",
        "best_eval_loss",
        "learning_rate",
        "tokens_per_second",
        "peak_memory",
        "estimated_memory",
        "trainable",
        "parameters",
        "seconds",
        "created",
        "result",
    ):
        assert key in shown


BAD = [
    (["data.train=nothing.json"], {}, "nothing.json"),
    (["data.train=broken.json"], {"broken.json": '[{"instruction": "a", "output": '}, "broken.json"),
    (["data.train=empty.json"], {"empty.json": ""}, "empty"),
    (["data.train=columns.csv"], {"columns.csv": "height,width\n1,2\n3,4\n"}, "height"),
    (["method.rnak=4"], {}, "method.rnak"),
    (["model=./no-such-model"], {}, "no-such-model"),
]


@pytest.mark.parametrize(("settings", "files", "named"), BAD, ids=[case[0][0] for case in BAD])
def test_bad_input_is_refused_in_words(
    home: Path,
    tmp_path: Path,
    tiny_model: Path,
    tiny_data: Path,
    settings: list[str],
    files: dict[str, str],
    named: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    order = tmp_path / "order.yaml"
    order.write_text(f"model: '{tiny_model}'\ndata: {{train: '{tiny_data}'}}\n")
    settings = [s.replace("=", f"={tmp_path}/", 1) if s.startswith("data.train=") else s for s in settings]
    arguments = ["train", str(order), *(word for setting in settings for word in ("--set", setting))]

    def typed(words: list[str]) -> tuple[int, str, str]:
        """(exit status, output, errors) of a process of its own for the first case, of its main function for others."""
        if named == BAD[0][2]:
            done = terminal(words, home)
            return done.returncode, done.stdout, done.stderr
        status = main(words)
        return status, *capsys.readouterr()

    status, out, err = typed([*arguments, "--json"])
    assert status == 2, err
    error = json.loads(out)["error"]
    assert named in error["message"] + error["hint"]
    assert error["message"].rstrip().endswith((".", ":", ")")) or error["hint"]
    assert "Traceback" not in err
    status, _, err = typed(arguments)
    assert status == 2
    assert error["message"] in err
    assert not list((home / "runs").glob("*")) if (home / "runs").exists() else True, "nothing half-made is left"
