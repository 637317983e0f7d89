"""The trainer's callback: events, peak memory, requests of the user, early stopping, the best loss so far."""

from __future__ import annotations

import math
import os
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
from studio.general import verdict
from studio.home import folder_size
from studio.run import Run
from studio.runs import checkpoints
from studio.runs.diagnosis import DISK
from studio.stage import METRICS
from studio.worker import distributed, schedule, sharding
from studio.worker.memory import peak_counters, peak_memory

OVERFLOWS = 24  # logs in a row: the loss scale of fp16 begins at 2^16, and is halved by each
STOP_WAIT = 5.0  # seconds for which an evaluation goes on when a stop is asked for


class StoppedBeforeStart(Exception):
    """The run was asked to stop before its first step: there is nothing new to save."""


class Report(TrainerCallback):
    """Writes the run's events from the trainer's callbacks and reads, after every step, what the run is asked for.

    Of several processes only the first one reads and writes; it broadcasts what it reads, so that all do the same.
    """

    def __init__(
        self,
        run: Run,
        attempt: int | None = None,
        early_stopping: int | None = None,
        keep_best: bool = False,
        best_by: str = "auto",
    ):
        """attempt: its number; None: the one that the supervisor gave this process."""
        self.run, self.attempt = run, attempt or int(os.environ.get("STUDIO_ATTEMPT", 1))
        self.early_stopping, self.keep_best, self.best_by = early_stopping, keep_best, best_by
        self.trainer: Any = None
        self.precision: str | None = None  # torch's name of the dtype of the products
        self.samples: Any = None  # writes sample events: a function of the step
        self.forgetting: Any = None  # measures and writes forgetting events: a function of the step
        self.brake: Any = None  # the last step's penalty for leaving the base, on the device
        self.num_tokens = 0  # trained on so far
        self.stopping: str | None = None  # "keep" or "discard" once the run is asked to stop
        self.peaks: dict[str, dict[str, int]] = {}  # phase -> peak memory up to its end
        self._phase = ""
        self._started = time.monotonic()
        self._restart_clock()
        self._overflows = 0  # logs in a row whose gradient was no number
        self._stop_noticed: float | None = None  # when an evaluation first saw that the run is asked to stop

    def emit(self, kind: str, **fields: Any) -> None:
        if distributed.is_main():
            self.run.append(kind, attempt=self.attempt, **fields)

    def phase(self, name: str, **fields: Any) -> None:
        if name == self._phase and not fields:
            return
        self.record_peak()
        self._phase = name
        self.emit("phase", name=name, **fields)
        self._print(f"[{time.strftime('%H:%M:%S')}] {name}")

    def record_peak(self) -> dict[str, dict[str, int]]:
        """Record the peak memory under the current phase; returns those of all phases."""
        if self._phase:
            self.peaks[self._phase] = peak_counters()
        return self.peaks

    def note(self, text: str, level: str = "info", **fields: Any) -> None:
        self.emit("note", level=level, text=text, **fields)
        self._print(f"{level}: {text}")

    def saved(self, path: Path, what: str) -> None:
        self.emit("saved", step=self.trainer.state.global_step, path=path.name, what=what, bytes=folder_size(path))

    def _print(self, text: str) -> None:
        if distributed.is_main():
            print(text, flush=True)

    def run_to_exit_code(self, work: Callable[[], None]) -> int:
        """Do `work`. Returns 0, or 1 after an end event where it raised a StudioError or the disk was full."""
        try:
            work()
        except StoppedBeforeStart:
            cause = "Stopped as asked, before a step was trained."
            self.emit("end", state="stopped", cause=cause, peak_memory=peak_memory())
        except StudioError as error:
            print(f"error: {error}", file=sys.stderr)
            self._emit_failure(error.message, error.hint, error.reason)
            return 1
        except (OSError, RuntimeError, SafetensorError) as error:
            if not checkpoints.disk_is_full(error):
                raise
            traceback.print_exc()
            self._emit_failure(DISK.message, DISK.action, DISK.kind)
            return 1
        return 0

    def _emit_failure(self, cause: str, action: str | None, reason: str | None) -> None:
        self.emit("end", state="failed", cause=cause, action=action, reason=reason, peak_memory=peak_memory())

    # -- called by the Trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, lr_scheduler: Any = None, **_: Any) -> None:
        schedule.restore_groups(lr_scheduler, self.trainer.ordered_groups)
        schedule.sync_learning_rates(lr_scheduler)
        if distributed.world_size() > 1:
            sharding.report_shard_sizes(self.trainer.model_wrapped, self)
        self._started = self._clock_start = time.monotonic()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        if not logs or "loss" not in logs:
            return
        self.phase("training")
        now = time.monotonic()
        tokens_per_second = (self.num_tokens - self._clock_tokens) / max(now - self._clock_start, 1e-9)
        self._clock_start, self._clock_tokens = now, self.num_tokens
        memories = distributed.gather(peak_memory())
        self.emit(
            "step",
            step=state.global_step,
            epoch=round(state.epoch or 0.0, 4),
            loss=logs["loss"],
            learning_rate=logs.get("learning_rate"),
            grad_norm=logs.get("grad_norm"),
            tokens=self.num_tokens,
            tokens_per_second=round(tokens_per_second, 1),
            memory=max(memories),
            seconds=round(now - self._started, 2),
            **({"brake": float(self.brake)} if self.brake is not None else {}),
            **self._preference_metrics(logs),
            **({"memories": memories} if len(memories) > 1 else {}),
        )
        progress = f"step {state.global_step}/{state.max_steps}"
        self._print(f"{progress}  {self._gain(logs)}  {tokens_per_second:.0f} tokens/s")
        self.check_finite(logs["loss"], state.global_step, "loss")
        self._overflows = 0 if math.isfinite(logs.get("grad_norm") or 0.0) else self._overflows + 1
        if self._overflows >= OVERFLOWS:
            self.check_finite(math.inf, state.global_step, "gradient")
        if self.samples is not None:
            self.samples.after_step()
            self._restart_clock()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        how_to_stop, requests = distributed.broadcast(
            (self.stop_request(), self.run.take_requests()) if distributed.is_main() else None
        )
        if how_to_stop is not None:
            self.stopping = how_to_stop
            control.should_training_stop = True
            control.should_save = how_to_stop != "discard"
            control.should_evaluate = False
            return control
        if "save" in requests:
            control.should_save = True
        if "evaluate" in requests and self.trainer.eval_dataset is not None:
            control.should_evaluate = True
        if "sample" in requests and self.samples is not None:
            self.samples(state.global_step, whole=True)
        return control

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: dict[str, float] | None = None, **_: Any
    ) -> Any:
        """Keeps the best score in the state, which checkpoints hold. An evaluation that was cut short has no loss.

        The score is the held-out loss, and of a run that keeps its best by the frontier the forgetting as well.
        """
        loss = (metrics or {}).get("eval_loss")
        if loss is None:
            return control
        forgotten = self.forgetting(state.global_step) if self.forgetting is not None else None
        score = verdict.score(loss, forgotten if self.by_frontier else None)
        is_best = state.global_step > 0 and (state.best_metric is None or score < state.best_metric)
        compared = self._preference_metrics(metrics or {}, "eval_")
        accuracy = None if compared else (metrics or {}).get("eval_accuracy")
        self.emit("eval", step=state.global_step, loss=loss, accuracy=accuracy, best=is_best, **compared)
        general = f"  forgetting {forgotten['kl']:.3f}" if forgotten else ""
        self._print(f"step {state.global_step}  held-out {self._gain(metrics or {}, 'eval_')}{general}")
        self.check_finite(loss, state.global_step, "held-out loss")
        if is_best:
            state.best_metric, state.best_global_step = score, state.global_step
        if self.samples is not None:
            self.samples(state.global_step)
        if is_best and self.keep_best:
            control.should_save = True
        if not is_best and self.is_patience_over(state):
            self.note(f"The held-out loss has not improved for {self.early_stopping} evaluations: stopped early.")
            control.should_training_stop = control.should_save = True
        if not control.should_save:
            self.phase("training")
        self._restart_clock()
        return control

    def _preference_metrics(self, values: dict[str, float], prefix: str = "") -> dict[str, dict[str, float]]:
        """{"preference": metrics} of a stage that compares answers, else {}."""
        if getattr(self.trainer, "objective", None) is None:
            return {}
        names = [name.removeprefix(prefix) for name in values if name.startswith(prefix)]
        names = [name for name in names if name != "loss" and name.partition("/")[0] in METRICS]
        return {"preference": {name: round(values[f"{prefix}{name}"], 6) for name in names}}

    @staticmethod
    def _gain(values: dict[str, float], prefix: str = "") -> str:
        """The figure to print: the reward where there is one, as GRPO's loss says little; else the loss."""
        name = "reward" if f"{prefix}reward" in values else "loss"
        return f"{name} {values[f'{prefix}{name}']:.4f}"

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._restart_clock()

    def _restart_clock(self) -> None:
        """Begin to measure tokens per second anew: evaluating and saving do not count as training time."""
        self._clock_start, self._clock_tokens = time.monotonic(), self.num_tokens

    # -- asked by the trainer

    @property
    def by_frontier(self) -> bool:
        """Whether the best checkpoint is chosen by held-out loss and forgetting together."""
        measures = self.forgetting is not None and self.forgetting.plan.at_evaluations > 0
        per_token = getattr(self.trainer, "objective", None) is None  # as forgetting is; other losses do not add to it
        return measures and self.keep_best and self.best_by != "loss" and (per_token or self.best_by == "frontier")

    def stop_request(self) -> str | None:
        """How the run is asked to stop, if it is."""
        return self.run.stop_request()

    def check_stop(self) -> None:
        """Raise StoppedBeforeStart where a stop is asked for. One of several processes cannot end alone: it goes on."""
        if distributed.world_size() == 1 and self.stop_request() is not None:
            raise StoppedBeforeStart

    def must_cut_evaluation_short(self) -> bool:
        """Whether a stop was asked for longer than STOP_WAIT ago. Several processes would have to agree: they wait."""
        if distributed.world_size() > 1 or self.stop_request() is None:
            return False
        self._stop_noticed = self._stop_noticed or time.monotonic()
        if time.monotonic() - self._stop_noticed < STOP_WAIT:
            return False
        self.note("The evaluation was cut short: the run is asked to stop.")
        return True

    def is_patience_over(self, state: Any) -> bool:
        """Whether `early_stopping` evaluations, counted in the state, have passed since the best one."""
        if not self.early_stopping:
            return False
        best_step = state.best_global_step or 0
        evaluations = [entry for entry in state.log_history if "eval_loss" in entry and entry["step"] > best_step]
        return len(evaluations) >= self.early_stopping

    def check_finite(self, value: float, step: int, what: str) -> None:
        """Raise StudioError for a NaN or an infinity."""
        if math.isfinite(value):
            return
        self.note(f"The {what} at step {step} is not a number.", "error")
        # The quickest precision of this device that holds larger numbers than the run's.
        wider = {"float16": "bf16" if devices()[0].bf16 else "fp32", "bfloat16": "fp32"}.get(self.precision or "")
        if wider:
            raise StudioError(
                f"The {what} became not a number at step {step}.",
                f"Lower training.learning_rate to a half or less, or set training.precision to {wider}; "
                "then resume from the last checkpoint.",
                reason="nan",
            )
        raise StudioError(
            f"The {what} became not a number at step {step}.",
            "Lower training.learning_rate to a half or less; then resume from the last checkpoint.",
            reason="nan",
        )
