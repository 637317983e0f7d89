"""Nothing is trained that was not meant, nothing is lost without a word: calls of tools, weights of turns, reasoning,
verdicts.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, processors

from studio import data, template, template_check
from studio.base import tokenizer_files
from studio.commands import runs
from studio.data import DataOrder
from studio.data.record import changes
from studio.errors import DataError, TemplateError
from studio.kernels import IGNORE_INDEX
from studio.template import Template
from studio.tokens import Encoder
from tests.data.fixtures import as_lines

TOOL = {
    "name": "get_weather",
    "description": "Weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
TOOLS = [{"type": "function", "function": TOOL}]
ASK, SUN = {"role": "user", "content": "How is it in Rome?"}, {"role": "tool", "content": "sunny"}


def call(arguments: Any, name: str = "get_weather") -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def answer(content: str = "", *made: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content} | ({"tool_calls": list(made)} if made else {}) | more


def rows(home: Path, name: str, *lines: Any, **options: Any) -> data.Dataset:
    path = home / name
    path.write_bytes(as_lines(list(lines)))
    return data.read(path, **options)


def trained(encoder: Encoder, conversation: Any) -> str:
    """The characters whose tokens have a label."""
    e = encoder.encode(conversation)
    return encoder.tokenizer.decode([label for label in e.labels if label != IGNORE_INDEX], skip_special_tokens=False)


def encoder_of(folder: Path, name: str = "chatml", **options: Any) -> Encoder:
    one = template.load(name, folder)
    return Encoder(
        folder,
        Template(one.name, one.text, {"eos_token": "<|im_end|>", "bos_token": "<|im_start|>"} | one.special),
        4096,
        **options,
    )


# -- calls of tools

PROMPT = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
DROPS = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}" + PROMPT
CALLED = json.dumps({"name": "get_weather", "arguments": {"city": "Rome"}})
NAME_ONLY = DROPS.replace(
    "{{ m.content }}", "{{ m.content }}{% for c in m.tool_calls or [] %}<call>{{ c.function.name }}</call>{% endfor %}"
)
FIRST_ONLY = DROPS.replace(
    "{{ m.content }}",
    "{{ m.content }}{% if m.tool_calls %}<call>{{ m.tool_calls[0].function | tojson }}</call>{% endif %}",
)
OUTSIDE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for c in m.tool_calls or [] %}{{ c.function | tojson "
    "}}{% endfor %}"
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}{% else %}{{ "
    "m.content }}<|im_end|>{% endif %}\n"
    "{% endfor %}" + PROMPT
)
LOST = {
    "the answer names it": (
        DROPS,
        [ASK, answer("", call({"city": "Rome"})), SUN, answer("get_weather says that the city of Rome is sunny.")],
    ),
    "the turn's own words name it": (
        DROPS,
        [ASK, answer("I ask get_weather for the city Rome.", call({"city": "Rome"})), SUN, answer("Sunny.")],
    ),
    "only its name is written": (NAME_ONLY, [ASK, answer("", call({"city": "Rome"})), SUN, answer("Sunny.")]),
    "only the first of two is written": (
        FIRST_ONLY,
        [ASK, answer("", call({"city": "Rome"}), call({"city": "Oslo"})), SUN, answer("Sunny.")],
    ),
    "it stands outside what is trained": (OUTSIDE, [ASK, answer("", call({"city": "Rome"})), SUN, answer("Sunny.")]),
}


@pytest.mark.parametrize("case", LOST)
def test_a_call_that_is_not_trained_refuses_its_row(case: str, tiny_model: Path) -> None:
    source, messages = LOST[case]
    with pytest.raises(TemplateError, match="leaves out the calls of tools"):
        Encoder(tiny_model, Template("own", source, tokenizer_files.special_tokens(tiny_model))).encode(
            {"messages": messages, "tools": TOOLS}
        )


@pytest.mark.parametrize(
    "arguments",
    [
        {"city": "Rome"},
        '{"city": "Rome"}',
        {"city": 'say "hi" <b> ü', "days": 3, "warm": True, "at": {"x": [1.5, None]}},
        {},
    ],
)
@pytest.mark.parametrize("kind", ["chatml", "qwen3", "as object", "as text"])
def test_a_call_is_trained_with_its_arguments_however_they_are_given(
    kind: str, arguments: Any, tiny_model: Path
) -> None:
    """As transformers renders it from arguments in the form that the template takes."""
    wants = {"as object": "{{ c.function.arguments | tojson }}", "as text": "{{ '' + c.function.arguments }}"}
    if kind in wants:
        written = (
            "{{ m.content }}{% for c in m.tool_calls or [] %}<c>{{ c.function.name }} "
            + wants[kind]
            + "</c>{% endfor %}"
        )
        source = DROPS.replace("{{ m.content }}", written)
        encoder = Encoder(tiny_model, Template("own", source, tokenizer_files.special_tokens(tiny_model)))
    else:
        encoder = encoder_of(tiny_model, kind)
    said = trained(encoder, {"messages": [ASK, answer("", call(arguments)), SUN, answer("Sunny.")], "tools": TOOLS})
    plain = json.loads(arguments) if isinstance(arguments, str) else arguments
    assert json.dumps(plain, ensure_ascii=False) in said
    asked = encoder.prompt([ASK, answer("", call(arguments)), SUN], tools=TOOLS)
    assert json.dumps(plain, ensure_ascii=False) in asked


CALLS = {
    "sharegpt": {
        "conversations": [
            {"from": "human", "value": "How is it in Rome?"},
            {"from": "function_call", "value": CALLED},
            {"from": "observation", "value": "sunny"},
            {"from": "gpt", "value": "Sunny."},
        ],
        "tools": json.dumps([TOOL]),
    },
    "swift": {
        "messages": [
            ASK,
            {"role": "tool_call", "content": CALLED},
            {"role": "tool_response", "content": "sunny"},
            answer("Sunny."),
        ],
        "tools": json.dumps(TOOLS),
    },
    "openai 2023": {
        "messages": [
            ASK,
            {
                "role": "assistant",
                "content": None,
                "function_call": {"name": "get_weather", "arguments": '{"city": "Rome"}'},
            },
            {"role": "function", "name": "get_weather", "content": "sunny"},
            answer("Sunny."),
        ],
        "functions": [TOOL],
    },
    "in the system turn": {
        "messages": [
            {"role": "system", "content": "", "tools": TOOLS},
            ASK,
            answer(CALLED),
            {"role": "observation", "content": "sunny"},
            answer("Sunny."),
        ]
    },
}


@pytest.mark.parametrize("spelling", CALLS)
def test_every_spelling_of_a_call_becomes_one(spelling: str, home: Path, tiny_model: Path) -> None:
    found = rows(home, "calls.jsonl", CALLS[spelling])
    (one,) = found.conversations
    assert one["tools"] == TOOLS
    assert found.counts == {}
    assert one["messages"][-3]["content"] == ""
    assert '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>' in trained(
        encoder_of(tiny_model), one
    )


def test_a_turn_of_nothing_but_a_call(home: Path) -> None:
    for turn in ({"function_call": {"name": "get_weather", "arguments": "{}"}}, {"tool_calls": [call({})]}):
        found = rows(home, "bare.jsonl", {"messages": [ASK, {"role": "assistant", **turn}], "tools": TOOLS})
        assert [call["function"]["name"] for call in found.conversations[0]["messages"][1]["tool_calls"]] == [
            "get_weather"
        ]


def test_calls_in_a_row_are_one_turn_and_odd_ones_are_told(home: Path) -> None:
    made = [
        {"from": "function_call", "value": json.dumps({"name": "get_weather", "arguments": {"city": city}})}
        for city in "AB"
    ]
    turns = [
        {"from": "human", "value": "Weather?"},
        *made,
        {"from": "observation", "value": "sunny"},
        {"from": "observation", "value": "windy"},
        {"from": "gpt", "value": "Fine."},
    ]
    found = rows(
        home,
        "two.jsonl",
        {"conversations": turns},
        {"conversations": [turns[0], {"from": "function_call", "value": "weather(Rome)"}]},
        {"conversations": [turns[0], {"from": "gpt", "value": "Hi."}], "tools": "no list"},
    )
    assert [len(m.get("tool_calls", ())) for m in found.conversations[0]["messages"]] == [0, 2, 0, 0, 0]
    assert [(p.row, p.kind) for p in found.problems] == [(2, "odd_call"), (3, "odd_tools")]


def test_calls_that_differ_in_arguments_alone_are_no_duplicates(home: Path) -> None:
    lines = [
        {"messages": [ASK, answer("", call({"city": city}))], "tools": TOOLS}
        for city in ("Rome", "Oslo", "Bern", "Rome")
    ]
    found = rows(home, "cities.jsonl", *lines)
    assert {kind: by.tolist() for kind, by in found.by_kind.items()} == {"duplicate": [4]}


# -- what is marked not to be trained


@pytest.mark.parametrize(
    "flag", [{"weight": 0}, {"loss": False}, {"train": False}, {"loss_weight": 0.0}, {"training": False}]
)
@pytest.mark.parametrize("name", ["model", "chatml", "llama3"])
def test_a_turn_marked_off_is_read_and_not_trained(
    name: str, flag: dict[str, Any], home: Path, tiny_model: Path
) -> None:
    ask = {"role": "user", "content": "Hi"}
    found = rows(
        home,
        "weights.jsonl",
        {"messages": [ask, answer("WRONG words", **flag), ask, answer("Right words", **dict.fromkeys(flag, 1))]},
    )
    (one,) = found.conversations
    for train_on in ("assistant", "all"):
        said = trained(encoder_of(tiny_model, name, train_on=train_on), one)
        assert "WRONG" not in said
        assert "Right words" in said
    figures = data.statistics(found, encoder_of(tiny_model, name))
    assert figures["trained"] == encoder_of(tiny_model, name).encode(one).n_trained
    last = [ask, answer("Right"), ask, answer("WRONG", weight=0)]
    assert encoder_of(tiny_model, name, train_on="last").encode(last).n_trained == 0


def test_what_cannot_be_weighed_is_told(home: Path) -> None:
    ask = {"role": "user", "content": "Hi"}
    found = rows(
        home,
        "half.jsonl",
        {"messages": [ask, answer("Half.", weight=0.5)]},
        {"messages": [{**ask, "train": True}, answer("Whole.")]},
    )
    assert [(p.row, p.kind, p.field) for p in found.problems] == [
        (1, "wrong_type", "messages[1].weight"),
        (2, "unheeded_flag", "messages[0].train"),
    ]


# -- reasoning

EMPTY = "<think>\n\n</think>\n\n"
THOUGHT = [{"role": "user", "content": "2+2?"}, answer("Four.", reasoning_content="Two and two.")]
PLAIN = [{"role": "user", "content": "2+2?"}, answer("Four.")]


@pytest.mark.parametrize(
    ("policy", "thinking", "plain"),
    [
        ("auto", "<think>\nTwo and two.\n</think>\n\nFour.", "Four."),
        ("mask_empty", "<think>\nTwo and two.\n</think>\n\nFour.", "Four."),
        ("keep", "<think>\nTwo and two.\n</think>\n\nFour.", EMPTY + "Four."),
        ("drop", "Four.", "Four."),
    ],
)
def test_qwen3s_empty_block_is_not_trained(policy: Any, thinking: str, plain: str, tiny_model: Path) -> None:
    encoder = encoder_of(tiny_model, "qwen3", reasoning=policy)
    assert trained(encoder, THOUGHT) == thinking + "<|im_end|>"
    assert trained(encoder, PLAIN) == plain + "<|im_end|>"
    assert EMPTY + "Four." in encoder.encode(PLAIN).text, "it is read all the same"
    written = [PLAIN[0], answer(EMPTY + "Four.")]  # by the data itself, as for a /no_think question
    assert trained(encoder, written).startswith(EMPTY) == (policy in ("auto", "keep"))
    template_check.check(encoder, [PLAIN])


@pytest.mark.parametrize("name", ["qwen3", "qwen3_5_think", "qwen3_5_nothink", "qwen3_6", "glm4moe"])
def test_no_empty_block_of_a_models_own_template_is_trained(name: str, tiny_model: Path) -> None:
    """Also where the prompt opens the block, as Qwen 3.5's does: its end alone would teach to close it at once."""
    source = Path(pytest.importorskip("trl").__file__).parent / "chat_templates" / f"{name}.jinja"
    if not source.is_file():
        pytest.skip("trl does not carry this template any more")
    encoder = Encoder(
        tiny_model, Template("model", source.read_text(encoding="utf-8"), tokenizer_files.special_tokens(tiny_model))
    )
    assert trained(encoder, PLAIN).startswith("Four.")
    assert trained(encoder, THOUGHT).lstrip().removeprefix("<think>").lstrip().startswith("Two and two.")


