"""Calls as models write them: what published chat templates write is read as the calls that they were given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trl
from jinja2 import TemplateError
from transformers.utils.chat_template_utils import render_jinja_template

from studio import data
from studio.text.call_marks import starts
from studio.text.written_calls import Channels, read_calls
from studio.worker.openai_answers import parse_calls
from tests.data.fixtures import as_lines

PROPERTIES = {
    "city": {"type": "string"},
    "days": {"type": "integer"},
    "tags": {"type": "array", "items": {"type": "string"}},
    "deep": {"type": "object"},
    "ok": {"type": "boolean"},
}
for described in PROPERTIES.values():
    described["description"] = "Of the weather."
SCHEMA = {"type": "object", "properties": PROPERTIES, "required": ["city"]}
TOOLS = [{"type": "function", "function": {"name": "get_weather", "description": "Weather", "parameters": SCHEMA}}]
ARGUMENTS = {"city": 'Rome, "IT"', "days": 2, "tags": ["a", "b"], "deep": {"x": 1}, "ok": True}
ASKED = {"role": "user", "content": "And in Rome?"}
SHORT = {"city": "10", "days": 2}

TEMPLATES = sorted(
    file
    for file in Path(trl.__file__).with_name("chat_templates").glob("*.jinja")
    if "training" not in file.name and "tool_calls" in file.read_text()
)
AS_WRITTEN = {  # of which no template is at hand; one call, or two
    "Mistral": '[TOOL_CALLS]get_weather[ARGS]{"city": "10", "days": 2}',
    "Mistral, with an id": '[TOOL_CALLS]get_weather[CALL_ID]abc123def[ARGS]{"city": "10", "days": 2}',
    "Mistral, as a list": '[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "10", "days": 2}, "id": "abc"}]',
    "Llama 3": '<|python_tag|>{"name": "get_weather", "parameters": {"city": "10", "days": 2}}',
    "Llama 3.1": '<function=get_weather>{"city": "10", "days": 2}</function>',
    "DeepSeek 3.1": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>"
    '{"city": "10", "days": 2}<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
    "DeepSeek 3": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n"
    '{"city": "10", "days": 2}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
    "DeepSeek 3.2": '<｜DSML｜function_calls>\n<｜DSML｜invoke name="get_weather">\n<｜DSML｜parameter name="city" '
    'string="true">10</｜DSML｜parameter>\n<｜DSML｜parameter name="days" string="false">2</｜DSML｜parameter>\n'
    "</｜DSML｜invoke>\n</｜DSML｜function_calls>",
    "Kimi": "<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>"
    '{"city": "10", "days": 2}<|tool_call_end|><|tool_calls_section_end|>',
    "MiniMax": '<minimax:tool_call>\n<invoke name="get_weather">\n<parameter name="city">10</parameter>\n'
    '<parameter name="days">2</parameter>\n</invoke>\n</minimax:tool_call>',
    "Seed": "<seed:tool_call>\n<function=get_weather>\n<parameter=city>10</parameter>\n<parameter=days>2</parameter>\n"
    "</function>\n</seed:tool_call>",
    "Qwen Coder": "<tool_call>\n<function=get_weather>\n<parameter=city>\n10\n</parameter>\n<parameter=days>\n2\n"
    "</parameter>\n</function>\n</tool_call>",
    "GLM 4.7": "<tool_call>get_weather<arg_key>city</arg_key><arg_value>10</arg_value><arg_key>days</arg_key>"
    "<arg_value>2</arg_value></tool_call>",
    "FunctionGemma": "<start_function_call>call:get_weather{city:<escape>10<escape>,days:2}<end_function_call>",
    "Gemma 3": "```tool_code\nget_weather(city='10', days=2)\n```",
    "Cohere": '<|START_ACTION|>[\n    {"tool_call_id": "0", "tool_name": "get_weather", '
    '"parameters": {"city": "10", "days": 2}}\n]<|END_ACTION|>',
    "Phi 4": '<|tool_call|>[{"name": "get_weather", "arguments": {"city": "10", "days": 2}}]<|/tool_call|>',
    "Hunyuan": '<tool_calls>[{"name": "get_weather", "arguments": {"city": "10", "days": 2}}]</tool_calls>',
    "Nemotron": '<TOOLCALL>[{"name": "get_weather", "arguments": {"city": "10", "days": 2}}]</TOOLCALL>',
    "OLMo": "<function_calls>\nget_weather(city='10', days=2)\n</function_calls>",
    "gpt-oss": "<|start|>assistant<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>"
    '{"city": "10", "days": 2}<|call|>',
    "Llama 4": "[get_weather(city='10', days=2)]",
    "JSON": '{"name": "get_weather", "parameters": {"city": "10", "days": 2}}',
}


def functions(calls: list[dict[str, Any]] | None) -> list[tuple[str, Any]]:
    called = [call["function"] for call in calls or []]
    return [(f["name"], json.loads(a) if isinstance(a := f["arguments"], str) else a) for f in called]


def answer_of(template: str, arguments: list[Any]) -> str:
    """What the template writes for an answer of these calls."""
    calls = [{"id": f"abc12345{n}", "type": "function", "function": {"name": "get_weather", "arguments": a}}
             for n, a in enumerate(arguments)]  # fmt: skip
    messages = [ASKED, {"role": "assistant", "content": "", "tool_calls": calls}]
    more = {"tools": TOOLS, "chat_template": template, "bos_token": "<s>", "eos_token": "</s>"}
    (prompt,), _ = render_jinja_template([messages[:1]], add_generation_prompt=True, **more)
    (text,), _ = render_jinja_template([messages], **more)
    behind = text[text.index(ASKED["content"]) :]
    return text.removeprefix(prompt) if text.startswith(prompt) else behind[starts(behind, opens=False) :]


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda file: file.stem)
def test_what_published_templates_write(template: Path) -> None:
    for arguments in ([ARGUMENTS], [ARGUMENTS, {"city": "10"}]):
        try:
            text = answer_of(template.read_text(), list(arguments))
        except TypeError:  # takes the arguments as text
            text = answer_of(template.read_text(), list(map(json.dumps, arguments)))
        except TemplateError:  # Llama 3's: one call an answer
            if "llama3" in template.stem and len(arguments) == 2:
                continue
            raise
        if template.stem == "deepseek_r1_distill":  # writes no calls beside a content
            continue
        for end in ("<|im_end|>", "<|eot_id|>", "<｜end▁of▁sentence｜>", "<turn|>", "<|eot|>"):
            text = text.rstrip().removesuffix(end)
        found = functions(read_calls(text[starts(text) :], TOOLS))
        if template.stem in ("gptoss", "muse_glimmer"):  # the first writes one call an answer, the second a turn a call
            found, arguments = found[:1], arguments[: len(found)][:1] or arguments[:0]
        assert found == [("get_weather", one) for one in arguments]


@pytest.mark.parametrize("maker", AS_WRITTEN)
@pytest.mark.parametrize("times", [1, 2])
def test_calls_of_rows_and_of_answers(maker: str, times: int, home: Path, tmp_path: Path) -> None:
    """One table serves both: the words before them stay, and nothing else is left."""
    said = ("; " if maker == "JSON" else "").join([AS_WRITTEN[maker]] * times)
    said = said.replace(")][", "), ") if maker == "Llama 4" else said
    bare = maker in ("JSON", "Llama 4")
    before = "" if bare else "I look.\n"
    content, calls = parse_calls(before + said, TOOLS)
    assert (content, functions(calls)) == (before.strip(), [("get_weather", SHORT)] * times)
    answer = {"role": "assistant", "content": before + said}
    results = [{"role": "tool", "content": "21"}] * times
    row = {"messages": [ASKED, answer, *results, {"role": "assistant", "content": "21."}], "tools": TOOLS}
    (tmp_path / "d.jsonl").write_bytes(as_lines([row]))
    read = data.read(str(tmp_path / "d.jsonl"))
    message = read.conversations[0]["messages"][1]
    assert (message["content"], functions(message["tool_calls"])) == (before.strip(), [("get_weather", SHORT)] * times)
    assert not read.problems


ROWS: dict[str, dict[str, Any]] = {
    "Alpaca": {"instruction": "And in Rome?", "output": AS_WRITTEN["Qwen Coder"]},
    "two columns": {"prompt": "And in Rome?", "completion": AS_WRITTEN["FunctionGemma"]},
    "ChatML text": {
        "text": f"<|im_start|>user\nAnd in Rome?<|im_end|>\n<|im_start|>assistant\n{AS_WRITTEN['Kimi']}<|im_end|>\n"
    },
    "fenced JSON": {
        "tools": TOOLS,
        "messages": [ASKED, {"role": "assistant", "content": f"```json\n{AS_WRITTEN['JSON']}\n```"}],
    },
    "arguments that are JSON twice": {
        "messages": [
            ASKED,
            {"role": "assistant", "tool_calls": [{"name": "get_weather", "arguments": json.dumps(json.dumps(SHORT))}]},
        ]
    },
}


@pytest.mark.parametrize("kind", ROWS)
def test_calls_in_other_rows(kind: str, home: Path, tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_bytes(as_lines([ROWS[kind]]))
    read = data.read(str(tmp_path / "d.jsonl"))
    answer = read.conversations[0]["messages"][-1]
    ((name, arguments),) = functions(answer["tool_calls"])
    assert (answer["content"], name, str(arguments["city"])) == (
        "",
        "get_weather",
        "10",
    )  # no tool says that it is text
    assert not read.problems


@pytest.mark.parametrize(
    "text",
    [
        "Write <tool_call> before it, and </tool_call> behind.",
        "<tool_call>" + "<arg_key>a</arg_key><arg_value>b</arg_value>" * 40 + "!",
        "<|tool_call>call:f{a:<tool_call|>",
        "```tool_code\nimport os\n```",
        "[get_weather('Rome')]",
        "<function=f>{broken</function>",
        "<|channel|>commentary to=functions.f<|message|>words",
    ],
)
def test_what_is_no_call(text: str) -> None:
    assert parse_calls(text, TOOLS) == (text, [])


def test_calls_without_declared_tools(home: Path, tmp_path: Path) -> None:
    """Nothing but a call, or with a result behind it: a call. An example, or as the system prompt asks: words."""
    call = AS_WRITTEN["Kimi"]
    said = {"role": "assistant", "content": call}
    shown = {"role": "assistant", "content": f"Models write:\n{call}"}
    result = {"role": "user", "content": "<tool_response>\n21\n</tool_response>\n<tool_response>\n22\n</tool_response>"}
    system = {"role": "system", "content": "Write calls in <|tool_calls_section_begin|>."}
    end = {"role": "assistant", "content": "It is 21."}
    rows = [[ASKED, said], [ASKED, shown], [ASKED, shown, result, end], [system, ASKED, said]]
    (tmp_path / "d.jsonl").write_bytes(as_lines([{"messages": row} for row in rows]))
    read = [one["messages"] for one in data.read(str(tmp_path / "d.jsonl")).conversations]
    assert [[m["role"] for m in messages if "tool_calls" in m] for messages in read] == [
        ["assistant"],
        [],
        ["assistant"],
        [],
    ]
    assert [(m["role"], m["content"]) for m in read[2][2:4]] == [("tool", "21"), ("tool", "22")]


@pytest.mark.parametrize("size", [1, 4, 1000])
def test_channels_are_written_as_others_write_reasoning(size: int) -> None:
    from studio.worker.sampling import IncrementalText

    said = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>It is 21."
    plain = "<think>\nHm.\n</think>\n\nIt is 21."
    assert Channels().plain(said) == plain
    text = IncrementalText(lambda ids: "".join(map(chr, ids)), channels=Channels())
    assert "".join(text.add(token) for token in [*map(ord, said), None]) == plain
