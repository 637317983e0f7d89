"""Every template file against the one its model's makers published: as trl carries it, or as their own code or card
prints it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from studio import template
from studio.template import Template

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
RULE = {"role": "system", "content": "Be brief."}
ONE = [{"role": "user", "content": "Hi there."}, {"role": "assistant", "content": "Hello."}]
TWO = [*ONE, {"role": "user", "content": "Really?"}, {"role": "assistant", "content": "Yes."}]
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Rome", "days": 2}}}
TOOLS = [
    {
        "type": "function",
        "function": {"name": "weather", "description": "Of a city", "parameters": {"type": "object", "properties": {}}},
    }
]
SUN, WIND = ({"role": "tool", "content": text} for text in ("sunny", "windy"))
CALLED = [ONE[0], {"role": "assistant", "content": "", "tool_calls": [CALL, CALL]}, SUN, WIND, ONE[1]]
WORDS = [ONE[0], {"role": "assistant", "content": "I look.", "tool_calls": [CALL]}, SUN, ONE[1]]
# file -> (trl's, conversations of which the whole text is the same, and whether prompts are compared)
TRL = {
    "chatml": ("qwen2_5", [[RULE, *ONE], [RULE, *TWO], [RULE, *CALLED], [RULE, *WORDS]], True),
    "deepseek": (
        "deepseekv3",
        [ONE, TWO, [RULE, *ONE], [RULE, *TWO]],
        False,
    ),  # trl's prompt is that of R1, which opens the thinking
    "gemma": ("gemma", [ONE, TWO], True),
    "llama3": ("llama3", [ONE, TWO, [RULE, *ONE], [RULE, *TWO]], True),
    "phi": ("phi3", [ONE, TWO, [RULE, *ONE]], True),
    "qwen3": ("qwen3", [ONE, [RULE, *ONE], [{**ONE[0]}, {**ONE[1], "reasoning_content": "A greeting."}]], True),
}
ENDS = {
    "phi": "</s>",
    "gemma": "",
    "qwen3": "",
}  # what the published one writes behind the conversation, whatever the model says


def trl(name: str) -> Template:
    folder = Path(pytest.importorskip("trl").__file__).parent / "chat_templates"
    if not (folder / f"{name}.jinja").is_file():
        pytest.skip("trl does not carry this template any more")
    return Template(name, (folder / f"{name}.jinja").read_text(encoding="utf-8"), SPECIAL)


def ours(name: str) -> Template:
    return Template(name, template.load(name).text, SPECIAL)


@pytest.mark.parametrize("name", TRL)
def test_as_trl_carries_it(name: str) -> None:
    file, conversations, prompts = TRL[name]
    for messages in conversations:
        extra: dict[str, Any] = {"tools": TOOLS} if any("tool_calls" in message for message in messages) else {}
        assert ours(name).render(messages, **extra).text + ENDS.get(name, "") == trl(file)._run(
            messages, False, **extra
        )
        if prompts:
            assert (
                ours(name).render(messages[:-1], True, **extra).text
                == trl(file).render(messages[:-1], True, **extra).text
            )


def test_gemma_with_a_system_turn_as_gemma_3s() -> None:
    assert ours("gemma").render([RULE, *TWO]).text == trl("gemma3").render([RULE, *TWO]).text


def test_qwen3_keeps_the_thinking_of_earlier_turns() -> None:
    """On purpose otherwise than the published one, which drops it: said in the file's comment."""
    thought = [
        {**message, "reasoning_content": "Hm."} if message["role"] == "assistant" else message for message in TWO
    ]
    assert ours("qwen3").render(thought).text.count("Hm.") == 2
    assert trl("qwen3").render(thought).text.count("Hm.") == 1


def test_qwen3_with_tools() -> None:
    mine, theirs = (one.render([RULE, *CALLED], tools=TOOLS).text for one in (ours("qwen3"), trl("qwen3")))
    assert mine.replace("<think>\n\n</think>\n\n", "") == theirs.replace("<think>\n\n</think>\n\n", "")


MISTRAL = (  # mistralai/Mistral-7B-Instruct-v0.3, as its card prints it
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST] ' + "
    "message['content'] + '[/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'] + eos_token }}{% endif %}{% endfor %}"
)


@pytest.mark.parametrize("messages", [ONE, TWO])
def test_mistral(messages: list[dict[str, Any]]) -> None:
    assert ours("mistral").render(messages).text == Template("card", MISTRAL, SPECIAL)._run(messages, False)
    assert ours("mistral").render([RULE, *messages]).text.count("[INST] Be brief.\n\n") == 1


STANFORD = {  # PROMPT_DICT of stanford_alpaca's train.py
    True: "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:",
    False: "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:",
}


@pytest.mark.parametrize(
    "row", [{"instruction": "Translate.", "input": "dog"}, {"instruction": "Say hi.", "input": ""}]
)
def test_alpaca_as_its_authors_trained_it(row: dict[str, str]) -> None:
    asked = {"role": "user", "content": "\n".join(filter(None, row.values())), **row}
    rendered = ours("alpaca_original").render([asked, {"role": "assistant", "content": "Hund"}])
    prompt = STANFORD[bool(row["input"])].format_map(row)
    assert rendered.text == prompt + "Hund</s>"
    assert [rendered.text[a:b] for a, b in rendered.spans] == ["Hund</s>"]
    assert ours("alpaca_original").render([asked], True).text == prompt


def test_every_file_is_compared() -> None:
    assert {*TRL, "mistral", "alpaca", "alpaca_original"} == set(template.names()), (
        "alpaca: tests/test_template.py, as the handbooks print it"
    )


def test_templates_say_whether_they_show_tools_and_reasoning() -> None:
    assert {name for name in template.names() if template.load(name).shows_tools} == {"chatml", "qwen3"}
    assert {name for name in template.names() if template.load(name).reasoning_key} == {"qwen3"}
