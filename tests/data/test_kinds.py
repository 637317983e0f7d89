"""More kinds of public data sets and exports, rebuilt small: what each is read as, and hints that are followed."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from studio import data
from studio.commands.pairs import pairs_of
from studio.data.column_names import mapping_in
from studio.errors import DataError
from tests.data.fixtures import as_lines
from tests.data.test_other_makers import called
from tests.data.test_shapes import A, U, said, turns, write
from tests.data.test_trained import encoder_of, trained

Q, ANSWER, OTHER = "How long does it draw?", "Two minutes at most.", "No idea."
BOTH = [(U, Q), (A, ANSWER)]
CALL = {"name": "get_weather", "arguments": {"city": "Rome"}}
TOOL = {"name": "get_weather", "description": "Weather", "parameters": {"type": "object", "properties": {}}}
ASKED = {"role": U, "content": Q}
CALLING = {"role": A, "tool_calls": [{"id": "1", "type": "function", "function": CALL}]}
END = {"role": A, "content": "It is 21."}


def rows(**cells: Any) -> bytes:
    return as_lines([cells, cells | {"id": 2}])


# -- read, or read as told

READ: dict[str, tuple[str, dict[str, Any]]] = {
    "FLAN": ("prompt", {"inputs": Q, "targets": ANSWER, "task": "tea"}),
    "OpenMath's solutions": ("prompt", {"problem": Q, "generated_solution": ANSWER, "expected_answer": "2"}),
    "LangSmith's runs": (
        "chatml",
        {"inputs": {"messages": [ASKED]}, "outputs": {"choices": [{"message": {"role": A, "content": ANSWER}}]}},
    ),
    "Firebase's turns": (
        "chatml",
        {"messages": {"-N1": {"role": "user", "text": Q}, "-N2": {"role": A, "text": ANSWER}}},
    ),
    "marks of Magpie": ("alpaca", {"instruction": Q, "response": ANSWER, "quality": "good"}),
    "a header with blanks of no width": ("prompt", {"\u200bprompt": Q, "completion\u00a0": ANSWER}),
    "a dialogue's summary": ("prompt", {"conversation": Q, "summary": ANSWER}),
    "R1's fields": ("prompt", {"input": Q, "reasoning_content": "I think.", "content": ANSWER}),
    "a refusal": ("chatml", {"messages": [ASKED, {"role": A, "content": None, "refusal": ANSWER}]}),
    "a refusal as a part": (
        "chatml",
        {"messages": [ASKED, {"role": A, "content": [{"type": "refusal", "refusal": ANSWER}]}]},
    ),
    "scores of two answers": (
        "preference",
        {"question": {"full_text": Q}, "answer_0": OTHER, "score_0": -1.0, "answer_1": ANSWER, "score_1": 1.0},
    ),
    "HelpSteer's strength": (
        "preference",
        {"prompt": Q, "response_1": ANSWER, "response_2": OTHER, "preference_strength": -2},
    ),
    "HelpSteer3": (
        "preference",
        {"context": [ASKED], "response1": ANSWER, "response2": OTHER, "overall_preference": -2},
    ),
    "LMSYS": (
        "preference",
        {
            **{"prompt": json.dumps([Q]), "response_a": json.dumps([OTHER]), "response_b": json.dumps([ANSWER])},
            **{"model_a": "x", "model_b": "y", "winner_model_a": "0", "winner_model_b": "1", "winner_tie": "0"},
        },
    ),
    "ms-swift's two conversations": (
        "preference",
        {"messages": turns(Q, ANSWER), "rejected_messages": turns(Q, OTHER)},
    ),
    "a history that ends with the question": ("prompt", {"prompt": Q, "response": ANSWER, "history": [ASKED]}),
    "Chinese columns": ("alpaca", {"指令": Q, "输入": "", "输出": ANSWER}),
    "whole conversations beside a template": (
        "preference",
        {"conversation": [{"input": Q, "output": None}], "chosen": turns(Q, ANSWER), "rejected": turns(Q, OTHER)},
    ),
}


@pytest.mark.parametrize("kind", READ)
def test_read(kind: str, home: Path, tmp_path: Path) -> None:
    format, cells = READ[kind]
    read = data.read(write(tmp_path, rows(**cells)))
    assert (read.format, read.refused, said(read.conversations[0])) == (format, 0, BOTH)
    if format == "preference":
        assert read.conversations[0]["rejected"] == OTHER


BEFORE = [(U, "Is there tea?"), (A, "There is.")]


CHAT_LINES = {
    "WhatsApp": "12/03/24, 10:01 - Ann: {0}\n12/03/24, 10:02 - Bob: {1}\n12/03/24, 10:03 - Bob: {2}\n",
    "LINE": "10:01\tAnn\t{0}\n10:02\tBob\t{1}\n10:03\tBob\t{2}\n",
    "IRC": "[10:01] <Ann> {0}\n[10:02] <Bob> {1}\n[10:03] <Bob> {2}\n",
    "a meeting": "00:01:02 Ann: {0}\n00:01:05 Bob: {1}\n00:01:09 Bob: {2}\n",
}


def test_a_log_of_a_program_is_no_chat(home: Path, tmp_path: Path) -> None:
    log = write(tmp_path, b"10:00:01 INFO: It began.\n10:00:02 ERROR: It broke.\n10:00:03 INFO: It ended.\n", "log.txt")
    assert data.read(log).format == "text"


@pytest.mark.parametrize("maker", CHAT_LINES)
def test_an_exported_chat_becomes_turns_by_the_hints(maker: str, home: Path, tmp_path: Path) -> None:
    chat = CHAT_LINES[maker].format(Q, "Two minutes", "at most.")
    chat = ("12/03/24, 10:00 - Messages are encrypted.\n" if maker == "WhatsApp" else "") + chat + chat
    with pytest.raises(DataError, match="an exported chat") as refusal:
        data.read(write(tmp_path, chat.encode(), "chat.txt"))
    command = refusal.value.hint.split(": ", 1)[1].replace("python ", f"{sys.executable} ", 1)
    subprocess.run(command, shell=True, cwd=tmp_path, check=True)
    with pytest.raises(DataError, match="between Ann, Bob") as refusal:
        data.read(tmp_path / "chat.json")
    (conversation,) = data.read(tmp_path / "chat.json", mapping=mapping_in(refusal.value.hint)).conversations
    assert said(conversation) == [(U, Q), (A, "Two minutes\nat most.")] * 2


def test_a_thought_in_an_export_of_chatgpt_is_reasoning(home: Path, tmp_path: Path) -> None:
    contents: list[tuple[str, dict[str, Any]]] = [
        (U, {"content_type": "text", "parts": [Q]}),
        (A, {"content_type": "thoughts", "thoughts": [{"summary": "s", "content": "It is tea."}]}),
        (A, {"content_type": "reasoning_recap", "content": "Thought for 2 seconds"}),
        (A, {"content_type": "text", "parts": [ANSWER]}),
    ]
    nodes = {
        str(n): {"message": {"author": {"role": role}, "content": content}, "parent": str(n - 1), "children": []}
        for n, (role, content) in enumerate(contents)
    }
    read = data.read(write(tmp_path, json.dumps([{"mapping": nodes, "current_node": "3"}]).encode(), "a.json"))
    assert said(read.conversations[0]) == BOTH
    assert read.conversations[0]["messages"][1]["reasoning_content"] == "It is tea."


def test_marks_in_texts_in_turn_are_not_learnt(home: Path, tmp_path: Path) -> None:
    read = data.read(write(tmp_path, rows(data=[f"问：{Q}", f"答：{ANSWER}"])))
    assert said(read.conversations[0]) == BOTH


def test_values_of_a_google_sheet(home: Path, tmp_path: Path) -> None:
    sheet = {"range": "A1:B2", "majorDimension": "ROWS", "values": [["question", "answer"], [Q, ANSWER]]}
    assert said(data.read(write(tmp_path, json.dumps(sheet).encode(), "a.json")).conversations[0]) == BOTH


def test_keys_in_capitals(home: Path, tmp_path: Path) -> None:
    read = data.read(write(tmp_path, rows(Messages=turns(Q, ANSWER, "Role", "Content", ("User", "Assistant")))))
    assert said(read.conversations[0]) == BOTH


HISTORIES: dict[str, dict[str, Any]] = {
    "what led up to the answer": {"context": ["Is there tea?", "There is.", Q], "response": ANSWER},
    "past messages": {"past_messages": turns("Is there tea?", "There is."), "user": Q, "assistant": ANSWER},
    "in Chinese": {"问题": Q, "回答": ANSWER, "历史": [["Is there tea?", "There is."]]},
    "in a cell": {"question": Q, "answer": ANSWER, "chat_history": '[["Is there tea?", "There is."]]'},
}


@pytest.mark.parametrize("kind", HISTORIES)
def test_a_history_is_read(kind: str, home: Path, tmp_path: Path) -> None:
    read = data.read(write(tmp_path, as_lines([HISTORIES[kind]])))
    assert (said(read.conversations[0]), read.unused) == ([*BEFORE, *BOTH], [])


def test_a_history_that_ends_with_another_question_is_told(home: Path, tmp_path: Path) -> None:
    cells = {"prompt": Q, "response": ANSWER, "history": [{"role": U, "content": "Is there tea?"}]}
    (problem, _) = data.read(write(tmp_path, rows(**cells))).problems[:2]
    assert (problem.kind, problem.field) == ("role_order", "history[0]")


VERDICTS = [
    ("label", "yes", "no"),
    ("good", "Y", "N"),
    ("label", "1.0", "0.0"),
    ("标签", "好", "坏"),
    ("是否正确", "是", "否"),
    ("thumbs", "✅", "❌"),
]


@pytest.mark.parametrize(("name", "good", "bad"), VERDICTS)
def test_a_verdict_in_words_is_one(name: str, good: str, bad: str, home: Path, tmp_path: Path) -> None:
    lines = [{"prompt": Q, "completion": ANSWER, name: good}, {"prompt": Q, "completion": OTHER, name: bad}]
    read = data.read(write(tmp_path, as_lines(lines)))
    assert (read.format, [c["label"] for c in read.conversations]) == ("kto", [True, False])


def test_a_summary_that_is_the_documents_end_is_still_its_answer(home: Path, tmp_path: Path) -> None:
    read = data.read(write(tmp_path, rows(document=f"So: {ANSWER}", summary=ANSWER)))
    assert (read.format, said(read.conversations[0])) == ("prompt", [(U, f"So: {ANSWER}"), (A, ANSWER)])


def test_a_tie_of_scores_is_refused(home: Path, tmp_path: Path) -> None:
    cells = {"question": Q, "answer_0": ANSWER, "score_0": 1, "answer_1": OTHER, "score_1": 1}
    with pytest.raises(DataError, match="row 1, score_0: It must name the better answer"):
        data.read(write(tmp_path, rows(**cells)))


OBJECTS: dict[str, Any] = {
    "rows by two names": {"a": {"prompt": Q, "completion": ANSWER}, "b": {"prompt": "b?", "completion": "c"}},
    "conversations by name": {"a": {"messages": turns(Q, ANSWER)}, "b": {"messages": turns("b?", "c")}},
    "turns by name": {"a": turns(Q, ANSWER), "b": turns("b?", "c")},
}


@pytest.mark.parametrize("kind", OBJECTS)
def test_an_object_of_rows(kind: str, home: Path, tmp_path: Path) -> None:
    read = data.read(write(tmp_path, json.dumps(OBJECTS[kind]).encode(), "a.json"))
    assert (read.rows, said(read.conversations[0])) == (2, BOTH)


def test_a_task_of_natural_instructions_keeps_its_definition(home: Path, tmp_path: Path) -> None:
    examples = [{"input": "x", "output": "y", "explanation": "z"}]
    instances = [{"id": "1", "input": Q, "output": [ANSWER]}, {"id": "2", "input": "b?", "output": ["c"]}]
    task = {"Definition": ["Answer."], "Positive Examples": examples, "Instances": instances}
    read = data.read(write(tmp_path, json.dumps(task).encode(), "a.json"))
    assert [said(c)[0][1] for c in read.conversations] == [f"Answer.\n{Q}", "Answer.\nb?"]


def test_a_letter_is_surer_than_a_number(home: Path, tmp_path: Path) -> None:
    cells = {"question": Q, "options": ["one", "two", "three"], "answer": "B", "answer_index": 1}
    read = data.read(write(tmp_path, rows(**cells)))
    assert (said(read.conversations[0])[1][1], read.unsure, read.unused) == ("B. two", "", ["id"])


def test_lines_of_json_texts_are_texts(home: Path, tmp_path: Path) -> None:
    read = data.read(write(tmp_path, b'"Once upon a time."\n"It ended."\n', "a.jsonl"))
    assert (read.format, [c["text"] for c in read.conversations]) == ("text", ["Once upon a time.", "It ended."])


# -- tools

RESULTS = {"an object": {"t": 21}, "a list": [{"t": 21}], "a number": 21, "parts": [{"type": "text", "text": "21"}]}


@pytest.mark.parametrize("kind", RESULTS)
def test_a_result_that_is_no_text_is_its_json(kind: str, home: Path, tmp_path: Path) -> None:
    result = {"role": "tool", "tool_call_id": "1", "content": RESULTS[kind]}
    read = data.read(write(tmp_path, rows(messages=[ASKED, CALLING, result, END], tools=[TOOL])))
    text = "21" if kind == "parts" else json.dumps(RESULTS[kind])
    assert (read.refused, said(read.conversations[0])[2]) == (0, ("tool", text))


AZURE = {"type": "tool_result", "tool_result": {"report": "21"}}
BEDROCK = {"toolResult": {"toolUseId": "1", "content": [{"text": "21"}], "status": "success"}}
PARTS = {
    "Azure's agents": (
        {"type": "tool_call", "tool_call_id": "1", **CALL},
        {"role": "tool", "tool_call_id": "1", "content": [AZURE]},
        '{"report": "21"}',
    ),
    "Azure's agents, in words": (
        {"type": "tool_call", "tool_call_id": "1", **CALL},
        {"role": "tool", "content": [{"type": "tool_result", "tool_result": "21"}]},
        "21",
    ),
    "Bedrock": (
        {"toolUse": {"toolUseId": "1", "name": CALL["name"], "input": CALL["arguments"]}},
        {"role": U, "content": [BEDROCK]},
        "21",
    ),
}


@pytest.mark.parametrize("kind", PARTS)
def test_calls_and_results_in_parts(kind: str, home: Path, tmp_path: Path) -> None:
    calling, result, text = PARTS[kind]
    turns_of_row = [ASKED, {"role": A, "content": [calling]}, result, END]
    read = data.read(write(tmp_path, rows(messages=turns_of_row, tool_definitions=[TOOL])))
    conversation = read.conversations[0]
    assert (called(conversation), said(conversation)[2]) == ([("get_weather", {"city": "Rome"})], ("tool", text))
    assert (conversation["tools"], read.unused) == ([{"type": "function", "function": TOOL}], ["id"])


def test_a_picture_among_results_is_still_refused(home: Path, tmp_path: Path) -> None:
    result = {"role": "tool", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}
    with pytest.raises(DataError, match="The turn holds an image"):
        data.read(write(tmp_path, rows(messages=[ASKED, CALLING, result, END], tools=[TOOL])))


WITHOUT_TOOLS: dict[str, dict[str, Any]] = {
    "no tools": {"question": Q, "function_call": CALL},
    "an empty list of tools": {"query": Q, "answers": json.dumps([CALL]), "tools": "[]"},
    "tools by name": {"query": Q, "answers": [CALL], "tools": {"get_weather": {"description": "Weather"}}},
    "Python's quotation marks": {
        "tools": [TOOL],
        "conversations": [
            {"from": "human", "value": Q},
            {"from": "gpt", "value": f"<tool_call>\n{CALL}\n</tool_call>"},
        ],
    },
}


@pytest.mark.parametrize("kind", WITHOUT_TOOLS)
def test_calls_are_calls(kind: str, home: Path, tmp_path: Path, tiny_model: Path) -> None:
    conversation = data.read(write(tmp_path, rows(**WITHOUT_TOOLS[kind]))).conversations[0]
    assert called(conversation) == [("get_weather", {"city": "Rome"})]
    assert '"city": "Rome"' in trained(encoder_of(tiny_model), conversation)
    if kind == "tools by name":
        assert conversation["tools"][0]["function"]["name"] == "get_weather"


def test_an_answer_without_a_call_is_refused(home: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="row 1, answers: No function is called and nothing is said"):
        data.read(write(tmp_path, rows(query=Q, answers="[]", tools=json.dumps([TOOL]))))


def test_tags_around_what_is_no_json_are_told(home: Path, tmp_path: Path) -> None:
    words = {"role": A, "content": "<tool_call>\nthe weather in {Rome}\n</tool_call>"}
    read = data.read(write(tmp_path, rows(messages=[ASKED, words])))
    assert [(p.kind, p.field) for p in read.problems][:1] == [("odd_call", "messages[1]")]


def test_a_call_of_a_tool_that_is_not_declared_is_told(home: Path, tmp_path: Path) -> None:
    calling = CALLING | {"tool_calls": [{"function": CALL | {"name": "get_wether"}}]}
    (problem, _) = data.read(write(tmp_path, rows(messages=[ASKED, calling], tools=[TOOL]))).problems[:2]
    assert (problem.kind, problem.field, problem.value) == ("odd_call", "messages[1].tool_calls", "get_wether")


def test_words_before_a_tools_result_are_told(home: Path, tmp_path: Path) -> None:
    messages = [ASKED, {"role": A, "content": "Action: get_weather\nInput: {}"}, {"role": "tool", "content": "21"}, END]
    (problem, _) = data.read(write(tmp_path, rows(messages=messages, tools=[TOOL]))).problems[:2]
    assert (problem.kind, problem.field) == ("odd_call", "messages[1]")


RESULT_IDS: dict[str, tuple[list[Any], list[str], list[tuple[str, str]]]] = {
    "in order": (["a", "b"], ["Rome", "Oslo"], []),
    "the other way round": (["b", "a"], ["Oslo", "Rome"], []),
    "without ids": ([None, None], ["Rome", "Oslo"], []),
    "of no call": (["a", "c"], ["Rome", "Oslo"], [("messages[3].tool_call_id", "c"), ("messages[1].tool_calls", "b")]),
    "twice": (["a", "a"], ["Rome", "Oslo"], [("messages[3].tool_call_id", "a"), ("messages[1].tool_calls", "b")]),
    "a list": (["a", ["c"]], ["Rome", "Oslo"], [("messages[3].tool_call_id", "c"), ("messages[1].tool_calls", "b")]),
}


@pytest.mark.parametrize("kind", RESULT_IDS)
def test_results_belong_to_calls(kind: str, home: Path, tmp_path: Path) -> None:
    """Templates that write no ids tell them by their order."""
    ids, results, wrong = RESULT_IDS[kind]
    called = [{"id": one, "type": "function", "function": CALL} for one in "ab"]
    told = [
        {"role": "tool", "content": result} | ({"tool_call_id": one} if one else {})
        for one, result in zip(ids, results, strict=True)
    ]
    read = data.read(write(tmp_path, rows(messages=[ASKED, {"role": A, "tool_calls": called}, *told, END])))
    assert [(p.field, p.value.strip('["]')) for p in read.problems if p.row == 1] == wrong
    expected = sorted(results, reverse=True) if not wrong else results
    assert [m["content"] for m in read.conversations[0]["messages"] if m["role"] == "tool"] == expected


def test_conversations_under_ids(home: Path, tmp_path: Path) -> None:
    """As Firebase exports a database."""
    talk = {"user": "u1", "messages": {"-N1": {"role": U, "text": Q}, "-N2": {"role": A, "text": ANSWER}}}
    path = write(tmp_path, json.dumps({"conversations": {"-Na": talk, "-Nb": talk}}).encode(), "a.json")
    assert [said(one) for one in data.read(path).conversations] == [BOTH, BOTH]


SUPPORT = "ticket_id,author_type,created_at,body\n1,agent,2024-01-02,{1}\n1,customer,2024-01-01,{0}\n"
PHONE = "Message Date,Type,Sender Name,Text\n2024-01-01,Incoming,Ann,{0}\n2024-01-02,Outgoing,,{1}\n"


def test_a_turn_a_row_is_known_by_what_the_cells_say(home: Path, tmp_path: Path) -> None:
    """Columns of names that nobody knows: whose words they are stands in the cells. They were learnt as plain texts."""
    support = data.read(write(tmp_path, SUPPORT.format(Q, ANSWER).encode(), "support.csv"))
    assert said(support.conversations[0]) == BOTH
    phone = write(tmp_path, PHONE.format(Q, ANSWER).encode(), "phone.csv")
    with pytest.raises(DataError, match="between Incoming, Outgoing") as refused:
        data.read(phone)
    followed = data.read(phone, mapping=mapping_in(refused.value.hint))
    assert said(followed.conversations[0]) == BOTH
    classes = write(tmp_path, b"text,author\nTea draws.,human\nTea is drawn.,ai\nTea drew.,human\n", "classes.csv")
    with pytest.raises(DataError, match="no column says which turns belong together"):
        data.read(classes)
    by = write(tmp_path, b"text,written_by\nTea draws.,human\nTea is drawn.,ai\nTea drew.,human\n", "by.csv")
    assert (data.read(by).format, data.read(by).unused) == ("text", ["written_by"])


def test_a_step_of_an_agent_is_no_part(home: Path, tmp_path: Path) -> None:
    parts = [{"type": "step-start"}, {"type": "reasoning", "text": "Hm."}, {"type": "text", "text": ANSWER}]
    read = data.read(write(tmp_path, rows(messages=[ASKED, {"role": A, "parts": parts}])))
    assert (said(read.conversations[0]), read.conversations[0]["messages"][1]["reasoning_content"]) == (BOTH, "Hm.")


def test_roles_with_a_hyphen(home: Path, tmp_path: Path) -> None:
    """As a copy of Glaive's has them; its arguments are between single quotation marks."""
    quoted = '{"name": "get_weather", "arguments": \'{"city": "Rome"}\'}'
    turns = [("human", Q), ("function-call", quoted), ("function-response", "21"), ("gpt", "It is 21.")]
    read = data.read(write(tmp_path, rows(conversations=[{"from": who, "value": value} for who, value in turns])))
    conversation = read.conversations[0]
    assert [m["role"] for m in conversation["messages"]] == [U, A, "tool", A]
    assert json.loads(conversation["messages"][1]["tool_calls"][0]["function"]["arguments"]) == {"city": "Rome"}


