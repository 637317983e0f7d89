"""python -m studio.worker.score ORDER.json ANSWER.json: a reward model's scores of conversations.

ORDER: {"run", "conversations", "max_length"}; ANSWER: a list of scores, None for what cannot be rendered. Lines like
3/20 on standard output are progress.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from studio import device, run
from studio.errors import StudioError
from studio.talk.reference import of_run
from studio.tokens import Encoded
from studio.worker import reward_head
from studio.worker.batches import collate
from studio.worker.loaded import LoadedModels

BATCH = 8  # sequences at once, of about the same length


def score(order: dict[str, Any]) -> list[float | None]:
    torch.set_num_threads(device.cores())
    reference = of_run(run.find(order["run"]), scores=True)
    models = LoadedModels()
    loaded = models.load(reference)
    model = reward_head.load(loaded.model, reference.result)
    encoder = loaded.encoder
    encoder.max_length, encoder.train_on = order["max_length"], "last"
    encoded = encoder.encode_each(order["conversations"])
    found: list[float | None] = [None] * len(encoded)
    rows = [(index, one) for index, one in enumerate(encoded) if isinstance(one, Encoded) and one.ids]
    rows.sort(key=lambda row: len(row[1].ids))
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        sequences = [{"input_ids": one.ids, "labels": one.labels, "good": True} for _, one in batch]
        inputs = collate(sequences, packed=False)
        with torch.no_grad():
            ids, last = (inputs[key].to(models.device) for key in ("input_ids", "last_positions"))
            values = reward_head.scores(model, {"input_ids": ids, "use_cache": False}, last)
        for (index, _), value in zip(batch, values.tolist(), strict=True):
            found[index] = round(value, 6)
        print(f"{min(start + BATCH, len(rows))}/{len(rows)}", flush=True)
    return found


if __name__ == "__main__":
    try:
        answer = score(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    except StudioError as error:
        print(json.dumps({"error": error.as_dict()}))
        sys.exit(1)
    Path(sys.argv[2]).write_text(json.dumps(answer))
