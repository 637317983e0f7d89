"""The trainer's callback: events as they happen, peak memory, the stop file."""

from __future__ import annotations

import resource
import sys
import time
from typing import Any

import torch
from transformers import TrainerCallback

from studio.run import Run


class Report(TrainerCallback):
    """Writes the diary from the trainer's callbacks and looks for the stop file after every step."""

    def __init__(self, run: Run, attempt: int):
        self.run, self.attempt = run, attempt
        self.tokens, self._seen, self._began, self._since = 0, 0, time.monotonic(), time.monotonic()

    def say(self, kind: str, **fields: Any) -> None:
        self.run.append(kind, attempt=self.attempt, **fields)

    def phase(self, name: str, **fields: Any) -> None:
        self.say("phase", name=name, **fields)
        print(f"[{time.strftime('%H:%M:%S')}] {name}", flush=True)

    def note(self, text: str, level: str = "info", **fields: Any) -> None:
        self.say("note", level=level, text=text, **fields)
        print(f"{level}: {text}", flush=True)

    # -- called by the Trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._began = self._since = time.monotonic()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        if not logs or "loss" not in logs:
            return
        now = time.monotonic()
        speed = (self.tokens - self._seen) / max(now - self._since, 1e-9)
        self._seen, self._since = self.tokens, now
        self.say("step", step=state.global_step, epoch=round(state.epoch or 0.0, 4), loss=logs["loss"],
                 learning_rate=logs.get("learning_rate"), grad_norm=logs.get("grad_norm"), tokens=self.tokens,
                 tokens_per_second=round(speed, 1), memory=peak_memory(), seconds=round(now - self._began, 2))
        print(f"step {state.global_step}/{state.max_steps}  loss {logs['loss']:.4f}  {speed:.0f} tokens/s", flush=True)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        if self.run.stop_file.exists():
            control.should_training_stop = True
            control.should_save = not self.discarding()
        return control

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float] | None = None, **_: Any) -> None:
        loss = (metrics or {}).get("eval_loss")
        if loss is not None:
            self.say("eval", step=state.global_step, loss=loss)
            print(f"step {state.global_step}  held-out loss {loss:.4f}", flush=True)
        self._since, self._seen = time.monotonic(), self.tokens  # evaluation does not count as training time

    def discarding(self) -> bool:
        """Whether the stop file asks to keep nothing."""
        try:
            return self.run.stop_file.read_text().startswith("discard")
        except FileNotFoundError:
            return False


def peak_memory() -> int:
    """Bytes at the highest moment so far: of the CUDA allocator, else of this process's RAM."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_reserved()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
