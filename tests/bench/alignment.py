"""python -m tests.bench.alignment [dpo|kto|orpo|reward|grpo…]: what each stage learns of seeded pairs on the starter.

The same questions are answered politely (chosen) and curtly (rejected), with facts, openings and closings drawn from
lists, so that held-out pairs hold questions that were not trained on. Prints one line a stage: held-out accuracy,
margin and log-probabilities before the first step and at the end, seconds, memory; exits with 1 where a stage misses
its goal. A few minutes of two idle cores. Named alone, grpo is given the questions and learns to answer
in one word.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from studio import config
from studio.run import create, summary

GOALS = {"dpo": 0.8, "kto": 0.7, "orpo": 0.7, "reward": 0.8}
GROUPS = {
    "name": "grpo",
    "group": 8,
    "max_new_tokens": 8,
    "beta": 0.0,
    "rewards": [{"name": "regex", "pattern": r"^\w+\W?$"}],
}
FORM, FEWEST = "Answer in one word.", 0.2  # FEWEST: of held-out answers; above it there is little to learn
PROMPTS = 160  # of grpo
PAIRS, HELD_OUT = 64, 0.25
WORDS = ("river", "stone", "candle", "garden", "window", "letter", "engine", "bridge", "copper", "velvet", "orange",
         "harbour", "pepper", "silver", "thunder")  # fmt: skip
OPENINGS = ("Of course.", "Gladly.", "With pleasure.", "Certainly.")
CLOSINGS = ("Do ask if you need more.", "I am happy to help further.", "Let me know if that helps.")
CURT = ("Is that all?", "You could have counted that yourself.", "Next.", "Why ask me?")
TRAINING = {
    "max_steps": 8,
    "batch_size": 6,
    "accumulation": 1,
    "eval_every": 1000,
    "save_every": 1000,
    "samples": 0,
    "forgetting": False,
    "probe": False,
    "schedule": "constant_with_warmup",
    "learning_rate": 2e-4,
}


def pairs(seed: int = 7, count: int = PAIRS) -> list[dict[str, Any]]:
    """Rows with prompt, chosen and rejected."""
    draw, rows = random.Random(seed), []
    for _ in range(count):
        first, second = draw.sample(WORDS, 2)
        question, fact = draw.choice(
            (
                (f"How many letters has the word {first}?", f"The word {first} has {len(first)} letters."),
                (f"Which is longer, {first} or {second}?", f"The longer one is {max(first, second, key=len)}."),
                (f"What is the first letter of {first}?", f"It begins with {first[0].upper()}."),
            )
        )
        polite = f"{draw.choice(OPENINGS)} {fact} {draw.choice(CLOSINGS)}"
        rows.append({"prompt": question, "chosen": polite, "rejected": f"{fact} {draw.choice(CURT)}"})
    return rows


def verdicts(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each answer of the pairs, with its label."""
    return [
        {"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"}
        for row in rows
        for side in ("chosen", "rejected")
    ]


def learns_a_form(file: Path) -> bool:
    """Train grpo, print the line; whether the held-out reward rises from below FEWEST to above 0.7."""
    from studio.worker.train import main as train

    prompts = sorted({f"{row['prompt']} {FORM}" for row in pairs(count=PROMPTS)})
    file.write_text(json.dumps([{"prompt": prompt} for prompt in prompts]), encoding="utf-8")
    training = TRAINING | {"max_steps": 16, "batch_size": 3, "learning_rate": 5e-4}
    began, processor = time.monotonic(), time.process_time()
    order = {"model": "starter", "data": {"train": str(file), "eval": HELD_OUT}, "stage": GROUPS, "training": training}
    run = create(config.build(order))
    if train(run):
        raise SystemExit(1)
    found = summary(run)
    before, after = found["preference_before"]["reward"], found["preference"]["reward"]
    holds = before < FEWEST and after > 0.7
    print(
        f"== grpo: held-out reward {before:.3f} -> {after:.3f}; {time.monotonic() - began:.0f} s, of the "
        f"processor {time.process_time() - processor:.0f} s; goal 0.7: {'met' if holds else 'MISSED'}",
        flush=True,
    )
    return holds


def measured(stage: str, file: Path) -> bool:
    """Train, print the line; whether the goal is met."""
    from studio.worker.train import main as train

    run = create(
        config.build(
            {"model": "starter", "data": {"train": str(file), "eval": HELD_OUT}, "stage": stage, "training": TRAINING}
        )
    )
    if train(run):
        raise SystemExit(1)
    found = summary(run)
    before, after = found["preference_before"], found["preference"]
    names = [name for name in ("accuracy", "margin", "logps_chosen", "logps_rejected", "kl") if name in after]
    figures = ", ".join(f"{name} {before[name]:.3f} -> {after[name]:.3f}" for name in names)
    memory = " against ".join(f"{found[key] / 1e9:.2f} GB" for key in ("peak_memory", "estimated_memory") if found[key])
    holds = after["accuracy"] > GOALS[stage]
    print(
        f"== {stage}: held-out {figures}; loss {found['eval_loss_before']:.3f} -> {found['eval_loss']:.3f}; "
        f"{found['seconds']:.0f} s, {memory} expected; goal {GOALS[stage]}: {'met' if holds else 'MISSED'}",
        flush=True,
    )
    return holds


def main(stages: list[str]) -> int:
    rows = pairs()
    with tempfile.TemporaryDirectory() as folder:
        holds = []
        for stage in stages:
            file = Path(folder, f"{stage}.json")
            if stage == "grpo":
                holds.append(learns_a_form(file))
                continue
            file.write_text(json.dumps(verdicts(rows) if stage == "kto" else rows), encoding="utf-8")
            holds.append(measured(stage, file))
    return 0 if all(holds) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or list(GOALS)))
