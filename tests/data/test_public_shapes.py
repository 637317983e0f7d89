"""Columns and rows as public data sets and programs' exports have them, in own words: what each is read as, or the
options that its hint names.
"""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from studio import data
from studio.data.column_names import mapping_in
from studio.data.editing.fixes import apply_fix
from studio.data.examples import asked_of
from studio.errors import DataError
from tests.data.fixtures import as_lines
from tests.data.test_shapes import TEA, A, S, Said, U, said, write

Q, ANSWER = TEA[0]
BOTH = [(U, Q), (A, ANSWER)]


def table(**cells: str) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([list(cells), cells.values()])
    return text.getvalue().encode()


def chat(content: str = "content") -> list[dict[str, Any]]:
    return [{"role": U, content: Q}, {"role": A, content: ANSWER}]


SESSION: list[dict[str, Any]] = [
    {"type": "summary", "summary": "Tea", "leafUuid": "u9"},
    {"sessionId": "s", "type": U, "message": {"role": U, "content": Q}, "uuid": "u1", "cwd": "/x"},
    {"sessionId": "s", "type": U, "isSidechain": True, "message": {"role": U, "content": "Look."}, "uuid": "u2"},
    *(
        {"sessionId": "s", "type": A, "message": {"role": A, "content": [part]}, "uuid": str(n)}
        for n, part in enumerate(
            (
                {"type": "thinking", "thinking": "Hm."},
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "t", "name": "Read", "input": {"path": "a"}},
            )
        )
    ),
    {
        "sessionId": "s",
        "type": U,
        "message": {"role": U, "content": [{"type": "tool_result", "tool_use_id": "t", "content": "words"}]},
    },
    {"sessionId": "s", "type": A, "message": {"role": A, "content": [{"type": "text", "text": ANSWER}]}},
]
DEEPSEEK = {
    "root": {"id": "root", "parent": None, "children": ["1"], "message": None},
    "1": {"parent": "root", "children": ["2"], "message": {"fragments": [{"type": "REQUEST", "content": Q}]}},
    "2": {
        "parent": "1",
        "children": [],
        "message": {"fragments": [{"type": "THINK", "content": "Hm."}, {"type": "RESPONSE", "content": ANSWER}]},
    },
}
READ: dict[str, tuple[bytes, Said]] = {
    "names in capitals": (table(Article=Q, Summary=ANSWER), BOTH),
    "a text and its summary, in capitals": (table(Text=Q, Summary=ANSWER), BOTH),
    "names of two words": (table(Question=Q, **{"Best Answer": ANSWER}), BOTH),
    "a context, in capitals": (table(Question=Q, Context="Of tea.", Answer=ANSWER), [(U, f"Of tea.\n\n{Q}"), BOTH[1]]),
    "a system prompt, in capitals": (table(System="Brief.", User=Q, Assistant=ANSWER), [(S, "Brief."), *BOTH]),
    "BIRD": (table(question=Q, evidence="Of tea.", SQL="SELECT 1"), [(U, f"Of tea.\n\n{Q}"), (A, "SELECT 1")]),
    "NuminaMath": (as_lines([{"problem": Q, "solution": ANSWER, "answer": "42"}]), BOTH),
    "CoEdIT": (as_lines([{"_id": "1", "task": "gec", "src": Q, "tgt": ANSWER}]), BOTH),
    "ProsocialDialog": (as_lines([{"context": Q, "response": ANSWER, "source": "x"}]), BOTH),
    "a turn a row, in capitals": (
        f"Conversation ID,Role,Content\n1,user,{Q}\n1,assistant,{ANSWER}\n2,user,And?\n2,assistant,One.\n".encode(),
        BOTH,
    ),
    "a source and its target": (as_lines([{"source": Q, "target": ANSWER, "context": "Law."}]),
                                [(U, f"Law.\n\n{Q}"), BOTH[1]]),
    "CAMEL": (as_lines([{"role_1": "Tea", "message_1": Q, "message_2": ANSWER}]), BOTH),
    "ChatQA": (as_lines([{"document": "Of tea.", "messages": chat()[:1], "answers": [ANSWER]}]), BOTH),
    "synthetic text to SQL": (as_lines([{"sql_prompt": Q, "sql_context": "CREATE", "sql": "SELECT 1"}]),
                              [(U, f"CREATE\n\n{Q}"), (A, "SELECT 1")]),
    "Chatbox": (
        json.dumps(
            {
                "chat-sessions-list": [{"id": "s", "name": "Tea"}],
                "session:s": {"id": "s", "messages": [
                    {"role": m["role"], "contentParts": [{"type": "text", "text": m["content"]}]} for m in chat()]},
            }
        ).encode(),
        BOTH,
    ),
    "text-generation-webui": (
        json.dumps({"internal": [["<|BEGIN-VISIBLE-CHAT|>", "Hi."], [Q, ANSWER]], "visible": [["", "Hi."]]}).encode(),
        [(A, "Hi."), *BOTH],
    ),
    "ChatterBot": (json.dumps({"categories": ["Tea"], "conversations": [[Q, ANSWER], [ANSWER, Q]]}).encode(), BOTH),
    "DeepSeek's export": (json.dumps([{"id": "c", "mapping": DEEPSEEK}]).encode(), BOTH),
    "SWE-agent's trajectories": (
        as_lines([{"model_name": "x", "target": True, "eval_logs": "ok", "trajectory": [
            {"role": "system", "text": None, "system_prompt": "Brief."}, {"role": U, "text": Q},
            {"role": "ai", "text": ANSWER}]}] * 2),
        [(S, "Brief."), *BOTH],
    ),
    "SODA, whose speakers do not take turns": (
        as_lines([{"dialogue": ["Hi.", Q, ANSWER], "speakers": ["Ann", "Ann", "Bob"], "head": "x"}]),
        [(U, "Hi."), *BOTH],
    ),
    "speakers that are roles": (as_lines([{"dialogue": ["Hi.", Q, ANSWER], "speakers": [A, U, A]}]),
                                [(A, "Hi."), *BOTH]),
    "customers' tweets": (
        f"tweet_id,author_id,inbound,text,in_response_to_tweet_id\n2,x,False,{ANSWER},1\n1,7,True,{Q},\n".encode(),
        BOTH,
    ),
    "Claude Code": (as_lines(SESSION), [(U, Q), (A, "I look."), ("tool", "words"), (A, ANSWER)]),
}  # fmt: skip


