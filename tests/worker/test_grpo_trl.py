"""Advantages, loss and gradients of GRPO against trl's GRPOTrainer on the same answers."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from studio.evaluation.questions import Question
from studio.stages.grpo import GRPO
from studio.worker.rollouts import Rollout, tensor_of
from tests.worker.comparing import LAYOUTS, objective_of
from tests.worker.test_preference_trl import assert_same_gradients, gradients

pytest.importorskip("trl")
GROUP, LONGEST = 3, 9
PROMPTS = [[1, 20, 21, 22], [1, 30, 31, 32, 33, 34, 35]]
ANSWERS = [[40, 41, 2], [50] * 9, [60, 2], [70, 71, 72, 73, 2], [80, 2], [90, 91, 92, 93, 94, 95, 2]]
REWARDS: dict[str, list[float | None]] = {
    "spread": [0.0, 1.0, 0.25, 1.0, 1.0, 0.0],
    "flat and unknown": [1.0, 1.0, 1.0, None, 0.5, 0.0],
}
KNOBS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("spread", {}),
    ("spread", {"beta": 0, "loss": "dapo"}),
    ("spread", {"beta": 0.3, "loss": "bnpo", "temperature": 0.7}),
    ("flat and unknown", {"loss": "dr_grpo", "scale": "none"}),
    ("flat and unknown", {"scale": "batch", "epsilon": 0.02, "epsilon_high": 0.05}),
)


@pytest.fixture(scope="module")
def wrapped(tiny_model: Path) -> Any:
    """The base with a random LoRA beside it."""
    torch.manual_seed(3)
    adapter = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    return get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), adapter).eval()


@pytest.fixture(scope="module")
def trainer_of(wrapped: Any, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A GRPOTrainer of the same model whose answers are ANSWERS."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    def made(rewards: list[float | None], stage: GRPO) -> Any:
        arguments = GRPOConfig(
            output_dir=str(tmp_path_factory.mktemp("grpo")),
            **{"use_cpu": True, "bf16": False, "report_to": "none", "gradient_checkpointing": False},
            **{"per_device_train_batch_size": 6, "per_device_eval_batch_size": 6, "num_generations": GROUP},
            max_completion_length=LONGEST,
            **{"beta": stage.beta, "loss_type": stage.loss, "temperature": stage.temperature},
            **{"epsilon": stage.epsilon, "epsilon_high": stage.epsilon_high, "scale_rewards": stage.scale},
        )
        trainer = GRPOTrainer(
            model=copy.deepcopy(wrapped),
            reward_funcs=lambda **_: list(rewards),
            args=arguments,
            train_dataset=Dataset.from_list([{"prompt": "a"}, {"prompt": "b"}]),
            processing_class=AutoTokenizer.from_pretrained(tiny_model),
        )
        if "ref" in trainer.model.peft_config:  # the adapter as it began, which trl compares with; here the base alone
            trainer.model.delete_adapter("ref")
        trainer.model.eval()
        ids = [PROMPTS[0]] * GROUP + [PROMPTS[1]] * GROUP
        trainer._generate = lambda _: (ids, ANSWERS, None, ["x"] * 6, None, {}, None, None)
        return trainer

    return made


@pytest.mark.parametrize(("name", "knobs"), KNOBS)
def test_grpo_loses_what_trl_loses(name: str, knobs: dict[str, Any], wrapped: Any, trainer_of: Any) -> None:
    stage, rewards = GRPO(group=GROUP, max_new_tokens=LONGEST, **knobs), REWARDS[name]
    trainer = trainer_of(rewards, stage)
    with torch.no_grad():
        batch = trainer._generate_and_score_completions([{"prompt": "a"}] * GROUP + [{"prompt": "b"}] * GROUP)
        mask = batch["completion_mask"].bool()
        tokens = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
        read = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
        base = AutoModelForCausalLM.from_pretrained(trainer.model.config._name_or_path)
        logits = base(input_ids=tokens, attention_mask=read, position_ids=(read.cumsum(1) - 1).clamp(min=0)).logits
        logits = logits[:, -mask.shape[1] - 1 : -1] / stage.temperature
        old = logits.log_softmax(-1).gather(-1, batch["completion_ids"][..., None])[..., 0]
        batch["old_per_token_logps"] = old
    loss = trainer._compute_loss(trainer.model, batch)
    expected = gradients(trainer.model, loss)
    rollouts = [
        Rollout(
            PROMPTS[place // GROUP],
            Question("", []),
            ids,
            "",
            True,
            [reward],
            float("nan") if reward is None else reward,
        )
        for place, (ids, reward) in enumerate(zip(ANSWERS, rewards, strict=True))
    ]
    advantages = stage.advantages(tensor_of(rollouts, GROUP)).flatten()
    torch.testing.assert_close(advantages, batch["advantages"], atol=1e-5, rtol=1e-5)
    for rollout, advantage, before, known in zip(rollouts, advantages.tolist(), old, mask, strict=True):
        rollout.advantage, rollout.before = advantage, before[known].tolist()
    for layout, kind in (("packed", "chunked"), ("padded", "full")):
        objective: Any = objective_of(stage, wrapped, kind)
        objective.trainer.layout = LAYOUTS[layout]
        micro_batches = objective.micro_batches(rollouts)
        total = sum(objective.loss(wrapped, one) for one in micro_batches) / micro_batches[0]["num_items_in_batch"]
        assert total.item() == pytest.approx(loss.item(), abs=1e-3)
        assert_same_gradients(gradients(wrapped, total), expected)
        assert abs(total.item()) > 1e-3
        if stage.beta:
            assert objective.metrics.take()["kl"] == pytest.approx(trainer._metrics["eval"]["kl"][-1], abs=1e-3)