def test_few_rows_that_fit_by_chance_name_no_format(home: Path, tmp_path: Path) -> None:
    classified = [{"prompt": f"Is it {n}?", "label": n % 2} for n in range(100)]
    classified[50]["prompt"] = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHi.<|im_end|>"
    with pytest.raises(DataError) as refused:
        data.read(write(tmp_path, as_lines(classified)))
    assert "--column prompt=prompt --column answer=label" in refused.value.hint


def test_arguments_that_python_printed(home: Path, tmp_path: Path) -> None:
    calling = CALLING | {"tool_calls": [{"function": CALL | {"arguments": "{'city': 'Rome'}"}}]}
    read = data.read(write(tmp_path, rows(messages=[ASKED, calling])))
    assert (called(read.conversations[0]), read.problems[1:]) == ([("get_weather", {"city": "Rome"})], [])


def test_a_call_is_known_by_its_recipient(home: Path, tmp_path: Path) -> None:
    calling = {"role": A, "channel": "commentary", "recipient": "functions.get_weather", "content": '{"city": "Rome"}'}
    read = data.read(write(tmp_path, rows(messages=[ASKED, calling, {"role": "tool", "content": "21"}, END])))
    assert (called(read.conversations[0]), read.unused) == ([("get_weather", {"city": "Rome"})], ["id"])


