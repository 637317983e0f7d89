"""Every language has every sentence, and a message with values in it finds its own."""

from __future__ import annotations

import re

import pytest

from studio import cards, config
from studio.data import foreign
from studio.data.files import OFFICE_FORMATS
from studio.data.formats import formats
from studio.errors import OrderError
from studio.estimate import estimate
from studio.memory import tables
from studio.ui import words
from tests.ui import spoken

OTHERS = [lang for lang in words.LANGUAGES if lang != "en"]
GATHERED = {
    "scripts": spoken.script_strings,
    "knobs": spoken.knob_strings,
    "glossary": spoken.glossary_strings,
    "errors": spoken.error_strings,
    "remedies": spoken.remedy_strings,
    "autos": spoken.auto_strings,
    "causes": lambda: spoken.constant_strings(
        "runs/diagnosis.py",
        "runs/signs.py",
        "runs/preference_signs.py",
        "ui/space.py",
        "runs/end_hooks.py",
        "worker/prove.py",
    ),
    "devices": lambda: spoken.constant_strings(
        "device.py",
        "driver/nvidia.py",
        "driver/fit.py",
        "worker/isolation.py",
        "worker/doctor.py",
        "worker/examine.py",
        "worker/examine_memory.py",
        "ui/doctor.py",
    ),
}


@pytest.mark.parametrize("what", GATHERED)
@pytest.mark.parametrize("lang", OTHERS)
def test_nothing_is_missing(lang: str, what: str) -> None:
    missing = words.missing(sorted(GATHERED[what]()), lang)
    assert not missing, (
        f"{len(missing)} sentences have no {lang}: put them into studio/ui/strings/{lang}/\n" + "\n".join(missing)
    )


@pytest.mark.parametrize("lang", OTHERS)
def test_slots_are_the_same(lang: str) -> None:
    """A translation fills in the values its sentence has, and no others."""
    wrong = [
        key
        for key, said in words.table(lang).items()
        if not set(re.findall(r"\{\w*\}", said)) <= set(re.findall(r"\{\w*\}", key))
    ]
    assert not wrong


def test_values_are_filled_in() -> None:
    assert words.say("{n} rows", "zh", n=3) == "3 行"
    assert words.say("{n} rows", "en", n=3) == "3 rows"
    assert words.say("never translated {n}", "zh", n=3) == "never translated 3"


def test_one_thing_is_told_in_the_singular() -> None:
    """Every sentence of the page about {n} things."""
    plural = re.compile(
        r"\{n\} (?:trained |general |advanced )?(rows|tokens|runs|steps|questions|epochs|values|votes)\b"
    )
    said = {text for text in spoken.script_strings() if plural.search(text)}
    assert len(said) > 20
    assert not [text for text in said if plural.search(words.of_one(text))]
    assert words.say("{n} rows", "en", n=1) == words.say("{n} rows", "en", n="1") == "1 row"
    assert words.say("{n} trained parameters ({share} %)", "en", n=1, share=2) == "1 trained parameter (2 %)"
    assert words.say("{n} of {all} rows", "en", n=1, all=3) == "1 of 3 rows"
    assert words.say("{n} rows", "en", n=11) == "11 rows"
    assert words.say("{n} rows", "zh", n=1) == "1 行"


def test_a_message_of_the_core_is_told_in_the_language(monkeypatch: pytest.MonkeyPatch) -> None:
    error = OrderError("There is no method 'lorra'.", "Did you mean lora?", "method.name")
    assert words.explain(error, "en")["message"] == "There is no method 'lorra'."
    told = words.translate("There is no file 'a.json'.", "zh")
    assert "'a.json'" in told
    assert told != "There is no file 'a.json'."
    assert words.translate("Something nobody ever said.", "zh") == "Something nobody ever said."
    few = "too few rows (4) to say: 67 % ± 12 ROUGE-L, was 12 %"  # its third value stands first
    assert words.translate(few, "zh") == "行数太少（4），说不准：ROUGE-L 67 % ± 12，原来是 12 %"
    assert "instruction" in words.translate("To learn label as the answer to instruction: x.", "zh"), "a column's name"


@pytest.mark.parametrize("training", [{}, {"checkpointing": True, "loss": "full"}, {"devices": 2, "sharding": "fsdp"}])
@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
def test_what_memory_is_for_is_explained_in_the_language(method: str, training: dict) -> None:
    order = config.build({"data": {"train": "x.json"}, "method": method, "training": training})
    said = estimate(tables.facts_of("Qwen/Qwen2.5-0.5B-Instruct"), order, cards.device("NVIDIA A10G")).explained
    for text in said.values():
        assert re.search("[\u4e00-\u9fff]", words.translate(text, "zh")), text
        assert words.translate(text, "zh").count("{") == 0


def test_what_a_worker_is_doing_is_told_in_the_language() -> None:
    """With one of the names that stand in it."""
    said = {
        text: [text.replace("{0}", name) for name in ("base", "training rows")] for text in spoken.progress_strings()
    }
    assert len(said) > 8
    assert not [text for text, forms in said.items() if all(words.translate(form, "zh") == form for form in forms)]


def test_the_browsers_wish() -> None:
    assert words.language("zh-CN") == "zh"
    assert words.language("zh_TW") == "zh"
    assert words.language("de") == "en"
    assert words.language(None) == "en"


def test_script_cannot_end_its_tag() -> None:
    assert "</" not in words.script()


def test_the_kinds_of_files_are_said_in_every_language() -> None:
    """They stand in the sentence that tells what a file looks like, or why it is no data."""
    titles = [module.TITLE for module in formats().values()]
    kinds = [text for told in foreign.MAGIC.values() for text in told] + list(filter(None, OFFICE_FORMATS.values()))
    assert not [text for text in [*titles, *kinds] if text not in words.table("zh")]


@pytest.mark.parametrize(
    ("said", "of_one"),
    [
        ("1 of the first 1 rows look like Alpaca.", "1 of the first 1 row looks like Alpaca."),
        ("None of the 1 rows can be trained on.", "None of the 1 row can be trained on."),
        ("In 1 minutes, 1 conversations are read; for 1 evaluations 1 processes were asked.",
         "In 1 minute, 1 conversation is read; for 1 evaluation 1 process was asked."),
        ("Row 1 rows up; 11 rows are, 1.1 rows are; at step 1 tokens are", None),
    ],
)  # fmt: skip
def test_one_is_named_as_one(said: str, of_one: str | None) -> None:
    assert words.translate(said) == (of_one or said)