def test_reasoning_without_a_place_is_dropped_and_told_or_kept(tiny_model: Path) -> None:
    dropped = encoder_of(tiny_model, "chatml").encode(THOUGHT)
    assert dropped.left_out == ("reasoning_dropped",)
    assert "Two and two" not in dropped.text
    assert (
        trained(encoder_of(tiny_model, "chatml", reasoning="keep"), THOUGHT)
        == "<think>\nTwo and two.\n</think>\n\nFour.<|im_end|>"
    )
    inline = [PLAIN[0], answer("<think>\nTwo and two.\n</think>\n\nFour.")]
    assert trained(encoder_of(tiny_model, "chatml"), inline) == inline[1]["content"] + "<|im_end|>"
    assert trained(encoder_of(tiny_model, "chatml", reasoning="drop"), inline) == "Four.<|im_end|>"


def test_reasoning_of_earlier_turns(tiny_model: Path) -> None:
    """As Qwen 3's own template drops it: told, and refused where it is to be kept."""
    trl = pytest.importorskip("trl")
    source = Path(trl.__file__).parent / "chat_templates" / "qwen3.jinja"
    own = Template("model", source.read_text(encoding="utf-8"), tokenizer_files.special_tokens(tiny_model))
    assert Encoder(tiny_model, own).encode(THOUGHT).left_out == ()
    assert Encoder(tiny_model, own).encode(THOUGHT * 2).left_out == ("reasoning_dropped",)
    with pytest.raises(TemplateError, match="reasoning of answer 1"):
        Encoder(tiny_model, own, reasoning="keep").encode(THOUGHT * 2)
    assert encoder_of(tiny_model, "qwen3").encode(THOUGHT * 2).left_out == ()


