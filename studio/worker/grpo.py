"""GRPO in the training step: answers are written, their rewards compared within each group, and a loss made of both.

Every step writes answers to its prompts with the model as it is (worker/rollouts.py); with `iterations` the steps after
it learn from the same ones. The random numbers of a step depend on the order's seed and the step alone, so a resume
draws what the uninterrupted run would have drawn; answers still to be learnt from lie in the checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers.trainer_utils import EvalLoopOutput

from studio.config import RunConfig
from studio.evaluation.questions import Question, spread
from studio.home import write_atomic
from studio.kernels import EVAL_PROMPTS
from studio.reward import Scorer
from studio.rewards import labels
from studio.stages.grpo import GRPO
from studio.tokens import Encoder
from studio.worker import memory
from studio.worker.log_probs import log_probs
from studio.worker.loss import context_length, router_loss, target_indices
from studio.worker.modes import evaluating
from studio.worker.packing import MicroBatch, Row, group_rows
from studio.worker.preference import Objective
from studio.worker.rollouts import Ends, Rollout, RolloutMetrics, Writer, as_row, tensor_of
from studio.worker.scorers import opened

PENDING_FILE = "answers.json"  # in a checkpoint: answers that later steps learn from
SHOWN = 200  # groups that a run's events show, spread over its steps
SHOWN_ANSWERS, SHOWN_CHARACTERS = 8, 600  # of each


def collate_prompts(rows: list[Row]) -> list[MicroBatch]:
    """The prompts of a step as its one micro-batch, from which `GroupObjective.start_step` makes the real ones."""
    return [{"prompts": rows, "num_tokens": 0, "num_items_in_batch": 1}]


class GroupObjective(Objective):
    """The loss of GRPO. `prepare` must be called before the first step."""

    stage: GRPO
    metrics: RolloutMetrics
    writer: Writer
    scorers: list[Scorer]

    def __init__(self, stage: GRPO, trainer: Any):
        super().__init__(stage, trainer)
        self.metrics = RolloutMetrics(stage)
        self.rollouts: list[Rollout] = []
        self.reference_model: Any = None  # where no adapter can be switched off
        self.steps = 1  # of the whole run

    def prepare(self, encoder: Encoder, config: RunConfig, steps: int, cache: Path) -> None:
        """Open the rewards and the writer of answers. cache: a folder for replies of judges. Raises StudioError."""
        ends = Ends.of(encoder, context_length(self.trainer.model, config.virtual_tokens))
        at_once = config.training.batch_size * self.stage.group
        self.writer = Writer(self.stage, encoder, ends, at_once, config.training.seed)
        self.scorers = opened(self.stage.rewards, cache, lambda: self.trainer.report.stop_request() is not None)
        self.steps = steps

    # -- a step

    def start_step(self, model: Any, micro_batches: list[MicroBatch]) -> list[MicroBatch]:
        """Write and compare the answers to the step's prompts; returns the micro-batches that are learnt from."""
        step, stage = self.trainer.state.global_step, self.stage
        if step % stage.iterations == 0 or not self.rollouts:
            self.rollouts = self.write(micro_batches[0]["prompts"], stage.group, f"step {step}")
            advantages = stage.advantages(tensor_of(self.rollouts, stage.group)).flatten().tolist()
            for rollout, advantage in zip(self.rollouts, advantages, strict=True):
                rollout.advantage = advantage
            self.metrics.add_rollouts(self.rollouts, stage.group)
            if stage.iterations > 1:
                self._remember_log_probs(model)
            self._show(step + 1)
        micro_batches = self.micro_batches(self.rollouts)
        # the loader knew the prompts alone, and counted none
        self.trainer.report.num_tokens += micro_batches[0]["num_tokens"]
        return micro_batches

    def write(self, prompts: Sequence[Row], group: int, turn: str, first: int = 0) -> list[Rollout]:
        """`group` answers to each prompt with their rewards. See Writer.write."""
        with evaluating(self.trainer) as model:
            rollouts = self.writer.write(model, prompts, group, turn, first)
        self.score(rollouts)
        return rollouts

    def score(self, rollouts: Sequence[Rollout]) -> None:
        """Give each answer its rewards and their weighted sum; nan where no reward has any to give."""
        texts, questions = [rollout.text for rollout in rollouts], [rollout.asked for rollout in rollouts]
        columns = [scorer(texts, questions) for scorer in self.scorers]
        weights = [reward.weight for reward in self.stage.rewards]
        for rollout, values in zip(rollouts, zip(*columns, strict=True), strict=True):
            rollout.rewards = list(values)
            known = [weight * value for weight, value in zip(weights, values, strict=True) if value is not None]
            rollout.reward = sum(known) if known else float("nan")

    def micro_batches(self, rollouts: Sequence[Rollout]) -> list[MicroBatch]:
        """The answers of a step, grouped as the layout says, with what the loss needs beside the model's inputs: for
        every token of theirs its advantage, its weight, and where asked for its log-probability when it was written.
        """
        rows = [as_row(rollout) | {"rollout": rollout} for rollout in rollouts]
        items = self.stage.items(len(rollouts), sum(len(rollout.ids) for rollout in rollouts))
        micro_batches = []
        for group in group_rows(rows, self.trainer.layout):
            written = [row["rollout"] for row in group]
            micro_batch = self.trainer.layout.collate(group)
            lengths, advantages = (
                micro_batch["answer_lengths"],
                torch.tensor([rollout.advantage for rollout in written]),
            )
            micro_batches.append(
                micro_batch
                | {
                    "target_positions": target_indices(micro_batch["labels"]),
                    "advantages": advantages.repeat_interleave(lengths),
                    "token_weights": self.stage.token_weights(lengths),
                    "num_items_in_batch": items,
                    "items": items * len(group) / len(rollouts),
                    "num_tokens": 0 if micro_batches else sum(len(row["input_ids"]) for row in rows),
                }
                | ({"before": torch.tensor(sum((r.before for r in written), []))} if written[0].before else {})
            )
        return micro_batches

    def loss(self, model: Any, micro_batch: MicroBatch) -> torch.Tensor:
        """The loss of a micro-batch, summed as `GRPO.items` is to divide it."""
        to_device, stage = self.trainer.to_device, self.stage
        advantages, weights = to_device(micro_batch["advantages"]), to_device(micro_batch["token_weights"])
        reference = self._ask_base(micro_batch, stage.temperature) if stage.uses_reference else None
        values, output = self._and_output(model, micro_batch, stage.temperature)
        before = to_device(micro_batch["before"]) if "before" in micro_batch else values.detach()
        losses, divergence, clipped = stage.token_losses(values, before, reference, advantages)
        self.metrics.add_tokens(divergence, clipped)
        return (losses * weights).sum() + router_loss(model, output, micro_batch["items"])

    def _ask_base(self, micro_batch: MicroBatch, temperature: float = 1.0) -> torch.Tensor:
        if self.reference_model is None:
            return super()._ask_base(micro_batch, temperature)
        trainer = self.trainer
        inputs, positions = trainer.model_inputs(micro_batch), trainer.to_device(micro_batch["target_positions"])
        with torch.no_grad(), trainer.accelerator.autocast():
            return log_probs(self.reference_model, inputs, trainer.loss_kind, trainer.dtype, positions, temperature)[0]

    def _remember_log_probs(self, model: Any) -> None:
        """Keep every token's log-probability by the model that wrote it, for the steps after it has changed."""
        by_id = {id(rollout): rollout for rollout in self.rollouts}
        model.eval()
        rows = [as_row(rollout) | {"rollout": id(rollout)} for rollout in self.rollouts]
        for group in group_rows(rows, self.trainer.layout):
            micro_batch = self.trainer.layout.collate(group)
            with torch.no_grad():
                values = self._log_probs(model, micro_batch, self.stage.temperature)
            for row, part in zip(group, values.split(micro_batch["answer_lengths"].tolist()), strict=True):
                by_id[row["rollout"]].before = part.tolist()
        model.train()

    def longest_step(self, rows: Sequence[Row]) -> list[MicroBatch]:
        """The micro-batches of a step of the longest prompts, with answers as long as they may be."""
        count = min(self.stage.max_new_tokens, max(1, self.writer.ends.context - len(rows[0]["input_ids"])))
        question = Question("", [])
        rollouts = [
            Rollout(row["input_ids"], question, row["input_ids"][:1] * count, "", False, [], 0.0)
            for row in rows
            for _ in range(self.stage.group)
        ]
        return self.micro_batches(rollouts)

    # -- evaluation

    def evaluate(self, model: Any, rows: Sequence[Row], prefix: str) -> EvalLoopOutput:
        """The mean reward of an answer to each of at most EVAL_PROMPTS held-out prompts, sampled with the same random
        numbers every time; the loss is its negative. No metrics where the run is asked to stop.
        """
        chosen = sorted(spread(len(rows), EVAL_PROMPTS))

        def write(indices: Sequence[int]) -> list[Rollout]:
            return self.write([rows[chosen[index]] for index in indices], 1, "held out", indices[0])

        rollouts: list[Rollout] = []
        for start in range(0, len(chosen), self.writer.at_once):
            several = range(len(chosen))[start : start + self.writer.at_once]
            rollouts += sum(memory.in_halves(write, several), [])
            if self.trainer.report.must_cut_evaluation_short():
                return EvalLoopOutput(None, None, {}, len(rows))
        metrics = RolloutMetrics(self.stage)
        metrics.add_rollouts(rollouts, 1)
        figures = metrics.take()
        figures = {"loss": -figures["reward"], **figures} if "reward" in figures else {}
        return EvalLoopOutput(None, None, {f"{prefix}_{name}": value for name, value in figures.items()}, len(rows))

    # -- what is kept and shown

    def save(self, folder: Path) -> None:
        """Keep the answers that the next step learns from as well, in a checkpoint's folder."""
        if self.rollouts and self.trainer.state.global_step % self.stage.iterations:
            write_atomic(folder / PENDING_FILE, json.dumps([asdict(rollout) for rollout in self.rollouts]))

    def load(self, folder: Path) -> None:
        """Take up what `save` kept."""
        file = folder / PENDING_FILE
        kept = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
        self.rollouts = [Rollout(**{**fields, "asked": Question(*fields["asked"])}) for fields in kept]

    def _show(self, step: int) -> None:
        """Write the answers to one of the step's prompts as an event, with their rewards."""
        if step > 1 and step % max(1, self.steps // SHOWN):
            return
        names, group = labels(self.stage.rewards), self.rollouts[: min(self.stage.group, SHOWN_ANSWERS)]
        self.trainer.report.emit(
            "rollout",
            step=step,
            prompt=group[0].asked.text[:SHOWN_CHARACTERS],
            reference=group[0].asked.reference[:SHOWN_CHARACTERS],
            answers=[
                {
                    "text": rollout.text[:SHOWN_CHARACTERS],
                    "cut": len(rollout.text) > SHOWN_CHARACTERS,
                    "ended": rollout.ended,
                    "reward": rollout.reward,
                    "advantage": rollout.advantage,
                    "rewards": dict(zip(names, rollout.rewards, strict=True)),
                }
                for rollout in group
            ],
        )