@pytest.mark.parametrize("blank", ["", "  "])
def test_empty_arguments_are_an_empty_object(blank: str, home: Path, tmp_path: Path, tiny_model: Path) -> None:
    calling = CALLING | {"tool_calls": [{"function": CALL | {"arguments": blank}}]}
    conversation = data.read(write(tmp_path, rows(messages=[ASKED, calling]))).conversations[0]
    assert '"arguments": {}}' in trained(encoder_of(tiny_model), conversation)


ODD_REASONING = {
    "never closed": "<think>It is tea. Two minutes.",
    "never opened": "It is tea.</think>Two minutes.",
    "closed by another": "<thinking>It is tea.</think>Two minutes.",
    "without an answer": "<think>It is tea.</think>",
}


@pytest.mark.parametrize("kind", [*ODD_REASONING, "right", "before a call"])
def test_marks_of_reasoning_that_do_not_pair_up_are_told(kind: str, home: Path, tmp_path: Path) -> None:
    answer = {"role": A, "content": ODD_REASONING.get(kind, "<think>It is tea.</think>Two minutes, at most.")}
    if kind == "before a call":
        answer = CALLING | {"content": ODD_REASONING["without an answer"]}
    counts = data.read(write(tmp_path, as_lines([{"messages": [ASKED, answer]}]))).counts
    assert counts == ({"odd_reasoning": 1} if kind in ODD_REASONING else {})


