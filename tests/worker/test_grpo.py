"""GRPO: what is written, every method under it, runs that learn and resume, what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from studio import config, preflight
from studio.errors import StudioError
from studio.estimate import estimate
from studio.evaluation.questions import Question
from studio.methods import METHODS
from studio.run import Run, create, summary
from studio.stages.grpo import GRPO
from studio.tokens import Encoder
from studio.worker.generate import Answer, Batch
from studio.worker.grpo import GroupObjective
from studio.worker.rollouts import Ends, Writer
from studio.worker.sampling import IncrementalText, Sampling
from tests.worker.comparing import LAYOUTS, QUICK, encoded, objective_of

ROWS = [{"prompt": f"Say the number {n}", "completion": f"It is {n}."} for n in range(12)]
LATIN = {"name": "language", "script": "latin"}
SMALL = {"name": "grpo", "group": 4, "max_new_tokens": 8, "rewards": [LATIN]}


def test_a_group_continues_its_prompt_as_generate_does(tiny_model: Path) -> None:
    """Two groups of greedy answers, one joining while the other is written, against transformers' own generation."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    prompts, batch = [[1, 20, 21], [1, 30, 31, 32, 33, 34]], Batch(model)
    groups = [
        [Answer(ids, Sampling(10, 0.0), IncrementalText(lambda _: ""), frozenset(), 512) for _ in range(3)]
        for ids in prompts
    ]
    batch.prefill_group(groups[0])
    batch.step()
    batch.prefill_group(groups[1])
    while batch.answers:
        batch.step()
    for ids, group in zip(prompts, groups, strict=True):
        inputs = torch.tensor([ids])
        found = model.generate(inputs, attention_mask=torch.ones_like(inputs), max_new_tokens=10, do_sample=False,
                               eos_token_id=None)  # fmt: skip
        assert [answer.output_ids for answer in group] == [found[0, len(ids) :].tolist()] * 3


def writer(stage: GRPO, model: Path, at_once: int = 64) -> Writer:
    from studio import template

    encoder = Encoder(model, template.load("model", model))
    return Writer(stage, encoder, Ends.of(encoder, 512), at_once, 42)


def test_the_same_turn_writes_the_same(tiny_model: Path, home: Path, tmp_path: Path) -> None:
    """Whatever was drawn before; another turn writes otherwise, and a group's answers differ."""
    rows = encoded(ROWS[:3], "prompts", tmp_path, tiny_model).first(3)
    model = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    stage = GRPO(**SMALL)
    first = writer(stage, tiny_model).write(model, rows, 4, "step 1")
    torch.manual_seed(5)
    again = writer(stage, tiny_model).write(model, rows, 4, "step 1")
    other = writer(stage, tiny_model).write(model, rows, 4, "step 2")
    assert [one.ids for one in first] == [one.ids for one in again] != [one.ids for one in other]
    assert len({tuple(one.ids) for one in first}) > 4
    assert [one.asked for one in first[::4]] == [
        Question(row["prompt"], [{"role": "user", "content": row["prompt"]}], row["completion"]) for row in ROWS[:3]
    ]
    for one in first:
        assert one.prompt_ids == rows[first.index(one) // 4]["input_ids"]
        assert one.ended == (one.ids[-1] == 2) == (len(one.ids) < 8 or one.ids[-1] == 2)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_learns_from_what_it_writes(name: str, tiny_model: Path, home: Path, tmp_path: Path) -> None:
    """A gradient for what is trained after answers were written by the same model; it starts at its reference."""
    method = METHODS[name]()
    model = method.wrap(method.load(tiny_model, torch.float32))
    stage = GRPO(**SMALL | {"max_new_tokens": 4})
    objective: Any = objective_of(stage, model)
    objective.trainer.layout = LAYOUTS["padded"]
    objective.trainer.state = SimpleNamespace(global_step=0)
    objective.trainer.report = SimpleNamespace(emit=lambda *_, **__: None, num_tokens=0)
    objective.writer = writer(stage, tiny_model)
    objective.scorers = [reward.open() for reward in stage.rewards]
    if not stage.switches_adapter_off(method):
        objective.reference_model = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    rows = encoded(ROWS[:2], "prompts", tmp_path, tiny_model).first(2)
    micro_batches = objective.start_step(model.train(), [{"prompts": rows}])
    sum(objective.loss(model, one) for one in micro_batches).backward()
    grads = [weight.grad for weight in model.parameters() if weight.requires_grad and weight.grad is not None]
    assert any(grad.abs().max() > 0 for grad in grads)
    metrics = objective.metrics.take()
    assert set(metrics) == set(stage.metrics) - {"clipped"}
    if name in ("full", "qlora", "adapter", "ia3"):
        assert metrics["kl"] == pytest.approx(0, abs=1e-5)


def order(stage: Any, method: Any, model: Path, folder: Path, **training: Any) -> config.RunConfig:
    file = folder / "prompts.json"
    file.write_text(json.dumps(ROWS))
    settings = {"max_steps": 6, "eval_every": 3, "save_every": 3, "batch_size": 2, "accumulation": 2, **QUICK}
    return config.build(
        {
            "model": str(model),
            "data": {"train": str(file), "eval": 0.25},
            "stage": SMALL | {"rewards": [{"name": "length", "at_least": 80}]} | stage,
            "method": method,
            "training": {**settings, "precision": "fp32", "learning_rate": 1e-2, "keep_checkpoints": 9, **training},
        }
    )


def weights(run: Run) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(run.result.glob("*.safetensors")))