@pytest.mark.parametrize("kind", READ)
def test_read(kind: str, home: Path, tmp_path: Path) -> None:
    content, expected = READ[kind]
    assert (
        said(data.read(write(tmp_path, content, "file" if content[:1] in b"[{" else "file.csv")).conversations[0])
        == expected
    )


def test_parts_of_an_answer_in_rows_of_their_own_are_one_turn(home: Path, tmp_path: Path) -> None:
    read = data.read(write(tmp_path, as_lines(SESSION)))
    turn = read.conversations[0]["messages"][1]
    assert (turn["reasoning_content"], turn["tool_calls"][0]["function"]["name"]) == ("Hm.", "Read")
    assert "message" not in read.unused
    assert "in no conversation: 2." in read.notes[0]


def test_a_thought_of_deepseek_is_reasoning(home: Path, tmp_path: Path) -> None:
    read = data.read(write(tmp_path, json.dumps([{"mapping": DEEPSEEK}]).encode()))
    assert read.conversations[0]["messages"][-1]["reasoning_content"] == "Hm."


def test_the_answer_beside_a_solution_is_what_rewards_compare_with(home: Path, tmp_path: Path) -> None:
    read = data.read(write(tmp_path, READ["NuminaMath"][0]))
    asked = asked_of(read.conversations[0])
    assert asked is not None
    assert asked.reference == "42"
    assert mapping_in(read.unsure) == {"prompt": "problem", "answer": "answer"}


