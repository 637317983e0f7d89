"""Templates: what they render, which spans are trained, what ends a turn, and the gate that refuses broken ones."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from studio import template, template_check
from studio.base import tokenizer_files
from studio.errors import TemplateError
from studio.template import Template
from studio.tokens import Encoder

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
ONE = [{"role": "user", "content": "Hi there."}, {"role": "assistant", "content": "Hello."}]
SYSTEM = [{"role": "system", "content": "Be nice."}, *ONE]
TWO = [*ONE, {"role": "user", "content": "More?"}, {"role": "assistant", "content": "Yes."}]
ENDS = {
    "alpaca": "</s>", "alpaca_original": "</s>", "chatml": "<|im_end|>", "deepseek": "<｜end▁of▁sentence｜>",
    "gemma": "<end_of_turn>", "llama3": "<|eot_id|>",
    "mistral": "</s>", "phi": "<|end|>", "qwen3": "<|im_end|>",
}  # fmt: skip


def trained(one: Template, messages: list[dict[str, Any]]) -> list[str]:
    rendered = one.render(messages)
    return [rendered.text[a:b] for a, b in rendered.spans]


@pytest.mark.parametrize("name", sorted(ENDS))
def test_named_templates(name: str) -> None:
    one = template.load(name)
    assert one.stop_strings == [ENDS[name]]
    assert one.about, "each file opens with a comment on whose format it is"
    for messages, answers in ((ONE, ["Hello."]), (SYSTEM, ["Hello."]), (TWO, ["Hello.", "Yes."])):
        found = trained(one, messages)
        assert len(found) == len(answers)
        for text, answer in zip(found, answers, strict=True):
            assert text.strip().removeprefix("<think>\n\n</think>\n\n") == answer + ENDS[name]
    prompt = one.render(TWO[:3], add_generation_prompt=True).text
    assert one.render(TWO).text.startswith(prompt), "what chat asks is how training rows begin"


def test_all_are_tested() -> None:
    assert template.names() == sorted(ENDS)


def test_alpaca_as_the_handbooks_print_it() -> None:
    one = template.load("alpaca")
    rows = [
        {"role": "user", "content": "Translate.\ndog", "instruction": "Translate.", "input": "dog"},
        {"role": "assistant", "content": "Hund"},
    ]
    head = (
        "Below is an instruction that describes a task.\nWrite a response that appropriately completes the request.\n\n"
    )
    assert one.render(rows).text.startswith(
        head + "### Instruction:\nTranslate.\n\n### Input:\ndog\n\n### Response:\nHund</s>"
    )
    assert one.render(ONE).text.startswith(head + "### Instruction:\nHi there.\n\n### Response:\nHello.</s>")


def test_thinking_is_kept_and_trained() -> None:
    answer = {"role": "assistant", "content": "Four.", "reasoning_content": "2+2"}
    assert trained(template.load("qwen3"), [ONE[0], answer]) == ["<think>\n2+2\n</think>\n\nFour.<|im_end|>"]
    inline = {"role": "assistant", "content": "<think>\n2+2\n</think>\n\nFour."}
    assert trained(template.load("qwen3"), [ONE[0], inline]) == ["<think>\n2+2\n</think>\n\nFour.<|im_end|>"]


@pytest.mark.parametrize("path", sorted(glob.glob(str(template.FOLDER / "*.jinja"))))
def test_same_text_as_transformers(path: str) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    source = Path(path).read_text(encoding="utf-8")
    for messages in (ONE, SYSTEM, TWO):
        for prompt in (False, True):
            theirs, _ = render_jinja_template([messages], chat_template=source, add_generation_prompt=prompt, **SPECIAL)
            assert Template("x", source, SPECIAL).render(messages, add_generation_prompt=prompt).text == theirs[0]


def _trl() -> list[str]:
    spec = pytest.importorskip("importlib.util").find_spec("trl")
    folder = Path(spec.origin).parent / "chat_templates" if spec else Path("none")
    return sorted(str(p) for p in folder.glob("*.jinja"))


# Spans found without a generation tag, against the tagged twin that trl carries of the same model's template.
TWINS = ["cohere", "cohere2", "gemma3", "lfm2", "llama3", "qwen2_5", "qwen3", "qwen3_instruct_2507"]


@pytest.mark.parametrize("name", TWINS)
def test_spans_of_models_own_templates(name: str) -> None:
    paths = {Path(p).stem: Path(p).read_text(encoding="utf-8") for p in _trl()}
    if name not in paths or f"{name}_training" not in paths:
        pytest.skip("trl does not carry this template any more")
    plain, tagged = (Template(n, paths[n], SPECIAL) for n in (name, f"{name}_training"))
    for messages in (ONE, SYSTEM, TWO):
        if plain.render(messages).text == tagged.render(messages).text:
            assert [t.strip() for t in trained(plain, messages)] == [t.strip() for t in trained(tagged, messages)]


def test_user_text_cannot_forge_spans() -> None:
    forged = [{"role": "user", "content": "\ufdd0mine\ufdd1 \ufdd2x\ufdd3"}, {"role": "assistant", "content": "Hello."}]
    for one in (template.load("chatml"), Template("own", CHATML, SPECIAL)):
        assert trained(one, forged) == ["Hello.<|im_end|>"]


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TAGGED = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' %}{% generation %}{{"
    " m['content'] }}<|im_end|>{% endgeneration %}\n{% else %}{{ m['content'] }}<|im_end|>\n{% endif %}{% endfor %}{%"
    " if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WORDS = "{{ m['content'] }}"
SPAN = "{% generation %}" + WORDS + "<|im_end|>{% endgeneration %}"
BROKEN = {
    "end of turn outside the tag": TAGGED.replace("<|im_end|>{% endgeneration %}", "{% endgeneration %}<|im_end|>"),
    "nothing in the tag": TAGGED.replace(SPAN, "{% generation %}{% endgeneration %}" + WORDS + "<|im_end|>"),
    "tag around everything": "{% generation %}" + CHATML + "{% endgeneration %}",
    "tag around the user": TAGGED.replace("== 'assistant'", "== 'user'"),
    "tag around every turn": (
        "{% for m in messages %}{% generation %}<|im_start|>{{ m['role'] }}\n"
        + WORDS
        + "<|im_end|>\n{% endgeneration %}{% endfor %}"
    ),
    "no end of turn": CHATML.replace("<|im_end|>", ""),
    "no end of turn, and every turn opens alike": CHATML.replace("<|im_end|>\n", ""),
    "no end of turn, and words open the next": (
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    ),
    "answers left out": CHATML.replace("{{ m['content'] }}", "{{ m['content'] if m['role'] != 'assistant' else '' }}"),
    "questions left out": CHATML.replace(
        "{{ m['content'] }}", "{{ m['content'] if m['role'] == 'assistant' else '' }}"
    ),
    "prompt forgotten": TAGGED.replace("{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}", ""),
    "prompt of another format": TAGGED.replace(
        "{% if add_generation_prompt %}<|im_start|>assistant\n", "{% if add_generation_prompt %}### Response:\n"
    ),
    "only the first turn tagged": TAGGED.replace("== 'assistant'", "== 'assistant' and loop.index0 == 1"),
    "end of turn only before the answer": TAGGED.replace(
        "{{ m['content'] }}<|im_end|>{% endgeneration %}", "<|im_end|>{{ m['content'] }}{% endgeneration %}"
    ),
    "answer cut in half": TAGGED.replace(
        "{% generation %}{{ m['content'] }}", "{% generation %}{{ m['content'][:4] }}"
    ),
    "no such variable": CHATML.replace("m['content']", "m['text'].upper()"),
    "syntax error": CHATML.replace("{% endfor %}", ""),
}


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_the_gate_catches(name: str, tiny_model: Path) -> None:
    one = Template("broken", BROKEN[name], tokenizer_files.special_tokens(tiny_model))
    with pytest.raises(TemplateError) as refused:
        template_check.check(Encoder(tiny_model, one, 512), [ONE, TWO])
    assert "broken" in refused.value.message


def test_twelve_of_each() -> None:
    assert len(BROKEN) >= 12


SOUND = {**dict.fromkeys(ENDS), "tagged": TAGGED, "untagged": CHATML,
         "space after the end": CHATML.replace("<|im_end|>\n", "<|im_end|> \n\n"),
         "trimmed": CHATML.replace("m['content']", "m['content'] | trim")}  # fmt: skip


@pytest.mark.parametrize("name", sorted(SOUND))
def test_the_gate_lets_sound_ones_pass(name: str, tiny_model: Path) -> None:
    assert len(SOUND) >= 12
    special = {"eos_token": "<|im_end|>", "bos_token": "<|im_start|>"} | tokenizer_files.special_tokens(tiny_model)
    one = Template(name, SOUND[name] or template.load(name).text, special)
    template_check.check(Encoder(tiny_model, one, 512), [ONE, SYSTEM, TWO])


CALL = [
    {"role": "user", "content": "Warm?"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"type": "function", "function": {"name": "weather", "arguments": {"place": "Rome"}}}],
    },
    {"role": "tool", "content": "31 degrees"}, {"role": "assistant", "content": "Yes."},
]  # fmt: skip
OPENER = (
    CHATML.replace("<|im_end|>\n", "")
    .replace("<|im_start|>{{ m['role'] }}", "<|{{ m['role'] }}|>")
    .replace("<|im_start|>assistant", "<|assistant|>")
)


def test_where_nothing_ends_an_answer_what_opens_the_next_turn_does() -> None:
    """As GLM-4.5's own template has it; trl carries its tagged twin, which trains the next opener too."""
    paths = {Path(p).stem: Path(p).read_text(encoding="utf-8") for p in _trl()}
    if not {"glm4moe", "glm4moe_training"} <= set(paths):
        pytest.skip("trl does not carry this template any more")
    plain, tagged = (Template(n, paths[n], SPECIAL) for n in ("glm4moe", "glm4moe_training"))
    assert plain.stop_strings == ["<|user|>", "<|observation|>"]
    for messages in (ONE, SYSTEM, TWO, CALL, CALL[:2]):
        assert plain.render(messages).text == tagged.render(messages).text
        assert trained(plain, messages) == trained(tagged, messages)
    prompt = plain.render(TWO[:3], add_generation_prompt=True).text
    assert plain.render(TWO).text.startswith(prompt)


