"""python -m tests.bench.forgetting [STRENGTH…]: what an over-trained run forgets, and what the brake saves.

An over-trained full run (high rate, many epochs), the same with the brake at each STRENGTH (default 1), and a gentle
LoRA, on the first rows of the bundled sample. Prints one line a run: gain (fall of the held-out loss), loss rise, KL,
verdict, seconds, memory; exits with 1 where the first is not "badly", the last not "kept", or the brake at 1 does not
halve the KL while it keeps 90 % of the gain. About five minutes of two idle cores.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from studio import config, queue
from studio.commands.runs import follow
from studio.home import PROJECT
from studio.run import summary

ROWS = 16  # of the sample: 10 to train on, 6 held out
OVER = {"method": {"name": "full"}, "training": {"learning_rate": 4e-4, "epochs": 7}}
GENTLE = {"method": {"name": "lora"}, "training": {"epochs": 7}}
TRAINING = {
    "batch_size": 5,
    "accumulation": 1,
    "eval_every": 14,
    "save_every": 1000,
    "samples": 0,
    "schedule": "constant_with_warmup",
    "forgetting": True,
}


def main(strengths: list[float]) -> int:
    rows = (PROJECT / "studio/samples/radio.jsonl").read_text(encoding="utf-8").splitlines()[:ROWS]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "rows.jsonl")
        file.write_text("\n".join(rows) + "\n", encoding="utf-8")
        over = measured("over-trained full", file, OVER)
        braked = {
            strength: measured(f"the same, keep_general {strength:g}", file, OVER, keep_general=strength)
            for strength in strengths
        }
        gentle = measured("gentle LoRA", file, GENTLE)
    one = braked.get(1.0)
    holds = over["verdict"] == "badly" and gentle["verdict"] == "kept"
    if one is not None:
        holds = holds and one["kl"] <= over["kl"] / 2 and one["gain"] >= 0.9 * over["gain"]
    print("holds" if holds else "does NOT hold")
    return 0 if holds else 1


def measured(name: str, file: Path, order: dict[str, Any], **training: Any) -> dict[str, Any]:
    """Train in a process of its own, print the line, return {gain, kl, verdict, …}."""
    run = queue.submit(
        config.build(
            {
                "model": "starter",
                "data": {"train": str(file), "eval": 6 / ROWS},
                "method": order["method"],
                "training": {**TRAINING, **order["training"], **training},
            }
        )
    )
    follow(run)
    if run.state() != "finished":
        raise SystemExit(1)
    found = summary(run)
    figures = {**found["forgetting"], "gain": found["eval_loss_before"] - found["eval_loss"]}
    memory = "".join(f", {key} {found[key] / 1e9:.2f} GB" for key in ("peak_memory", "estimated_memory") if found[key])
    print(
        f"== {name}: gain {figures['gain']:.3f}, loss rise {figures['loss_rise']:+.3f}, KL {figures['kl']:.3f}, "
        f"{figures['verdict']}, {found['seconds']:.0f} s{memory}",
        flush=True,
    )
    return figures


if __name__ == "__main__":
    sys.exit(main([float(text) for text in sys.argv[1:]] or [1.0]))