def test_an_answer_that_is_a_sound_is_named(home: Path, tmp_path: Path) -> None:
    spoken = {"role": A, "content": None, "audio": {"id": "1", "transcript": ANSWER}}
    with pytest.raises(DataError, match=r"messages\[1\]\.audio: The turn holds an audio"):
        data.read(write(tmp_path, rows(messages=[ASKED, spoken])))


# -- doubts, and refusals with options that work

SHARED = turns(Q, ANSWER, "from", "value", ("human", "gpt"))
BESIDE: dict[str, tuple[dict[str, Any], list[tuple[str, str]]]] = {
    "a persona": (
        {"persona": ["I like tea.", "I am old."], "messages": turns(Q, ANSWER)},
        [("system", "I like tea.\nI am old."), *BOTH],
    ),
    "a context": ({"context": "It says two.", "conversations": SHARED}, [("system", "It says two."), *BOTH]),
    "a prompt": ({"prompt": Q, "text": ANSWER}, BOTH),
    "an attempt": ({"question": Q, "solution": OTHER, "attempt": ANSWER}, BOTH),
}


@pytest.mark.parametrize("kind", BESIDE)
def test_a_doubt_names_options_that_work(kind: str, home: Path, tmp_path: Path) -> None:
    cells, expected = BESIDE[kind]
    path = write(tmp_path, rows(**cells))
    read = data.read(path)
    assert said(read.conversations[0]) != expected
    assert said(data.read(path, mapping=mapping_in(read.unsure)).conversations[0]) == expected