@pytest.mark.parametrize(
    "row",
    [
        {"problem": "2+2?", "reasoning": "Two and two.", "answer": "Four."},
        {"Question": "2+2?", "Complex_CoT": "Two and two.", "Response": "Four."},
        {"instruction": "2+2?", "cot": "Two and two.", "output": "Four."},
        {"messages": THOUGHT},
        {"messages": [PLAIN[0], answer("Four.", thinking="Two and two.")]},
    ],
)
def test_reasoning_is_a_part_of_a_row(row: dict[str, Any], home: Path) -> None:
    (one,) = rows(home, "thoughts.jsonl", row).conversations
    assert one["messages"] == THOUGHT


def test_reasoning_by_hand(home: Path) -> None:
    found = rows(
        home,
        "hand.jsonl",
        {"frage": "2+2?", "gedanke": "Two and two.", "antwort": "Four."},
        mapping={"prompt": "frage", "reasoning": "gedanke", "answer": "antwort"},
    )
    assert found.conversations[0]["messages"] == THOUGHT


@pytest.mark.parametrize("decision", ["keep", "drop", "stop"])
def test_what_the_template_drops_is_decided_on_and_told(decision: str, home: Path, tiny_model: Path) -> None:
    path = home / "thoughts.jsonl"
    path.write_bytes(
        as_lines(
            [
                {"messages": THOUGHT},
                *({"messages": [{"role": "user", "content": f"{n}?"}, answer(f"It is {n}.")]} for n in range(3)),
            ]
        )
    )
    order = DataOrder(train=str(path), eval=0, problems={"reasoning_dropped": decision})
    if decision == "stop":
        with pytest.raises(DataError, match="Row 1 .* says to stop there"):
            data.prepare(order, encoder_of(tiny_model))
        return
    made = data.prepare(order, encoder_of(tiny_model))
    record = {key: made.record[key] for key in ("dropped", "cut", "left_out", "reasons", "tokens_lost")}
    assert len(made.train) == (4 if decision == "keep" else 3)
    assert record["left_out" if decision == "keep" else "dropped"]["reasoning_dropped"] == {"count": 1, "rows": "1"}
    assert "(reasoning_dropped): rows 1." in changes(record)[0]
    assert runs._line({"kind": "plan", "data": record}, None) == f"warning: {changes(record)[0]}", "train tells it too"