@pytest.mark.parametrize(("stage", "method"), [({}, "lora"), ({"iterations": 2, "beta": 0.01}, "full")])
def test_a_run_learns_and_resumes_to_the_same_bits(
    stage: Any, method: str, home: Path, tiny_model: Path, tmp_path: Path
) -> None:
    """From the checkpoint of step 3, which with iterations lies between two steps of the same answers."""
    from studio.worker.train import main

    whole, cut = (create(order(stage, method, tiny_model, tmp_path)) for _ in range(2))
    assert main(whole) == 0
    shutil.copytree(whole.checkpoints / "checkpoint-3", cut.checkpoints / "checkpoint-3")
    assert (cut.checkpoints / "checkpoint-3" / "answers.json").exists() == ("iterations" in stage)
    assert main(cut) == 0
    assert weights(cut) == weights(whole)
    figures, events = summary(whole), whole.events()
    assert (figures["stage"], figures["state"]) == ("grpo", "finished")
    gained = figures["preference"]["reward"] - figures["preference_before"]["reward"]
    assert gained > 0 if method == "full" else gained >= 0  # six steps of a new adapter move a random model little
    assert figures["eval_loss"] == pytest.approx(-figures["preference"]["reward"], abs=1e-5)
    steps = [event for event in events if event["kind"] == "step"]
    told = {name for event in steps for name in event["preference"]}
    assert told == {"reward", "reward_std", "flat", "ended", "length", "kl", *(["clipped"] if stage else [])}
    assert steps[-1]["preference"]["kl"] > 1e-4
    shown = [event for event in events if event["kind"] == "rollout"]
    assert len(shown) == (3 if stage else 6)
    assert all(len(event["answers"]) == 4 for event in shown)
    answer = shown[0]["answers"][0]
    assert answer["reward"] == answer["rewards"]["length"]


