"""What a chat asks is what training saw before the answer, id for id: every template, several turns, system, thinking,
tools.

Both ways are walked whole: rows through the reader and the encoder; questions as the page keeps them, or as a client
sends them, through the server's reading of the request.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from studio import data, template
from studio.base import tokenizer_files
from studio.kernels import IGNORE_INDEX
from studio.talk import chats
from studio.template import Template
from studio.tokens import Encoder
from studio.worker.request import ChatRequest, read


def parse_chat(body: Any) -> tuple[str, list[dict[str, Any]], dict[str, Any], dict[str, Any]]:
    """(model, messages, sampling, variables of the chat template) of a chat request. Raises RequestError."""
    request = read(ChatRequest, body)
    messages = [message.plain() for message in request.messages]
    return request.model, messages, request.sampling(), request.variables()


NO_THOUGHT = "<think>\n\n</think>\n\n"
NAMES = ["model", *template.names()]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "“Warm” <b>?",
            "parameters": {"type": "object", "properties": {}},
        },
    }
]
SAID: dict[str, list[tuple[str, str]]] = {
    "one turn": [("user", "Hello there?"), ("assistant", "Hi.")],
    "several turns": [
        ("user", "One"),
        ("assistant", " Two "),
        ("user", "Three <|im_end|> x"),
        ("assistant", "Four\n- a\n- b"),
        ("user", "Five"),
        ("assistant", "Six"),
    ],
    "system": [
        ("system", "Be kind."),
        ("user", "Naïve café — 怎样?"),
        ("assistant", "用水。 🙂"),
        ("user", "Good"),
        ("assistant", "Yes."),
    ],
    "thinking": [
        ("user", "2+3?"),
        ("assistant", "<think>\nTwo and three.\n</think>\n\nFive."),
        ("user", "4+4?"),
        ("assistant", "<think>\nEasy.\n</think>\n\nEight."),
    ],
}
CALL = [
    {"role": "user", "content": "Warm?"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "weather", "arguments": {"place": "Rome"}}}
        ],
    },
    {"role": "tool", "content": "31 degrees", "tool_call_id": "a"},
    {"role": "assistant", "content": "Yes."},
]
CALLING = (
    "{{ bos_token }}{% if tools %}{{ tools | tojson }}{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for c in m.tool_calls or [] %}{{ c.function | tojson }}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def same(encoder: Encoder, row: dict[str, Any], asked: list[int], turn: int) -> None:
    """asked: the ids before answer number `turn` of a row (from 0), which ends the conversation: Mistral's template
    looks for the last question.
    """
    answers = [n for n, message in enumerate(row["messages"]) if message["role"] == "assistant"]
    e = encoder.encode({**row, "messages": row["messages"][: answers[turn] + 1]})
    starts = [n for n, label in enumerate(e.labels) if label != IGNORE_INDEX and e.labels[n - 1] == IGNORE_INDEX]
    assert asked == e.ids[: len(asked)], encoder.tokenizer.decode(asked, skip_special_tokens=False)
    between = encoder.tokenizer.decode(e.ids[len(asked) : starts[turn]], skip_special_tokens=False)
    if between.removesuffix(" ") == NO_THOUGHT:
        return  # Qwen 3's empty block of an answer without reasoning is in the prompt, not trained, and not in a chat
    assert (
        starts[turn] <= len(asked) <= starts[turn] + 1
    )  # one: a blank that the template writes, and that is trained as the answer's first


@pytest.mark.parametrize("said", SAID)
@pytest.mark.parametrize("name", NAMES)
def test_the_page_asks_what_training_saw(name: str, said: str, tiny_model: Path, tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    file.write_text(json.dumps([{"messages": [{"role": role, "content": text} for role, text in SAID[said]]}]))
    row = data.read(str(file)).conversations[0]
    encoder = Encoder(tiny_model, template.load(name, tiny_model))
    talk = chats.Conversation(
        {"system": next((text for role, text in SAID[said] if role == "system"), ""), "turns": []}, saved=False
    )
    for role, text in SAID[said]:
        if role == "user":
            talk.turns.append({"prompt": text, "sides": ["mine"], "answers": [{"text": ""}]})
        elif role == "assistant":
            _, messages, _, extra = parse_chat({"model": "mine", "messages": talk.messages(talk.turns[-1], "mine")})
            same(encoder, row, encoder.prompt_ids(messages, **extra), len(talk.turns) - 1)
            talk.turns[-1]["answers"][0]["text"] = text


@pytest.mark.parametrize("turn", [0, 1])
@pytest.mark.parametrize("tools", [None, TOOLS])
def test_tools_and_what_they_gave(
    turn: int, tools: list[dict[str, Any]] | None, tiny_model: Path, tmp_path: Path
) -> None:
    file = tmp_path / "rows.json"
    file.write_text(json.dumps([{"messages": CALL, **({"tools": tools} if tools else {})}]))
    row = data.read(str(file)).conversations[0]
    encoder = Encoder(tiny_model, Template("calling", CALLING, tokenizer_files.special_tokens(tiny_model)))
    sent = [
        {**message, "content": message["content"] or None} for message in CALL[: (1, 3)[turn]]
    ]  # a client sends no text beside a call
    _, messages, _, extra = parse_chat({"model": "mine", "messages": sent, "tools": tools})
    same(encoder, row, encoder.prompt_ids(messages, **extra), turn)


@pytest.mark.parametrize(
    "body",
    [
        {"tools": "weather"},
        {"chat_template_kwargs": {"add_generation_prompt": False}},
        {"messages": [{"role": "wizard"}]},
        {"messages": [{"content": "Hi"}]},
        {"temperature": "hot"},
        {"max_tokens": 0},
        {"n": 2},
    ],
)
def test_what_cannot_be_meant_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError)):
        parse_chat({"messages": [{"role": "user", "content": "Hi"}], **body})