HINTED: dict[str, dict[str, Any]] = {
    "NQ-open": {"question": Q, "answer": [ANSWER, "Two."]},
    "several outputs": {"instruction": Q, "output": [ANSWER, "Two."]},
    "APPS": {"question": Q, "solutions": json.dumps([ANSWER, "x"]), "input_output": json.dumps({"inputs": ["1"]})},
    "CodeContests": {"name": "p1", "description": Q, "solutions": {"language": [1, 2], "solution": [ANSWER, "x"]}},
    "ELI5": {"q_id": "7", "title": Q, "answers": {"a_id": ["1", "2"], "text": [ANSWER, "b"]}},
    "MS MARCO": {"query": Q, "answers": [ANSWER], "passages": {"is_selected": [1], "passage_text": ["a long passage"]}},
    "NarrativeQA": {
        "document": {"summary": {"text": "A tale."}},
        "question": {"text": Q},
        "answers": [{"text": ANSWER}, {"text": "x"}],
    },
}


@pytest.mark.parametrize("kind", HINTED)
def test_the_options_of_a_hint_read_question_and_answer(kind: str, home: Path, tmp_path: Path) -> None:
    path = write(tmp_path, rows(**HINTED[kind]))
    with pytest.raises(DataError) as refusal:
        data.read(path)
    assert said(data.read(path, mapping=mapping_in(refusal.value.hint)).conversations[0]) == BOTH


