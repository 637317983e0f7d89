"""Data sets of the field's tasks, rebuilt small: choices, contexts, summaries, classes, trees, exports of programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from studio import data
from studio.errors import DataError
from tests.data.fixtures import as_lines
from tests.data.test_shapes import A, S, U, said, turns, write
from tests.data.test_trained import encoder_of, trained

Said = list[tuple[str, str]]
Q, MARS = "Which planet is red?", "B. Mars"
ASKED = f"{Q}\nA. Venus\nB. Mars\nC. Saturn"
LISTED = ["Venus", "Mars", "Saturn"]


def row(**more: Any) -> bytes:
    return as_lines([{"question": Q, **more}] * 2)


# -- questions with choices

CHOICES: dict[str, bytes] = {
    "MMLU": row(choices=LISTED, answer=1, subject="x"),
    "a letter": row(options=LISTED, answer="B"),
    "a letter in brackets": row(options=LISTED, answer="(b)"),
    "the choice's own words": row(options=LISTED, answer="Mars"),
    "letter and words": row(options=LISTED, answer="B. Mars"),
    "C-Eval": row(A="Venus", B="Mars", C="Saturn", answer="B"),
    "CMMLU": f"id,Question,A,B,C,Answer\n0,{Q},Venus,Mars,Saturn,B\n".encode(),
    "ARC": row(choices={"text": LISTED, "label": ["A", "B", "C"]}, answerKey="B"),
    "CommonsenseQA": row(choices=[{"label": k, "text": t} for k, t in zip("ABC", LISTED)], answerKey="B"),
    "OpenBookQA": as_lines([{"question_stem": Q, "choices": {"text": LISTED, "label": list("ABC")}, "answerKey": "B"}]),
    "HellaSwag": as_lines([{"ctx": Q, "endings": LISTED, "label": "1"}, {"ctx": Q, "endings": LISTED, "label": "0"}]),
    "MedMCQA": as_lines([{"question": Q, "opa": "Venus", "opb": "Mars", "opc": "Saturn", "cop": n} for n in (1, 0)]),
    "MedQA": row(options=dict(zip("ABC", LISTED)), answer="Mars", answer_idx="B"),
    "AGIEval": row(choices=["(A)Venus", "(B)Mars", "(C)Saturn"], gold=[1]),
    "NumPy's print": f"question,choices,answer\n{Q},['Venus' 'Mars' 'Saturn'],1\n".encode(),
    "lines in a cell": f'question,options,answer\n{Q},"A. Venus\nB. Mars\nC. Saturn",B\n'.encode(),
    "TruthfulQA": row(mc1_targets={"choices": LISTED, "labels": [0, 1, 0]}),
    "numbered from 1": as_lines([{"question": Q, "choices": LISTED, "answer": n} for n in (2, 3)]),
}


@pytest.mark.parametrize("kind", CHOICES)
def test_the_right_choice_is_learnt_and_all_are_shown(kind: str, home: Path, tmp_path: Path) -> None:
    read = data.read(write(tmp_path, CHOICES[kind]))
    asked = ASKED.replace("A. ", "(A)").replace("B. ", "(B)").replace("C. ", "(C)") if kind == "AGIEval" else ASKED
    answer = "(B)Mars" if kind == "AGIEval" else MARS
    assert (read.format, read.refused, said(read.conversations[0])) == ("prompt", 0, [(U, asked), (A, answer)])
    assert set(read.unused) <= {"subject", "id"}


BY_NUMBER = {
    "PIQA": [{"goal": Q, "sol1": "Venus", "sol2": "Mars", "label": n} for n in (1, 0)],
    "WinoGrande": [{"sentence": Q, "option1": "Venus", "option2": "Mars", "answer": n} for n in "21"],
}


@pytest.mark.parametrize("kind", BY_NUMBER)
def test_choices_in_numbered_columns(kind: str, home: Path, tmp_path: Path) -> None:
    read = data.read(write(tmp_path, as_lines(BY_NUMBER[kind])))
    answers = [(U, f"{Q}\n1. Venus\n2. Mars"), (A, "2. Mars")], [(U, f"{Q}\n1. Venus\n2. Mars"), (A, "1. Venus")]
    assert (read.refused, tuple(said(c) for c in read.conversations)) == (0, answers)


def test_nothing_but_the_right_choice_is_trained(home: Path, tmp_path: Path, tiny_model: Path) -> None:
    read = data.read(write(tmp_path, CHOICES["MMLU"]))
    assert trained(encoder_of(tiny_model), read.conversations[0]) == "B. Mars<|im_end|>"


def test_whether_choices_count_from_0_or_from_1(home: Path, tmp_path: Path) -> None:
    path = write(tmp_path, as_lines([{"question": Q, "choices": LISTED, "answer": n} for n in (1, 2)]))
    read = data.read(path)
    assert "from 0 or from 1" in read.unsure
    option = read.unsure.rpartition("--column ")[2].split("=")
    again = data.read(path, mapping=dict([option]))
    assert ([said(c)[1][1] for c in again.conversations], again.unsure) == (["A. Venus", "B. Mars"], "")


def test_several_right_choices_and_none(home: Path, tmp_path: Path) -> None:
    rows = [{"question": Q, "choices": LISTED, "answer": right} for right in (["A", "C"], "AC", "A, C", "E", 9)]
    read = data.read(write(tmp_path, as_lines(rows)))
    assert [said(c)[1][1] for c in read.conversations] == ["A. Venus\nC. Saturn"] * 3
    assert [(p.row, p.kind, p.field, p.value) for p in read.problems if p.severity == "refused"] == [
        (4, "no_choice", "answer", "E"),
        (5, "no_choice", "answer", "9"),
    ]
    assert "None of the choices A to C is named" in next(p for p in read.problems if p.row == 4).reason


def test_a_choice_without_a_full_stop_is_no_broken_answer(home: Path, tmp_path: Path) -> None:
    read = data.read(write(tmp_path, row(options=["A day of Venus that lasts a year", "The red one"], answer="A")))
    assert said(read.conversations[0])[1][1] == "A. A day of Venus that lasts a year"
    assert [p.kind for p in read.problems] == ["duplicate"]


def test_an_explained_choice_is_learnt_as_it_stands(home: Path, tmp_path: Path) -> None:
    read = data.read(write(tmp_path, row(options=LISTED, answer="It is Mars, as rust is red.")))
    assert said(read.conversations[0]) == [(U, ASKED), (A, "It is Mars, as rust is red.")]


# -- what is asked about stands beside the question

RUST, WHAT = "Mars has rust.", "What has rust?"
ABOUT: dict[str, tuple[dict[str, Any], str]] = {
    "SQuAD": ({"context": RUST, "answers": {"text": ["Mars", "It"], "answer_start": [0, 0]}}, RUST),
    "SQuAD's list": ({"context": RUST, "answers": [{"text": "Mars", "answer_start": 0}]}, RUST),
    "DROP": ({"passage": RUST, "answers_spans": {"spans": ["Mars"], "types": ["span"]}}, RUST),
    "a schema": ({"context": RUST, "answer": "Mars"}, RUST),
    "documents": ({"documents": [RUST, "Venus is hot."], "response": "Mars"}, f"{RUST}\n\nVenus is hot."),
    "objects": ({"contexts": [{"title": "Rust", "text": RUST}], "ground_truth": "Mars"}, f"Rust\n{RUST}"),
    "HotpotQA": (
        {"context": {"title": ["Rust"], "sentences": [["Mars ", "has rust."]]}, "answer": "Mars"},
        f"Rust\n{RUST}",
    ),
    "HotpotQA's pairs": ({"context": [["Rust", ["Mars", " has rust."]]], "answer": "Mars"}, f"Rust\n{RUST}"),
    "CoQA": ({"story": RUST, "questions": [WHAT], "answers": {"input_text": ["Mars"]}}, RUST),
}


@pytest.mark.parametrize("kind", ABOUT)
def test_a_context_stands_before_its_question(kind: str, home: Path, tmp_path: Path) -> None:
    cells, context = ABOUT[kind]
    read = data.read(write(tmp_path, as_lines([{"question": WHAT} | cells] * 2)))
    assert (read.refused, said(read.conversations[0])) == (0, [(U, f"{context}\n\n{WHAT}"), (A, "Mars")])
    assert set(read.unused) <= {"question"}


def test_the_file_of_squad(home: Path, tmp_path: Path) -> None:
    asked = {"question": WHAT, "id": "1", "answers": [{"text": "Mars", "answer_start": 0}]}
    empty = {"question": "Why?", "id": "2", "answers": [], "is_impossible": True}
    whole = {"version": "2", "data": [{"title": "x", "paragraphs": [{"context": RUST, "qas": [asked, empty]}]}]}
    read = data.read(write(tmp_path, json.dumps(whole).encode()))
    assert [said(c) for c in read.conversations] == [[(U, f"{RUST}\n\n{WHAT}"), (A, "Mars")]]
    assert [(p.kind, p.row) for p in read.problems if p.severity == "refused"] == [("empty_field", 2)]


TASK = "Say it in German."
PARTS: dict[str, tuple[dict[str, Any], str]] = {
    "instruction and question": ({"instruction": TASK, "question": "tea", "answer": "Tee"}, f"{TASK}\ntea"),
    "prompt and input": ({"prompt": TASK, "input": "tea", "output": "Tee"}, f"{TASK}\ntea"),
    "query and input": ({"query": TASK, "input": "tea", "response": "Tee"}, f"{TASK}\ntea"),
    "task and input": ({"task": TASK, "input": "tea", "output": "Tee"}, "tea"),
    "input and context": (
        {"instruction": TASK, "input": "tea", "context": RUST, "output": "Tee"},
        f"{TASK}\ntea\n{RUST}",
    ),
    "a prompt with all in it": (
        {"prompt": f"{RUST * 2} {WHAT}", "context": RUST * 2, "answer": "Tee"},
        f"{RUST * 2} {WHAT}",
    ),
}


@pytest.mark.parametrize("kind", PARTS)
def test_all_parts_of_a_question_are_asked(kind: str, home: Path, tmp_path: Path) -> None:
    cells, asked = PARTS[kind]
    read = data.read(write(tmp_path, as_lines([cells] * 2)))
    assert said(read.conversations[0]) == [(U, asked), (A, "Tee")]
    assert read.unused == (["task"] if kind == "task and input" else [])


# -- texts and what is made of them

LONG = "Mars has rust. It has been looked at for long."
PAIRS: dict[str, tuple[str, str]] = {
    "XSum": ("document", "summary"),
    "CNN": ("article", "highlights"),
    "SAMSum": ("dialogue", "summary"),
    "BillSum": ("text", "summary"),
    "LCSTS": ("content", "summary"),
    "MBPP": ("text", "code"),
    "text and output": ("text", "output"),
    "source and target": ("source", "target"),
    "evals": ("input", "ideal"),
    "HumanEval": ("prompt", "canonical_solution"),
    "SQL": ("question", "sql"),
    "PaLM": ("input_text", "output_text"),
    "Gemini": ("textInput", "output"),
    "SciQ": ("question", "correct_answer"),
    "TruthfulQA": ("question", "best_answer"),
}


@pytest.mark.parametrize("kind", PAIRS)
def test_a_text_and_what_is_made_of_it(kind: str, home: Path, tmp_path: Path) -> None:
    asked, answer = PAIRS[kind]
    read = data.read(write(tmp_path, as_lines([{asked: LONG, answer: "Rust.", "id": n} for n in range(2)])))
    assert (read.format, said(read.conversations[0]), read.unused) == ("prompt", [(U, LONG), (A, "Rust.")], ["id"])


def test_a_text_that_ends_with_the_answer_is_whole(home: Path, tmp_path: Path) -> None:
    rows = [
        {"text": f"### Human: {q}\n### Assistant: {a}</s>", "output": a} for q, a in (("a?", "It is b."), ("c?", "d!"))
    ]
    read = data.read(write(tmp_path, as_lines(rows)))
    assert (read.format, read.unused) == ("text", ["output"])


def test_another_answer_is_named(home: Path, tmp_path: Path) -> None:
    path = write(tmp_path, as_lines([{"problem": Q, "solution": f"We add {n}.", "answer": str(n)} for n in range(3)]))
    read = data.read(path)
    assert said(read.conversations[1])[1] == (A, "We add 1.")
    assert "answer could be the answer too" in read.unsure
    assert said(data.read(path, mapping={"prompt": "problem", "answer": "answer"}).conversations[1])[1] == (A, "1")


# -- refused, with options that work

HINTED: dict[str, tuple[list[dict[str, Any]], Said]] = {
    "NLI": (
        [{"premise": "A man eats.", "hypothesis": f"He eats {n}.", "label": n} for n in (2, 0)],
        [(U, "A man eats.\nHe eats 2."), (A, "2")],
    ),
    "NLI in words": (
        [{"premise": "A man eats.", "hypothesis": f"He eats {n}.", "label": "entailment"} for n in (2, 0)],
        [(U, "A man eats.\nHe eats 2."), (A, "entailment")],
    ),
    "SST": ([{"sentence": f"a fine film {n}", "label": n, "idx": n} for n in (1, 0)], [(U, "a fine film 1"), (A, "1")]),
    "QQP": (
        [{"question1": "Tea, hot?", "question2": f"Hot tea {n}?", "is_duplicate": n} for n in (1, 0)],
        [(U, "Tea, hot?\nHot tea 1?"), (A, "1")],
    ),
    "QNLI": (
        [{"question": "Is tea hot?", "sentence": f"It is {n}.", "label": n} for n in (1, 0)],
        [(U, "Is tea hot?\nIt is 1."), (A, "1")],
    ),
    "translation": (
        [{"id": n, "translation": {"en": f"Mars is red {n}.", "zh": "火星是红色的。"}} for n in (1, 2)],
        [(U, "Mars is red 1."), (A, "火星是红色的。")],
    ),
    "two languages": (
        [{"en": f"Mars is red {n}.", "zh": "火星是红的。"} for n in (1, 2)],
        [(U, "Mars is red 1."), (A, "火星是红的。")],
    ),
    "Spider": (
        [{"question": f"How many {n}?", "query": f"SELECT {n} FROM t"} for n in (1, 2)],
        [(U, "How many 1?"), (A, "SELECT 1 FROM t")],
    ),
    "a list of answers": (
        [{"question": f"{Q} {n}", "answers": ["Mars", "It"]} for n in (1, 2)],
        [(U, f"{Q} 1"), (A, "Mars")],
    ),
    "Argilla": (
        [
            {
                "id": n,
                "fields": {"prompt": f"{Q} {n}"},
                "responses": {"response": [{"value": "Mars it is.", "user_id": "u"}]},
            }
            for n in (1, 2)
        ],
        [(U, f"{Q} 1"), (A, "Mars it is.")],
    ),
    "Label Studio": (
        [
            {
                "id": n,
                "data": {"prompt": f"{Q} {n}"},
                "annotations": [
                    {"result": [{"type": "textarea", "from_name": "answer", "value": {"text": ["Mars."]}}]}
                ],
            }
            for n in (1, 2)
        ],
        [(U, f"{Q} 1"), (A, "Mars.")],
    ),
}


@pytest.mark.parametrize("kind", HINTED)
def test_the_options_of_a_hint_read_the_rows_right(kind: str, home: Path, tmp_path: Path) -> None:
    rows, expected = HINTED[kind]
    path = write(tmp_path, as_lines(rows))
    with pytest.raises(DataError) as refusal:
        data.read(path)
    options = [piece.split()[0].rstrip(".,;") for piece in refusal.value.hint.split("--column ")[1:]]
    read = data.read(path, mapping=dict(option.split("=", 1) for option in options))
    assert (read.refused, said(read.conversations[0])) == (0, expected)


def test_classes_of_a_parquet_file_are_read_by_name(home: Path, tmp_path: Path) -> None:
    features = {"text": {"_type": "Value"}, "label": {"_type": "ClassLabel", "names": ["bad", "fine"]}}
    table = pa.table({"text": ["a fine film", "a bad film", "?"], "label": [1, 0, -1]})
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "a.parquet")
    read = data.read(tmp_path / "a.parquet", mapping={"prompt": "text", "answer": "label"})
    assert [said(c)[1][1] for c in read.conversations] == ["fine", "bad"]
    assert read.notes == ["The numbers in label stand for classes; read are their names: bad, fine."]


# -- what turns and rows say beside their words

BRIEF = "Be brief."
SYSTEMS: dict[str, dict[str, Any]] = {
    "Bedrock": {"system": [{"text": BRIEF}], "messages": turns("a?", "b")},
    "Anthropic's blocks": {
        "system": [{"type": "text", "text": BRIEF, "cache_control": {}}],
        "messages": turns("a?", "b"),
    },
    "an object": {"system": {"role": "system", "content": BRIEF}, "messages": turns("a?", "b")},
    "system_message": {"system_message": BRIEF, "messages": turns("a?", "b")},
    "beside a system turn": {"system": BRIEF, "messages": [{"role": S, "content": "Be kind."}, *turns("a?", "b")]},
    "XTuner": {"conversation": [{"system": BRIEF, "input": "a?", "output": "b"}]},
    "with a prompt": {"system": [{"text": BRIEF}], "prompt": "a?", "completion": "b"},
    "with an instruction": {"systemPrompt": BRIEF, "instruction": "a?", "output": "b"},
    "LM Studio": {
        "systemPrompt": BRIEF,
        "messages": [
            {"versions": [{"role": U, "content": [{"type": "text", "text": "a?"}]}], "currentlySelected": 0},
            {
                "versions": [
                    {"role": A, "steps": [{"content": [{"type": "text", "text": t}]}, {"type": "debug"}]}
                    for t in ("OLD", "b")
                ],
                "currentlySelected": 1,
            },
        ],
    },
}


@pytest.mark.parametrize("kind", SYSTEMS)
def test_a_system_prompt_is_never_lost(kind: str, home: Path, tmp_path: Path) -> None:
    read = data.read(write(tmp_path, as_lines([SYSTEMS[kind]])))
    system = f"{BRIEF}\n\nBe kind." if "turn" in kind else BRIEF
    assert (said(read.conversations[0]), read.unused) == ([(S, system), (U, "a?"), (A, "b")], [])


def test_a_system_prompt_that_is_no_text_is_refused(home: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="system: The field must be text, but it is a list"):
        data.read(write(tmp_path, as_lines([{"system": [7], "messages": turns("a?", "b")}])))


THOUGHTS: dict[str, dict[str, Any]] = {
    "a list": {"reasoning": ["I", "think."]},
    "an object": {"reasoning": {"content": "I\nthink."}},
    "OpenRouter's details": {"reasoning_details": [{"type": "reasoning.text", "text": "I\nthink."}]},
    "another name": {"cot": "I\nthink."},
}


@pytest.mark.parametrize("kind", THOUGHTS)
@pytest.mark.parametrize("place", ["turn", "row", "pair"])
def test_reasoning_in_parts_is_kept(kind: str, place: str, home: Path, tmp_path: Path) -> None:
    rows = {
        "turn": {"messages": [{"role": U, "content": "a?"}, {"role": A, "content": "b"} | THOUGHTS[kind]]},
        "row": {"question": "a?", "answer": "b"} | THOUGHTS[kind],
        "pair": {"conversation": [{"question": "a?", "answer": "b"} | THOUGHTS[kind]]},
    }
    read = data.read(write(tmp_path, as_lines([rows[place]])))
    assert read.conversations[0]["messages"][1]["reasoning_content"] == "I\nthink."
    assert read.unused == []


MASKED: dict[str, Any] = {
    "XTuner": {
        "conversation": [{"input": "a?", "output": "WRONG", "output_with_loss": False}, {"input": "b?", "output": "c"}]
    },
    "no_loss": {
        "messages": [{"role": U, "content": "a?"}, {"role": A, "content": "WRONG", "no_loss": True}, *turns("b?", "c")]
    },
}


@pytest.mark.parametrize("kind", MASKED)
def test_an_answer_marked_out_is_not_learnt(kind: str, home: Path, tmp_path: Path, tiny_model: Path) -> None:
    read = data.read(write(tmp_path, as_lines([MASKED[kind]])))
    assert (trained(encoder_of(tiny_model), read.conversations[0]), read.unused) == ("c<|im_end|>", [])


def test_what_a_pair_says_besides_is_told(home: Path, tmp_path: Path) -> None:
    read = data.read(write(tmp_path, as_lines([{"conversation": [{"input": "a?", "output": "b", "mood": "fine"}]}])))
    assert read.unused == ["conversation[].mood"]


@pytest.mark.parametrize(
    ("mark", "good", "bad"), [("weight", 1, 0), ("train", True, False), ("trainable", "true", "false")]
)
def test_a_row_marked_out_is_left_out(mark: str, good: Any, bad: Any, home: Path, tmp_path: Path) -> None:
    rows = [{"prompt": "a?", "completion": "WRONG", mark: bad}, {"prompt": "b?", "completion": "c", mark: good}]
    read = data.read(write(tmp_path, as_lines(rows)))
    assert [said(c) for c in read.conversations] == [[(U, "b?"), (A, "c")]]
    assert [(p.row, p.kind, p.field) for p in read.problems if p.severity == "refused"] == [(1, "marked_out", mark)]
    assert read.unused == []


def test_rows_to_test_with_are_told(home: Path, tmp_path: Path) -> None:
    rows = [
        {"prompt": f"a{n}?", "completion": "b", "split": part} for n, part in enumerate(("train", "test", "validation"))
    ]
    read = data.read(write(tmp_path, as_lines(rows)))
    assert [(p.row, p.field, p.value) for p in read.problems if p.kind == "test_row"] == [
        (2, "split", "test"),
        (3, "split", "validation"),
    ]
    assert len(read.decide({"test_row": "drop"}).conversations) == 1
    assert "test_row" not in data.read(write(tmp_path, as_lines(rows[1:]), "only")).counts


# -- conversations as programs save them

CHATS: dict[str, Any] = {
    "LangChain": [{"messages": [{"type": "human", "content": "a?"}, {"type": "ai", "content": "b"}]}],
    "LangChain's dumps": [
        {"messages": [{"type": "human", "data": {"content": "a?"}}, {"type": "ai", "data": {"content": "b"}}]}
    ],
    "is_user": [{"messages": [{"is_user": True, "text": "a?"}, {"is_user": False, "text": "b"}]}],
    "interactions": [{"interactions": [{"is_user": True, "text": "a?"}, {"is_user": False, "text": "b"}]}],
    "SillyTavern": [
        {"user_name": "Ann", "character_name": "Ben", "chat_metadata": {}},
        {"name": "Ann", "is_user": True, "mes": "a?"},
        {"name": "Ben", "is_user": False, "mes": "b", "swipes": ["OLD", "b"], "swipe_id": 1},
    ],
    "AI Studio": [{"chunkedPrompt": {"chunks": [{"text": "a?", "role": "user"}, {"text": "b", "role": "model"}]}}],
    "Open WebUI": [
        {
            "title": "x",
            "chat": {"history": {"messages": {"1": {"role": U, "content": "a?"}}}, "messages": turns("a?", "b")},
        }
    ],
    "Assistants": [
        {
            "thread_id": "t",
            "created_at": 2,
            "role": A,
            "content": [{"type": "text", "text": {"value": "b", "annotations": []}}],
        },
        {
            "thread_id": "t",
            "created_at": 1,
            "role": U,
            "content": [{"type": "text", "text": {"value": "a?", "annotations": []}}],
        },
    ],
    "by time": [
        {"conversation_id": 1, "timestamp": "2024-01-01T10:02:00Z", "role": A, "content": "b"},
        {"conversation_id": 1, "timestamp": "2024-01-01T10:01:00+00:00", "role": U, "content": "a?"},
    ],
    "Open Assistant's tree": [
        {
            "message_tree_id": "1",
            "prompt": {
                "text": "a?",
                "role": "prompter",
                "replies": [
                    {"text": "OLD", "role": "assistant", "rank": 1, "replies": []},
                    {"text": "b", "role": "assistant", "rank": 0},
                ],
            },
        }
    ],
    "messages and the answer": [{"messages": turns("a?", "b")[:1], "response": "b"}],
    "evals": [{"input": turns("a?", "b")[:1], "ideal": "b"}],
}


@pytest.mark.parametrize("kind", CHATS)
def test_chats_of_programs(kind: str, home: Path, tmp_path: Path) -> None:
    read = data.read(write(tmp_path, as_lines(CHATS[kind])))
    assert (read.refused, said(read.conversations[0])) == (0, [(U, "a?"), (A, "b")])


def test_people_of_slack(home: Path, tmp_path: Path) -> None:
    rows = [{"type": "message", "user": f"U{n}", "text": text, "ts": f"1.{n}"} for n, text in ((1, "a?"), (2, "b"))]
    path = write(tmp_path, json.dumps(rows).encode(), "2024-01-01.json")
    with pytest.raises(DataError, match="is a chat, one turn a row, between U1, U2") as refusal:
        data.read(path)
    options = [piece.split()[0].rstrip(".,;") for piece in refusal.value.hint.split("--column ")[1:]]
    read = data.read(path, mapping=dict(option.split("=", 1) for option in options))
    assert said(read.conversations[0]) == [(U, "a?"), (A, "b")]
