"""Every setting of speed and memory: the curve stays, only speed and memory change.

And every training.KEY reaches what it is for.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from transformers import Trainer, TrainerCallback

from studio import auto, config, preflight
from studio.errors import OrderError
from studio.runs import launch
from studio.training import Training
from studio.worker import sharding, train
from studio.worker.decoder_layers import CompileCallback, FirstLayersOnly
from studio.worker.fast_lora import LoraForward
from studio.worker.loss import unwrap
from studio.worker.probe import MemoryProbe
from studio.worker.trainer import StudioTrainer
from tests.worker.carrying import carry, evals, order, rows, steps

pytestmark = pytest.mark.usefixtures("home")

FIXED = ("method.dropout=0", "training.max_steps=5", "training.learning_rate=0.001")
FULL = ("method.name=full", "training.max_steps=5", "training.learning_rate=0.001")
BF16 = (*FULL, "training.precision=bf16")


class SettingCase(NamedTuple):
    """settings: what is changed; usual: the order it is compared with; tolerance: of the losses of five steps."""

    settings: tuple[str, ...]
    usual: tuple[str, ...] = FIXED
    tolerance: float = 2e-3


TABLE: dict[str, dict[str, SettingCase]] = {
    "precision": {
        "bf16": SettingCase(("training.precision=bf16",), tolerance=0.05),
        "bf16, all weights": SettingCase(("training.precision=bf16",), FULL, 0.05),
    },
    "weights": {"bf16, rounded at random": SettingCase(("training.weights=bf16",), BF16, 0.05)},
    "packing": {
        "padded": SettingCase(("training.packing=false",)),
        "padded, full loss": SettingCase(("training.packing=false", "training.loss=full")),
        "padded, one row each": SettingCase(
            ("training.packing=false", "training.batch_size=1", "training.accumulation=4")
        ),
    },
    "batch_size": {
        "one batch": SettingCase(("training.batch_size=4", "training.accumulation=1")),
        "single rows": SettingCase(("training.batch_size=1", "training.accumulation=4")),
    },
    "micro_batch": {"few tokens at once": SettingCase(("training.micro_batch=64",))},
    "loss": {
        "full": SettingCase(("training.loss=full",)),
        "full, all weights": SettingCase(("training.loss=full",), FULL),
    },
    "attention": {
        "sdpa": SettingCase(("training.attention=sdpa",)),
        "eager": SettingCase(("training.attention=eager",)),
    },
    "checkpointing": {
        "on": SettingCase(("training.checkpointing=true",)),
        "on, all weights": SettingCase(("training.checkpointing=true",), FULL),
    },
    "checkpointed_layers": {"one": SettingCase(("training.checkpointing=true", "training.checkpointed_layers=1"))},
    "optimizer": {
        "plain": SettingCase(("training.optimizer=adamw_torch",)),
        "8-bit states": SettingCase(("training.optimizer=adamw_8bit",), FULL, 0.02),
    },
    "compile": {},  # by itself below: half a minute of a C++ compiler
    "fused_kernels": {},  # tests/worker/test_fused_kernels.py, under Triton's interpreter
    "fast_lora": {
        "peft's own": SettingCase(("training.fast_lora=false",)),
        "peft's own, in 16 bits": SettingCase(("training.fast_lora=false",), (*FIXED, "training.precision=bf16"), 0.01),
    },
    "threads": {"two": SettingCase(("training.threads=2",))},
    "workers": {"two": SettingCase(("training.workers=2",))},
    "probe": {"on": SettingCase(("training.probe=true",))},
    "devices": {},
    "sharding": {},  # tests/worker/test_several.py: two processes, a copy on each or the model split
}
KNOWN: dict[tuple[str, ...], tuple[list[float], list[float]]] = {}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return rows(tmp_path / "rows.json")


@pytest.fixture(autouse=True)
def _bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("studio.device._cpu_has_bf16", lambda: True)


def test_every_auto_setting_has_its_rule_and_its_test() -> None:
    assert set(auto.RULES) <= set(Training.model_fields)
    assert set(TABLE) == set(auto.RULES)


@pytest.mark.parametrize(
    ("setting", "variant"), [(setting, variant) for setting, variants in TABLE.items() for variant in variants]
)
def test_no_setting_changes_what_is_learnt(setting: str, variant: str, tiny_model: Path, data: Path) -> None:
    case = TABLE[setting][variant]
    if case.usual not in KNOWN:
        events = carry(order(tiny_model, data, *case.usual))
        KNOWN[case.usual] = steps(events), evals(events)
    changed = carry(order(tiny_model, data, *case.usual, *case.settings))
    assert changed[-1]["state"] == "finished"
    assert steps(changed) == pytest.approx(KNOWN[case.usual][0], abs=case.tolerance)
    assert evals(changed)[-1] == pytest.approx(KNOWN[case.usual][1][-1], abs=case.tolerance)
    assert evals(changed)[-1] < evals(changed)[0] - 3 * case.tolerance or case.tolerance < 0.01, "and it learns"


@pytest.mark.slow
def test_compiled_it_learns_the_same_and_tells_its_time(tiny_model: Path, tmp_path: Path) -> None:
    """Rows of one length: one shape to compile."""
    file = tmp_path / "rows.json"
    file.write_text(
        json.dumps(
            [
                {"instruction": f"Say the number {n}.", "input": "", "output": f"The number is {n}."}
                for n in range(10, 18)
            ]
        )
    )
    fixed = (*FIXED, "training.max_steps=2", "training.batch_size=4", "training.accumulation=1", "data.eval=0")
    plain, compiled = (
        carry(order(tiny_model, file, *fixed)),
        carry(order(tiny_model, file, *fixed, "training.compile=true")),
    )
    assert steps(compiled) == pytest.approx(steps(plain), abs=2e-3)
    told = [event["text"] for event in compiled if event["kind"] == "note" and "torch.compile" in event["text"]]
    assert len(told) == 1
    assert float(told[0].split("took ")[1].split(" s")[0]) > 0


@pytest.mark.parametrize("missing", ["compiler", "headers"])
def test_compiling_is_refused_before_a_run_where_it_cannot_be(
    missing: str, tiny_model: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if missing == "compiler":
        monkeypatch.setenv("CXX", "no-such-compiler")
    else:
        monkeypatch.setattr("sysconfig.get_path", lambda name: "/nowhere")
    wanted = config.parse(f"{{model: {tiny_model}, data: {{train: {data}}}, training: {{compile: true}}}}")
    with pytest.raises(OrderError, match=r"torch\.compile needs") as refused:
        preflight.check(wanted)
    assert "apt install" in refused.value.hint


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("training.attention=flash", "Flash attention needs"),
        ("training.precision=fp16", "does not train in fp16"),
        ("training.optimizer=paged_adamw_8bit", "pages memory"),
        ("training.report_to=[swanlab]", "not installed"),
        ("training.weights=bf16", "full fine-tuning"),
        ("training.fused_kernels=true", "NVIDIA cards"),
        ("training={checkpointing: false, checkpointed_layers: 2}", "checkpointing is false"),
    ],
)
def test_a_setting_that_cannot_work_is_refused_before_a_run(
    setting: str, words: str, tiny_model: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auto, "installed", lambda name: name != "swanlab")
    with pytest.raises(OrderError, match=words):
        preflight.check(config.parse(f"{{model: {tiny_model}, data: {{train: {data}}}}}", [setting]))


class Tracker(TrainerCallback):
    """Stands in for a tracker's callback."""


