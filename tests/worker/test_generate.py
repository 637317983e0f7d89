"""Answers token by token: text, stops, sampling, and a batch whose members get the same answers as alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from studio.errors import ModelError
from studio.methods import METHODS
from studio.talk.reference import of_base, resolve
from studio.tokens import Encoder
from studio.worker.generate import Answer
from studio.worker.loaded import LoadedModel, LoadedModels, share_weights
from studio.worker.sampling import IncrementalText, Sampling, choose

QUESTIONS = [
    "What is the capital of France?",
    "Write one line about the sea.",
    "yes or no, please: is the sea wide and blue?",
]


@pytest.fixture
def loaded_model(tiny_model: Path) -> LoadedModel:
    return LoadedModels("cpu", torch.float32).load(of_base(tiny_model))


def write(loaded_model: LoadedModel, questions: list[str], **sampling) -> list[Answer]:
    """Answers written side by side; each joins while the ones before it are being written."""
    made = [
        loaded_model.answer(
            [{"role": "user", "content": text}], Sampling(**{"temperature": 0, "max_tokens": 20, **sampling})
        )
        for text in questions
    ]
    for answer in made:
        while loaded_model.batch.prefill(answer) is None:
            pass
        loaded_model.batch.step()
    while loaded_model.batch.answers:
        loaded_model.batch.step()
    return made


def test_side_by_side_as_alone(loaded_model: LoadedModel) -> None:
    alone = [write(loaded_model, [question])[0].output_ids for question in QUESTIONS]
    assert [answer.output_ids for answer in write(loaded_model, QUESTIONS)] == alone
    assert [answer.output_ids for answer in write(loaded_model, QUESTIONS[::-1])] == alone[::-1]


def test_as_transformers_generates(loaded_model: LoadedModel) -> None:
    answer = write(loaded_model, QUESTIONS[:1])[0]
    ids = torch.tensor([answer.prompt_ids])
    theirs = loaded_model.model.generate(ids, do_sample=False, max_new_tokens=20, attention_mask=torch.ones_like(ids))[
        0, ids.shape[1] :
    ].tolist()
    assert answer.output_ids == theirs


def test_long_prompts_are_read_in_parts(loaded_model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = write(loaded_model, QUESTIONS[2:])[0].output_ids
    monkeypatch.setattr("studio.worker.generate.PREFILL_CHUNK", 7)
    assert write(loaded_model, QUESTIONS[2:])[0].output_ids == whole


def test_prompt_ids_are_those_of_training(tiny_model: Path, loaded_model: LoadedModel) -> None:
    """For every template: what chat asks is what training saw before the answer."""
    from studio import template

    said = [{"role": "user", "content": "Hello?"}]
    for name in ["model", *template.names()]:
        used = template.load(name, tiny_model)
        encoder = Encoder(tiny_model, used)
        trained = encoder.encode([*said, {"role": "assistant", "content": "Hi."}])
        asked = encoder.prompt_ids(said)
        first = next(n for n, label in enumerate(trained.labels) if label != -100)
        if name == "qwen3":  # an answer without reasoning has an empty block there, which is read and not trained
            between = encoder.tokenizer.decode(trained.ids[len(asked) : first], skip_special_tokens=False)
            assert between == "<think>\n\n</think>\n\n"
            first = len(asked)
        assert len(asked) - first in (0, 1), name
        assert trained.ids[:first] == asked[:first], name


@pytest.mark.parametrize("name", ["lora", "qlora", "adapter", "prefix", "p_tuning", "prompt", "ia3"])
def test_every_method_answers_beside_its_base(name: str, tiny_model: Path, tmp_path: Path) -> None:
    """Attached to a tree that shares the base's weights: as peft alone answers, and the base is not changed by it."""
    method = METHODS[name]()
    wrapped = method.wrap(METHODS["full"]().load(tiny_model, torch.float32))
    with torch.no_grad():
        for weight in wrapped.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)) * 0.3)
    method.save_result(wrapped, tmp_path)
    loaded_models = LoadedModels("cpu", torch.float32)
    base = loaded_models.load(of_base(tiny_model))
    before = write(base, QUESTIONS[:1])[0].output_ids
    found = of_base(tiny_model)
    tuned = LoadedModel(
        type(found)("tuned", found.base, found.template, tmp_path, method, found.stop),
        method.attach(share_weights(base.model), tmp_path),
    )
    answers = write(tuned, QUESTIONS)
    assert write(base, QUESTIONS[:1])[0].output_ids == before
    with torch.inference_mode():
        logits = wrapped.eval()(input_ids=torch.tensor([answers[1].prompt_ids + answers[1].output_ids[:-1]])).logits[0]
    wanted = logits[-len(answers[1].output_ids) :].argmax(-1).tolist()
    assert answers[1].output_ids == wanted