def test_a_rare_form_becomes_the_usual_one(home: Path, tiny_model: Path, tmp_path: Path, capsys: Any) -> None:
    """A third of the answers hold one of the letters before, nearly all after some steps; the log tells of rewards."""
    from studio.worker.train import main

    stage = {"group": 8, "beta": 0.0, "rewards": [{"name": "regex", "pattern": "[pqwxyz]"}]}
    training = {"max_steps": 14, "batch_size": 4, "accumulation": 1, "learning_rate": 2e-2, "schedule": "constant"}
    run = create(order(stage, "full", tiny_model, tmp_path, **training, warmup=0, eval_every=99, save_every=99))
    assert main(run) == 0
    steps = [event["preference"]["reward"] for event in run.events() if event["kind"] == "step"]
    assert sum(steps[:2]) / 2 < 0.5
    assert sum(steps[-3:]) / 3 > 0.9
    assert summary(run)["preference"]["reward"] > summary(run)["preference_before"]["reward"]
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step ")]
    assert told[-1].startswith("step 14  held-out reward ")
    assert not any("loss" in line for line in told)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stage": {"rewards": []}}, "names none"),
        ({"stage": {"rewards": [LATIN | {"weight": 0}, {"name": "exact", "weight": 0}]}}, "weight 0"),
        ({"stage": {"max_new_tokens": 512}}, "reads 512 tokens"),
        ({"stage": {"max_new_tokens": 490}, "data": {"max_length": 500}}, "490 are kept free for the answer"),
        ({"stage": {"rewards": [{"name": "regex", "pattern": r"(\w+\s?)*$"}]}}, "does not come to an end"),
        ({"stage": {"rewards": [{"name": "judge", "url": "http://127.0.0.1:9/v1", "model": "m"}]}}, "Nothing answers"),
        ({"training": {"compile": True}}, "compile"),
        ({"data": {"train_on": "all"}}, "train_on"),
        ({"training": {"devices": 2}}, "one device"),
        ({"stage": {"rewards": [{"name": "model", "run": "nowhere"}]}}, "nowhere"),
        ({"stage": {"rewards": [{"name": "python", "file": "nowhere.py"}]}}, "no file nowhere.py"),
        ({"stage": {"rewards": [{"name": "judge", "url": "http://169.254.169.254/v1", "model": "m"}]}}, "host itself"),
    ],
)
def test_what_cannot_work_is_refused(changes: Any, message: str, home: Path, tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(StudioError, match=message) as caught:
        preflight.check(order({}, "lora", tiny_model, tmp_path).with_changes(**changes))
    assert caught.value.hint


@pytest.mark.parametrize(
    "rows",
    [
        [{"prompt": f"Say {n}"} for n in range(6)],
        [{"question": f"Say {n}", "id": n} for n in range(6)],
        [{"prompt": [{"role": "user", "content": f"Say {n}"}]} for n in range(6)],
        [{"messages": [{"role": "user", "content": f"Say {n}"}]} for n in range(6)],
        [{"prompt": [{"role": "user", "content": f"Say {n}"}], "answer": str(n)} for n in range(6)],
    ],
)
def test_prompts_alone_are_data(rows: Any, home: Path, tiny_model: Path, tmp_path: Path) -> None:
    """They are read for GRPO and for nothing else; a reward that compares needs an answer in them."""
    from studio import data

    made = order({}, "lora", tiny_model, tmp_path)
    Path(made.data.train).write_text(json.dumps(rows))
    preflight.check(made)
    prepared = data.prepare(made.data, Encoder.from_order(made.data, tiny_model))
    assert (len(prepared.train), len(prepared.eval)) == (4, 2)  # different prompts are held out apart
    told = data.statistics(data.read(made.data.train, "prompts"), Encoder.from_order(made.data, tiny_model))
    assert (told["rows"], told["counts"]) == (6, {}), "none is called untrained"
    found = prepared.train.first(9)
    questions = sorted(json.loads(row["question"])["text"] for row in found)
    assert set(questions) <= {f"Say {n}" for n in range(6)}
    assert len(questions) >= 4
    comparing = made.with_changes(stage={"rewards": [{"name": "number"}]})
    if "answer" in rows[0]:
        preflight.check(comparing)
        Path(made.data.train).write_text(json.dumps([row | {"answer": "many"} for row in rows]))
        with pytest.raises(StudioError, match="reads a number"):
            preflight.check(comparing)
    else:
        with pytest.raises(StudioError, match="have none"):
            preflight.check(comparing)
        with pytest.raises(StudioError):
            preflight.check(made.with_changes(stage="sft"))


def test_texts_and_long_prompts(home: Path, tiny_model: Path, tmp_path: Path) -> None:
    """Plain text has no question; a prompt beyond the limit is left out whole and recorded, not cut."""
    from studio import data

    made = order({}, "lora", tiny_model, tmp_path)
    Path(made.data.train).write_text(json.dumps([{"text": "A text."}] * 3))
    with pytest.raises(StudioError, match="learns from prompts"):
        preflight.check(made)
    Path(made.data.train).write_text(json.dumps([*ROWS, {"prompt": "why " * 300, "completion": "so"}]))
    long = made.with_changes(data={"max_length": 100, "eval": 0})
    prepared = data.prepare(long.data, Encoder.from_order(long.data, tiny_model))
    assert len(prepared.train) == len(ROWS)
    assert prepared.record["dropped"]["over_limit"]["count"] == 1


def test_what_writing_costs() -> None:
    """Memory and time grow with answers and their length, and with the reference beside a fully trained model."""
    from studio import cards
    from studio.memory import tables
    from studio.memory.studio_loop import RowStatistics

    facts, card = tables.facts_of("Qwen/Qwen2.5-0.5B-Instruct"), cards.device("NVIDIA A10G")
    rows = RowStatistics(1000, 100_000, 1000, 200)

    def costs(method: str = "lora", **knobs: Any) -> Any:
        stage = {"name": "grpo", "rewards": [LATIN], **knobs}
        training = {"forgetting": False, "batch_size": 4, "accumulation": 1}
        made = {"data": {"train": "x.json"}, "stage": stage, "method": method, "training": training}
        return estimate(facts, config.build(made), card, rows)

    plain, more, longer, free = costs(), costs(group=256), costs(max_new_tokens=1024), costs(beta=0)
    assert more.total > plain.total
    assert longer.total >= plain.total
    assert more.seconds_per_step > 4 * plain.seconds_per_step
    assert longer.seconds_per_step > 4 * plain.seconds_per_step
    assert free.seconds_per_step < plain.seconds_per_step
    held = costs("full").total - costs("full", beta=0).total
    assert held == pytest.approx(2 * facts.parameters, rel=0.05)
    assert costs(iterations=2).steps == 2 * plain.steps


def test_the_objective_is_that_of_the_stage() -> None:
    assert isinstance(objective_of(GRPO(**SMALL), None), GroupObjective)