# -- preference data stays preference data

VERDICT = {"messages": PLAIN, "label": False}
NAMED = {
    "kto by hand": (VERDICT, {"messages": "messages", "label": "label"}, "kto"),
    "kto by hand, in columns": (
        {"q": "Hi", "a": "No.", "ok": False},
        {"prompt": "q", "answer": "a", "label": "ok"},
        "kto",
    ),
    "kto by dataset_info": (
        VERDICT,
        {
            "formatting": "sharegpt",
            "columns": {"messages": "messages", "kto_tag": "label"},
            "tags": {"role_tag": "role", "content_tag": "content"},
        },
        "kto",
    ),
    "the rest by hand, the label found": (VERDICT, {"messages": "messages"}, "kto"),
    "rejected by hand": (
        {"q": "Hi", "a": "Yes.", "b": "No."},
        {"prompt": "q", "chosen": "a", "rejected": "b"},
        "preference",
    ),
    "ms-swift": ({"query": "Hi", "response": "Yes.", "rejected_response": "No."}, None, "preference"),
    "ms-swift in messages": ({"messages": PLAIN, "rejected_response": "No."}, None, "preference"),
}


@pytest.mark.parametrize("case", NAMED)
def test_preference_data_is_known_however_it_is_named(case: str, home: Path) -> None:
    row, mapping, format = NAMED[case]
    found = rows(home, "verdicts.jsonl", row, mapping=mapping)
    assert (found.format, found.stage, found.rows, found.refused) == (format, "preference", 1, 0)
    if format == "preference":
        assert found.conversations[0]["rejected"] == "No."