COMPARED: dict[str, dict[str, Any]] = {
    "in Chinese": {"问题": Q, "好答案": ANSWER, "坏答案": OTHER},
    "in German": {"frage": Q, "gut": ANSWER, "schlecht": OTHER},
    "whole answers": {"prompt": Q, "steps": "a b", "full_chosen": ANSWER, "full_rejected": OTHER},
    "right and wrong": {"question": Q, "correct": ANSWER, "incorrect": OTHER},
    "two answers alike": {"question": Q, "model_answer_1": ANSWER, "model_answer_2": OTHER},
}


@pytest.mark.parametrize("kind", COMPARED)
def test_a_hint_never_learns_one_of_two_answers(kind: str, home: Path, tmp_path: Path) -> None:
    path = write(tmp_path, rows(**COMPARED[kind]))
    with pytest.raises(DataError) as refusal:
        data.read(path)
    (pair, _) = data.read(path, mapping=mapping_in(refusal.value.hint)).conversations
    assert (said(pair), pair["rejected"]) == (BOTH, OTHER)


NAMED = [
    ("What do you ask?", "What is the answer?"),
    *[("pregunta", "respuesta"), ("question", "réponse"), ("質問", "回答"), ("질문", "답변"), ("Вопрос", "Ответ")],
    *[("message", "reply"), ("review", "response"), ("Anweisung", "Ausgabe"), ("domanda", "risposta")],
]


@pytest.mark.parametrize(("asked", "answered"), NAMED)
def test_the_hint_knows_question_and_answer_in_many_languages(
    asked: str, answered: str, home: Path, tmp_path: Path
) -> None:
    path = write(tmp_path, as_lines([{answered: ANSWER, asked: Q}, {answered: OTHER, asked: Q}]))
    with pytest.raises(DataError) as refusal:
        data.read(path)
    assert said(data.read(path, mapping=mapping_in(refusal.value.hint)).conversations[0]) == BOTH


