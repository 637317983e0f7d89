"""Ids are those of transformers' apply_chat_template: a sentencepiece-like tokenizer, the real starter, tools."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from studio import template, template_check
from studio.kernels import IGNORE_INDEX
from studio.template import Template
from studio.tokens import Encoder
from tests import tiny
from tests.test_template import CALL
from tests.test_tokens import CONVERSATIONS

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Naïve “weather” <b>",
            "parameters": {"type": "object", "properties": {}},
        },
    }
]
WITH_TOOLS = (
    "{{ bos_token }}{% if tools %}[AVAILABLE_TOOLS] {{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}{% for m in"
    " messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]{% elif m['role'] == 'system' %}{{"
    " m['content'] }}\n{% elif m['role'] == 'tool' %}[TOOL_RESULTS] {{ m['content'] }}[/TOOL_RESULTS]{% else %} {{"
    " m['content'] }}{% for c in m.tool_calls or [] %}[TOOL_CALLS] {{ c.function | tojson }}{% endfor %}{{ eos_token"
    " }}{% endif %}{% endfor %}"
)
SCHEMES = ["first", "always", "never"]
NAMES = ["model", *template.names()]


@pytest.fixture(scope="module", params=SCHEMES)
def unigram(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Unigram tokenizer as sentencepiece makes them: Metaspace, byte fallback, a post-processor that adds a BOS."""
    words = Tokenizer(models.Unigram())
    words.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=request.param)
    words.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    spare = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"]
    words.train_from_iterator(
        tiny.TEXT * 3,
        trainers.UnigramTrainer(vocab_size=120, special_tokens=spare, unk_token="<unk>", show_progress=False),
    )
    held = json.loads(words.to_str())
    held["model"]["byte_fallback"] = True
    held["model"]["vocab"] += [[f"<0x{byte:02X}>", -20.0] for byte in range(256)]
    words = Tokenizer.from_str(json.dumps(held))
    words.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", words.token_to_id("<s>"))]
    )
    folder = tmp_path_factory.mktemp(f"unigram-{request.param}")
    words.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "chat_template.jinja").write_text(WITH_TOOLS)
    return folder


def same(
    folder: Path, tokenizer: Any, name: str, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None = None
) -> None:
    one = template.load(name, folder)
    special = {"bos_token": tokenizer.bos_token or "", "eos_token": tokenizer.eos_token} | one.special
    encoder = Encoder(folder, Template(one.name, one.text, special))
    row = {"messages": messages} | ({"tools": tools} if tools else {})
    e = encoder.encode(row)
    theirs = tokenizer.apply_chat_template(messages, tools=tools, chat_template=one.text, **special)["input_ids"]
    assert e.ids == theirs
    if special["bos_token"] and e.text.startswith(special["bos_token"]):
        assert e.ids[:2].count(tokenizer.bos_token_id) == 1, "one BOS, the template's"
    inside = {n for a, b in encoder.render(row).spans for n in range(a, b)}
    for n, (label, (a, b)) in enumerate(zip(e.labels, e.offsets, strict=True)):
        assert label in (e.ids[n], IGNORE_INDEX)
        if a < b and n and e.text[a:b].strip():
            assert (label != IGNORE_INDEX) == bool(inside & set(range(a, b)))
    asked = messages[:-1]
    prompt = tokenizer.apply_chat_template(
        asked, tools=tools, chat_template=one.text, add_generation_prompt=True, **special
    )["input_ids"]
    assert encoder.prompt_ids(asked, **({"tools": tools} if tools else {})) == prompt


@pytest.mark.parametrize("name", NAMES)
def test_unigram(name: str, unigram: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(unigram)
    for messages in CONVERSATIONS:
        same(unigram, tokenizer, name, messages)


def test_unigram_with_tools(unigram: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(unigram)
    for messages in (CONVERSATIONS[0], CALL):
        same(unigram, tokenizer, "model", messages, TOOLS)
    encoder = Encoder(unigram, template.load("model", unigram))
    assert "weather" in encoder.encode({"messages": CALL, "tools": TOOLS}).text.split("[INST]")[0]
    template_check.check(encoder, [{"messages": CALL, "tools": TOOLS}])


def test_tools_with_the_templates_of_real_models(tiny_model: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    folder = Path(pytest.importorskip("importlib.util").find_spec("trl").origin).parent / "chat_templates"
    found = 0
    for path in [folder / f"{name}.jinja" for name in ("qwen3", "qwen2_5", "llama3_1", "llama3_2")]:
        if path.is_file():
            (tmp_path / "chat_template.jinja").write_text(path.read_text())
            for file in ("tokenizer.json", "tokenizer_config.json"):
                (tmp_path / file).write_bytes((tiny_model / file).read_bytes())
            same(tmp_path, tokenizer, "model", CALL, TOOLS)
            rendered = template.load("model", tmp_path).render(CALL, tools=TOOLS)
            assert "weather" in rendered.text[slice(*rendered.spans[0])], (
                "the call is what is learnt, whatever the template writes before a last turn"
            )
            found += 1
    assert found or not folder.is_dir()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_starter(name: str, with_starter: Path) -> None:
    from transformers import AutoTokenizer

    folder = with_starter / "models" / "starter"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for messages in CONVERSATIONS:
        same(folder, tokenizer, name, messages)
    same(folder, tokenizer, name, CONVERSATIONS[0], TOOLS)
