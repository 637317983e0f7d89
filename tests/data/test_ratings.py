"""Pairs out of rated answers, in each layout, and out of the blind votes of the chat."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from studio import data
from studio.__main__ import main
from studio.data.rated import has_ratings
from studio.data.ratings import pairs_of
from studio.errors import DataError
from studio.talk import votes

ANSWERS = {"The first.": 4, "Neither.": 1, "Perhaps the second.": 2.5}
ROWS = [{"prompt": "Which river?", "response": answer, "rating": rating} for answer, rating in ANSWERS.items()]
LAYOUTS: dict[str, list[dict[str, Any]]] = {
    "a row an answer": ROWS,
    "texts from a spreadsheet": [{**row, "rating": str(row["rating"])} for row in ROWS],
    "ranks": [
        {"question": "Which river?", "answer": answer, "rank": rank}
        for answer, rank in (("Neither.", 3), ("The first.", 1), ("Perhaps the second.", 2))
    ],
    "a list of objects": [
        {
            "instruction": "Which river?",
            "completions": [{"response": answer, "overall_score": rating} for answer, rating in ANSWERS.items()],
        }
    ],
    "lists beside each other": [
        {"prompt": "Which river?", "responses": list(ANSWERS), "scores": list(ANSWERS.values())}
    ],
}


def write(folder: Path, rows: list[dict[str, Any]]) -> str:
    file = folder / "rated.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_best_answer_is_chosen_and_the_worst_rejected(layout: str, home: Path, tmp_path: Path) -> None:
    again = [{**row, next(iter(row)): "Which lake?"} for row in LAYOUTS[layout]]
    rows, left_out = pairs_of(write(tmp_path, [*LAYOUTS[layout], *again]))
    assert [(row["prompt"], row["chosen"], row["rejected"]) for row in rows] == [
        (prompt, "The first.", "Neither.") for prompt in ("Which river?", "Which lake?")
    ]
    assert rows[0]["score_chosen"] > rows[0]["score_rejected"]
    assert not left_out
    assert has_ratings(LAYOUTS[layout])


def test_every_pair_a_margin_and_what_is_left_out(home: Path, tmp_path: Path) -> None:
    more = [
        {"prompt": "Alone?", "response": "Yes.", "rating": 3},
        {"prompt": "Same?", "response": "Yes.", "rating": 3},
        {"prompt": "Same?", "response": "No.", "rating": 3},
        {"prompt": "Unrated?", "response": "Yes."},
    ]
    file = write(tmp_path, [*ROWS, *more])
    rows, left_out = pairs_of(file, every=True)
    assert {(row["chosen"], row["rejected"]) for row in rows} == {
        ("The first.", "Neither."),
        ("The first.", "Perhaps the second."),
        ("Perhaps the second.", "Neither."),
    }
    assert left_out == {"rows without a rated answer": 1, "prompts with one answer": 1, "ties": 1}
    assert len(pairs_of(file, margin=2, every=True)[0]) == 1
    assert not has_ratings([{"prompt": "Q", "response": "A"}] * 3)


@pytest.mark.parametrize("rows", [[{"prompt": "Q?", "response": "A."}], ROWS[:1]], ids=["no ratings", "one answer"])
def test_a_file_without_pairs_is_refused(rows: list[dict[str, Any]], home: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        pairs_of(write(tmp_path, rows))
    assert caught.value.hint


def test_the_terminal_writes_them_and_reads_them_back(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "pairs.jsonl"
    assert main(["pairs", write(tmp_path, ROWS), str(out)]) == 0
    found = data.read(out)
    assert (found.examples, len(found.conversations), found.counts) == ("pairs", 1, {})
    assert main(["pairs", write(tmp_path, ROWS), str(out)]) == 2
    assert main(["pairs", "votes", str(tmp_path / "none.jsonl")]) == 2


def test_blind_votes_are_preferences(home: Path) -> None:
    asked = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello?"}]
    good, bad = {"model": "tuned", "answer": "Hi."}, {"model": "base", "answer": "Who is it?"}
    votes.vote(good, bad, "left", "Hello?", "tuned", asked)
    votes.vote(bad, good, "right", "Hello?", "tuned", asked)  # the same once more
    votes.vote(good, bad, "tie", "Hello?", "tuned", asked)
    votes.vote(good, bad, "left", "And now?", "tuned", None)  # each side went on from its own answer
    votes.vote(good, good, "left", "Again?", "tuned", asked)
    rows, left_out = votes.pairs()
    assert rows == [{"prompt": asked, "chosen": "Hi.", "rejected": "Who is it?"}]
    assert left_out == {"ties": 1, "votes whose sides had other conversations": 1, "votes on equal answers": 1}
    votes.vote(good, bad, "right", "Hello?", "tuned", asked)  # a change of mind
    assert votes.pairs()[0] == [{"prompt": asked, "chosen": "Who is it?", "rejected": "Hi."}]
