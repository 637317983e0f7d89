"""The trainer's callback: events as they happen, peak memory, what the user asks for meanwhile, early stopping, the best so far."""

from __future__ import annotations

import math
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import TrainerCallback

from studio.device import devices
from studio.errors import StudioError
from studio.home import folder_size
from studio.run import Run
from studio.runs import checkpoints
from studio.runs.diagnosis import DISK
from studio.worker import distributed, schedule, sharding
from studio.worker.memory import peak_counters, peak_memory

STOP_WAIT = 5.0  # seconds for which an evaluation goes on when a stop is asked for


class Report(TrainerCallback):
    """Writes the diary from the trainer's callbacks and looks, after every step, for what the run is asked.

    On several processes only the first one writes, and what it sees is told to the others, so that all do the same.
    """

    def __init__(self, run: Run, attempt: int, early_stopping: int | None = None, keep_best: bool = False):
        self.run, self.attempt, self.early_stopping, self.keep_best = run, attempt, early_stopping, keep_best
        self.trainer: Any = None
        self.precision: str | None = None  # in which products are computed, as torch names it
        self.samples: Any = None  # writes sample events: a function of the step
        self.tokens, self._seen, self._began, self._since, self._now = 0, 0, time.monotonic(), time.monotonic(), ""
        self.stopping: str | None = None
        self.peaks: dict[str, dict[str, int]] = {}  # phase -> the highest memory up to its end
        self._asked_at: float | None = None  # when an evaluation first saw that the run is asked to stop

    def emit(self, kind: str, **fields: Any) -> None:
        if distributed.is_main():
            self.run.append(kind, attempt=self.attempt, **fields)

    def phase(self, name: str, **fields: Any) -> None:
        if name == self._now and not fields:
            return
        self.mark()
        self._now = name
        self.emit("phase", name=name, **fields)
        self._print(f"[{time.strftime('%H:%M:%S')}] {name}")

    def mark(self) -> dict[str, dict[str, int]]:
        """Note the highest memory so far under the phase that it is; returns all marks."""
        if self._now:
            self.peaks[self._now] = peak_counters()
        return self.peaks

    def note(self, text: str, level: str = "info", **fields: Any) -> None:
        self.emit("note", level=level, text=text, **fields)
        self._print(f"{level}: {text}")

    def run_to_exit_code(self, work: Callable[[], None]) -> int:
        """The exit code of `work`: 0; 1 where it ended in words, or on a full disk, which are then the run's end."""
        try:
            work()
        except StudioError as error:
            print(f"error: {error}", file=sys.stderr)
            self.emit(
                "end",
                state="failed",
                cause=error.message,
                action=error.hint,
                reason=error.reason,
                peak_memory=peak_memory(),
            )
            return 1
        except (OSError, RuntimeError, SafetensorError) as error:
            if not checkpoints.disk_is_full(error):
                raise
            traceback.print_exc()
            self.emit(
                "end",
                state="failed",
                cause=DISK.message,
                action=DISK.action,
                reason=DISK.kind,
                peak_memory=peak_memory(),
            )
            return 1
        return 0

    def saved(self, path: Path, what: str) -> None:
        size = folder_size(path)
        self.emit("saved", step=self.trainer.state.global_step, path=path.name, what=what, bytes=size)

    def _print(self, text: str) -> None:
        if distributed.is_main():
            print(text, flush=True)

    # -- called by the Trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, lr_scheduler: Any = None, **_: Any) -> None:
        schedule.sync_learning_rates(lr_scheduler)
        if distributed.world_size() > 1:
            sharding.report_shard_sizes(self.trainer.model_wrapped, self)
        self._began = self._since = time.monotonic()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        if not logs or "loss" not in logs:
            return
        self.phase("training")
        now = time.monotonic()
        speed = (self.tokens - self._seen) / max(now - self._since, 1e-9)
        self._seen, self._since = self.tokens, now
        memories = distributed.gather(peak_memory())
        more = {"memories": memories} if len(memories) > 1 else {}
        self.emit(
            "step",
            step=state.global_step,
            epoch=round(state.epoch or 0.0, 4),
            loss=logs["loss"],
            learning_rate=logs.get("learning_rate"),
            grad_norm=logs.get("grad_norm"),
            tokens=self.tokens,
            tokens_per_second=round(speed, 1),
            memory=max(memories),
            seconds=round(now - self._began, 2),
            **more,
        )
        self._print(f"step {state.global_step}/{state.max_steps}  loss {logs['loss']:.4f}  {speed:.0f} tokens/s")
        self.refuse_nan(logs["loss"], state.global_step, "loss")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        how, asked = distributed.broadcast(
            (self.run.stop_request(), self.run.take_requests()) if distributed.is_main() else None
        )
        if how is not None:
            self.stopping = how
            control.should_training_stop, control.should_save = True, how != "discard"
            control.should_evaluate = False
            return control
        if "save" in asked:
            control.should_save = True
        if "evaluate" in asked and self.trainer.eval_dataset is not None:
            control.should_evaluate = True
        if "sample" in asked and self.samples is not None:
            self.samples(state.global_step)
        return control

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: dict[str, float] | None = None, **_: Any
    ) -> Any:
        """Notes the best loss so far in the state, which checkpoints hold. An evaluation that was cut short has no loss, and says nothing."""
        loss = (metrics or {}).get("eval_loss")
        if loss is None:
            return control
        best = state.global_step > 0 and (state.best_metric is None or loss < state.best_metric)
        self.emit("eval", step=state.global_step, loss=loss, best=best)
        self._print(f"step {state.global_step}  held-out loss {loss:.4f}")
        self.refuse_nan(loss, state.global_step, "held-out loss")
        if best:
            state.best_metric, state.best_global_step = loss, state.global_step
        if self.samples is not None:
            self.samples(state.global_step)
        if best and self.keep_best:
            control.should_save = True
        if not best and self.patience_is_over(state):
            self.note(f"The held-out loss has not improved for {self.early_stopping} evaluations: stopped early.")
            control.should_training_stop = control.should_save = True
        if not control.should_save:
            self.phase("training")
        self._since, self._seen = time.monotonic(), self.tokens  # evaluation does not count as training time
        return control

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._since, self._seen = time.monotonic(), self.tokens

    # --

    def cannot_wait(self) -> bool:
        """In the middle of an evaluation: whether a stop was asked for so long ago that it is cut short. Several processes would have to agree: they wait."""
        if distributed.world_size() > 1 or self.run.stop_request() is None:
            return False
        self._asked_at = self._asked_at or time.monotonic()
        if time.monotonic() - self._asked_at < STOP_WAIT:
            return False
        self.note("The evaluation was cut short: the run is asked to stop.")
        return True

    def patience_is_over(self, state: Any) -> bool:
        """Whether there were so many evaluations since the best one that the run stops early; from the state, so that a resume does not forget."""
        waited = sum(
            1 for entry in state.log_history if "eval_loss" in entry and entry["step"] > (state.best_global_step or 0)
        )
        return bool(self.early_stopping) and waited >= self.early_stopping

    def refuse_nan(self, loss: float, step: int, what: str) -> None:
        """Raise StudioError when a number is none: what follows would only go on with it."""
        if math.isfinite(loss):
            return
        self.note(f"The {what} at step {step} is not a number.", "error")
        text, other = f"The {what} became not a number at step {step}.", self._wider()
        if other:
            raise StudioError(
                text,
                f"Lower training.learning_rate to a half or less, or set training.precision to {other}; "
                "then resume from the last checkpoint.",
                reason="nan",
            )
        raise StudioError(
            text, "Lower training.learning_rate to a half or less; then resume from the last checkpoint.", reason="nan"
        )

    def _wider(self) -> str | None:
        """The quickest precision of this run's device that holds larger numbers than the run's."""
        return {"float16": "bf16" if devices()[0].bf16 else "fp32", "bfloat16": "fp32"}.get(self.precision or "")

    def discarding(self) -> bool:
        """Whether the stop file asks to keep nothing."""
        return self.stopping == "discard"
