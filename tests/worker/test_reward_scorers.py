"""Rewards that a worker gives: a judge over HTTP, a reward model, and the base's own answers in a trial."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from studio import config, scoring
from studio.errors import ModelError
from studio.evaluation.questions import Question
from studio.rewards.judge import Judge
from studio.run import create
from studio.worker import reward_trial
from studio.worker.score import RewardScorer
from studio.worker.scorers import CACHE_FILE, JudgeScorer
from tests.loopback import answering
from tests.worker.comparing import QUICK


@pytest.fixture
def judge() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """(address, bodies of what was asked) of a server that marks an answer by its length."""
    asked: list[dict[str, Any]] = []

    class Answering(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append(body | {"key": self.headers.get("Authorization")})
            text = body["messages"][0]["content"]
            reply = {"choices": [{"message": {"content": f"[[{len(text.partition('answer: ')[2])}]]"}}]}
            said = json.dumps(reply).encode()
            self.send_response(500 if "broken" in text else 200)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_: Any) -> None:
            pass

    with answering(Answering) as address:
        yield f"{address}/v1", asked


def test_a_judge_marks_each_answer_once(judge: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address, bodies = judge
    monkeypatch.setenv("STUDIO_JUDGE_KEY", "secret-key")
    reward = Judge(url=address, model="m", prompt="{question} answer: {answer}", per_minute=6000)
    questions = [Question("Q", []), Question("Q", []), Question("Q", []), Question("Other", [])]
    assert JudgeScorer(reward, tmp_path)(["abc", "abcde", "abc", "abc"], questions) == [0.3, 0.5, 0.3, 0.3]
    assert len(bodies) == 3
    assert {(body["model"], body["key"]) for body in bodies} == {("m", "Bearer secret-key")}
    assert JudgeScorer(reward, tmp_path)(["abc"], questions[:1]) == [0.3]
    assert len(bodies) == 3
    assert "secret-key" not in (tmp_path / CACHE_FILE).read_text()


def test_a_judge_that_is_broken_is_said(judge: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from studio.judge.endpoint import Endpoint

    monkeypatch.setattr(Endpoint, "_sleep", lambda *_: None)
    with pytest.raises(ModelError, match="status 500"):
        JudgeScorer(Judge(url=judge[0], model="m"), tmp_path)(["broken"], [Question("Q", [])])


def test_no_answer_is_favoured_where_marks_are_waited_for_no_more(judge: Any, tmp_path: Path) -> None:
    reward = Judge(url=judge[0], model="m", prompt="{question} answer: {answer}", per_minute=1)
    scorer = JudgeScorer(reward, tmp_path, lambda: bool(judge[1]))  # asked to stop once one reply has come
    assert scorer(["abc", "abcde"], [Question("Q", []), Question("Q", [])]) == [None, None]
    assert len(judge[1]) == 1


def test_a_reward_model_gives_what_score_says(home: Path, tiny_model: Path, tmp_path: Path) -> None:
    from studio.worker.train import main

    pairs = tmp_path / "pairs.json"
    rows = [{"prompt": f"Say {n}", "chosen": f"It is {n}.", "rejected": "No!"} for n in range(6)]
    pairs.write_text(json.dumps(rows))
    plain = {"model": str(tiny_model), "data": {"train": str(pairs), "eval": 0}, "stage": "reward"}
    run = create(config.build({**plain, "training": {"max_steps": 1, **QUICK}}))
    assert main(run) == 0
    scorer = RewardScorer(run.id)
    found = scorer(
        [row["chosen"] for row in rows], [Question("", [{"role": "user", "content": row["prompt"]}]) for row in rows]
    )
    assert found == pytest.approx([row["score"] for row in scoring.score(run, str(pairs))], abs=1e-5)


def test_the_base_answers_in_a_trial(home: Path, tiny_model: Path, tmp_path: Path) -> None:
    stage = {"name": "grpo", "group": 3, "max_new_tokens": 5, "rewards": [{"name": "language", "script": "latin"}]}
    made = config.build({"model": str(tiny_model), "data": {"train": "x.json"}, "stage": stage})
    questions = [(n, Question(f"Say {n}", [{"role": "user", "content": f"Say {n}"}], str(n))) for n in (1, 4)]
    order = json.loads(json.dumps({"config": made.to_yaml(), "answers": "base", "questions": questions}))
    found = reward_trial.trial(order)
    assert [row["row"] for row in found["rows"]] == [1, 4]
    assert [len(row["answers"]) for row in found["rows"]] == [3, 3]
    assert found["spread"] is not None
    for row in found["rows"]:
        for answer in row["answers"]:
            letters = [character for character in answer["text"] if character.isalpha()]
            latin = sum(character.isascii() for character in letters) / max(1, len(letters))
            assert answer["reward"] == pytest.approx(latin, abs=0.5)


def test_every_row_of_a_file_has_its_line(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "of_run", lambda *_, **__: None)
    monkeypatch.setattr(scoring, "ask_worker", lambda _, order, __: [0.5] * len(order["conversations"]))
    run: Any = SimpleNamespace(id="x", config=SimpleNamespace(data=SimpleNamespace(max_length=64)))
    file = tmp_path / "odd.jsonl"
    rows = [{"prompt": "", "completion": "x"}, {"prompt": "q", "completion": "a"}, {"prompt": "q"}]
    file.write_text("\n".join(map(json.dumps, rows)))
    found = scoring.score(run, str(file))
    assert [(row["row"], row["score"], bool(row.get("why"))) for row in found] == [
        (1, None, True),
        (2, 0.5, False),
        (3, None, True),
    ]
