"""The loss of the stages that compare answers, in the training step: log-probabilities, the reference, the metrics.

The reference is the model before training. Where an adapter is trained beside a base that stays as it is, the adapter
is switched off for it; else its log-probabilities of all rows are taken once, before the first step, and kept in the
run's folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from studio.kernels import IGNORE_INDEX
from studio.stage import Answers, Stage
from studio.worker import distributed, reward_head
from studio.worker.log_probs import log_probs, sums_by_sequence
from studio.worker.loss import router_loss
from studio.worker.modes import as_base, evaluating
from studio.worker.packing import Layout, MicroBatch, Row, group_rows, sequences_of


class PreferenceRows(Sequence[Row]):
    """Rows with what a stage adds to each: "mismatched", its prompt with the answer of the row before it; "reference",
    the log-probabilities of its sequences by the model before training, and "mismatched_reference".
    """

    def __init__(self, rows: Any, mismatched: bool, reference: np.ndarray | None = None):
        """reference: [rows, sequences], a mismatched one last."""
        self.rows, self.mismatched, self.reference = rows, mismatched, reference
        self.limit = int(rows.lengths().max(initial=0)) if mismatched else 0

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:
        row = self.rows[index]
        if self.mismatched and row["input_ids"]:
            mismatched = mismatch(row, self.rows[index - 1], self.limit)
            if self.reference is not None:
                mismatched["reference"] = [float(self.reference[index, -1])]
            row = row | {"mismatched": mismatched}
        if self.reference is None:
            return row
        values = self.reference[index, : -1 if self.mismatched else None]
        return row | {"reference": values.tolist()}

    def first(self, count: int) -> list[Row]:
        return [self[index] for index in range(min(count, len(self)))]

    def longest(self, count: int) -> list[Row]:
        """The rows with the most tokens, the longest first."""
        return [self[int(index)] for index in np.argsort(-self.lengths(), kind="stable")[:count]]

    def lengths(self) -> np.ndarray:
        return self.rows.lengths()

    @property
    def content(self) -> str:
        return self.rows.content


def mismatch(row: Row, other: Row, limit: int) -> Row:
    """The row's prompt with the answer of another row, cut at `limit` tokens."""
    prompt, answer = _answer_start(row), _answer_start(other)
    return {
        "input_ids": (row["input_ids"][:prompt] + other["input_ids"][answer:])[:limit],
        "labels": ([IGNORE_INDEX] * prompt + other["labels"][answer:])[:limit],
    }


def _answer_start(row: Row) -> int:
    return next((index for index, label in enumerate(row["labels"]) if label != IGNORE_INDEX), len(row["labels"]))


