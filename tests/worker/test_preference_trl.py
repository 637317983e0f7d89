"""The losses of answers that are compared, their gradients and metrics, against trl's trainers on the same rows."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from studio.kernels import IGNORE_INDEX
from studio.stages.dpo import DPO
from studio.stages.kto import KTO
from studio.stages.orpo import ORPO
from tests.worker.comparing import PAIRS, VERDICTS, encoded, loss_of

pytest.importorskip("trl")


@pytest.fixture(scope="module")
def wrapped(tiny_model: Path) -> Any:
    """The base with a random LoRA beside it."""
    torch.manual_seed(3)
    adapter = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    return get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), adapter).eval()


def prompt_and_answer(ids: list[int], labels: list[int]) -> tuple[list[int], list[int]]:
    start = next(n for n, label in enumerate(labels) if label != IGNORE_INDEX)
    end = max(n for n, label in enumerate(labels) if label != IGNORE_INDEX) + 1
    return ids[:start], ids[start:end]


def pairs_for_trl(rows: Any) -> list[dict[str, list[int]]]:
    examples = []
    for row in rows:
        second = row["second"]
        prompt, chosen = prompt_and_answer(row["input_ids"][:second], row["labels"][:second])
        _, rejected = prompt_and_answer(row["input_ids"][second:], row["labels"][second:])
        examples.append({"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected})
    return examples


def arguments(folder: Path, **more: Any) -> dict[str, Any]:
    plain = {"use_cpu": True, "bf16": False, "report_to": "none", "gradient_checkpointing": False}
    return {"output_dir": str(folder), **plain, "per_device_train_batch_size": 8, **more}


METRIC_NAMES = {
    "rewards/chosen": "chosen",
    "rewards/rejected": "rejected",
    "rewards/margins": "margin",
    "rewards/accuracies": "accuracy",
    "logps/chosen": "logps_chosen",
    "logps/rejected": "logps_rejected",
    "kl": "kl",
}


def gradients(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.requires_grad}


def assert_same_gradients(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    assert largest > 0
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-4 * largest)


def assert_same(trainer: Any, loss: Any, found: tuple[torch.Tensor, dict[str, float]]) -> None:
    told = {METRIC_NAMES[name]: values[-1] for name, values in trainer._metrics["eval"].items() if name in METRIC_NAMES}
    assert found[0].item() == pytest.approx(loss.item(), abs=1e-3)
    assert {name: found[1][name] for name in told} == pytest.approx(told, abs=1e-3)
    assert len(told) >= 5


KNOBS: tuple[dict[str, Any], ...] = (
    {},
    {"beta": 0.7},
    {"loss": "ipo"},
    {"loss": "hinge", "beta": 0.5},
    {"loss": "robust", "label_smoothing": 0.1},
    {"loss": "apo_zero"},
    {"loss": "apo_down"},
    {"loss": "sigmoid_norm"},
)


def trainer_of(kind: Any, arguments_of: Any, wrapped: Any, rows: list[dict[str, Any]], folder: Path, tiny: Path) -> Any:
    from datasets import Dataset

    trainer = kind(
        model=copy.deepcopy(wrapped),
        args=arguments_of(**arguments(folder)),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(tiny),
    )
    if "ref" in trainer.model.peft_config:  # the adapter as it began, which trl compares with; here the base alone
        trainer.model.delete_adapter("ref")
    trainer.model.eval()
    return trainer


def test_dpo_loses_what_trl_loses(wrapped: Any, tiny_model: Path, home: Path, tmp_path: Path) -> None:
    from trl import DPOConfig, DPOTrainer

    rows = encoded(PAIRS, "pairs", tmp_path, tiny_model)
    trainer = trainer_of(DPOTrainer, DPOConfig, wrapped, PAIRS, tmp_path, tiny_model)
    for knobs in KNOBS:
        stage = DPO(**knobs)
        trainer.beta, trainer.loss_types, trainer.label_smoothing = stage.strength, [stage.loss], stage.label_smoothing
        loss = trainer._compute_loss(trainer.model, trainer.data_collator(pairs_for_trl(rows)), False)
        expected = gradients(trainer.model, loss)
        for layout, kind in (("packed", "chunked"), ("padded", "full")):
            found = loss_of(stage, wrapped, rows, layout, kind)
            assert_same(trainer, loss, found)
            assert_same_gradients(gradients(wrapped, found[0]), expected)


def test_kto_loses_what_trl_loses(wrapped: Any, tiny_model: Path, home: Path, tmp_path: Path) -> None:
    from trl import KTOConfig, KTOTrainer

    rows = encoded(VERDICTS, "verdicts", tmp_path, tiny_model)
    trainer = trainer_of(KTOTrainer, KTOConfig, wrapped, VERDICTS, tmp_path, tiny_model)
    split = [prompt_and_answer(row["input_ids"], row["labels"]) for row in rows]
    batch = trainer.data_collator(
        [
            {"prompt_ids": prompt, "completion_ids": answer, "KL_completion_ids": split[n - 1][1], "label": row["good"]}
            for n, ((prompt, answer), row) in enumerate(zip(split, rows, strict=True))
        ]
    )
    for stage in (KTO(), KTO(beta=0.5, desirable_weight=1.3), KTO(loss="apo_zero_unpaired", undesirable_weight=2)):
        trainer.beta, trainer.loss_type, trainer.calculate_KL = stage.beta, stage.loss, stage.loss == "kto"
        trainer.desirable_weight, trainer.undesirable_weight = stage.desirable_weight, stage.undesirable_weight
        loss = trainer._compute_loss(trainer.model, batch, False)
        expected = gradients(trainer.model, loss)
        if stage.loss != "kto":
            trainer._metrics["eval"].pop("kl")
        for layout, kind in (("packed", "chunked"), ("padded", "full")):
            found = loss_of(stage, wrapped, rows, layout, kind)
            assert_same(trainer, loss, found)
            assert_same_gradients(gradients(wrapped, found[0]), expected)


def test_orpo_loses_what_trl_loses(wrapped: Any, tiny_model: Path, home: Path, tmp_path: Path) -> None:
    """With prompts of a single token: trl counts the likelihood of prompts too, and a first token has none."""
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    examples = [
        example | {"prompt_ids": [1]} for example in pairs_for_trl(encoded(PAIRS, "pairs", tmp_path, tiny_model))
    ]
    rows = Rows(examples)
    trainer = trainer_of(ORPOTrainer, ORPOConfig, wrapped, PAIRS, tmp_path, tiny_model)
    batch: dict[str, Any] = {}
    for side in ("chosen", "rejected"):
        ids = [[1, *example[f"{side}_ids"]] for example in examples]
        width = max(map(len, ids))
        batch[f"{side}_input_ids"] = torch.tensor([row + [0] * (width - len(row)) for row in ids])
        batch[f"{side}_attention_mask"] = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in ids])
        batch[f"{side}_labels"] = torch.tensor([[-100, *row[1:]] + [-100] * (width - len(row)) for row in ids])
    loss, metrics = trainer.get_batch_loss_metrics(trainer.model, batch, "eval")
    expected = gradients(trainer.model, loss)
    for layout, kind in (("packed", "chunked"), ("padded", "full")):
        found = loss_of(ORPO(), wrapped, rows, layout, kind)
        assert found[0].item() == pytest.approx(loss.item(), abs=1e-3)
        assert_same_gradients(gradients(wrapped, found[0]), expected)
        for name in ("rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies"):
            assert found[1][METRIC_NAMES[name]] == pytest.approx(metrics[f"eval_{name}"], abs=1e-3)


class Rows(list):  # type: ignore[type-arg]
    """Pairs as the preparation encodes them."""

    def __init__(self, examples: list[dict[str, list[int]]]):
        super().__init__()
        for example in examples:
            chosen, rejected = example["chosen_ids"], example["rejected_ids"]
            labels = [IGNORE_INDEX, *chosen, IGNORE_INDEX, *rejected]
            self.append({"input_ids": [1, *chosen, 1, *rejected], "labels": labels, "second": 1 + len(chosen)})