def test_a_hint_knows_the_system_that_answers(home: Path, tmp_path: Path) -> None:
    path = write(tmp_path, rows(turns=turns(Q, ANSWER, "speaker", "utterance", ("USER", "SYSTEM"))))
    with pytest.raises(DataError) as refusal:
        data.read(path)
    assert said(data.read(path, mapping=mapping_in(refusal.value.hint)).conversations[0]) == BOTH


def test_the_first_of_several_answers_among_plain_ones(home: Path, tmp_path: Path) -> None:
    path = write(tmp_path, as_lines([{"prompt": Q, "completion": [ANSWER, OTHER]}, {"prompt": Q, "completion": OTHER}]))
    (problem,) = data.read(path).problems
    assert "name the column as completion.0" in problem.reason
    read = data.read(path, mapping={"prompt": "prompt", "answer": "completion.0"})
    assert [said(c) for c in read.conversations] == [BOTH, [(U, Q), (A, OTHER)]]


RATED: dict[str, dict[str, Any]] = {
    "UltraFeedback": {
        "instruction": Q,
        "models": ["a", "b"],
        "completions": [{"response": ANSWER, "overall_score": 8.0}, {"response": OTHER, "overall_score": 3.0}],
    },
    "Nectar": {"prompt": Q, "answers": [{"answer": ANSWER, "rank": 1.0}, {"answer": OTHER, "rank": 7.0}]},
}


@pytest.mark.parametrize("kind", RATED)
def test_rated_answers_become_pairs_by_the_hint(kind: str, home: Path, tmp_path: Path) -> None:
    path = write(tmp_path, rows(**RATED[kind]))
    with pytest.raises(DataError) as refusal:
        data.read(path)
    assert f"pairs {path.name} " in refusal.value.hint
    (pair,), _ = pairs_of(str(path))
    assert (pair["prompt"], pair["chosen"], pair["rejected"]) == (Q, ANSWER, OTHER)


TOLD: dict[str, tuple[Any, str]] = {
    "tokens": ([{"input_ids": [1, 2], "labels": [1, 2]}], "the texts that they were made from"),
    "a notebook": ({"cells": [{"cell_type": "code", "source": ["x"]}], "metadata": {}, "nbformat": 4}, "a notebook"),
    "parts of texts": ({"segments": [{"label": True, "text": "Q: a?"}]}, "weight: 0"),
    "a model's config": ({"architectures": ["x"], "hidden_size": 8}, "as the model"),
    "Slack's channels": ([{"id": "C", "name": "a", "is_archived": False}] * 2, "a file for each day"),
    "Slack's people": ([{"id": "U", "name": "a", "team_id": "T", "profile": {}}] * 2, "a file for each day"),
    "tags": ([{"tokens": ["a"], "ner_tags": [0]}], "words with tags"),
    "questions alone": ([{"conversations": [Q], "source": "x"}] * 2, "add its answer behind it"),
}


@pytest.mark.parametrize("kind", TOLD)
def test_what_a_file_is_is_told(kind: str, home: Path, tmp_path: Path) -> None:
    content, hint = TOLD[kind]
    with pytest.raises(DataError) as refusal:
        data.read(write(tmp_path, json.dumps(content).encode(), "a.json"))
    assert hint in refusal.value.hint


# -- files

LINES = as_lines([{"question": Q, "answer": ANSWER}, {"question": "b?", "answer": "c d"}])
CONVERTED = {
    "a.jsonl.gz": (gzip.compress(gzip.compress(LINES)), "packed twice", "a.jsonl"),
    "a.toml": (f'[[rows]]\nquestion = "{Q}"\nanswer = "{ANSWER}"\n'.encode(), "is TOML", "a.json"),
    "a.json": (
        json.dumps(
            {"train": [{"question": Q, "answer": ANSWER}], "test": [{"question": "b?", "answer": "c"}]}
        ).encode(),
        "none of the known layouts: train, test",
        "train.json",
    ),
    "a.tmx": (
        f"<tmx><body><tu><tuv xml:lang='question'><seg>{Q}</seg></tuv><tuv xml:lang='answer'><seg>{ANSWER}</seg></tuv>"
        "</tu></body></tmx>".encode(),
        "is XML",
        "a.json",
    ),
    "a.xml": (
        f"<?xml version='1.0'?><rows><row><question>{Q}</question><answer>{ANSWER}</answer></row></rows>".encode(),
        "is XML",
        "a.json",
    ),
}


@pytest.mark.parametrize("name", CONVERTED)
def test_the_command_of_a_hint_makes_a_file_that_is_read(name: str, home: Path, tmp_path: Path) -> None:
    content, message, made = CONVERTED[name]
    with pytest.raises(DataError, match=message) as refusal:
        data.read(write(tmp_path, content, name))
    command = refusal.value.hint.split(": ", 1)[1].replace("python ", f"{sys.executable} ", 1)
    subprocess.run(command, shell=True, cwd=tmp_path, check=True)
    assert said(data.read(tmp_path / made).conversations[0]) == BOTH