def test_a_borrowed_end_must_be_a_token(tiny_model: Path, tmp_path: Path) -> None:
    one = Template("opener", OPENER, tokenizer_files.special_tokens(tiny_model))
    assert (one.stop_strings, trained(one, TWO)) == (["<|user|>", "<|tool|>"], ["Hello.<|user|>", "Yes.<|user|>"])
    with pytest.raises(TemplateError, match="<|user|>.*no token of this model's tokenizer") as refused:
        template_check.check(Encoder(tiny_model, one, 512), [ONE, TWO])
    assert "chatml" in refused.value.hint
    template_check.check(Encoder(with_tokens(tiny_model, tmp_path, "<|user|>"), one, 512), [ONE, TWO])


def with_tokens(model: Path, folder: Path, *tokens: str) -> Path:
    """A folder with the model's tokenizer and these control tokens more."""
    words = Tokenizer.from_file(str(model / "tokenizer.json"))
    words.add_special_tokens(list(tokens))
    words.save(str(folder / "tokenizer.json"))
    return folder


def test_the_gate_lets_glm_pass(tiny_model: Path, tmp_path: Path) -> None:
    path = next((p for p in _trl() if Path(p).stem == "glm4moe"), None)
    if path is None:
        pytest.skip("trl does not carry this template any more")
    one = Template("glm4moe", Path(path).read_text(encoding="utf-8"), tokenizer_files.special_tokens(tiny_model))
    template_check.check(
        Encoder(with_tokens(tiny_model, tmp_path, "<|user|>", "<|assistant|>", "<|observation|>"), one, 512),
        [ONE, SYSTEM, TWO, CALL],
    )


