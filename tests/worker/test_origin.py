"""SFT, then DPO: the adapter of a finished run goes on, and the reference is the model that it was."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from studio import config, data, origin, preflight
from studio.errors import StudioError
from studio.export.card import card
from studio.export.push import push
from studio.export.report import report
from studio.kernels import IGNORE_INDEX
from studio.methods import METHODS
from studio.run import Run, create, summary
from studio.stages.dpo import DPO
from studio.stages.kto import KTO
from studio.talk import reference
from studio.tokens import Encoder
from studio.worker.preference import PreferenceRows
from tests.methods.test_life import logits, trained
from tests.worker.comparing import LAYOUTS, PAIRS, QUICK, VERDICTS, encoded, loss_of, objective_of

GOING_ON = [name for name, method in METHODS.items() if method.goes_on]
PREFERENCES = [
    {"prompt": f"Say number {n}, please", "chosen": f"Number {n}.", "rejected": "No, never. " * (1 + n % 2)}
    for n in range(24)
]


@pytest.fixture(scope="module")
def sft_run(tiny_model: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A finished SFT run of a tiny model in a home of its own, copied into each test's home."""
    from studio.worker.train import main

    home = tmp_path_factory.mktemp("sft-home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDIO_HOME", str(home))
        order = config.build(
            {
                "name": "first",
                "model": str(tiny_model),
                "data": {"train": str(tiny_data), "eval": 0},
                "method": {"name": "lora", "rank": 4},
                "training": {"max_steps": 6, "batch_size": 4, "learning_rate": 2e-2, **QUICK},
            }
        )
        run = create(order)
        assert main(run) == 0
    return run


@pytest.fixture
def first(sft_run: Run, home: Path) -> Run:
    (home / "runs").mkdir(exist_ok=True)
    return Run(Path(shutil.copytree(sft_run.folder, home / "runs" / sft_run.id)))


@pytest.fixture
def preferences(tmp_path: Path) -> str:
    file = tmp_path / "preferences.json"
    file.write_text(json.dumps(PREFERENCES))
    return str(file)


@pytest.mark.parametrize("name", GOING_ON)
def test_a_loaded_result_answers_as_the_one_attached(name: str, tiny_model: Path, tmp_path: Path) -> None:
    method = METHODS[name]()
    model, _ = trained(method, tiny_model, 3)
    method.save_result(model, tmp_path)
    further = method.wrap(method.load(tiny_model, torch.float32))
    method.load_result(further, tmp_path)
    attached = method.attach(method.load(tiny_model, torch.float32), tmp_path)
    torch.testing.assert_close(logits(further.eval()), logits(attached))
    assert any(weight.requires_grad for weight in further.parameters())


def test_the_reference_is_the_run_before(first: Run, tiny_model: Path, preferences: str) -> None:
    """The log-probabilities kept for the loss are those of the run's model, loaded with peft alone."""
    from studio.worker.train import main

    order = origin.order_after(first, preferences).with_changes(
        data={"eval": 0.25}, training={"max_steps": 4, "learning_rate": 3e-3, "precision": "fp32", **QUICK}
    )
    assert (order.start, order.stage.name, order.method) == (first.id, "dpo", first.config.method)
    preflight.check(order)
    run = create(order)
    shutil.rmtree(first.folder)  # the run has its own copy
    assert main(run) == 0
    figures = summary(run)
    assert figures["preference_before"]["margin"] == pytest.approx(0, abs=1e-5)
    assert figures["preference"]["margin"] > 0.01
    assert f"goes on from the adapter of the run `{first.id}`" in card(run)
    assert "share of held-out pairs told apart after" in card(run)
    assert "margin of the rewards before" in report(run)
    started = load_file(run.start / "adapter_model.safetensors")
    ended = load_file(run.result / "adapter_model.safetensors")
    assert started.keys() == ended.keys()
    assert all(0 < (ended[name] - weight).abs().max() < 0.1 for name, weight in started.items())

    tuned = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), str(run.start)).eval()
    row = data.prepare(order.data, Encoder.from_order(order.data, tiny_model), order.training.seed).train[0]
    ids, labels = (torch.tensor(row[key][: row["second"]]) for key in ("input_ids", "labels"))
    with torch.no_grad():
        log_probs = tuned(ids[None]).logits[0, :-1].log_softmax(-1).gather(-1, ids[1:, None])[:, 0]
    kept = numpy.load(run.folder / "reference.npz")["train"][0, 0]
    assert kept == pytest.approx(log_probs[labels[1:] != IGNORE_INDEX].sum().item(), abs=1e-3)


