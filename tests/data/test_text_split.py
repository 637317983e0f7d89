"""too_long: split. A long text is trained whole, in pieces that end where a paragraph or a sentence does."""

from __future__ import annotations

from pathlib import Path

import pytest

from studio import data, template
from studio.data.text_split import split_row
from studio.kernels import IGNORE_INDEX
from studio.tokens import Encoder
from tests.data.fixtures import ALPACA, as_lines

STORY = "\n\n".join(
    " ".join(f"On day {n} of week {k} the bear ate {n + k} fish and slept." for n in range(7)) for k in range(12)
)


@pytest.fixture
def encoder(tiny_model: Path) -> Encoder:
    return Encoder(tiny_model, template.load("auto", tiny_model), None, "cut", "all")


@pytest.mark.parametrize("overlap", [0, 1, 9, 10_000])
@pytest.mark.parametrize("limit", [32, 97, 100_000])
def test_no_token_is_lost(limit: int, overlap: int, encoder: Encoder) -> None:
    whole = encoder.encode({"messages": [], "text": STORY})
    made = split_row(whole, limit, overlap)
    assert all(0 < len(piece.ids) <= limit for piece in made)
    taken = min(overlap, limit // 2)
    joined = made[0].ids + [token for piece in made[1:] for token in piece.ids[taken:]]
    assert joined == whole.ids
    trained = sum(piece.n_trained for piece in made)
    assert trained == (whole.n_trained if overlap else len(whole.ids) - len(made))
    for piece in made:
        assert piece.n_trained == len(piece.labels) - piece.labels.count(IGNORE_INDEX)
        assert all(label in (token, IGNORE_INDEX) for token, label in zip(piece.ids, piece.labels, strict=True))


def test_pieces_end_where_the_text_does(encoder: Encoder) -> None:
    whole = encoder.encode({"messages": [], "text": STORY})
    paragraph = len(encoder.encode(STORY.partition("\n\n")[0]).ids)
    for limit, ends in ((3 * paragraph, "\n\n"), (paragraph // 2, ("fish and slept.", "\n\n"))):
        for piece in split_row(whole, limit)[:-1]:
            assert whole.text[: piece.offsets[-1][1]].rstrip(" ").endswith(ends) or whole.text[
                piece.offsets[-1][1] :
            ].startswith("\n")


def test_a_run_is_given_the_pieces(home: Path, tmp_path: Path, encoder: Encoder, tiny_model: Path) -> None:
    file = tmp_path / "book.jsonl"
    file.write_bytes(as_lines([{"text": STORY}, {"text": "A short one."}]))
    order = data.DataOrder(train=str(file), eval=0, max_length=64, too_long="split", overlap=4, train_on="all")
    made = data.prepare(order, Encoder.from_order(order, tiny_model))
    whole = sum(len(encoder.encode(text).ids) for text in (STORY, "A short one."))
    assert made.statistics["trained"] == whole - 2
    assert made.statistics["max"] <= 64
    assert (made.record["split"]["split"]["rows"], made.record["cut"], made.record["tokens_lost"]) == ("1", {}, 0)


def test_conversations_are_cut_and_told(home: Path, tmp_path: Path, tiny_model: Path) -> None:
    file = tmp_path / "talk.jsonl"
    file.write_bytes(as_lines([*ALPACA, {"instruction": "Tell.", "output": STORY}]))
    order = data.DataOrder(train=str(file), eval=0, max_length=64, too_long="split")
    made = data.prepare(order, Encoder.from_order(order, tiny_model))
    assert (len(made.train), made.record["cut"]["over_limit"]["rows"], made.statistics["max"]) == (4, "4", 64)


def test_beside_conversations_a_text_is_learnt_whole_and_of_them_the_answers(
    home: Path, tmp_path: Path, encoder: Encoder, tiny_model: Path
) -> None:
    (tmp_path / "talk.jsonl").write_bytes(as_lines(ALPACA))
    (tmp_path / "book.jsonl").write_bytes(as_lines([{"text": "A short one."}]))
    sources = [{"source": str(tmp_path / name)} for name in ("talk.jsonl", "book.jsonl")]
    order = data.DataOrder.model_validate({"train": sources, "eval": 0, "max_length": 200})
    data.check(order, tiny_model)
    made = data.prepare(order, mixed := Encoder.from_order(order, tiny_model))
    talks = [mixed.encode(row) for row in data.read(sources[0]["source"]).conversations]
    text = encoder.encode("A short one.")
    assert made.statistics["trained"] == sum(talk.n_trained for talk in talks) + len(text.ids) - 1
    assert all(talk.n_trained < len(talk.ids) - 1 for talk in talks)
