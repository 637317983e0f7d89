"""python -m studio.worker.reward_trial ORDER.json ANSWER.json: an order's rewards on answers of the data or the base.

ORDER: {"config" (YAML), "answers": data or base, "questions": [[row, question]]}; ANSWER: as
reward_trial.trial returns. Lines like 3/20 on standard output are progress.
"""

from __future__ import annotations

import json
from typing import Any

import torch

from studio import config, device, reward_trial
from studio.base import source
from studio.evaluation.questions import Question
from studio.home import subfolder
from studio.methods import METHODS
from studio.reward_trial import GROUP, TOKENS
from studio.tokens import Encoder
from studio.worker.lines import answer_order
from studio.worker.loaded import DTYPES, default_device
from studio.worker.loss import context_length
from studio.worker.rollouts import Ends, Writer
from studio.worker.scorers import opened


def trial(order: dict[str, Any]) -> dict[str, Any]:
    torch.set_num_threads(device.cores())
    run_config = config.parse(order["config"])
    asked = {row: Question(*fields) for row, fields in order["questions"]}
    scorers = opened(run_config.stage.rewards, subfolder("cache"))
    if order["answers"] == "data":
        texts = [[question.reference] for question in asked.values()]
    else:
        texts = written(run_config, asked)
    return reward_trial.table(run_config, order["answers"], asked, texts, scorers)


def written(run_config: config.RunConfig, asked: dict[int, Question]) -> list[list[str]]:
    """Answers of the base to each question, sampled as the order says."""
    folder = source.fetch(run_config.model)
    model = METHODS["full"]().load(folder, DTYPES[device.devices()[0].precision]).to(default_device()).eval()
    encoder = Encoder.from_order(run_config.data, folder)
    stage = run_config.stage
    stage = stage.model_copy(update={"max_new_tokens": min(stage.max_new_tokens, TOKENS)})
    group = min(stage.group, GROUP)
    writer = Writer(stage, encoder, Ends.of(encoder, context_length(model, 0)), 4 * group, run_config.training.seed)
    texts = []
    for row, question in asked.items():
        prompt = {
            "input_ids": encoder.prompt_ids(question.messages, **question.variables),
            "question": json.dumps(question._asdict(), default=str),
        }
        texts.append([rollout.text for rollout in writer.write(model, [prompt], group, f"trial {row}")])
        print(f"{len(texts)}/{len(asked)}", flush=True)
    return texts


if __name__ == "__main__":
    answer_order(trial)