@pytest.mark.parametrize("format", ["chatml", "sharegpt", "prompt", "alpaca"])
def test_a_format_by_hand_trains_no_bad_answer(format: str, home: Path) -> None:
    turns = {
        "chatml": {"messages": PLAIN},
        "sharegpt": {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "No."}]},
        "prompt": {"prompt": "Hi", "completion": "No."},
        "alpaca": {"instruction": "Hi", "output": "No."},
    }[format]
    found = rows(home, "format.jsonl", {**turns, "label": True}, {**turns, "label": False}, format=format)
    assert found.conversations.rows == [1]
    assert [(p.row, p.kind) for p in found.problems if p.severity == "refused"] == [(2, "bad_answer")]


# -- the BOS


@pytest.fixture
def with_bos(tiny_model: Path, tmp_path: Path) -> Path:
    """The tiny tokenizer, as Llama's: it puts a BOS before every text."""
    folder = tmp_path / "bos"
    folder.mkdir()
    words = Tokenizer.from_file(str(tiny_model / "tokenizer.json"))
    words.add_special_tokens(["<s>", "</s>"])
    words.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", words.token_to_id("<s>"))]
    )
    words.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"})
    )
    return folder


@pytest.mark.parametrize("name", template.names())
def test_the_bos_stands_once_in_training_chat_and_saved_template(name: str, with_bos: Path) -> None:
    from transformers import AutoTokenizer

    theirs, one = AutoTokenizer.from_pretrained(with_bos), template.load(name, with_bos)
    encoder = Encoder(with_bos, one)
    first = theirs("a")["input_ids"][0]
    for ids in (encoder.encode(PLAIN).ids, encoder.prompt_ids(PLAIN[:1])):
        assert (ids[0], ids.count(first)) == (first, 1)
    assert encoder.encode(PLAIN).ids == theirs.apply_chat_template(PLAIN, chat_template=one.text)["input_ids"]
    assert one.about == template.load(name).about


