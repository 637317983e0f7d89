"""The kinds of files that people have, rebuilt small: each is read as told here, or refused with the field and a way
that works when followed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from studio import data
from studio.errors import DataError
from tests.data.fixtures import as_lines

TEA = [
    ("How long does green tea draw?", "Two minutes."),
    ("Which mountain is the highest?", "Mount Everest."),
    ("What do owls eat?", "Mice, mostly."),
]
U, A, S = "user", "assistant", "system"
Said = list[tuple[str, str]]


def rows(make: Any) -> bytes:
    return as_lines([make(q, a) for q, a in TEA])


def turns(
    q: str, a: str, role: str = "role", content: str = "content", names: tuple[str, str] = (U, A)
) -> list[dict[str, str]]:
    return [{role: names[0], content: q}, {role: names[1], content: a}]


def node(name: str, role: str, text: str, parent: str | None, *children: str) -> dict[str, Any]:
    message = {"author": {"role": role}, "content": {"content_type": "text", "parts": [text]}}
    return {name: {"id": name, "message": message, "parent": parent, "children": list(children)}}


def export(q: str, a: str) -> dict[str, Any]:
    tree = (
        node("r", S, "", None, "q")
        | node("q", U, q, "r", "old", "new")
        | node("old", A, "I do not know.", "q")
        | node("new", A, a, "q")
    )
    return {"title": "Tea", "mapping": tree, "current_node": "new"}


BOTH: Said = [(U, TEA[0][0]), (A, TEA[0][1])]
MORE: Said = [(U, "Is there tea?"), (A, "There is."), *BOTH]
CALL = {"name": "kettle", "arguments": {"degrees": 80}}
NAMES = [
    ("human", "gpt"),
    ("User", "Bot"),
    ("PROMPTER", "assistant"),
    ("用户", "助手"),
    ("question", "answer"),
    ("customer", "agent"),
]
# kind -> content, format, first conversation
READ: dict[str, tuple[bytes, str, Said]] = {
    "history of lists": (
        rows(lambda q, a: {"query": q, "response": a, "history": [["Is there tea?", "There is."]]}),
        "prompt",
        MORE,
    ),
    "history of objects": (
        rows(
            lambda q, a: {
                "instruction": q,
                "output": a,
                "history": [{"user": "Is there tea?", "assistant": "There is."}],
            }
        ),
        "alpaca",
        MORE,
    ),
    "history of messages": (
        rows(lambda q, a: {"prompt": q, "response": a, "history": turns("Is there tea?", "There is.")}),
        "prompt",
        MORE,
    ),
    "history of texts": (
        rows(lambda q, a: {"question": q, "answer": a, "chat_history": ["Is there tea?", "There is."]}),
        "prompt",
        MORE,
    ),
    "prompt and completion as messages": (
        rows(lambda q, a: {"prompt": turns(q, a)[:1], "completion": turns(q, a)[1:]}),
        "chatml",
        BOTH,
    ),
    "prompt as messages, completion as text": (
        rows(lambda q, a: {"prompt": turns(q, a)[:1], "completion": a}),
        "chatml",
        BOTH,
    ),
    "pairs": (
        rows(
            lambda q, a: {
                "dialog": [{"question": "Is there tea?", "answer": "There is."}, {"question": q, "answer": a}]
            }
        ),
        "chatml",
        MORE,
    ),
    "pairs of human and bot": (rows(lambda q, a: [{"human": q, "bot": a}]), "chatml", BOTH),
    "lists of two": (rows(lambda q, a: {"messages": [["user", q], ["assistant", a]]}), "chatml", BOTH),
    "pairs in lists": (rows(lambda q, a: {"conversation": [["Is there tea?", "There is."], [q, a]]}), "chatml", MORE),
    "nothing but pairs in lists": (rows(lambda q, a: [[q, a]]), "chatml", BOTH),
    "Chinese columns": (rows(lambda q, a: {"问": q, "答": a}), "prompt", BOTH),
    "a better and a worse answer": (
        rows(lambda q, a: {"question": q, "response_j": a, "response_k": "No."}),
        "preference",
        BOTH,
    ),
    "roles with a colon": (rows(lambda q, a: {"messages": turns(q, a, names=("User:", "Assistant:"))}), "chatml", BOTH),
    "parts of text": (
        rows(
            lambda q, a: {
                "messages": [{"role": U, "content": [{"type": "text", "text": q}]}, {"role": A, "content": a}]
            }
        ),
        "chatml",
        BOTH,
    ),
    "parts with value": (
        rows(
            lambda q, a: {
                "messages": [{"role": U, "content": [{"type": "text", "value": q}]}, {"role": A, "content": a}]
            }
        ),
        "chatml",
        BOTH,
    ),
    "Responses' parts": (
        rows(
            lambda q, a: {
                "messages": [
                    {"role": U, "content": [{"type": "input_text", "text": q}]},
                    {"role": A, "content": [{"type": "output_text", "text": a}]},
                ]
            }
        ),
        "chatml",
        BOTH,
    ),
    "role and text": (rows(lambda q, a: {"messages": turns(q, a, "role", "text")}), "chatml", BOTH),
    "speaker and utterance": (
        rows(lambda q, a: {"turns": turns(q, a, "speaker", "utterance", ("Human", "AI"))}),
        "chatml",
        BOTH,
    ),
    "author and message": (rows(lambda q, a: {"chat": turns(q, a, "author", "message")}), "chatml", BOTH),
    "from and content": (
        rows(lambda q, a: {"conversation": turns(q, a, "from", "content", ("human", "gpt"))}),
        "sharegpt",
        BOTH,
    ),
    "turns in a column of any name": (
        rows(lambda q, a: {"id": q[:3], "thread": turns(q, a, "from", "value", ("human", "gpt"))}),
        "sharegpt",
        BOTH,
    ),
    "turns as columns": (
        rows(lambda q, a: {"conversations": {"from": ["human", "gpt"], "value": [q, a]}}),
        "sharegpt",
        BOTH,
    ),
    "messages in an object": (rows(lambda q, a: {"body": {"model": "x", "messages": turns(q, a)}}), "chatml", BOTH),
    "a log of an API": (
        rows(
            lambda q, a: {
                "request": {"messages": turns(q, a)[:1]},
                "response": {"choices": [{"message": turns(q, a)[1]}]},
            }
        ),
        "chatml",
        BOTH,
    ),
    "texts in turn": (rows(lambda q, a: {"id": 1, "data": [q, a]}), "chatml", BOTH),
    "Gemini": (
        rows(
            lambda q, a: {
                "system_instruction": {"parts": [{"text": "Brief."}]},
                "contents": [{"role": "user", "parts": [{"text": q}]}, {"role": "model", "parts": [{"text": a}]}],
            }
        ),
        "chatml",
        [(S, "Brief."), *BOTH],
    ),
    "MOSS": (
        rows(
            lambda q, a: {
                "meta_instruction": "Brief.",
                "chat": {
                    "turn_1": {
                        "Human": f"<|Human|>: {q}<eoh>\n",
                        "Inner Thoughts": "<|Inner Thoughts|>: None<eot>\n",
                        "Commands": "<|Commands|>: None<eoc>\n",
                        "MOSS": f"<|MOSS|>: {a}<eom>\n",
                    }
                },
            }
        ),
        "chatml",
        [(S, "Brief."), *BOTH],
    ),
    "ChatGPT's export": (json.dumps([export(q, a) for q, a in TEA]).encode(), "chatml", BOTH),
    "Claude's export": (
        json.dumps(
            [
                {
                    "uuid": "1",
                    "name": "Tea",
                    "chat_messages": [
                        {"sender": "human", "text": q, "content": [{"type": "text", "text": q}]},
                        {"sender": "assistant", "text": a, "content": [{"type": "text", "text": a}]},
                    ],
                }
                for q, a in TEA
            ]
        ).encode(),
        "chatml",
        BOTH,
    ),
    "instances": (
        rows(lambda q, a: {"id": "s1", "instruction": q, "instances": [{"input": "", "output": a}]}),
        "alpaca",
        BOTH,
    ),
    "the task in the input": (rows(lambda q, a: {"instruction": "", "input": q, "output": a}), "alpaca", BOTH),
    "rows in a list a line": (
        as_lines(
            [[{"instruction": q, "output": a} for q, a in TEA[:2]], [{"instruction": TEA[2][0], "output": TEA[2][1]}]]
        ),
        "alpaca",
        BOTH,
    ),
    "JSON in a text": (as_lines([json.dumps({"prompt": q, "completion": a}) for q, a in TEA]), "prompt", BOTH),
    "all of it JSON in a text": (
        json.dumps(json.dumps([{"prompt": q, "completion": a} for q, a in TEA])).encode(),
        "prompt",
        BOTH,
    ),
    "comments": (
        b'[ // tea\n{"prompt": "a // b?", "completion": "c /* d */"}, # more\n {"prompt": "e?", '
        b'"completion": "f",},\n]',
        "prompt",
        [(U, "a // b?"), (A, "c /* d */")],
    ),
    "a break in a text": (
        b'[{"prompt": "Two\nlines?", "completion": "Yes\tso."}]',
        "prompt",
        [(U, "Two\nlines?"), (A, "Yes\tso.")],
    ),
    "commas left out": (
        b'[{"prompt": "a } {b?", "completion": "c"}\n{"prompt": "d?", "completion": "e"}]',
        "prompt",
        [(U, "a } {b?"), (A, "c")],
    ),
    "lists one behind the other": (
        b'[{"prompt": "a?", "completion": "b"}]\n[{"prompt": "c?", "completion": "d"}]',
        "prompt",
        [(U, "a?"), (A, "b")],
    ),
    "cells as NumPy prints them": (
        'turns\n"'
        + "[{'role': 'user', 'content': \\\"It's tea?\\\"}\n {'role': 'assistant', 'content': 'Yes.'}]".replace(
            '\\"', '""'
        )
        + '"\n',
        "chatml",
        [(U, "It's tea?"), (A, "Yes.")],
    ),
    "HH-RLHF": (
        rows(
            lambda q, a: {
                "chosen": f"\n\nHuman: {q}\n\nAssistant: {a}",
                "rejected": f"\n\nHuman: {q}\n\nAssistant: No.",
            }
        ),
        "preference",
        BOTH,
    ),
    "preferred_output": (
        rows(
            lambda q, a: {
                "input": {"messages": turns(q, a)[:1]},
                "preferred_output": turns(q, a)[1:],
                "non_preferred_output": turns(q, "No.")[1:],
            }
        ),
        "preference",
        BOTH,
    ),
    "rejected_response": (
        rows(lambda q, a: {"query": q, "response": a, "rejected_response": "No."}),
        "preference",
        BOTH,
    ),
    "messages and rejected_response": (
        rows(lambda q, a: {"messages": turns(q, a), "rejected_response": "No."}),
        "preference",
        BOTH,
    ),
    "chosen_messages": (
        rows(lambda q, a: {"prompt": q, "chosen_messages": turns(q, a)[1:], "rejected_messages": turns(q, "No.")[1:]}),
        "preference",
        BOTH,
    ),
    **{
        f"roles {user}, {bot}": (
            rows(lambda q, a, names=(user, bot): {"messages": turns(q, a, names=names)}),
            "chatml",
            BOTH,
        )
        for user, bot in NAMES
    },
}
READ = {
    kind: (content.encode() if isinstance(content, str) else content, form, said)
    for kind, (content, form, said) in READ.items()
}


def write(folder: Path, content: bytes, name: str = "file") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def said(conversation: dict[str, Any]) -> Said:
    return [(m["role"], m["content"]) for m in conversation["messages"]]


@pytest.mark.parametrize("kind", READ)
def test_read(kind: str, home: Path, tmp_path: Path) -> None:
    content, form, wanted = READ[kind]
    found = data.read(write(tmp_path, content))
    assert (found.format, found.refused, said(found.conversations[0])) == (form, 0, wanted)
    if form == "preference":
        assert found.stage == "preference"
        assert found.conversations[0]["rejected"] == "No."


REFUSED: dict[
    str, tuple[bytes, str, str, dict[str, str] | None]
] = {  # content, message, hint, the mapping that the hint names and that reads it
    "names for roles": (
        rows(lambda q, a: {"messages": turns(q, a, names=("Ann", "Ben"))}),
        "messages[0].role",
        "--column user=Ann --column assistant=Ben",
        {"user": "Ann", "assistant": "Ben"},
    ),
    "one strange role": (
        rows(lambda q, a: {"conversations": turns(q, a, "from", "value", ("humman", "gpt"))}),
        "conversations[0].from",
        "--column user=humman",
        {"user": "humman"},
    ),
    "an id before the texts": (
        as_lines([{"id": f"row-{n}", "frage": q, "antwort": a} for n, (q, a) in enumerate(TEA)]),
        "id, frage, antwort",
        "{prompt: frage, answer: antwort}",
        {"prompt": "frage", "answer": "antwort"},
    ),
    "turns of other keys": (
        rows(lambda q, a: {"id": 1, "log": turns(q, a, "wer", "was")}),
        "id, log",
        "--column messages=log --column role=wer --column content=was",
        {"messages": "log", "role": "wer", "content": "was"},
    ),
    "no question": (
        rows(lambda q, a: {"prompt": "", "completion": a}),
        "prompt: A field this format needs is empty",
        "--column text=completion",
        {"text": "completion"},
    ),
    "one text": (
        as_lines([{"id": n, "essay": q + " " + a} for n, (q, a) in enumerate(TEA)]),
        "id, essay",
        "{text: essay}",
        {"text": "essay"},
    ),
    "an answer that is an object": (
        rows(lambda q, a: {"instruction": q, "output": {"tea": a}}),
        'output: The field must be text, but it is an object. Found: {"tea": "Two minutes."}',
        "json.dumps",
        None,
    ),
    "a picture": (
        rows(
            lambda q, a: {
                "messages": [
                    {
                        "role": U,
                        "content": [{"type": "image_url", "image_url": {"url": "x"}}, {"type": "text", "text": q}],
                    },
                    {"role": A, "content": a},
                ]
            }
        ),
        "messages[0].content[0]: The turn holds an image",
        "text",
        None,
    ),
    "history of another kind": (
        rows(lambda q, a: {"query": q, "response": a, "history": [{"x": 1}]}),
        "history[0]",
        "text",
        None,
    ),
    "an empty turn of a history": (
        rows(lambda q, a: {"query": q, "response": a, "history": [["Tea?", None]]}),
        "history[0][1]",
        "Fill it",
        None,
    ),
    "a batch's output": (
        rows(lambda q, a: {"custom_id": q, "response": {"body": {"choices": [{"message": {"content": a}}]}}}),
        "custom_id",
        "request file",
        None,
    ),
    "answers in a list": (
        rows(lambda q, a: {"question": q, "answers": [a]}),
        "question, answers",
        "--column prompt=question --column answer=answers.0",
        {"prompt": "question", "answer": "answers.0"},
    ),
    "questions alone": (
        rows(lambda q, a: {"prompt": turns(q, a)[:1], "reward": 1}),
        "prompt, reward",
        "none of them is the assistant's",
        None,
    ),
    "questions in turns": (rows(lambda q, a: {"id": 1, "turns": [q, q]}), "id, turns", "No column holds", None),
    "turns of strange keys": (
        rows(lambda q, a: {"messages": [{"in": q, "out": a}]}),
        "messages",
        "messages[0] holds in, out",
        None,
    ),
    "printed by Python": (
        str([{"prompt": q, "completion": a} for q, a in TEA]).encode(),
        "not whole JSON",
        "json.dumps",
        None,
    ),
    "questions as keys": (json.dumps(dict(TEA)).encode(), "How long", "write each as a row", None),
    "nothing but numbers": (as_lines([{"x": 1, "y": 2}] * 3), "x, y", "No column holds a question", None),
    "conversations that part early": (
        as_lines(
            [
                {
                    "chosen": "\n\nHuman: a?\n\nAssistant: b\n\nHuman: c?\n\nAssistant: d",
                    "rejected": "\n\nHuman: a?\n\nAssistant: x\n\nHuman: y?\n\nAssistant: z",
                }
            ]
        ),
        "They part at turn 2",
        "data.format: chosen",
        None,
    ),
    "one turn a row, nothing more": (
        as_lines([one for q, a in TEA for one in turns(q, a)]),
        "one turn a row",
        "conversation_id",
        None,
    ),
    "full-width signs": ('[{"prompt"：“a”，"completion":"b"}]'.encode(), "line 1", "Full-width", None),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refused_with_a_way_that_works(kind: str, home: Path, tmp_path: Path) -> None:
    content, message, hint, mapping = REFUSED[kind]
    path = write(tmp_path, content)
    with pytest.raises(DataError) as refused:
        data.read(path)
    assert message in refused.value.message
    assert hint in refused.value.hint
    if mapping:
        found = data.read(path, mapping=mapping)
        assert (len(found.conversations), found.refused) == (3, 0)
        wanted = TEA[0][0] if found.format != "text" else ""
        assert not wanted or said(found.conversations[0]) == BOTH


def test_calls_and_results_of_anthropic_are_turns(home: Path, tmp_path: Path) -> None:
    blocks = [
        {"role": U, "content": [{"type": "text", "text": "Boil it."}]},
        {
            "role": A,
            "content": [
                {"type": "thinking", "thinking": "Eighty."},
                {"type": "text", "text": "I do."},
                {"type": "tool_use", "id": "t1", "name": "kettle", "input": {"degrees": 80}},
            ],
        },
        {
            "role": U,
            "content": [{"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "hot"}]}],
        },
        {"role": A, "content": [{"type": "text", "text": "It is hot."}]},
    ]
    conversation = data.read(write(tmp_path, as_lines([{"messages": blocks}]))).conversations[0]
    assert said(conversation) == [(U, "Boil it."), (A, "I do."), ("tool", "hot"), (A, "It is hot.")]
    assert conversation["messages"][1]["tool_calls"] == [{"type": "function", "function": CALL, "id": "t1"}]
    assert conversation["messages"][1]["reasoning_content"] == "Eighty."


def test_calls_of_gemini(home: Path, tmp_path: Path) -> None:
    row = {
        "contents": [
            {"role": "user", "parts": [{"text": "Boil it."}]},
            {"role": "model", "parts": [{"functionCall": {"name": "kettle", "args": {"degrees": 80}}}]},
            {"role": "user", "parts": [{"functionResponse": {"name": "kettle", "response": {"done": True}}}]},
            {"role": "model", "parts": [{"text": "Hot."}]},
        ],
        "tools": [{"functionDeclarations": [{"name": "kettle"}]}],
    }
    conversation = data.read(write(tmp_path, as_lines([row]))).conversations[0]
    assert said(conversation) == [(U, "Boil it."), (A, ""), ("tool", '{"done": true}'), (A, "Hot.")]
    assert conversation["messages"][1]["tool_calls"][0]["function"] == CALL
    assert conversation["tools"] == [{"type": "function", "function": {"name": "kettle"}}]


def test_one_turn_a_row_is_gathered(home: Path, tmp_path: Path) -> None:
    """By an id, whatever the order of the rows; by parents, along the answers ranked best."""
    flat = [
        {"session_id": n, "turn": k, "role": role, "content": text}
        for n, pair in enumerate(TEA)
        for k, (role, text) in enumerate(zip((U, A), pair))
    ]
    found = data.read(write(tmp_path, as_lines(flat[::-1])))
    assert sorted(said(c)[0][1] for c in found.conversations) == sorted(q for q, _ in TEA)
    assert all(said(c)[1][1] == dict(TEA)[said(c)[0][1]] for c in found.conversations)
    told = "Rows of one turn each were gathered into conversations, by the column session_id: 6 into 3."
    assert found.notes == [told]
    tree = [
        {"message_id": "q", "parent_id": None, "role": "prompter", "text": "Tea?", "rank": None},
        {"message_id": "a", "parent_id": "q", "role": "assistant", "text": "No.", "rank": 1},
        {"message_id": "b", "parent_id": "q", "role": "assistant", "text": "Yes.", "rank": 0},
    ]
    found = data.read(write(tmp_path, as_lines(tree)))
    assert said(found.conversations[0]) == [(U, "Tea?"), (A, "Yes.")]
    assert found.notes[0].endswith("in no conversation: 1.")


def test_what_is_not_used_is_known(home: Path, tmp_path: Path) -> None:
    found = data.read(
        write(
            tmp_path,
            as_lines(
                [
                    {"id": n, "messages": [m | {"stamp": 1} for m in turns(q, a)], "images": ["x.png"], "empty": None}
                    for n, (q, a) in enumerate(TEA)
                ]
            ),
        )
    )
    assert found.unused == ["id", "messages[].stamp", "images"]
    found = data.read(write(tmp_path, as_lines([{"text": q, "label": n % 2} for n, (q, _) in enumerate(TEA)])))
    assert (found.format, found.unused) == ("text", ["label"])
    way = data.classification_mapping(found.columns, found.unused, found.format)
    assert way == {"prompt": "text", "answer": "label"}
    assert said(data.read(tmp_path / "file", mapping=way).conversations[1]) == [(U, TEA[1][0]), (A, "1")]
    found = data.read(write(tmp_path, rows(lambda q, a: {"messages": turns("<image>\n" + q, a)})))
    assert found.counts["media"] == 3


def test_an_entry_of_dataset_info(home: Path, tmp_path: Path) -> None:
    write(tmp_path, rows(lambda q, a: {"instruction": q, "output": a}), "tea.jsonl")
    write(tmp_path, rows(lambda q, a: {"body": q + " " + a}), "web.jsonl")
    entries = {
        "plain": {"file_name": "tea.jsonl"},
        "sha": {"file_name": "tea.jsonl", "file_sha1": "0" * 40},
        "two": {"file_name": "tea.jsonl", "num_samples": 2},
        "web": {"file_name": "web.jsonl", "columns": {"prompt": "body"}},
    }
    info = write(tmp_path, json.dumps(entries).encode(), "dataset_info.json")
    assert data.read(f"{info}:plain").rows == 3
    assert "file_sha1" in data.read(f"{info}:sha").notes[0]
    assert (data.read(f"{info}:two").rows, data.read(f"{info}:two").notes) == (
        2,
        ["num_samples is 2: the first 2 rows are read."],
    )
    assert data.read(f"{info}:web").conversations[0]["text"] == " ".join(TEA[0])


def test_nulls_that_arrow_fills_in_are_absent(home: Path, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def calling(arguments: dict[str, Any]) -> dict[str, Any]:
        call = {"type": "function", "function": {"name": "f", "arguments": arguments}}
        return {
            "messages": [
                {"role": U, "content": "Do."},
                {"role": A, "content": "", "tool_calls": [call]},
                {"role": "tool", "content": "done"},
                {"role": A, "content": "Done."},
            ],
            "tools": [
                {
                    "type": "function",
                    "function": {
                        "name": "f",
                        "parameters": {"type": "object", "properties": {k: {"type": "string"} for k in arguments}},
                    },
                }
            ],
        }

    made = [calling({"x": "1"}), calling({"words": "hello"})]
    pq.write_table(pa.Table.from_pylist(made), tmp_path / "t.parquet")
    table, lines = data.read(tmp_path / "t.parquet"), data.read(write(tmp_path, as_lines(made), "t.jsonl"))
    for one, other in zip(table.conversations, lines.conversations, strict=True):
        assert one["messages"][1]["tool_calls"] == other["messages"][1]["tool_calls"]
        assert one["tools"] == other["tools"]


def test_a_text_in_a_turn_of_its_own_is_plain_text(home: Path, tmp_path: Path) -> None:
    found = data.read(write(tmp_path, rows(lambda q, a: {"messages": [{"role": "pretrain", "content": a}]})))
    assert (found.format, [one["text"] for one in found.conversations]) == ("text", [a for _, a in TEA])