FOREIGN = {
    "a.rtf": (rb"{\rtf1\ansi Question: Tea?\par}", "a text in RTF"),
    "a.7z": (b"7z\xbc\xaf\x27\x1c" + bytes(64), "a 7-Zip archive"),
    "a.rar": (b"Rar!\x1a\x07\x01\x00" + bytes(64), "a RAR archive"),
    "a.jsonl.lz4": (b"\x04\x22\x4d\x18" + bytes(64), "packed with LZ4"),
    "a.pkl": (b"\x80\x04\x95\x1a\x00\x00]\x94.", "a pickle"),
    "a.html": (b"<table><tr><td>Tea?</td></tr></table>", "a table in HTML"),
    "a.sql": (b"INSERT INTO qa VALUES ('Tea?', 'Yes.');\n", "SQL"),
    "tweets.js": (b'window.YTD.tweets.part0 = [ {"tweet": {}} ]', "a script around its data"),
    "a.bin": (b"ORC\x00\x01" + b"\x01\x02\x03" * 40, "a binary file"),
    "cards.txt": (b"#separator:tab\n#html:true\nTea?\tTwo minutes.\n", "an export of Anki"),
    "a.json": (b'```json\n[{"prompt": "a?"}]\n```\n', "not JSON"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_file_of_another_kind_is_named(name: str, home: Path, tmp_path: Path) -> None:
    content, kind = FOREIGN[name]
    with pytest.raises(DataError, match=kind):
        data.read(write(tmp_path, content, name))


def archive(path: Path, **files: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    return path


def test_an_archive_in_an_archive_is_named(home: Path, tmp_path: Path) -> None:
    inner = archive(tmp_path / "in.zip", **{"a.jsonl": LINES}).read_bytes()
    with pytest.raises(DataError, match=r"no data files, but data\.zip"):
        data.read(archive(tmp_path / "a.zip", **{"data.zip": inner}))


def test_a_text_in_two_cells_a_line_is_a_table(home: Path, tmp_path: Path) -> None:
    path = write(tmp_path, "".join(f"Word {n}, so\tWort {n}\n" for n in range(4)).encode(), "a.txt")
    with pytest.raises(DataError, match="Word 0, so, Wort 0") as refusal:
        data.read(path)
    assert "write the names of the columns in a line above it" in refusal.value.hint


def test_the_command_for_subtitles_keeps_the_words(home: Path, tmp_path: Path) -> None:
    timed = f"1\n00:00:01,000 --> 00:00:02,000\n{Q}\n\n2\n00:00:03,500 --> 00:00:04,000\n{ANSWER}\n"
    with pytest.raises(DataError, match="subtitles") as refusal:
        data.read(write(tmp_path, timed.encode(), "a.srt"))
    command = refusal.value.hint.split(": ", 1)[1].replace("python ", f"{sys.executable} ", 1)
    subprocess.run(command, shell=True, cwd=tmp_path, check=True)
    assert [c["text"] for c in data.read(tmp_path / "a-words.txt").conversations] == [Q, ANSWER]


def test_a_deck_of_anki_is_named(home: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a deck of Anki") as refusal:
        data.read(archive(tmp_path / "a.apkg", **{"collection.anki2": b"SQLite"}))
    assert "Notes in Plain Text" in refusal.value.hint


def test_a_name_that_is_not_that_of_the_content_is_told(home: Path, tmp_path: Path) -> None:
    read = data.read(write(tmp_path, b"PK is a name.\nIt is short.\n", "a.xlsx"))
    assert read.notes == ["The name of a.xlsx is not that of its content: it was read as text."]


def test_lines_with_a_comma_too_many(home: Path, tmp_path: Path) -> None:
    first = f'{{"prompt": "{Q}", "completion": "{ANSWER}",}}'
    lines = f'{first}\n{{"prompt": "b?", "completion": "c d"}},\n{first}\n{{"prompt": "e\n'
    read = data.read(write(tmp_path, lines.encode(), "a.jsonl"))
    assert (said(read.conversations[0]), read.rows, read.refused) == (BOTH, 4, 1)
    assert [note.split(":")[0] for note in read.notes] == ["Some lines are not strict JSON"]


def test_an_export_of_slack(home: Path, tmp_path: Path) -> None:
    joined = {"type": "message", "subtype": "channel_join", "user": "U1", "text": "joined", "ts": "1.0"}
    spoken = [
        {"type": "message", "user": u, "text": t, "ts": ts} for u, t, ts in (("U1", Q, "1.1"), ("U2", ANSWER, "1.2"))
    ]
    lists = {name: json.dumps([{"id": "X", "name": "x"}]).encode() for name in ("channels.json", "users.json")}
    channels = {f"{name}/2024-01-01.json": json.dumps([joined, *spoken]).encode() for name in ("general", "tea")}
    path = archive(tmp_path / "a.zip", **lists, **channels)
    with pytest.raises(DataError, match="between U1, U2") as refusal:
        data.read(path)
    read = data.read(path, mapping=mapping_in(refusal.value.hint))
    assert [said(c) for c in read.conversations] == [BOTH, BOTH]
    assert "Not read, as they are no data files: channels.json, users.json." in read.notes