def test_trees_share_their_weights(tiny_model: Path) -> None:
    base = METHODS["full"]().load(tiny_model, torch.float32)
    copy = share_weights(base)
    assert copy is not base
    assert all(a is b for a, b in zip(base.parameters(), copy.parameters(), strict=True))


def test_too_long_a_conversation_is_refused(loaded_model: LoadedModel) -> None:
    with pytest.raises(ModelError, match="can hold 512"):
        loaded_model.answer([{"role": "user", "content": "word " * 800}], Sampling())


def test_text_comes_in_whole_characters() -> None:
    pieces = {(): "", (1,): "\ufffd", (1, 2): "é", (2,): "\ufffd", (1, 2, 3): "é!", (2, 3): "\ufffd!", (3,): "!"}
    text = IncrementalText(lambda ids: pieces[tuple(ids)])
    assert [text.add(1), text.add(2), text.add(3)] == ["", "é", "!"]


def test_a_character_that_the_answers_end_cuts_is_left_out() -> None:
    letters = "冰箱".encode()
    text = IncrementalText(lambda ids: bytes(ids).decode(errors="replace"))
    assert "".join(text.add(byte) for byte in letters[:-1]) == "冰"
    assert text.add(None) == ""


def test_text_that_may_be_a_stop_is_held_back() -> None:
    text = IncrementalText(lambda ids: "".join(map(chr, ids)), ["END"])
    assert [text.add(ord(letter)) for letter in "aENbEND"] == ["a", "", "", "ENb", "", "", ""]
    assert text.stopped
    open_end = IncrementalText(lambda ids: "".join(map(chr, ids)), ["END"])
    assert [open_end.add(ord(letter)) for letter in "aE"] == ["a", ""]
    assert open_end.add(None) == "E"


def test_choice() -> None:
    logits = torch.tensor([0.0, 3.0, 2.9, -1.0])
    assert choose(logits, Sampling(temperature=0), [], None) == 1
    random = torch.Generator().manual_seed(0)
    assert {choose(logits, Sampling(top_p=0.6), [], random) for _ in range(200)} == {1, 2}
    assert {choose(logits, Sampling(top_k=1), [], random) for _ in range(20)} == {1}
    assert choose(logits, Sampling(temperature=0, repetition_penalty=2.0), [1], None) == 2
    assert len({choose(logits, Sampling(temperature=5.0), [], random) for _ in range(300)}) == 4


def test_checkpoint_answers_as_its_result(home: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run's checkpoint, kept and restored, gives the answers of the adapter saved from the same weights."""
    from studio import config, run
    from studio.runs import checkpoints

    method = METHODS["lora"]()
    order = config.build({"model": str(tiny_model), "data": {"train": "sample"}, "method": {"name": "lora"}})
    one = run.create(order)
    wrapped = method.wrap(METHODS["full"]().load(tiny_model, torch.float32))
    with torch.no_grad():
        for weight in wrapped.parameters():
            if weight.requires_grad:
                weight.fill_(0.01)
    method.save_result(wrapped, one.result)
    (one.result / "manifest.json").write_text('{"stop": ["<|im_end|>"]}')
    method.save_checkpoint(wrapped, one.checkpoints / "checkpoint-5")
    monkeypatch.setattr(checkpoints, "faults", lambda folder: [])
    loaded_models = LoadedModels("cpu", torch.float32)
    answers = [
        write(loaded_models.load(resolve(name)), QUESTIONS[:1])[0].output_ids
        for name in (one.id, f"{one.id}@checkpoint-5", f"base:{one.id}")
    ]
    assert answers[0] == answers[1]
    assert set(loaded_models.bases) == {(tiny_model.resolve(), None)}
