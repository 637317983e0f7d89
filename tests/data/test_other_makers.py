"""Files of other makers and programs, rebuilt small: what each is read as, or the sentence and the way out of it."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from studio import data
from studio.data import DataOrder
from studio.data.preparing import prepare
from studio.errors import DataError
from studio.tokens import Encoder
from tests.data.fixtures import as_lines
from tests.data.test_shapes import TEA, A, U, rows, said, turns, write
from tests.data.test_trained import encoder_of, trained

Q, ANSWER = TEA[0]
BOTH = [(U, Q), (A, ANSWER)]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOL = {"name": "get_weather", "description": "Weather", "parameters": SCHEMA}
CALL = {"name": "get_weather", "arguments": {"city": "Rome"}}
AS_TEXT = json.dumps(CALL)


def called(conversation: dict[str, Any]) -> list[tuple[str, Any]]:
    """(name, arguments) of every call."""
    calls = [call["function"] for m in conversation["messages"] for call in m.get("tool_calls") or ()]
    return [
        (c["name"], c["arguments"] if isinstance(c["arguments"], dict) else json.loads(c["arguments"])) for c in calls
    ]


GLAIVE = {
    "system": "SYSTEM: You are helpful. Use these functions -\n" + json.dumps(TOOL, indent=1),
    "chat": f"USER: {Q}\n\n\nASSISTANT: <functioncall> "
    '{"name": "get_weather", "arguments": \'{"city": "Rome"}\'} <|endoftext|>\n\n\n'
    'FUNCTION RESPONSE: {"t": 21}\n\n\nASSISTANT: It is 21 degrees. <|endoftext|>\n',
}
RESPONSES = {
    "instructions": "Brief.",
    "input": [{"role": U, "content": [{"type": "input_text", "text": Q}]}],
    "output": [
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "I look."}]},
        {"type": "function_call", "call_id": "c1", "name": "get_weather", "arguments": '{"city": "Rome"}'},
        {"type": "function_call_output", "call_id": "c1", "output": "21"},
        {"type": "message", "role": A, "content": [{"type": "output_text", "text": "It is 21."}]},
    ],
    "tools": [{"type": "function", **TOOL}],
}
TAGGED = f"I look.\n<tool_call>\n{AS_TEXT}\n</tool_call>"
WITH_TOOLS: dict[str, Any] = {
    "xLAM": {"id": 0, "query": Q, "answers": json.dumps([CALL]), "tools": json.dumps([TOOL])},
    "xLAM, as objects": {"query": Q, "answers": [CALL], "tools": [TOOL]},
    "Alpaca with tools": {"instruction": Q, "input": "", "output": AS_TEXT, "tools": json.dumps([TOOL])},
    "Glaive": GLAIVE,
    "Glaive, in a line": GLAIVE | {"chat": " ".join(GLAIVE["chat"].split())},
    "OpenAI's Responses": RESPONSES,
    "Anthropic's input_schema": {
        "tools": [{"name": "get_weather", "description": "Weather", "input_schema": SCHEMA}],
        "messages": [
            {"role": U, "content": Q},
            {"role": A, "content": [{"type": "tool_use", "id": "1", "name": "get_weather", "input": {"city": "Rome"}}]},
            {"role": U, "content": [{"type": "tool_result", "tool_use_id": "1", "content": "21"}]},
            {"role": A, "content": "It is 21."},
        ],
    },
    **{
        f"a call as {maker} writes it": {
            "tools": [TOOL],
            "messages": [
                {"role": U, "content": Q},
                {"role": A, "content": words},
                {"role": "tool", "content": "21"},
                {"role": A, "content": "It is 21."},
            ],
        }
        for maker, words in {
            "Mistral": f"[TOOL_CALLS] [{AS_TEXT}]",
            "Llama 3": f"<|python_tag|>{AS_TEXT.replace('arguments', 'parameters')}<|eom_id|>",
            "Llama 3, of its own": '<|python_tag|>get_weather.call(city="Rome")<|eom_id|>',
            "Gorilla": 'get_weather(city="Rome")',
            "Muse": ' to=get_weather\n{"city": "Rome"}',
            "Llama 3.1": '<function=get_weather>{"city": "Rome"}</function>',
            "Qwen 3, after a thought": f"<think>\nOslo?\n</think>\n\n<tool_call>\n{AS_TEXT}\n</tool_call>",
        }.items()
    },
    "calls in tags, tools in a column": {
        "tools": [TOOL],
        "messages": [
            {"role": U, "content": Q},
            {"role": A, "content": TAGGED},
            {"role": "tool", "content": "<tool_response>\n21\n</tool_response>"},
            {"role": A, "content": "It is 21."},
        ],
    },
}


@pytest.mark.parametrize("kind", WITH_TOOLS)
def test_calls_and_tools_are_read(kind: str, home: Path, tmp_path: Path, tiny_model: Path) -> None:
    read = data.read(write(tmp_path, as_lines([WITH_TOOLS[kind]] * 2)))
    conversation = read.conversations[0]
    assert (read.format, read.refused, called(conversation)) == ("chatml", 0, [("get_weather", {"city": "Rome"})])
    assert conversation["tools"] == [{"type": "function", "function": TOOL}]
    learnt = trained(encoder_of(tiny_model), conversation)
    assert learnt.count("<tool_call>") == 1
    assert '"city": "Rome"' in learnt
    assert Q not in learnt


def test_a_result_is_wrapped_once(home: Path, tmp_path: Path, tiny_model: Path) -> None:
    hermes = [
        {"from": "system", "value": f"Call functions. <tools>{json.dumps(TOOL)}</tools>"},
        {"from": "human", "value": Q},
        {"from": "gpt", "value": f"<tool_call>\n{AS_TEXT}\n</tool_call>"},
        {"from": "tool", "value": "<tool_response>\n21\n</tool_response>"},
        {"from": "gpt", "value": "It is 21."},
    ]
    conversation = data.read(write(tmp_path, as_lines([{"conversations": hermes}]))).conversations[0]
    assert encoder_of(tiny_model).encode(conversation).text.count("<tool_response>") == 1
    assert trained(encoder_of(tiny_model), conversation).count("<tool_call>") == 1


def test_the_function_tag_of_an_entry_is_a_call(home: Path, tmp_path: Path) -> None:
    entry = {
        "file_name": "a.json",
        "formatting": "sharegpt",
        "columns": {"messages": "m"},
        "tags": {"role_tag": "r", "content_tag": "c", "user_tag": "U", "assistant_tag": "B", "observation_tag": "O",
                 "function_tag": "F"},
    }  # fmt: skip
    spoken = [("U", Q), ("F", AS_TEXT), ("O", "21"), ("B", "It is 21.")]
    write(tmp_path, json.dumps([{"m": [{"r": r, "c": c} for r, c in spoken]}] * 2).encode(), "a.json")
    write(tmp_path, json.dumps({"w": entry}).encode(), "dataset_info.json")
    read = data.read(f"{tmp_path}/dataset_info.json:w")
    assert called(read.conversations[0]) == [("get_weather", {"city": "Rome"})]


def test_arguments_that_are_no_json_are_told(home: Path, tmp_path: Path) -> None:
    call = {"function": {"name": "get_weather", "arguments": '{"city": "Rome"'}}
    messages = [{"role": U, "content": Q}, {"role": A, "tool_calls": [call]}, {"role": "tool", "content": "21"}]
    read = data.read(write(tmp_path, as_lines([{"messages": [*messages, {"role": A, "content": "21."}]}])))
    assert [(p.kind, p.field) for p in read.problems] == [("odd_call", "messages[1].tool_calls")]


# -- verdicts and comparisons

VERDICTS: dict[str, tuple[Any, Any]] = {
    "thumbs_up": (True, False),
    "desirable": (1, 0),
    "is_correct": ("TRUE", "FALSE"),
    "label": (1.0, 0.0),
    "kto_tag": (1, -1),
    "feedback": ("good", "bad"),
    "rating": ("Thumbs_Up", "thumbs_down"),
    "is_good": ("1", "0"),
    "verdict": ("accepted", "rejected"),
}


@pytest.mark.parametrize("name", VERDICTS)
def test_an_answer_called_bad_is_not_learnt(name: str, home: Path, tmp_path: Path) -> None:
    good, bad = VERDICTS[name]
    lines = [{"question": q, "answer": a, name: bad if n == 1 else good} for n, (q, a) in enumerate(TEA)]
    path = write(tmp_path, as_lines(lines))
    read = data.read(path)
    assert (read.format, read.stage, [c["label"] for c in read.conversations]) == (
        "kto",
        "preference",
        [True, False, True],
    )
    for format in ("prompt", "good"):
        learnt = data.read(path, format)
        assert [said(c)[-1][1] for c in learnt.conversations] == [TEA[0][1], TEA[2][1]]
        assert learnt.counts == {"bad_answer": 1}
    columns = {"prompt": "question", "answer": "answer", "label": name}
    assert len(data.read(path, "good", columns).conversations) == 2


def test_the_refusal_of_verdicts_names_a_way_that_works(home: Path, tmp_path: Path, tiny_model: Path) -> None:
    lines = [{"question": q, "answer": a, "liked": n != 1} for n, (q, a) in enumerate(TEA)]
    order = DataOrder(train=str(write(tmp_path, as_lines(lines))), eval=0.0, template="chatml")
    with pytest.raises(DataError, match="preference data") as refusal:
        prepare(order, Encoder.from_order(order, tiny_model), tmp_path / "run")
    assert "data.format to good" in refusal.value.hint
    assert len(data.read(order.train, "good").conversations) == 2


def test_a_mark_out_of_five_is_no_verdict(home: Path, tmp_path: Path) -> None:
    read = data.read(write(tmp_path, as_lines([{"question": q, "answer": a, "rating": 1} for q, a in TEA])))
    assert (read.format, read.unused) == ("prompt", ["rating"])


COMPARISONS: dict[str, Any] = {
    "winner and loser": lambda q, a: {"question": q, "winner": a, "loser": "No."},
    "good and bad": lambda q, a: {"prompt": q, "good_answer": a, "bad_answer": "No."},
    "chosen_answer": lambda q, a: {"prompt": q, "chosen_answer": a, "rejected_answer": "No."},
    "y_w and y_l": lambda q, a: {"prompt": q, "y_w": a, "y_l": "No."},
    "which of two": lambda q, a: {"prompt": q, "response_0": "No.", "response_1": a, "better_response_id": 1},
    "by a letter": lambda q, a: {"prompt": q, "response_a": "No.", "response_b": a, "preference": "B"},
    "by a name": lambda q, a: {"prompt": q, "answer_1": a, "answer_2": "No.", "preferred": "answer_1"},
    "AlpacaFarm": lambda q, a: {"instruction": q, "output_1": "No.", "output_2": a, "preference": 2},
    "SHP": lambda q, a: {"history": q, "human_ref_A": a, "human_ref_B": "No.", "labels": 1},
    "an arena": lambda q, a: {
        "model_a": "x", "model_b": "y", "winner": "model_b", "conversation_a": turns(q, "No."),
        "conversation_b": turns(q, a),
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", COMPARISONS)
def test_comparisons_under_odd_names(kind: str, home: Path, tmp_path: Path) -> None:
    read = data.read(write(tmp_path, rows(COMPARISONS[kind])))
    assert (read.format, read.refused, said(read.conversations[0])) == ("preference", 0, BOTH)
    assert read.conversations[0]["rejected"] == "No."


@pytest.mark.parametrize("verdict", ["tie", "tie (bothbad)", 1, 0, True])
def test_a_verdict_that_is_not_sure_is_refused(verdict: Any, home: Path, tmp_path: Path) -> None:
    """Whether 1 means response_1 or the second one is not known."""
    lines = [{"prompt": q, "response_1": a, "response_2": "No.", "winner": verdict} for q, a in TEA]
    with pytest.raises(DataError, match="row 1, winner: It must name the better answer: response_1 or response_2"):
        data.read(write(tmp_path, as_lines(lines)))


@pytest.mark.parametrize("columns", [("response_1", "response_2"), ("answer_a", "answer_b")])
def test_numbers_that_name_the_better_answer(columns: tuple[str, str], home: Path, tmp_path: Path) -> None:
    """A 2 tells that they count from 1; where there is none, the hint of the refusal names an option that works."""
    first, second = columns
    both = [{"prompt": q, first: a, second: "No.", "label": 1} for q, a in TEA]
    turned = {"prompt": "Tea or milk?", first: "No.", second: "Tea.", "label": "2"}
    read = data.read(write(tmp_path, as_lines([*both, turned])))
    assert [c["rejected"] for c in read.conversations] == ["No."] * (len(TEA) + 1)
    with pytest.raises(DataError, match="Whether numbers count from 0 or from 1 is not known") as refusal:
        data.read(path := write(tmp_path, as_lines(both)))
    option, _ = refusal.value.hint.rpartition("--column ")[2].split("=")
    rejected = {number: data.read(path, mapping={option: number}).conversations[0]["rejected"] for number in "10"}
    assert rejected == {"1": "No.", "0": TEA[0][1]}


# -- what is learnt of a turn

WRONG, RIGHT = {"role": A, "content": "wrong one"}, {"role": A, "content": "right one"}
ASKED, AGAIN = {"role": U, "content": "a?"}, {"role": U, "content": "b?"}
MASKS: dict[str, Any] = {
    "words for numbers": {"messages": [ASKED, WRONG | {"weight": "0"}, AGAIN, RIGHT | {"weight": "1"}]},
    "as floats": {"messages": [ASKED, WRONG | {"weight": 0.0}, AGAIN, RIGHT | {"weight": 1.0}]},
    "train_on_turn": {"messages": [ASKED, WRONG | {"train_on_turn": False}, AGAIN, RIGHT]},
    "learn, in words": {"messages": [ASKED, WRONG | {"learn": "false"}, AGAIN, RIGHT | {"learn": "true"}]},
    "a mask at the turn": {"messages": [ASKED, WRONG | {"loss_mask": 0}, AGAIN, RIGHT | {"loss_mask": 1}]},
    "a mask for the row": {"messages": [ASKED, WRONG, AGAIN, RIGHT], "loss_mask": [0, 0, 0, 1]},
}


@pytest.mark.parametrize("kind", MASKS)
def test_a_turn_marked_out_is_not_learnt(kind: str, home: Path, tmp_path: Path, tiny_model: Path) -> None:
    read = data.read(write(tmp_path, as_lines([MASKS[kind]])))
    assert trained(encoder_of(tiny_model), read.conversations[0]) == "right one<|im_end|>"
    assert read.unused == []


@pytest.mark.parametrize("extra", [{"loss_mask": [1, 0]}, {"loss_mask": [0, 0.5, 0, 1]}, None])
def test_a_mask_that_is_not_heeded_is_told(extra: dict[str, Any] | None, home: Path, tmp_path: Path) -> None:
    row: dict[str, Any] = {"messages": [ASKED, WRONG if extra else WRONG | {"mask": True}, AGAIN, RIGHT]} | (
        extra or {}
    )
    (problem,) = data.read(write(tmp_path, as_lines([row]))).problems
    field = "loss_mask" if extra else "messages[1].mask"
    assert (problem.kind, problem.field) == ("unheeded_flag", field)
    assert "weight: 0" in problem.hint


THOUGHTS = {
    "a turn of its own": [ASKED, {"role": "thought", "content": "I think."}, RIGHT],
    "a channel": [ASKED, {"role": A, "channel": "analysis", "content": "I think."}, RIGHT | {"channel": "final"}],
    "two of them": [ASKED, {"role": "thinking", "content": "I"}, {"role": "thinking", "content": "think."}, RIGHT],
}


@pytest.mark.parametrize("kind", THOUGHTS)
def test_reasoning_in_turns_belongs_to_the_answer(kind: str, home: Path, tmp_path: Path, tiny_model: Path) -> None:
    read = data.read(write(tmp_path, as_lines([{"messages": THOUGHTS[kind]}])))
    (conversation,) = read.conversations
    assert (said(conversation), read.refused) == ([(U, "a?"), (A, "right one")], 0)
    assert conversation["messages"][1]["reasoning_content"].split() == ["I", "think."]


def test_reasoning_without_an_answer_is_refused(home: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"messages\[1\]: No answer follows this reasoning"):
        data.read(write(tmp_path, as_lines([{"messages": THOUGHTS["a turn of its own"][:2]}])))


# -- layouts

LAYOUTS: dict[str, tuple[bytes, list[tuple[str, str]]]] = {
    "deep inside objects": (rows(lambda q, a: {"data": {"item": {"record": {"messages": turns(q, a)}}}}), BOTH),
    "an index's hits": (rows(lambda q, a: {"_id": 1, "_source": {"conversation": turns(q, a)}}), BOTH),
    "input and output of a trace": (
        rows(lambda q, a: {"id": 1, "input": {"messages": turns(q, a)[:1]}, "output": turns(q, a)[1]}),
        BOTH,
    ),
    "inputs and outputs": (rows(lambda q, a: {"inputs": {"question": q}, "outputs": {"answer": a}}), BOTH),
    "texts in objects": (rows(lambda q, a: {"prompt": {"text": q}, "response": {"text": a}}), BOTH),
    "numbered columns": (
        rows(lambda q, a: {"user_1": "Tea?", "assistant_1": "Yes.", "user_2": q, "assistant_2": a, "user_3": "",
                           "assistant_3": ""}),  # fmt: skip
        [(U, "Tea?"), (A, "Yes."), *BOTH],
    ),
    "cells in single quotation marks": (f"'prompt','completion'\n'{Q}','{ANSWER}'\n'a, b?','It''s c'\n".encode(), BOTH),
    "apostrophes at the beginning": (f"prompt,completion\n{Q},{ANSWER}\n'tis so?,'tis.\n".encode(), BOTH),
}  # fmt: skip


@pytest.mark.parametrize("kind", LAYOUTS)
def test_layouts(kind: str, home: Path, tmp_path: Path) -> None:
    content, expected = LAYOUTS[kind]
    read = data.read(write(tmp_path, content))
    assert (read.refused, said(read.conversations[0])) == (0, expected)
    if "quotation" in kind:
        assert said(read.conversations[1]) == [(U, "a, b?"), (A, "It's c")]
    if "apostrophes" in kind:
        assert said(read.conversations[1]) == [(U, "'tis so?"), (A, "'tis.")]


def test_history_as_json_under_another_name(home: Path, tmp_path: Path) -> None:
    path = write(tmp_path, f'frage,antwort,verlauf\n{Q},{ANSWER},"[[""Tea?"", ""Yes.""]]"\n'.encode(), "a.csv")
    read = data.read(path, "auto", {"prompt": "frage", "answer": "antwort", "history": "verlauf"})
    assert said(read.conversations[0]) == [(U, "Tea?"), (A, "Yes."), *BOTH]


TELEGRAM = {
    "name": "Ben",
    "messages": [
        {"type": "message", "from": "Ann", "text": Q},
        {"type": "message", "from": "Ben", "text": [ANSWER[:4], {"type": "bold", "text": ANSWER[4:]}]},
        {"type": "service", "actor": "Ann", "action": "phone_call", "text": ""},
    ],
}
DISCORD = {
    "messages": [
        {"content": Q, "author": {"id": "9", "name": "Ann"}},
        {"content": ANSWER, "author": {"id": "8", "name": "Ben"}},
    ]
}


@pytest.mark.parametrize("export", [TELEGRAM, DISCORD], ids=["Telegram", "Discord"])
def test_people_of_a_chat_program(export: dict[str, Any], home: Path, tmp_path: Path) -> None:
    path = write(tmp_path, json.dumps(export).encode(), "result.json")
    with pytest.raises(DataError, match=r"messages\[0\]") as refusal:
        data.read(path)
    assert "--column user=Ann --column assistant=Ben" in refusal.value.hint
    assert said(data.read(path, "auto", {"user": "Ann", "assistant": "Ben"}).conversations[0]) == BOTH


@pytest.mark.parametrize("line", ["[12/03/2024, 10:01:02] Ann: Tea?", "[10:01] Ann: Tea?", "[Verse 1] Tea"])
def test_brackets_that_are_no_json(line: str, home: Path, tmp_path: Path) -> None:
    read = data.read(write(tmp_path, f"{line}\n{line}!\n".encode(), "chat.txt"))
    assert (read.format, read.conversations[0]["text"]) == ("text", line)


# -- files

LINES = as_lines([{"prompt": q, "completion": a} for q, a in TEA])


def test_what_an_archive_holds_beside_the_data_is_told(home: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("d/train.jsonl", "test/rows.jsonl", "more.zip", "d/README.md", "d/paper.pdf"):
            archive.writestr(name, LINES)
    read = data.read(tmp_path / "a.zip")
    assert len(read.conversations) == len(TEA)
    assert "Not read, as they are no data files: more.zip, d/paper.pdf." in read.notes
    assert "Left out, as their names say that they are for testing: test/rows.jsonl." in read.notes


@pytest.mark.parametrize("name", ["../../out.jsonl", "/var/out.jsonl", "a/../../../out.jsonl"])
def test_an_archive_writes_nothing_outside(name: str, home: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(name, LINES)
    assert len(data.read(tmp_path / "a.zip").conversations) == len(TEA)
    assert not list(tmp_path.rglob("out.jsonl"))
    assert not Path("/var/out.jsonl").exists()


def test_a_tar_archive_is_unpacked_by_hand(home: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        info = tarfile.TarInfo("d/train.jsonl")
        info.size = len(LINES)
        archive.addfile(info, io.BytesIO(LINES))
    with pytest.raises(DataError, match="a tar archive") as refusal:
        data.read(tmp_path / "a.tar.gz")
    assert "tar xf a.tar.gz" in refusal.value.hint
    subprocess.run(["tar", "xf", "a.tar.gz"], cwd=tmp_path, check=True)
    assert len(data.read(tmp_path / "d").conversations) == len(TEA)


def test_yaml_becomes_json_by_the_hint(home: Path, tmp_path: Path) -> None:
    write(tmp_path, f"- prompt: {Q}\n  completion: {ANSWER}\n".encode(), "a.yaml")
    with pytest.raises(DataError, match="is YAML") as refusal:
        data.read(tmp_path / "a.yaml")
    command = refusal.value.hint.split(": ", 1)[1].replace("python ", f"{sys.executable} ", 1)
    subprocess.run(command, shell=True, cwd=tmp_path, check=True)
    assert said(data.read(tmp_path / "a.json").conversations[0]) == BOTH


def test_an_odd_separator_is_named_by_the_hint(home: Path, tmp_path: Path) -> None:
    content = f"prompt^completion\n{Q}^{ANSWER}\na?^b, c\n"
    with pytest.raises(DataError) as refusal:
        data.read(write(tmp_path, content.encode(), "a.csv"))
    above = refusal.value.hint.rpartition(": ")[2]
    assert said(data.read(write(tmp_path, f"{above}\n{content}".encode(), "b.csv")).conversations[0]) == BOTH


def test_a_header_is_written_by_the_hint(home: Path, tmp_path: Path) -> None:
    content = "".join(f'"{q}","{a}"\n' for q, a in TEA)
    with pytest.raises(DataError) as refusal:
        data.read(write(tmp_path, content.encode(), "a.csv"))
    header = refusal.value.hint.rpartition(": ")[2]
    read = data.read(write(tmp_path, f"{header}\n{content}".encode(), "b.csv"))
    assert [said(c) for c in read.conversations] == [[(U, q), (A, a)] for q, a in TEA]


def test_the_databases_null_is_told(home: Path, tmp_path: Path) -> None:
    read = data.read(write(tmp_path, b"prompt\tcompletion\na b?\tc d\ne f?\t\\N\n", "a.tsv"))
    assert [(p.kind, p.row) for p in read.problems] == [("nan_text", 2)]