REACH: dict[
    str, tuple[str, Callable[[StudioTrainer, Any], Any]]
] = {  # training.KEY -> (another value than the default, whether it arrived)
    "epochs": ("2", lambda trainer, ordered: trainer.args.num_train_epochs == 2),
    "max_steps": ("7", lambda trainer, ordered: trainer.args.max_steps == 7),
    "batch_size": ("3", lambda trainer, ordered: trainer.layout.max_rows == 3 and trainer.effective_batch_size == 6),
    "micro_batch": ("640", lambda trainer, ordered: trainer.layout.max_tokens == 640),
    "accumulation": ("5", lambda trainer, ordered: trainer.effective_batch_size == 10),
    "learning_rate": ("0.003", lambda trainer, ordered: trainer.args.learning_rate == 0.003),
    "schedule": ("linear", lambda trainer, ordered: trainer.args.lr_scheduler_type == "linear"),
    "warmup": ("0.25", lambda trainer, ordered: trainer.args.get_warmup_steps(100) == 25),
    "weight_decay": ("0.1", lambda trainer, ordered: trainer.args.weight_decay == 0.1),
    "max_grad_norm": ("0.5", lambda trainer, ordered: trainer.args.max_grad_norm == 0.5),
    "neftune": ("5", lambda trainer, ordered: trainer.args.neftune_noise_alpha == 5),
    "label_smoothing": (
        "0.1",
        lambda trainer, ordered: trainer.args.label_smoothing_factor == 0.1 and trainer.loss_kind == "full",
    ),
    "precision": ("bf16", lambda trainer, ordered: trainer.dtype == torch.bfloat16 and trainer.args.bf16),
    "weights": (
        "bf16",
        lambda trainer, ordered: (
            {weight.dtype for weight in trainer.model.parameters()} == {torch.bfloat16}
            and trainer.create_optimizer().__class__.__name__ == "RoundedAdamW"
        ),
    ),
    "checkpointing": ("true", lambda trainer, ordered: trainer.args.activation_checkpointing),
    "checkpointed_layers": (
        "1",
        lambda trainer, ordered: any(
            isinstance(one, FirstLayersOnly) and one.count == 1 for one in trainer.callback_handler.callbacks
        ),
    ),
    "packing": ("false", lambda trainer, ordered: not trainer.layout.packed),
    "optimizer": ("adafactor", lambda trainer, ordered: trainer.create_optimizer().__class__.__name__ == "Adafactor"),
    "loss": ("full", lambda trainer, ordered: trainer.loss_kind == "full"),
    "attention": ("eager", lambda trainer, ordered: trainer.model.config._attn_implementation == "eager"),
    "fused_kernels": ("false", lambda trainer, ordered: "forward" not in vars(unwrap(trainer.model).model.norm)),
    "fast_lora": (
        "false",
        lambda trainer, ordered: (
            not any(isinstance(vars(module).get("forward"), LoraForward) for module in trainer.model.modules())
        ),
    ),
    "compile": (
        "true",
        lambda trainer, ordered: any(isinstance(one, CompileCallback) for one in trainer.callback_handler.callbacks),
    ),
    "seed": (
        "7",
        lambda trainer, ordered: trainer.args.seed == 7 and trainer.get_train_dataloader().batch_sampler.seed == 7,
    ),
    "log_every": ("4", lambda trainer, ordered: trainer.args.logging_steps == 4),
    "eval_every": ("6", lambda trainer, ordered: trainer.args.eval_steps == 6),
    "save_every": ("9", lambda trainer, ordered: trainer.args.save_steps == 9),
    "keep_checkpoints": ("5", lambda trainer, ordered: trainer.checkpoints_to_keep == 5),
    "early_stopping": ("3", lambda trainer, ordered: trainer.report.early_stopping == 3),
    "keep_best": ("true", lambda trainer, ordered: trainer.report.keep_best),
    "best_by": ("frontier", lambda trainer, ordered: trainer.report.by_frontier),
    "forgetting": ("true", lambda trainer, ordered: trainer.report.forgetting.plan.at_end == 200),
    "keep_general": ("0.5", lambda trainer, ordered: trainer.brake.strength == 0.5),
    "keep_general_by": ("replay", lambda trainer, ordered: trainer.brake.base is None),
    "sample_prompts": ('["Hello?"]', lambda trainer, ordered: trainer.report.samples.prompts == ("Hello?",)),
    "samples": ("2", lambda trainer, ordered: len(trainer.report.samples.prompts) == 2),
    "probe": (
        "true",
        lambda trainer, ordered: any(isinstance(one, MemoryProbe) for one in trainer.callback_handler.callbacks),
    ),
    "report_to": (
        '["tensorboard"]',
        lambda trainer, ordered: any(isinstance(one, Tracker) for one in trainer.callback_handler.callbacks),
    ),
    "devices": ("2", lambda trainer, ordered: launch.processes(ordered) == 2),
    "sharding": ("fsdp", lambda trainer, ordered: sharding.strategy(ordered, trainer.model) == "fsdp"),
    "threads": ("2", lambda trainer, ordered: torch.get_num_threads() == 2),
    "workers": ("3", lambda trainer, ordered: trainer.get_train_dataloader().num_workers == 3),
}


