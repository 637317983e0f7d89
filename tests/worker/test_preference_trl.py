"""The losses of answers that are compared, and their metrics, against trl's trainers on the same rows."""

from __future__ import annotations

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
def models(tiny_model: Path) -> tuple[Any, Any, Any]:
    """(the base with a random LoRA beside it, the same merged, the base alone)."""
    torch.manual_seed(3)
    base = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    adapter = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    wrapped = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), adapter).eval()
    merged = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), adapter)
    merged.load_state_dict(wrapped.state_dict())
    return wrapped, merged.merge_and_unload().eval(), base


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


def assert_same(trainer: Any, loss: Any, found: tuple[torch.Tensor, dict[str, float]]) -> None:
    told = {METRIC_NAMES[name]: values[-1] for name, values in trainer._metrics["eval"].items() if name in METRIC_NAMES}
    assert found[0].item() == pytest.approx(float(loss), abs=1e-3)
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


def trainer_of(kind: Any, arguments_of: Any, models: Any, rows: list[dict[str, Any]], folder: Path, tiny: Path) -> Any:
    from datasets import Dataset

    _, merged, base = models
    options = {} if "ORPO" in kind.__name__ else {"ref_model": base}
    return kind(
        model=merged,
        args=arguments_of(**arguments(folder)),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(tiny),
        **options,
    )


def test_dpo_loses_what_trl_loses(models: Any, tiny_model: Path, home: Path, tmp_path: Path) -> None:
    from trl import DPOConfig, DPOTrainer

    wrapped, merged, _ = models
    rows = encoded(PAIRS, "pairs", tmp_path, tiny_model)
    trainer = trainer_of(DPOTrainer, DPOConfig, models, PAIRS, tmp_path, tiny_model)
    merged.eval()
    for knobs in KNOBS:
        stage = DPO(**knobs)
        trainer.beta, trainer.loss_types, trainer.label_smoothing = stage.strength, [stage.loss], stage.label_smoothing
        with torch.no_grad():
            loss = trainer._compute_loss(merged, trainer.data_collator(pairs_for_trl(rows)), False)
        for layout, kind in (("packed", "chunked"), ("padded", "full")):
            assert_same(trainer, loss, loss_of(stage, wrapped, rows, layout, kind))


def test_kto_loses_what_trl_loses(models: Any, tiny_model: Path, home: Path, tmp_path: Path) -> None:
    from trl import KTOConfig, KTOTrainer

    wrapped, merged, _ = models
    rows = encoded(VERDICTS, "verdicts", tmp_path, tiny_model)
    trainer = trainer_of(KTOTrainer, KTOConfig, models, VERDICTS, tmp_path, tiny_model)
    split = [prompt_and_answer(row["input_ids"], row["labels"]) for row in rows]
    batch = trainer.data_collator(
        [
            {"prompt_ids": prompt, "completion_ids": answer, "KL_completion_ids": split[n - 1][1], "label": row["good"]}
            for n, ((prompt, answer), row) in enumerate(zip(split, rows, strict=True))
        ]
    )
    merged.eval()
    for stage in (KTO(), KTO(beta=0.5, desirable_weight=1.3), KTO(loss="apo_zero_unpaired", undesirable_weight=2)):
        trainer.beta, trainer.loss_type, trainer.calculate_KL = stage.beta, stage.loss, stage.loss == "kto"
        trainer.desirable_weight, trainer.undesirable_weight = stage.desirable_weight, stage.undesirable_weight
        with torch.no_grad():
            loss = trainer._compute_loss(merged, batch, False)
        if stage.loss != "kto":
            trainer._metrics["eval"].pop("kl")
        assert_same(trainer, loss, loss_of(stage, wrapped, rows, "packed", "chunked"))


def test_orpo_loses_what_trl_loses(models: Any, tiny_model: Path, home: Path, tmp_path: Path) -> None:
    """With prompts of a single token: trl counts the likelihood of prompts too, and a first token has none."""
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    wrapped, merged, _ = models
    examples = [
        example | {"prompt_ids": [1]} for example in pairs_for_trl(encoded(PAIRS, "pairs", tmp_path, tiny_model))
    ]
    rows = Rows(examples)
    trainer = trainer_of(ORPOTrainer, ORPOConfig, models, PAIRS, tmp_path, tiny_model)
    batch: dict[str, Any] = {}
    for side in ("chosen", "rejected"):
        ids = [[1, *example[f"{side}_ids"]] for example in examples]
        width = max(map(len, ids))
        batch[f"{side}_input_ids"] = torch.tensor([row + [0] * (width - len(row)) for row in ids])
        batch[f"{side}_attention_mask"] = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in ids])
        batch[f"{side}_labels"] = torch.tensor([[-100, *row[1:]] + [-100] * (width - len(row)) for row in ids])
    merged.eval()
    with torch.no_grad():
        loss, metrics = trainer.get_batch_loss_metrics(merged, batch, "eval")
    for layout, kind in (("packed", "chunked"), ("padded", "full")):
        found = loss_of(ORPO(), wrapped, rows, layout, kind)
        assert found[0].item() == pytest.approx(loss.item(), abs=1e-3)
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