def test_a_row_without_its_solution_is_refused(home: Path, tmp_path: Path) -> None:
    """Its answer, the last line of a solution, was learnt in the solution's place."""
    rows = [{"problem": f"{Q} {n}", "solution": solution, "answer": "42"} for n, solution in enumerate((ANSWER, None))]
    read = data.read(write(tmp_path, as_lines(rows)))
    assert [(problem.row, problem.field) for problem in read.problems if problem.kind == "empty_field"] == [
        (2, "solution")
    ]
    with pytest.raises(DataError) as refused:
        data.read(write(tmp_path, as_lines(rows[1:] * 2), "none"))
    assert mapping_in(str(refused.value.hint)) == {"prompt": "problem", "answer": "answer"}


def test_a_third_speaker_is_refused_under_the_name_of_the_file(home: Path, tmp_path: Path) -> None:
    row = {"dialogue": ["Hi.", Q, ANSWER], "speakers": ["Ann", "Bob", "Cy"]}
    with pytest.raises(DataError, match="row 1, speakers: More than two people speak"):
        data.read(write(tmp_path, as_lines([row, row])))


@pytest.mark.parametrize(
    "row",
    [
        {"conv_id": "hit:0", "utterance_idx": 1, "prompt": "I remember tea.", "speaker_idx": 1, "utterance": Q},
        {"personality": ["i like tea ."], "utterances": [{"candidates": ["No.", ANSWER], "history": [Q]}]},
        {"exportType": "sessions", "state": {"messages": chat(), "sessions": []}, "version": 7},
        {"environment": "x", "trajectory": [{"thought": Q}], "history": chat(), "info": {}},
    ],
)
def test_conversations_that_are_not_read_are_called_so(row: dict[str, Any], home: Path, tmp_path: Path) -> None:
    """A hint on their columns would train a situation as the question."""
    with pytest.raises(DataError) as refused:
        data.read(write(tmp_path, as_lines([row, row])))
    assert str(refused.value.hint).startswith("These are conversations")


def test_unused_columns_keep_the_names_of_the_file(home: Path, tmp_path: Path) -> None:
    read = data.read(write(tmp_path, table(Question=Q, Round="one of two", Answer=ANSWER), "file.csv"))
    assert (read.unused, read.columns) == (["Round"], ["Question", "Round", "Answer"])


def test_a_verdict_in_capitals_and_on_safety_is_one(home: Path, tmp_path: Path) -> None:
    for rows in (
        b"Prompt,Completion,Label\nTea hot?,It is hot.,true\nTea cold?,It is not.,false\n",
        as_lines([{"prompt": Q, "response": ANSWER, "is_safe": safe} for safe in (True, False)]),
    ):
        read = data.read(write(tmp_path, rows))
        assert (read.format, [c["label"] for c in read.conversations]) == ("kto", [True, False])


WORDS = "Some words stand here."
HINTED: dict[str, tuple[list[dict[str, Any]], dict[str, str]]] = {
    "two questions and a label": (
        [{"question1": f"{Q} {n}", "question2": WORDS, "label": n % 2} for n in range(3)],
        {"prompt": "question1", "input": "question2", "answer": "label"},
    ),
    "ELI5, whose document is empty": (
        [{"title": Q, "document": "", "subreddit": "askall", "answers": {"text": [ANSWER], "score": [1]}}] * 2,
        {"prompt": "title", "answer": "answers.text.0"},
    ),
    "CodeContests": (
        [{"description": Q, "public_tests": {"input": ["1"]}, "solutions": {"solution": [ANSWER]}}] * 2,
        {"prompt": "description", "answer": "solutions.solution.0"},
    ),
    "answers with their authors": (
        [{"question": Q, "answers": [{"author": "x", "text": ANSWER}]}] * 2,
        {"prompt": "question", "answer": "answers.0.text"},
    ),
    "names of two words in one": (
        [{"questionID": WORDS, "questionTitle": Q, "questionText": WORDS, "therapistInfo": WORDS, "answerText": ANSWER}]
        * 2,
        {"prompt": "questionTitle", "input": "questionText", "answer": "answerText"},
    ),
    "an id named in two words": (
        [{"Prompt ID": f"PE {n}", "Prompt Task": Q, "Level": "Easy", "Ideal Output": ANSWER} for n in (1, 2)],
        {"prompt": "Prompt Task", "answer": "Ideal Output"},
    ),
    "reasoning under another name": (
        [{"question_en": Q, "my_solution": ANSWER, "my_reasoning": WORDS}] * 2,
        {"prompt": "question_en", "answer": "my_solution", "reasoning": "my_reasoning"},
    ),
    "a text and its versions": (
        [{"original": Q, "simplifications": [ANSWER]}] * 2,
        {"prompt": "original", "answer": "simplifications.0"},
    ),
    "a triplet for embeddings": (
        [{"anchor": Q, "positive": ANSWER, "negative": WORDS}] * 2,
        {"prompt": "anchor", "chosen": "positive", "rejected": "negative"},
    ),
    "Spider, the query first": (
        [{"query": f"SELECT {n} FROM t", "question": f"How many {n}?"} for n in (1, 2)],
        {"prompt": "question", "answer": "query"},
    ),
    "an answer of one word": (
        [{"query_str": f"Is it {n}?", "answer": "Perhaps."} for n in (1, 2)],
        {"prompt": "query_str", "answer": "answer"},
    ),
}


