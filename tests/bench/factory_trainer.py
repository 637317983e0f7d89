"""python -m tests.bench.factory_trainer prepare|judge RUN-FOLDER FOLDER: our part of `bench train --peer llamafactory`.

prepare writes FOLDER/rows (as datasets.load_from_disk reads them, in the order our run meets them) and lengths.json;
judge writes loss.json: the held-out loss of what LLaMA-Factory left in FOLDER/out.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from studio.base import source
from studio.config import RunConfig
from studio.run import Run
from tests.bench.peer import half, held_out, rows


def prepare(config: RunConfig, base: Path, folder: Path) -> None:
    from datasets import Dataset, DatasetDict

    training = config.training
    train, _ = rows(config, base, training.max_steps, training.batch_size * training.accumulation)
    made = Dataset.from_list(
        [
            {"input_ids": row["input_ids"], "attention_mask": [1] * len(row["input_ids"]), "labels": row["labels"]}
            for row in train
        ]
    )
    DatasetDict({"train": made}).save_to_disk(str(folder / "rows"))
    (folder / "lengths.json").write_text(json.dumps([len(row["input_ids"]) for row in train]))


def judge(config: RunConfig, base: Path, folder: Path) -> None:
    _, held = rows(config, base, 1, 1)
    out, device = folder / "out", torch.device("cuda" if torch.cuda.is_available() else "cpu")
    whole = not (out / "adapter_config.json").is_file()
    model = AutoModelForCausalLM.from_pretrained(
        out if whole else base, dtype=torch.float32 if whole else torch.bfloat16
    )
    if not whole:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, str(out))
    (folder / "loss.json").write_text(json.dumps(held_out(model.to(device), held, device, half())))


if __name__ == "__main__":
    order = Run(Path(sys.argv[2])).config
    {"prepare": prepare, "judge": judge}[sys.argv[1]](order, source.fetch(order.model), Path(sys.argv[3]))