def test_the_bos_of_plain_text(with_bos: Path, tiny_model: Path) -> None:
    from transformers import AutoTokenizer

    theirs, encoder = (
        AutoTokenizer.from_pretrained(with_bos),
        Encoder(with_bos, template.load("chatml", with_bos), train_on="all"),
    )
    for text in ("Some text.", "<s>Some text."):
        e = encoder.encode({"text": text})
        assert e.ids == theirs("Some text.")["input_ids"] + [theirs.eos_token_id]
        assert e.labels == [IGNORE_INDEX, *e.ids[1:]]
    assert Encoder(tiny_model, template.load("chatml", tiny_model)).encode("Hi").text == "Hi<|im_end|>"


def test_tokens_beyond_the_embedding_table(tiny_model: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "small"
    shutil.copytree(tiny_model, folder)
    words = Tokenizer.from_file(str(folder / "tokenizer.json"))
    words.add_special_tokens(["<|new|>"])
    words.save(str(folder / "tokenizer.json"))
    encoder = Encoder(folder, template.load("model", folder))
    assert encoder.encode(PLAIN).n_trained
    with pytest.raises(TemplateError, match=r"'<\|new\|>' has the number \d+, but small has only \d+ rows"):
        encoder.encode([PLAIN[0], answer("Four<|new|>.")])
    assert DataOrder(train="x").reasoning == "auto"


# -- what is wrong only once a row meets template and model


def test_rows_longer_than_the_model_reads(tiny_model: Path, home: Path) -> None:
    long = {"instruction": "Go on.", "output": "word " * 700}
    found = rows(home, "long.jsonl", {"instruction": "Hi", "output": "Hello."}, long)
    source = str(home / "long.jsonl")
    order = DataOrder(train=source, eval=0)
    with pytest.raises(DataError, match=r"Row 2 of .*tiny-llama can read 512") as refused:
        data.check(order, tiny_model)
    assert "512" in refused.value.hint
    with pytest.raises(DataError, match="Row 2 of"):
        data.prepare(order, Encoder.from_order(order, tiny_model))
    fitting = order.model_copy(update={"max_length": 512})
    data.check(fitting, tiny_model)
    with pytest.raises(DataError, match="can read 492"):
        data.check(fitting, tiny_model, num_virtual_tokens=20)
    encoder = Encoder.from_order(order, tiny_model)
    assert data.statistics(found, encoder)["counts"] == {"over_context": 1}


def test_rows_that_cannot_be_rendered_are_told_in_inspect_gate_and_estimate(
    tiny_model: Path, home: Path, tmp_path: Path, capsys: Any
) -> None:
    from studio.__main__ import main

    lines = [{"messages": [ASK, answer("", call({"city": city}))], "tools": TOOLS} for city in ("Rome", "Oslo")]
    rows(home, "calls.jsonl", *lines)
    source = str(home / "calls.jsonl")
    assert main(["inspect", source, "--model", str(tiny_model), "--template", "llama3", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["refused"], told["counts"]["unrenderable"]) == (2, 2)
    assert "leaves out the calls of tools: get_weather" in next(
        p["reason"] for p in told["problems"] if p["kind"] == "unrenderable"
    )
    order = DataOrder(train=source, eval=0, template="llama3")
    with pytest.raises(TemplateError, match="'llama3' leaves out the calls of tools"):
        data.check(order, tiny_model)
    config = tmp_path / "order.yaml"
    config.write_text(
        json.dumps({"model": str(tiny_model), "data": {"train": source, "template": "llama3", "eval": 0}})
    )
    assert main(["estimate", str(config), "--json"]) == 0
    assert "'llama3' leaves out the calls" in json.loads(capsys.readouterr().out)["data"]["error"]["message"]