class Objective:
    """The loss of one stage. trainer: a StudioTrainer, whose model without its adapter is the reference."""

    def __init__(self, stage: Stage, trainer: Any):
        self.stage, self.trainer = stage, trainer
        self.kl: torch.Tensor | None = None  # estimate for the current effective batch
        self.tokens_per_item = 1.0
        self.metrics = Metrics(stage)

    def start_step(self, model: Any, micro_batches: list[MicroBatch]) -> list[MicroBatch]:
        """Estimate the divergence on the mismatched micro-batches; returns the others, which have a loss."""
        remaining = [micro_batch for micro_batch in micro_batches if "mismatched" not in micro_batch]
        if self.stage.examples == "pairs":
            lengths = [micro_batch["answer_lengths"] for micro_batch in remaining if "answer_lengths" in micro_batch]
            chosen = torch.cat([torch.zeros(0, dtype=torch.int64), *lengths])[0::2]
            tokens, items = map(sum, zip(*distributed.gather([int(chosen.sum()), len(chosen)])))
            self.tokens_per_item = max(1, tokens) / max(1, items)
        if self.stage.mismatched:
            self.kl = self._divergence(model, [one for one in micro_batches if "mismatched" in one])
            self.metrics.kl.append(self.kl)
        return remaining

    def loss(self, model: Any, micro_batch: MicroBatch) -> torch.Tensor:
        """The loss of a micro-batch, summed over its items; of one without items zero, with a gradient of zero."""
        if "answer_lengths" not in micro_batch:
            return 0.0 * self._values(model, micro_batch)[0].sum()
        lengths, good = (self.trainer.to_device(micro_batch[key]) for key in ("answer_lengths", "good"))
        reference = self._reference(micro_batch, lengths) if self.stage.uses_reference else None
        values, output = self._values(model, micro_batch)
        if not self.stage.scores:
            values = sums_by_sequence(values, lengths)
        answers = Answers(values, reference, lengths, good, self.kl, self.tokens_per_item)
        losses, rewards = self.stage.losses(answers)
        self.metrics.add(answers, rewards)
        return losses.sum() + router_loss(model, output, len(losses))

    def _values(self, model: Any, micro_batch: MicroBatch) -> tuple[torch.Tensor, Any]:
        """(the score of each sequence, None; or the log-probability of each target, the model's output)."""
        if not self.stage.scores:
            return self._and_output(model, micro_batch)
        positions = self.trainer.to_device(micro_batch.get("last_positions"))
        if positions is None:
            positions = torch.zeros(1, dtype=torch.int64, device=self.trainer.args.device)
        return reward_head.scores(model, self.trainer.model_inputs(micro_batch), positions), None

    def save(self, folder: Path) -> None:
        """Keep in a checkpoint what a resume needs beside the weights."""

    def load(self, folder: Path) -> None:
        """Take up what `save` kept."""

    def token_loss(self, model: Any, micro_batch: MicroBatch) -> torch.Tensor:
        """-log p summed over all target tokens, by the same functions as the loss."""
        return -self._log_probs(model, micro_batch).sum()

    def cache_reference(self, rows: Any, layout: Layout, numbers: Sequence[int] | None = None) -> np.ndarray:
        """[rows, sequences]: log-probabilities by the model as it is, mismatched ones last, of the rows with these
        numbers (None: of all); of the others nan. Every process asks for a share of them.
        """
        numbers = range(len(rows)) if numbers is None else numbers
        numbered = []
        for number in numbers:
            row = rows[number]
            sequences = sequences_of(row) if row["input_ids"] else []
            sequences = [*sequences, *([row["mismatched"]] if "mismatched" in row else [])]
            numbered += [_plain(sequence) | {"at": (number, column)} for column, sequence in enumerate(sequences)]
        values = np.zeros((len(rows), self.stage.sequences + self.stage.mismatched), np.float32)
        model = self.trainer.model.eval()
        with torch.no_grad(), self.trainer.accelerator.autocast():
            for group in group_rows(numbered[distributed.rank() :: distributed.world_size()], layout):
                self.trainer.report.check_stop()
                micro_batch = layout.collate([_plain(row) for row in group])
                sums = sums_by_sequence(
                    self._log_probs(model, micro_batch), self.trainer.to_device(micro_batch["answer_lengths"])
                )
                for row, value in zip(group, sums.tolist(), strict=True):
                    values[row["at"]] = value
        values = np.sum(distributed.gather(values), axis=0)
        values[np.setdiff1d(np.arange(len(rows)), numbers)] = np.nan
        return values

    def _divergence(self, model: Any, micro_batches: list[MicroBatch]) -> torch.Tensor:
        """max(0, mean of log p - log p by the reference) of prompts with other rows' answers (KTO, section 4.2)."""
        total, count = torch.zeros((), device=self.trainer.args.device), 0
        model = self.trainer.accelerator.unwrap_model(model)  # processes may have different numbers of these
        with torch.no_grad():
            for micro_batch in micro_batches:
                values = self._log_probs(model, micro_batch).sum()
                known = self.trainer.to_device(micro_batch.get("reference"))
                total += values - (self._ask_base(micro_batch) if known is None else known).sum()
                count += micro_batch["sequences"]
        if distributed.world_size() > 1:
            totals, counts = zip(*distributed.gather((total.item(), count)))
            total, count = total.new_tensor(sum(totals)), sum(counts)
        return (total / max(1, count)).clamp(min=0)

    def _reference(self, micro_batch: MicroBatch, lengths: torch.Tensor) -> torch.Tensor:
        if "reference" in micro_batch:
            return self.trainer.to_device(micro_batch["reference"])
        return sums_by_sequence(self._ask_base(micro_batch), lengths)

    def _ask_base(self, micro_batch: MicroBatch, temperature: float = 1.0) -> torch.Tensor:
        """Log-probabilities of the targets by the model without its adapter."""
        with evaluating(self.trainer) as model, torch.no_grad(), as_base(model):
            return self._log_probs(model, micro_batch, temperature)

    def _log_probs(self, model: Any, micro_batch: MicroBatch, temperature: float = 1.0) -> torch.Tensor:
        return self._and_output(model, micro_batch, temperature)[0]

    def _and_output(self, model: Any, micro_batch: MicroBatch, temperature: float = 1.0) -> tuple[torch.Tensor, Any]:
        trainer, positions = self.trainer, self.trainer.to_device(micro_batch.get("target_positions"))
        inputs = trainer.model_inputs(micro_batch)
        return log_probs(model, inputs, trainer.loss_kind, trainer.dtype, positions, temperature)