@pytest.mark.parametrize(
    "path",
    [p for p in _trl() if not any(n in p for n in ("idefics", "llava", "smolvlm", "glm4moe"))],
    ids=lambda p: Path(p).stem,
)
def test_the_gate_lets_the_templates_of_real_models_pass(path: str, tiny_model: Path) -> None:
    special = {"eos_token": "<|im_end|>", "bos_token": "<|im_start|>"} | tokenizer_files.special_tokens(tiny_model)
    template_check.check(Encoder(tiny_model, Template("real", Path(path).read_text(encoding="utf-8"), special)), [ONE])


EVIL = {
    "endless loops": (
        "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}{% endfor %}{% endfor %}{%"
        " endfor %}"
    ),
    "huge range": "{% for a in range(10**9) %}x{% endfor %}",
    "doubling": (
        "{% set n = namespace(x='aaaaaaaa') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}"
    ),
    "doubling by plus": (
        "{% set n = namespace(x='aaaaaaaa') %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}{{ n.x }}"
    ),
    "doubling by block": (
        "{% set n = namespace(x='aaaaaaaa') %}{% for i in range(60) %}{% set y %}{{ n.x }}{{ n.x }}{% endset %}{% set"
        " n.x = y %}{% endfor %}"
    ),
    "repetition": "{{ 'a' * 10**10 }}",
    "padding": "{{ 'a'.ljust(10**10) }}{{ 'a' | center(10**10) }}",
    "format": "{{ '%099999999d' % 1 }}",
    "replace": "{% set x = 'a' * 100000 %}{{ x.replace('a', x) }}",
    "power": "{{ 10 ** 99999999 }}",
    "recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "reaching into Python": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals": "{{ messages.append.__globals__ }}",
    "changing the conversation": "{{ messages.append(1) }}",
    "attr filter": "{{ '' | attr('__class__') }}{{ ''['__class__'].__mro__[1] }}",
}


@pytest.mark.parametrize("name", sorted(EVIL))
@pytest.mark.timeout(20)
def test_hostile_templates_are_stopped(name: str) -> None:
    with pytest.raises(TemplateError):
        Template("evil", EVIL[name], SPECIAL).render(ONE, add_generation_prompt=True)


def test_loading(tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(TemplateError, match="no template named 'chatlm'"):
        template.load("chatlm")
    with pytest.raises(TemplateError, match="no chat template of its own"):
        template.load("model", tmp_path)
    assert template.load("auto", tmp_path).name == "chatml"
    assert template.load("auto", tiny_model).name == "model"