ALONGSIDE = {  # what a key needs beside it
    "checkpointed_layers": ("training.checkpointing=true",),
    "weights": ("method.name=full", "training.precision=bf16"),
    "best_by": ("training.keep_best=true",),
    "keep_general_by": ("training.keep_general=1",),
}


def test_every_training_key_is_in_the_table() -> None:
    assert set(REACH) == set(Training.model_fields)


@pytest.mark.parametrize("key", REACH)
def test_every_training_key_reaches_the_trainer(
    key: str, tiny_model: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything up to the first step is done; the trainer as it stands then is looked at."""
    seen: list[StudioTrainer] = []
    monkeypatch.setattr(StudioTrainer, "train_from", lambda self, checkpoint, steps: seen.append(self))
    monkeypatch.setattr(train, "save_result", lambda *given: None)
    monkeypatch.setattr(
        "transformers.trainer.get_reporting_integration_callbacks", lambda names: [Tracker] * len(names)
    )
    monkeypatch.setattr(auto, "installed", lambda name: True)
    value, arrived = REACH[key]
    more = ALONGSIDE.get(key, ())
    run = order(tiny_model, data, *more, f"training.{key}={value}")
    training = run.config.training
    train.train(run, train.Report(run, 1, training.early_stopping, training.keep_best, training.best_by))
    assert arrived(seen[0], run.config)


def test_of_the_trainer_only_two_private_methods_are_set_aside() -> None:
    """What its documented interface can carry goes through it.

    Every private method that is replaced ties us to one version of transformers.
    """
    own = {name for kind in StudioTrainer.__mro__[: StudioTrainer.__mro__.index(Trainer)] for name in vars(kind)}
    assert {name for name in own & {*dir(Trainer)} if name.startswith("_") and not name.startswith("__")} == {
        "_save_checkpoint",
        "_load_from_checkpoint",
    }