def _plain(row: Row) -> Row:
    """The row as one answer, whose log-probability is asked for."""
    return {"input_ids": row["input_ids"], "labels": row["labels"], "good": True}


class Metrics:
    """Means over the answers since the last `take`, as floats."""

    def __init__(self, stage: Stage):
        self.stage = stage
        self.answers: list[Answers] = []
        self.rewards: list[torch.Tensor] = []
        self.kl: list[torch.Tensor] = []

    def add(self, answers: Answers, rewards: torch.Tensor) -> None:
        self.answers.append(answers._replace(log_probs=answers.log_probs.detach()))
        self.rewards.append(rewards)

    def take(self) -> dict[str, float]:
        """The metrics of stage.METRICS over all processes, then begin anew. None of answers that did not occur."""
        kl, taken = self.kl, zip(self.answers, self.rewards)
        parts = [(answers.good, reward, answers.log_probs, answers.lengths) for answers, reward in taken]
        self.answers, self.rewards, self.kl = [], [], []
        if distributed.world_size() > 1:
            mine = [tuple(value.cpu() for value in part) for part in parts]
            parts = [part for others in distributed.gather(mine) for part in others]
        if not parts:
            return {}
        good, reward, log_probs, lengths = (torch.cat(part) for part in zip(*parts))
        values = {"": reward, "logps_": log_probs, "length_": lengths.float()}
        figures = {
            f"{prefix}{name}": value[chosen].mean().item()
            for prefix, value in values.items()
            for name, chosen in (("chosen", good), ("rejected", ~good))
            if bool(chosen.any())
        }
        if "chosen" in figures and "rejected" in figures:
            figures["margin"] = figures["chosen"] - figures["rejected"]
            figures["accuracy"] = self._accuracy(reward, good)
        if kl:
            figures["kl"] = torch.stack(kl).mean().item()
        return {name: figures[name] for name in self.stage.metrics if name in figures}

    def _accuracy(self, reward: torch.Tensor, good: torch.Tensor) -> float:
        """Share of pairs in which the better answer has the higher reward, a tie for a half; of verdicts, of all pairs
        of a good and a bad answer.
        """
        if self.stage.examples == "pairs":
            difference = reward[0::2] - reward[1::2]
        else:
            difference = reward[good][:, None] - reward[~good][None, :]
        return ((difference > 0).float() + 0.5 * (difference == 0).float()).mean().item()
