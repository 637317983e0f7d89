"""The one place that decides what is trained on: ids as transformers makes them, labels exactly on the answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from studio import data, template, template_check
from studio.data import DataOrder
from studio.errors import DataError, ModelError, TemplateError
from studio.kernels import IGNORE_INDEX
from studio.template import Template
from studio.tokens import Encoder, tokens_in_spans
from tests.data.fixtures import ALPACA, FIXTURES, as_lines

CONVERSATIONS: list[list[dict[str, Any]]] = [
    [{"role": "user", "content": "Hi there."}, {"role": "assistant", "content": "Hello, you."}],
    [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Naïve café — 怎样?"},
        {"role": "assistant", "content": "用水。 🙂 Done\n\n  "},
    ],
    [
        {"role": "user", "content": "One"}, {"role": "assistant", "content": " Two "},
        {"role": "user", "content": "Three <|im_end|> x"}, {"role": "assistant", "content": "Four\n- a\n- b"},
    ],
]  # fmt: skip


def filled(name: str, folder: Path) -> Template:
    one = template.load(name, folder)
    return Template(one.name, one.text, {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"} | one.special)


@pytest.mark.parametrize("name", ["model", *template.names()])
def test_ids_are_those_of_transformers(name: str, tiny_model: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer, one = AutoTokenizer.from_pretrained(tiny_model), filled(name, tiny_model)
    encoder = Encoder(tiny_model, one)
    for messages in CONVERSATIONS:
        theirs = tokenizer.apply_chat_template(messages, chat_template=one.text, **one.special)["input_ids"]
        assert encoder.encode(messages).ids == theirs
        prompt = tokenizer.apply_chat_template(
            messages[:-1], chat_template=one.text, add_generation_prompt=True, **one.special
        )["input_ids"]
        assert encoder.prompt_ids(messages[:-1]) == prompt


@pytest.mark.parametrize("name", ["model", *template.names()])
def test_labels_stand_exactly_on_the_answers(name: str, tiny_model: Path) -> None:
    encoder = Encoder(tiny_model, filled(name, tiny_model))
    for messages in CONVERSATIONS:
        e, spans = encoder.encode(messages), encoder.render(messages).spans
        inside = {n for a, b in spans for n in range(a, b)}
        for token, label, (a, b) in zip(e.ids, e.labels, e.offsets, strict=True):
            assert label in (token, IGNORE_INDEX)
            if a < b:
                assert (label != IGNORE_INDEX) == bool(inside & set(range(a, b)))
        said = encoder.tokenizer.decode([x for x in e.labels if x != IGNORE_INDEX], skip_special_tokens=False)
        for message in messages:
            if message["role"] == "assistant":
                assert message["content"].strip().split()[0] in said
            elif len(message["content"]) > 5:
                assert message["content"] not in said
        assert e.n_trained == sum(x != IGNORE_INDEX for x in e.labels)


def test_train_on_last_and_all(tiny_model: Path) -> None:
    one = template.load("model", tiny_model)
    every, last, everything = (
        Encoder(tiny_model, one, train_on=t).encode(CONVERSATIONS[2]) for t in ("assistant", "last", "all")
    )
    assert (
        0 < last.n_trained < every.n_trained < everything.n_trained == len(everything.ids) - 1
    )  # the first is never predicted
    first = next(n for n, label in enumerate(last.labels) if label != IGNORE_INDEX)
    assert last.text[last.offsets[first][0] :].startswith("Four")


def test_cut_and_drop(tiny_model: Path) -> None:
    one = template.load("model", tiny_model)
    whole = Encoder(tiny_model, one).encode(CONVERSATIONS[2])
    cut = Encoder(tiny_model, one, max_length=len(whole.ids) - 3).encode(CONVERSATIONS[2])
    assert (len(cut.ids), cut.overflow, cut.ids) == (len(whole.ids) - 3, 3, whole.ids[:-3])
    drop = Encoder(tiny_model, one, max_length=len(whole.ids) - 3, too_long="drop").encode(CONVERSATIONS[2])
    assert (drop.ids, drop.overflow) == (whole.ids, 3)


def test_covered_gives_skipped_blanks_to_the_next_token() -> None:
    assert tokens_in_spans([(0, 2), (3, 5), (5, 5), (6, 8)], [(2, 5)]) == [(1, 2)]
    assert tokens_in_spans([(0, 1), (0, 1), (1, 2)], [(0, 1)]) == [(0, 2)]  # two bytes of one letter
    assert tokens_in_spans([(0, 2)], [(1, 1)]) == []


def test_no_tokenizer_json(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"x")
    with pytest.raises(ModelError, match="sentencepiece"):
        Encoder(tmp_path, template.load("chatml"))


@pytest.mark.parametrize(
    "fixture", [f for f in FIXTURES if f.format not in ("preference", "kto")], ids=lambda f: f.name
)
@pytest.mark.parametrize("name", ["model", "alpaca", "qwen3"])
def test_preview_colours_are_the_labels_of_the_training_rows(
    fixture: Any, name: str, home: Path, tmp_path: Path, tiny_model: Path
) -> None:
    path = tmp_path / fixture.name
    path.write_bytes(fixture.content())
    on = "all" if fixture.format == "text" else "assistant"
    encoder = Encoder(
        tiny_model, filled(name if fixture.name != "tools.jsonl" else "chatml", tiny_model), 4096, train_on=on
    )
    rows = data.prepare(DataOrder(train=str(path), eval=0, train_on=on), encoder)
    assert len(rows.train) == fixture.rows
    for row, conversation in zip(rows.train, data.read(path).conversations, strict=True):
        shown = encoder.encode(conversation, whole=True)
        assert row == {"input_ids": shown.ids, "labels": shown.labels}


def test_the_gate_on_rows(tiny_model: Path) -> None:
    one = template.load("model", tiny_model)
    with pytest.raises(TemplateError, match="no token"):
        template_check.check(Encoder(tiny_model, one, max_length=8), CONVERSATIONS)
    with pytest.raises(TemplateError, match="train_on to all"):
        template_check.check(Encoder(tiny_model, one), ["A plain text."])
    template_check.check(Encoder(tiny_model, one, train_on="all"), ["A plain text.", *CONVERSATIONS])


def write(path: Path, rows: list[Any]) -> str:
    path.write_bytes(as_lines(rows))
    return str(path)


def numbered(count: int, words: str = "") -> list[dict[str, str]]:
    return [
        {"instruction": f"Say the number {n} {words}{'very ' * (n % 9)}well.", "input": "", "output": f"It is {n}."}
        for n in range(count)
    ]


def test_prepare_records_every_row(home: Path, tmp_path: Path, tiny_model: Path) -> None:
    rows = numbered(40)
    rows[4]["output"] = ""
    rows[9]["output"] = "I am {{name}}."
    rows[11]["output"] = "word " * 200 + "end."
    encoder = Encoder(tiny_model, template.load("model", tiny_model), 128)
    order = DataOrder(train=write(tmp_path / "a.jsonl", rows), eval=0.1, problems={"placeholder": "drop"})
    made = data.prepare(order, encoder, seed=3)
    assert made.record["dropped"] == {
        "empty_field": {"count": 1, "rows": "5"},
        "placeholder": {"count": 1, "rows": "10"},
    }
    assert made.record["sources"][0]["found"] == {"empty_field": 1, "placeholder": 1}
    assert made.record["eval"]["share"] == 0.1
    assert made.statistics["rows"] == len(made.train) == 34
    assert len(made.eval) == 4
    cut = {**made.record["cut"], **made.record["eval"]["dropped"]}
    assert cut["over_limit"] == {"count": 1, "rows": "12"}
    assert made.statistics["tokens"] == sum(len(r["input_ids"]) for r in made.train)
    assert made.statistics["trained"] == sum(x != IGNORE_INDEX for r in made.train for x in r["labels"])
    dropping = data.prepare(order, Encoder(tiny_model, encoder.template, 128, "drop"), seed=3)
    assert {**dropping.record["dropped"], **dropping.record["eval"]["dropped"]}["over_limit"]["rows"] == "12"


def test_prepare_is_kept_by_fingerprint(home: Path, tmp_path: Path, tiny_model: Path) -> None:
    source = write(tmp_path / "a.jsonl", numbered(20))
    encoder = Encoder(tiny_model, template.load("model", tiny_model), 128)
    one, same = (data.prepare(DataOrder(train=source), encoder, seed=1) for _ in range(2))
    assert one.fingerprint == same.fingerprint
    assert list(one.train) == list(same.train)
    others = [
        data.prepare(DataOrder(train=source), encoder, seed=2),
        data.prepare(DataOrder(train=source), Encoder(tiny_model, encoder.template, 64), seed=1),
    ]
    assert len({one.fingerprint, *(o.fingerprint for o in others)}) == 3


def test_split_is_seeded_and_stratified(home: Path, tmp_path: Path) -> None:
    rows = [{"instruction": f"Row {n}", "output": "x" * (n + 1)} for n in range(100)]
    conversations = data.read(write(tmp_path / "a.jsonl", rows)).conversations
    train, held = data.split(conversations, 0.1, 7)
    assert (len(train), len(held)) == (90, 10)
    assert not set(train.rows) & set(held.rows)
    assert data.split(conversations, 0.1, 7)[1].rows == held.rows != data.split(conversations, 0.1, 8)[1].rows
    assert [(row - 1) // 10 for row in held.rows] == list(range(10)), "one of every tenth in length"


def test_mixing_and_an_own_evaluation_file(home: Path, tmp_path: Path, tiny_model: Path) -> None:
    encoder = Encoder(tiny_model, template.load("model", tiny_model), 128)
    mine, general = write(tmp_path / "a.jsonl", numbered(20)), write(tmp_path / "b.jsonl", numbered(40, "in general "))
    held = write(tmp_path / "e.jsonl", [*numbered(2), {"instruction": "Something else?", "output": "Yes, it is."}])
    order = DataOrder(train=[{"source": mine, "weight": 2}, {"source": general, "weight": 0.25}], eval=held)
    made = data.prepare(order, encoder)
    assert len(made.train) == 50
    assert [(s["kept"], s["weight"]) for s in made.record["sources"]] == [(20, 2.0), (40, 0.25)]
    assert made.record["eval"]["dropped"]["leak_kept"] == {"count": 2, "rows": "1-2"}
    assert len(made.eval) == 3
    dropped = data.prepare(order.model_copy(update={"problems": {"leak": "drop"}}), encoder)
    assert (len(dropped.eval), dropped.record["eval"]["dropped"]["leak"]["rows"]) == (1, "1-2")
    with pytest.raises(DataError, match="rows 1-2"):
        data.prepare(order.model_copy(update={"problems": {"leak": "stop"}}), encoder)


def test_preference_data_is_refused_for_training(home: Path, tmp_path: Path, tiny_model: Path) -> None:
    pairs = write(
        tmp_path / "p.jsonl", [{"prompt": f"Q {n}?", "chosen": f"A {n}.", "rejected": "No."} for n in range(9)]
    )
    encoder = Encoder(tiny_model, template.load("model", tiny_model), 128)
    with pytest.raises(DataError, match="preference data"):
        data.prepare(DataOrder(train=pairs), encoder)
    assert len(data.prepare(DataOrder(train=pairs, format="chosen", eval=0), encoder).train) == 9


def test_statistics_count_exactly(home: Path, tmp_path: Path, tiny_model: Path) -> None:
    found = data.read(write(tmp_path / "a.jsonl", numbered(30)))
    encoder = Encoder(tiny_model, template.load("model", tiny_model))
    sizes = [len(encoder.encode(c).ids) for c in found.conversations]
    limit = sorted(sizes)[20]
    told = data.statistics(found, Encoder(tiny_model, encoder.template, limit))
    assert (told["min"], told["max"], told["total"]) == (min(sizes), max(sizes), sum(sizes))
    assert told["over_limit"] == sum(s > limit for s in sizes)
    assert told["tokens_lost"] == sum(max(0, s - limit) for s in sizes)
    assert sum(count for _, count in told["histogram"]) == 30
    assert told["histogram"][-1][0] >= max(sizes)
    assert told["suggested_max_length"] >= sorted(sizes)[-1]
    encoder.context_limit = limit
    assert data.statistics(found, encoder)["suggested_max_length"] == limit, "no more than the model can read"


def test_samples(home: Path) -> None:
    for sample in data.samples():
        found = data.read(f"sample:{sample['name']}")
        assert (found.rows, found.problems) == (sample["rows"], [])
        said = {m["content"] for c in found.conversations for m in c["messages"]}
        assert len(sample["prompts"]) == 5
        assert not said & set(sample["prompts"])
    assert data.read("sample").rows == data.samples()[0]["rows"]
    assert len(ALPACA) == 3
