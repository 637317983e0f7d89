"""python -m studio.worker.score ORDER.json ANSWER.json: a reward model's scores of conversations.

ORDER: {"run", "conversations", "max_length"}; ANSWER: a list of scores, None for what cannot be rendered. Lines like
3/20 on standard output are progress.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from studio import device, run
from studio.evaluation.questions import Question
from studio.talk.reference import of_run
from studio.tokens import Encoded
from studio.worker import reward_head
from studio.worker.lines import answer_order
from studio.worker.loaded import LoadedModels
from studio.worker.packing import collate

BATCH = 8  # sequences at once, of about the same length


class RewardScorer:
    """A finished run of stage reward in memory. As a reward's scorer it is called with answers and their questions."""

    def __init__(self, name: str, max_length: int | None = None):
        """max_length: None: that of the run. Raises RunError where the run is no reward model."""
        finished = run.find(name)
        reference = of_run(finished, scores=True)
        models = LoadedModels()
        loaded = models.load(reference)
        self.model, self.device = reward_head.load(loaded.model, reference.result), models.device
        self.encoder, self.max_width = loaded.encoder, loaded.context_length
        self.encoder.max_length, self.encoder.train_on = max_length or finished.config.data.max_length, "last"

    def __call__(self, texts: Sequence[str], questions: Sequence[Question]) -> list[float | None]:
        return self.scores(
            [
                [*asked.messages, {"role": "assistant", "content": text}]
                for text, asked in zip(texts, questions, strict=True)
            ]
        )

    def scores(
        self, conversations: Sequence[Any], progress: Callable[[int, int], None] = lambda *_: None
    ) -> list[float | None]:
        """The score of each conversation's last answer, None for what cannot be rendered."""
        encoded = self.encoder.encode_each(conversations)
        scores: list[float | None] = [None] * len(encoded)
        rows = [(index, row) for index, row in enumerate(encoded) if isinstance(row, Encoded) and row.ids]
        rows.sort(key=lambda row: len(row[1].ids))
        for start in range(0, len(rows), BATCH):
            batch = rows[start : start + BATCH]
            sequences = [{"input_ids": row.ids, "labels": row.labels, "good": True} for _, row in batch]
            inputs = collate(sequences, False, self.max_width)
            with torch.no_grad():
                ids, last = (inputs[key].to(self.device) for key in ("input_ids", "last_positions"))
                values = reward_head.scores(
                    self.model, {"input_ids": ids, "padding": inputs["padding"], "use_cache": False}, last
                )
            for (index, _), value in zip(batch, values.tolist(), strict=True):
                scores[index] = round(value, 6)
            progress(min(start + BATCH, len(rows)), len(rows))
        return scores


def score(order: dict[str, Any]) -> list[float | None]:
    torch.set_num_threads(device.cores())
    scorer = RewardScorer(order["run"], order["max_length"])
    return scorer.scores(order["conversations"], lambda done, total: print(f"{done}/{total}", flush=True))


if __name__ == "__main__":
    answer_order(score)
