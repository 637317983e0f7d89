"""python -m studio.worker.measure ORDER.json ANSWER.json: the loss of several models on the same conversations."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import torch

from studio import device
from studio.data.text_split import split_row
from studio.kernels import IGNORE_INDEX
from studio.talk.reference import resolve
from studio.tokens import Encoded, Encoder
from studio.worker.loaded import LoadedModel, LoadedModels
from studio.worker.prove import answers


@torch.inference_mode()
def loss(loaded_model: LoadedModel, rows: list[dict[str, Any]], settings: dict[str, Any]) -> dict[str, Any]:
    """{loss, perplexity, tokens, rows}: mean cross entropy over the trained tokens, as the trainer's evaluation counts
    it.
    """
    encoder = loaded_model.encoder
    encoder.max_length, encoder.too_long, encoder.train_on = (
        settings["max_length"],
        settings["too_long"],
        settings["train_on"],
    )
    encoder.reasoning = settings["reasoning"]
    total, count = 0.0, 0
    made = [piece for row in rows for piece in _encoded(encoder, row, settings)]
    for place, found in enumerate(made):
        labels = torch.tensor(found.labels[1:])
        wanted = labels != IGNORE_INDEX
        if wanted.any():
            logits = (
                loaded_model.model(input_ids=torch.tensor([found.ids], device=loaded_model.batch.device))
                .logits[0, -len(found.ids) :][:-1]
                .float()
                .cpu()
            )
            total += float(torch.nn.functional.cross_entropy(logits[wanted], labels[wanted], reduction="sum"))
            count += int(wanted.sum())
        print(f"{place + 1}/{len(made)}", flush=True)
    mean = total / count if count else None
    return {
        "loss": mean,
        "perplexity": math.exp(min(mean, 50)) if mean is not None else None,
        "tokens": count,
        "rows": len(rows),
    }


def _encoded(encoder: Encoder, row: dict[str, Any], settings: dict[str, Any]) -> list[Encoded]:
    """A row as the trainer measures it: a text that is longer than the limit in pieces, where the order says to split
    it.
    """
    whole = encoder.encode(row, whole=True) if settings["too_long"] == "split" and "text" in row else None
    return (
        split_row(whole, settings["max_length"], settings["overlap"])
        if whole is not None and whole.overflow
        else [encoder.encode(row)]
    )


def main(order: dict[str, Any], out: Path) -> None:
    torch.set_num_threads(device.cores())
    loaded_models, table = LoadedModels(), []
    for name in order["models"]:
        loaded_model = loaded_models.load(resolve(name))
        row = {"model": name, **loss(loaded_model, order["rows"], order)}
        if order["questions"]:
            row["answers"] = [one["text"] for one in answers(loaded_model, order["questions"], 128)]
        table.append(row)
    out.write_text(json.dumps(table, ensure_ascii=False))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
