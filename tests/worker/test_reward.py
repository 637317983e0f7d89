"""Reward models: the head against transformers' own, the loss against trl's, scores from the terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from studio import data, device, scoring, template
from studio.__main__ import main as terminal
from studio.device import devices
from studio.errors import StudioError
from studio.run import create, summary
from studio.runs.claim import device_lock
from studio.stages.reward import Reward
from studio.talk.reference import resolve
from studio.tokens import Encoder
from studio.ui import aligning
from studio.worker import reward_head, score
from studio.worker.train import main
from tests.worker.comparing import PAIRS, encoded, loss_of
from tests.worker.test_preference import order


def classifier(model: Any, base: Path, head: torch.Tensor) -> Any:
    """transformers' model for sequence classification with a causal model's body and this head."""
    made = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1).eval()
    made.model.load_state_dict(model.model.state_dict())
    made.score.weight.data.copy_(head)
    return made


def test_the_loss_is_trls(home: Path, tiny_model: Path, tmp_path: Path) -> None:
    """Packed or padded; trl's is -logsigmoid of the scores' difference, with its term for centring."""
    torch.manual_seed(5)
    model = reward_head.add(AutoModelForCausalLM.from_pretrained(tiny_model).eval())
    model.score.weight.data.normal_()
    rows = encoded(PAIRS, "pairs", tmp_path, tiny_model)
    theirs = classifier(model, tiny_model, model.score.weight)
    scores = [
        [theirs(input_ids=torch.tensor([ids])).logits.item() for ids in (row["input_ids"][: row["second"]],
                                                                         row["input_ids"][row["second"] :])]
        for row in rows
    ]  # fmt: skip
    chosen, rejected = torch.tensor(scores).T
    for center in (0.0, 0.1):
        expected = -torch.nn.functional.logsigmoid(chosen - rejected) + center * (chosen + rejected) ** 2
        for layout in ("packed", "padded"):
            loss, metrics = loss_of(Reward(center=center), model, rows, layout)
            assert loss.item() == pytest.approx(expected.mean().item(), abs=1e-4)
            assert metrics["accuracy"] == pytest.approx((chosen > rejected).float().mean().item())
            assert metrics["margin"] == pytest.approx((chosen - rejected).mean().item(), abs=1e-4)


@pytest.mark.parametrize("method", ["lora", "full", "prefix"])
def test_a_run_scores_as_its_parts_do(method: str, home: Path, tiny_model: Path, tmp_path: Path) -> None:
    made = order("reward", method, tiny_model, tmp_path)
    run = create(made)
    assert main(run) == 0
    figures = summary(run)
    assert figures["preference"]["accuracy"] > 0.8 or method == "prefix"
    path = made.data.train
    (first, *_) = data.read(path).conversations
    conversations = [first["messages"], [*first["messages"][:-1], {"role": "assistant", "content": "No, never. "}]]
    scores = score.score({"run": run.id, "conversations": conversations, "max_length": 1024})
    if method == "prefix":
        assert all(isinstance(value, float) for value in scores)
        return
    if method == "lora":
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), run.result)
        model = model.merge_and_unload()
    else:
        model = AutoModelForCausalLM.from_pretrained(run.result)
    head = load_file(run.result / "score.safetensors")["score.weight"]
    theirs = classifier(model, tiny_model, head)
    encoder = Encoder(tiny_model, template.load("model", tiny_model))
    tolerance = 1e-3 if device.devices()[0].precision == "fp32" else 1e-2  # of a score that is given in 16 bits
    for conversation, value in zip(conversations, scores, strict=True):
        ids = torch.tensor([encoder.encode(conversation).ids])
        assert value == pytest.approx(theirs(input_ids=ids).logits.item(), abs=tolerance)


def test_score_from_the_terminal(
    home: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = order("reward", "lora", tiny_model, tmp_path)
    run = create(made)
    assert main(run) == 0
    capsys.readouterr()
    assert terminal(["score", run.id, made.data.train, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["row"] for row in rows] == list(range(1, 25))
    assert sum(row["score"] > row["rejected"] for row in rows) > 19
    single = tmp_path / "single.json"
    single.write_text(json.dumps([{"prompt": "Say number 3, please", "completion": "Number 3."}]))
    assert terminal(["score", run.id, str(single)]) == 0
    assert "row 1" in capsys.readouterr().out
    monkeypatch.setattr(scoring, "ask_worker", lambda _, order: score.score(order))
    pair = json.loads(Path(made.data.train).read_text())[0]
    prompt, answers = pair["prompt"], [pair["chosen"], pair["rejected"]]
    scores = aligning.score_answers(run.id, prompt, answers)["scores"]
    assert scores == pytest.approx([rows[0]["score"], rows[0]["rejected"]], abs=1e-4)
    for question, texts in (("", ["a"]), (prompt, []), (prompt, ["  "]), (prompt, ["a"] * 9), (3, ["a"]), (prompt, 3)):
        with pytest.raises(StudioError, match="are scored"):
            aligning.score_answers(run.id, question, texts)
    with device_lock(devices()[0]), pytest.raises(StudioError, match="in use"):
        aligning.score_answers(run.id, prompt, answers)
    capsys.readouterr()
    with pytest.raises(StudioError, match="scores answers and writes none") as caught:
        resolve(run.id)
    assert f"score {run.id}" in caught.value.hint
    other = create(order("dpo", "lora", tiny_model, tmp_path))
    assert terminal(["score", other.id, str(single), "--json"]) == 2
    assert "no reward model" in json.loads(capsys.readouterr().out)["error"]["message"]