@pytest.mark.parametrize("kind", HINTED)
def test_the_mapping_of_a_hint_trains_answers(kind: str, home: Path, tmp_path: Path) -> None:
    rows, expected = HINTED[kind]
    path = write(tmp_path, as_lines(rows))
    with pytest.raises(DataError) as refusal:
        data.read(path)
    assert mapping_in(refusal.value.hint) == expected
    read = data.read(path, mapping=expected)
    assert (read.refused, read.stage) == (0, "preference" if "chosen" in expected else "sft")


def test_marks_of_baize_are_turns_as_the_hint_says(home: Path, tmp_path: Path) -> None:
    talk = f"The conversation between human and AI assistant.\n[|Human|] {Q}\n[|AI|] {ANSWER}\n[|Human|] "
    path = write(tmp_path, as_lines([{"input": talk}]))
    with pytest.raises(DataError) as refusal:
        data.read(path)
    assert "--format transcript --column text=input" in refusal.value.hint
    read = data.read(path, "transcript", {"text": "input"})
    assert said(read.conversations[0])[1:] == BOTH


@pytest.mark.parametrize("rows", [[{"prompt": Q}], [{"prompt": chat()[:1], "reward_model": {"style": "rule"}}] * 2])
def test_prompts_alone_name_the_stage_that_takes_them(rows: list[Any], home: Path, tmp_path: Path) -> None:
    path = write(tmp_path, as_lines(rows))
    with pytest.raises(DataError) as refusal:
        data.read(path)
    assert "Stage grpo" in refusal.value.hint
    assert data.read(path, "prompts").refused == 0


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("Ein sch\\u00f6nes Haus.", "Ein schönes Haus."),
        ("\\u4f60\\u597d", "你好"),
        ("gr\\u00fcn \\ud83d\\ude00 ok", "grün 😀 ok"),
        ("`'\\u00e9t\\u00e9'` is a string.", None),
        ('print("caf\\u00e9")', None),
        ("A path C:\\users and \\u in LaTeX.", None),
    ],
)
def test_letters_that_stand_as_six_signs(text: str, meant: str | None, home: Path, tmp_path: Path) -> None:
    read = data.read(write(tmp_path, as_lines([{"prompt": Q, "completion": text}])))
    assert read.counts.get("literal_escape", 0) == (meant is not None)
    if meant:
        assert apply_fix("literal_escape", {"completion": text}) == {"completion": meant}


@pytest.mark.parametrize("asks", ["Human", "prompter", "用户"])
def test_who_speaks_in_a_comparison_is_known_under_every_name(asks: str, home: Path, tmp_path: Path) -> None:
    def side(answer: str) -> list[dict[str, str]]:
        turns = [(asks, "Tea?"), ("assistant", "Which?"), (asks, Q), ("assistant", answer)]
        return [{"role": role, "content": content} for role, content in turns]

    pairs = [{"chosen": side(f"{ANSWER} {n}"), "rejected": side("No.")} for n in range(2)]
    read = data.read(write(tmp_path, as_lines(pairs)))
    assert said(read.conversations[0]) == [(U, "Tea?"), (A, "Which?"), (U, Q), (A, f"{ANSWER} 0")]
