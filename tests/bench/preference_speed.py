"""python -m tests.bench.preference_speed [--rounds 3] [--steps 4] [--save FILE]: DPO's speed here and in trl.

The same pairs, LoRA, effective batch and loss on the starter, each side a process of its own, in turns; trl's
DPOTrainer at its best settings: no checkpointing, no padding to a multiple, base in the precision that the studio
chooses. Counted are tokens without padding of a step, and the processor time of the steps after the first, so that a
busy machine changes little. Prints a row a side and the ratio, the median over the rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from studio.home import PROJECT
from tests.bench.alignment import pairs

BATCH, GOAL = 8, 1.5
LORA = {"rank": 16, "alpha": 32, "dropout": 0.0}


def longer_pairs(count: int = 64) -> list[dict[str, Any]]:
    """Pairs of unlike length, as real ones are: each answer says its sentence one to eight times."""
    return [
        {
            **row,
            "chosen": " ".join([row["chosen"]] * (1 + n % 8)),
            "rejected": " ".join([row["rejected"]] * (1 + n % 5)),
        }
        for n, row in enumerate(pairs()[:count])
    ]


class Clock:
    """Processor and wall seconds from the end of the first step to the end of the last."""

    def __init__(self, callback: Any):
        self.marks: list[tuple[float, float]] = []
        outer = self

        class Marks(callback):
            def on_step_end(self, *_: Any, **__: Any) -> None:
                outer.marks.append((time.process_time(), time.perf_counter()))

        self.callback = Marks()

    def seconds(self) -> tuple[float, float]:
        first, last = self.marks[0], self.marks[-1]
        return last[0] - first[0], last[1] - first[1]


def ours(file: str, steps: int) -> dict[str, Any]:
    from transformers import TrainerCallback

    from studio import config
    from studio.run import create
    from studio.worker import train

    clock = Clock(TrainerCallback)
    make = train.make_trainer

    def clocked(*arguments: Any, **options: Any) -> Any:
        trainer = make(*arguments, **options)
        trainer.add_callback(clock.callback)
        return trainer

    train.make_trainer = clocked
    training = {"max_steps": steps, "batch_size": BATCH, "accumulation": 1, "forgetting": False, "samples": 0,
                "probe": False, "save_every": 1000, "learning_rate": 1e-4, "schedule": "constant",
                "warmup": 0}  # fmt: skip
    run = create(
        config.build(
            {
                "data": {"train": file, "eval": 0},
                "stage": "dpo",
                "method": {"name": "lora", **LORA},
                "training": training,
            }
        )
    )
    if train.main(run):
        raise SystemExit(1)
    events = run.events()
    losses = [event["loss"] for event in events if event["kind"] == "step"]
    tokens = [event["tokens"] for event in events if event["kind"] == "step"]
    plan = next(event for event in events if event["kind"] == "plan")
    return told(clock, tokens[-1] - tokens[0], losses) | {"precision": plan["precision"]}


def trl(file: str, steps: int, precision: str) -> dict[str, Any]:
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import DPOConfig, DPOTrainer

    from studio import device
    from studio.base import starter

    torch.set_num_threads(device.cores())
    torch.set_flush_denormal(True)
    folder = starter.prepare()
    rows = [
        {
            "prompt": [{"role": "user", "content": row["prompt"]}],
            **{side: [{"role": "assistant", "content": row[side]}] for side in ("chosen", "rejected")},
        }
        for row in json.loads(Path(file).read_text())
    ]
    clock, tokens = Clock(TrainerCallback), []

    class Counting(DPOTrainer):
        def training_step(self, model: Any, inputs: Any, *rest: Any, **options: Any) -> Any:
            tokens.append(int(inputs["attention_mask"].sum()))
            return super().training_step(model, inputs, *rest, **options)

    with tempfile.TemporaryDirectory() as out:
        trainer = Counting(
            model=AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, precision)),
            args=DPOConfig(
                output_dir=out,
                max_steps=steps,
                per_device_train_batch_size=BATCH,
                learning_rate=1e-4,
                lr_scheduler_type="constant",
                logging_steps=1,
                save_strategy="no",
                report_to="none",
                use_cpu=True,
                bf16=precision == "bfloat16",
                gradient_checkpointing=False,
                max_length=1024,
                disable_tqdm=True,
            ),
            train_dataset=Dataset.from_list(rows),
            processing_class=AutoTokenizer.from_pretrained(folder),
            peft_config=LoraConfig(
                r=LORA["rank"],
                lora_alpha=LORA["alpha"],
                lora_dropout=LORA["dropout"],
                target_modules="all-linear",
                task_type="CAUSAL_LM",
            ),
            callbacks=[clock.callback],
        )
        trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return told(clock, sum(tokens[1:]), losses)


def told(clock: Clock, tokens: int, losses: list[float]) -> dict[str, Any]:
    processor, wall = clock.seconds()
    return {
        "tokens": tokens,
        "tokens_per_processor_second": round(tokens / processor, 2),
        "tokens_per_second": round(tokens / wall, 2),
        "first_loss": losses[0],
        "mean_loss": round(statistics.mean(losses), 4),
    }


def measured(side: str, file: str, steps: int, precision: str = "") -> dict[str, Any]:
    """One side in a process of its own."""
    command = [sys.executable, "-m", __spec__.name if __spec__ else "tests.bench.preference_speed", "--side", side]
    command += ["--rows", file, "--steps", str(steps), "--precision", precision]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5, help="the first is not counted")
    parser.add_argument("--save", type=Path)
    parser.add_argument("--side", choices=("studio", "trl"), help=argparse.SUPPRESS)
    parser.add_argument("--rows", help=argparse.SUPPRESS)
    parser.add_argument("--precision", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        found = ours(args.rows, args.steps) if args.side == "studio" else trl(args.rows, args.steps, args.precision)
        print(json.dumps(found))
        return 0
    rounds = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "pairs.json")
        file.write_text(json.dumps(longer_pairs()))
        for number in range(args.rounds):
            mine = measured("studio", str(file), args.steps)
            theirs = measured("trl", str(file), args.steps, mine["precision"])
            name = "tokens_per_processor_second"
            rounds.append({"studio": mine, "trl": theirs, "ratio": round(mine[name] / theirs[name], 3)})
            print(f"round {number + 1}: {json.dumps(rounds[-1])}", flush=True)
    ratio = statistics.median(one["ratio"] for one in rounds)
    print(f"DPO here makes {ratio:.2f} times the tokens of trl's in the same processor time; goal {GOAL}")
    if args.save:
        args.save.write_text(json.dumps({"ratio": ratio, "goal": GOAL, "rounds": rounds}, indent=1))
    return 0 if ratio >= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