@pytest.mark.parametrize(("stage", "rows"), [(DPO(), PAIRS), (KTO(), VERDICTS)], ids=["dpo", "kto"])
def test_an_adapter_that_goes_on_loses_what_trl_loses(
    stage: Any, rows: Any, tiny_model: Path, home: Path, tmp_path: Path
) -> None:
    """trl copies a pretrained adapter as the reference `ref`; here its log-probabilities are taken once."""
    pytest.importorskip("trl")
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer

    from tests.worker import test_preference_trl as trl_tests

    method = METHODS["lora"](rank=4, dropout=0.0)
    torch.manual_seed(5)
    model = method.wrap(method.load(tiny_model, torch.float32)).eval()
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(0, 0.05)
    examples = "pairs" if stage.name == "dpo" else "verdicts"
    encoded_rows = encoded(rows, examples, tmp_path, tiny_model)
    kind, arguments = (DPOTrainer, DPOConfig) if stage.name == "dpo" else (KTOTrainer, KTOConfig)
    trainer = kind(
        model=model,
        args=arguments(**trl_tests.arguments(tmp_path)),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(tiny_model),
    )
    assert "ref" in model.peft_config
    plain = PreferenceRows(encoded_rows, stage.mismatched)
    reference = objective_of(stage, model).cache_reference(plain, LAYOUTS["packed"])
    for name, weight in model.named_parameters():
        if "lora_B.default" in name:
            weight.data.add_(torch.randn_like(weight) * 0.05)  # a step later
    model.eval()
    split = [trl_tests.prompt_and_answer(row["input_ids"], row["labels"]) for row in encoded_rows]
    batch = (
        trl_tests.pairs_for_trl(encoded_rows)
        if stage.name == "dpo"
        else [
            {"prompt_ids": prompt, "completion_ids": answer, "KL_completion_ids": split[n - 1][1], "label": row["good"]}
            for n, ((prompt, answer), row) in enumerate(zip(split, encoded_rows, strict=True))
        ]
    )
    with torch.no_grad():
        loss = trainer._compute_loss(model, trainer.data_collator(batch), False)
    mine = loss_of(stage, model, encoded_rows, "packed", reference=reference)
    trl_tests.assert_same(trainer, loss, mine)
    bare, _ = loss_of(stage, model, encoded_rows, "packed")
    assert abs(bare.item() - mine[0].item()) > 1e-3  # the bare base would be another reference


def test_what_is_left_out_is_that_runs(first: Run, preferences: str) -> None:
    order = config.build({"start": first.id, "stage": "dpo", "data": {"train": preferences}})
    whole = origin.completed(order)
    assert (whole.model, whole.method, whole.data.template) == (first.config.model, first.config.method, "model")
    origin.check(whole)
    with pytest.raises(StudioError, match="was trained on"):
        origin.check(order)


@pytest.mark.parametrize(
    ("changes", "message", "hint"),
    [
        ({"start": "nowhere"}, "no run", "first"),
        ({"method": {"name": "lora", "rank": 8}}, "other settings", '"rank": 4'),
        ({"model": "starter"}, "was trained on", "Set model to"),
        ({"data": {"new_tokens": ["<x>"]}}, "new tokens", "[]"),
        ({"place": {"kind": "ssh", "host": "box"}}, "on this computer", "merge"),
        ({"stage": {"name": "reward"}}, "head starts anew", "Merge"),
    ],
)
def test_what_cannot_go_on_is_refused(
    changes: dict[str, Any], message: str, hint: str, first: Run, preferences: str
) -> None:
    order = origin.order_after(first, preferences).with_changes(**changes)
    with pytest.raises(StudioError, match=message) as caught:
        origin.check(order)
    assert hint in caught.value.hint


@pytest.mark.parametrize("text", ['{"method": ', '{"template": "chatml"}', '{"model": {"source": "starter"}}', "[]"])
def test_a_damaged_result_is_told(text: str, first: Run, preferences: str) -> None:
    """A manifest without a model was an error of the server, 500."""
    order = origin.order_after(first, preferences)
    (first.result / "manifest.json").write_text(text)
    for ask in (lambda: origin.check(order), lambda: origin.order_after(first, preferences)):
        with pytest.raises(StudioError, match="is damaged: its manifest.json"):
            ask()


@pytest.mark.parametrize(("method", "hint"), [("prefix", "Leave start out"), ("full", "Set model to")])
def test_what_cannot_be_merged_is_not_to_be_merged(method: str, hint: str, first: Run, preferences: str) -> None:
    order = origin.order_after(first, preferences).with_changes(stage={"name": "reward"})
    text = config.parse((first.folder / "config.yaml").read_text()).model_dump(mode="json") | {"method": method}
    (first.folder / "config.yaml").write_text(config.build(text).to_yaml())
    with pytest.raises(StudioError, match="head starts anew") as caught:
        origin.check(order)
    assert hint in caught.value.hint


@pytest.mark.parametrize("size", [4, 1000, -8])
def test_a_result_that_breaks_off_is_told(
    size: int, first: Run, preferences: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was "The worker failed: SafetensorError … if memory was short" minutes later."""
    monkeypatch.setenv("HF_TOKEN", "hf_none")
    order = origin.order_after(first, preferences)
    weights = first.result / "adapter_model.safetensors"
    os.truncate(weights, size if size > 0 else weights.stat().st_size + size)
    for use in (lambda: origin.check(order), lambda: reference.resolve(first.id), lambda: push(first, "me/model")):
        with pytest.raises(StudioError, match=r"adapter_model\.safetensors") as caught:
            use()
        assert f"studio finish {first.id}" in caught.value.hint
