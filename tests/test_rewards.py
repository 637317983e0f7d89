"""Rewards: what each gives, against an independent reading of the same answers; the order; the trial before a start."""

from __future__ import annotations

import contextlib
import json
import time
import unicodedata
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import regex

from studio import config, reward_trial
from studio.__main__ import main
from studio.errors import OrderError, StudioError
from studio.evaluation import schema
from studio.evaluation.questions import Question
from studio.rewards import REWARDS, labels
from studio.rewards.exact import Exact
from studio.rewards.json_object import Json
from studio.rewards.judge import Judge, mark
from studio.rewards.language import Language
from studio.rewards.length import Length
from studio.rewards.number import Number, last_number
from studio.rewards.pattern import Regex
from studio.rewards.python import Python
from studio.text import patterns
from studio.text.patterns import slow_text

LEAST: dict[str, dict[str, Any]] = {
    "regex": {"pattern": "a"},
    "length": {"at_most": 5},
    "model": {"run": "x"},
    "judge": {"url": "http://127.0.0.1:9/v1", "model": "m"},
    "python": {"file": "x.py"},
}


def asked(reference: str = "") -> Question:
    return Question("Question?", [{"role": "user", "content": "Question?"}], reference)


@pytest.mark.parametrize("name", REWARDS)
def test_a_reward_has_what_form_help_and_order_need(name: str) -> None:
    reward = REWARDS[name](**LEAST.get(name, {}))
    assert reward.name == name
    assert reward.label
    assert reward.about.endswith(".")
    for field in type(reward).model_json_schema()["properties"].values():
        assert field["title"]
        assert field["description"]
    plain = {"data": {"train": "x.json"}, "stage": {"name": "grpo", "rewards": [{"name": name, **LEAST.get(name, {})}]}}
    made = config.build(plain)
    assert config.parse(made.to_yaml()).stage.rewards == made.stage.rewards == (reward,)


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        ({"name": "regexp", "pattern": "a"}, "stage.rewards"),
        ({"name": "regex"}, "stage.rewards.0"),
        ({"name": "regex", "pattern": "("}, "pattern cannot be read"),
        ({"name": "regex", "pattern": "((a{999}){999}){999}"}, "longer than"),
        ({"name": "length"}, "at_least or at_most"),
        ({"name": "length", "at_least": 9, "at_most": 3}, "below at_least"),
        ({"name": "json", "json_schema": {"type": "nothing"}}, "no JSON Schema"),
        ({"name": "judge", "url": "http://x/v1", "model": "m", "prompt": "Is it good?"}, "no place for"),
        ({"name": "exact", "wieght": 2}, "wieght"),
    ],
)
def test_a_wrong_reward_is_refused_in_words(reward: dict[str, Any], message: str) -> None:
    with pytest.raises(OrderError) as caught:
        config.build({"data": {"train": "x.json"}, "stage": {"name": "grpo", "rewards": [reward]}})
    assert message in f"{caught.value.message} {caught.value.hint}"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("The answer is 72.", 72),
        ("#### 1,234.50", 1234.5),
        ("first 3, then -4", -4),
        ("一共 ３５ 个", 35),
        ("x = −2.5e3", -2500),
        ("1,23", 23),
        ("共有 1,234,567 个。", 1234567),
        ("等于-5", -5),
        ("3-5", 5),
        ("2024-01-05", 5),
        ("约 1.5 万元", 15000),
        ("12,3456", 3456),
        ("1\u202f234", 1234),
        ("10%", 10),
        ("none", None),
        ("", None),
    ],
)
def test_the_last_number(text: str, number: float | None) -> None:
    assert last_number(text) == number


def test_numbers_and_words() -> None:
    assert Number().score("<think>9</think> It is 72", asked("#### 72")) == 1
    assert Number().score("It is 73", asked("72")) == 0
    assert Number(tolerance=0.05).score("It is 73", asked("72")) == 1
    assert Number().score("no idea", asked("72")) == 0
    assert Number().score("72", asked("no number here")) is None
    assert Exact().score("  Paris. ", asked("paris")) == 1
    assert Exact(loose=False).score("paris", asked("Paris")) == 0
    assert Exact(loose=False).score("<think>Rome?</think>\nParis", asked("Paris")) == 1
    assert Exact().score("", asked("Paris")) == 0
    scorer = Exact().open()
    assert scorer(["a", "a"], [asked(), asked("a")]) == [None, 1.0]


def test_patterns_are_searched_in_bounded_time() -> None:
    assert Regex(pattern=r"^Answer: .+\.$").score("Answer: yes.", asked()) == 1
    assert Regex(pattern=r"^Answer: .+\.$").score("My Answer: yes.", asked()) == 0
    assert Regex(pattern=r"(a+)+$").score("a" * 40 + "b", asked()) == 0


@pytest.mark.parametrize("pattern", [r"(a+)+$", r"(\w+\s?)*$", r"(x+x+)+y", "(a|aa)+$"])
def test_a_pattern_without_end_is_known_beforehand(pattern: str) -> None:
    text = slow_text(pattern)
    with pytest.raises(TimeoutError):
        regex.search(pattern, text[0] * 1500 + "\0", timeout=0.1)


@pytest.mark.parametrize(
    "pattern", [r"^Answer: .+\.$", r"(?s)<think>.*</think>.+", r"^\w+\W?$", r"\d+\s*$", r"^(\S+ ){3,10}\S+$", "a+b+c+"]
)
def test_usual_patterns_are_taken(pattern: str) -> None:
    assert slow_text(pattern) == ""


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"$defs": {"a": {"$ref": "#/$defs/a"}}, "properties": {"x": {"$ref": "#/$defs/a"}}},
        {"$defs": {"a": {"anyOf": [{"type": "object"}, {"$ref": "#/$defs/a"}]}}, "items": {"$ref": "#/$defs/a"}},
        {"$ref": "http://127.0.0.1:9/schema"},
        {"$id": "http://127.0.0.1:9/", "properties": {"x": {"$ref": "other.json"}}},
        {"$ref": "file:///etc/passwd"},
    ],
)
def test_a_schema_that_has_no_end_or_lies_elsewhere_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no JSON Schema"):
        Json(json_schema=schema)


def test_a_schema_of_a_tree_is_taken() -> None:
    tree = {"type": "object", "properties": {"inner": {"$ref": "#"}, "$ref": {"type": "string"}}}
    assert Json(json_schema=tree).score('{"inner": {"inner": {}}}', asked()) == 1
    assert Json(json_schema=tree).score('{"inner": {"inner": 3}}', asked()) == 0


@pytest.mark.parametrize(
    "text", ['{"a": 1}', '{"a": "x"}', "[1]", "3", '{"a": NaN}', "```json\n{}\n```", "", "{" * 9999]
)
def test_json_is_what_jsonschema_calls_valid(text: str) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    try:
        value = json.loads(text, parse_constant=lambda _: (_ for _ in ()).throw(ValueError()))
        plain = isinstance(value, dict | list)
    except (ValueError, RecursionError):
        value, plain = None, False
    assert Json().score(text, asked()) == plain
    fits = plain and jsonschema.Draft202012Validator(schema).is_valid(value)
    assert Json(json_schema=schema).score(text, asked()) == fits


def test_lengths_fall_outside_of_their_limits() -> None:
    between = Length(at_least=4, at_most=8)
    assert [between.score("x" * n, asked()) for n in (0, 2, 4, 8, 12, 16, 99)] == [0, 0.5, 1, 1, 0.5, 0, 0]
    words = Length(at_most=4, unit="words")
    assert words.score("one two three, four", asked()) == words.score("一二三四", asked()) == 1
    assert words.score("one two three four five six", asked()) == 0.5


@pytest.mark.parametrize(
    ("script", "names"),
    [
        ("latin", ("LATIN",)),
        ("chinese", ("CJK",)),
        ("japanese", ("CJK", "HIRAGANA", "KATAKANA")),
        ("korean", ("HANGUL",)),
        ("cyrillic", ("CYRILLIC",)),
        ("greek", ("GREEK",)),
    ],
)
@pytest.mark.parametrize(
    "text", ["Hello, wörld 3!", "你好 world", "これは漢字カナ", "안녕 hi", "Привет, мир", "αβγ x", "1 + 2"]
)
def test_a_language_is_told_by_the_names_of_its_letters(script: Any, names: tuple[str, ...], text: str) -> None:
    letters = [character for character in text if character.isalpha()]
    share = sum(unicodedata.name(letter).startswith(names) for letter in letters) / max(1, len(letters))
    assert Language(script=script).score(text, asked()) == pytest.approx(share)


@pytest.mark.parametrize(
    ("reply", "value"),
    [("[[7]]", 0.7), ("It is fine. [[10]]", 1.0), ("8", 0.8), ("**9/10**", 0.9), ("[[3]] no, [[4]]", 0.4),
     ("<think>[[1]]</think>[[6.5]]", 0.65), ("[[99]]", 1.0), ("good", None), ("", None)],
)  # fmt: skip
def test_a_mark_is_read(reply: str, value: float | None) -> None:
    assert mark(reply) == (value if value is None else pytest.approx(value))


def test_a_program_gives_what_it_returns(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def reward(text, row):\n    return len(text) + len(row['reference']) if text else None\n")
    scorer = Python(file=str(file)).open()
    assert scorer(["ab", ""], [asked("xyz"), asked()]) == [5.0, None]
    for source, message in (("x = 1", "no function"), ("def reward(", "SyntaxError"),
                            ("def reward(text, row): return text['x']", "TypeError"),
                            ("def reward(text, row): return float('nan')", "nan")):  # fmt: skip
        file.write_text(source)
        with pytest.raises(OrderError, match=message) as caught:
            Python(file=str(file)).open()(["ab"], [asked()])
        assert caught.value.hint
    with pytest.raises(OrderError, match="no Python file"):
        Python(file=str(tmp_path / "other.py")).open()


def test_a_program_s_path_is_meant_from_where_it_is_ordered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text("def reward(text, row):\n    return 1.0\n")
    monkeypatch.chdir(tmp_path)
    stage = {"name": "grpo", "rewards": [{"name": "exact"}, {"name": "python", "file": "mine.py"}]}
    order = config.build({"data": {"train": "x.json"}, "stage": stage}).with_absolute_paths()
    assert order.stage.rewards[1].file == str(tmp_path / "mine.py")


def test_names_of_several_of_a_kind() -> None:
    rewards = (Regex(pattern="a"), Exact(), Regex(pattern="b"))
    assert labels(rewards) == ["regex 1", "exact", "regex 2"]


def order(folder: Path, rewards: list[dict[str, Any]], **stage: Any) -> config.RunConfig:
    file = folder / "asked.jsonl"
    rows = [{"prompt": f"What is {n} + {n}?", "completion": f"It is {2 * n}."} for n in range(20)]
    file.write_text("\n".join(map(json.dumps, rows)))
    return config.build({"data": {"train": str(file)}, "stage": {"name": "grpo", "rewards": rewards, **stage}})


def test_rules_are_tried_on_the_answers_in_the_data(home: Path, tmp_path: Path) -> None:
    rewards = [{"name": "number"}, {"name": "regex", "pattern": "^It is 1", "weight": -0.5}]
    found = reward_trial.trial(order(tmp_path, rewards), "data", rows=10)
    assert [row["row"] for row in found["rows"]] == list(range(1, 21, 2))
    assert found["means"] == {"number": 1.0, "regex": 0.2}  # of 0, 4, … 36 begin 12 and 16 so
    assert found["mean"] == pytest.approx(0.9)
    assert found["spread"] is None
    first = found["rows"][0]
    assert (first["prompt"], first["reference"]) == ("What is 0 + 0?", "It is 0.")
    assert first["answers"] == [{"text": "It is 0.", "reward": 1.0, "rewards": {"number": 1.0, "regex": 0.0}}]


def test_prompts_alone_have_no_answers_to_try_on(home: Path, tmp_path: Path) -> None:
    made = order(tmp_path, [{"name": "length", "at_least": 3}])
    (tmp_path / "asked.jsonl").write_text(json.dumps({"prompt": "What?"}))
    with pytest.raises(StudioError, match="no answers to try"):
        reward_trial.trial(made)


def test_a_trial_of_the_base_knows_the_tools_of_a_row(home: Path, tmp_path: Path) -> None:
    tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}
    row = {"messages": [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "2"}], "tools": [tool]}
    made = order(tmp_path, [{"name": "number"}])
    (tmp_path / "asked.jsonl").write_text(json.dumps(row))
    (question,) = reward_trial.questions(made, 8).values()
    assert question.variables == {"tools": [tool]}


def test_a_trial_needs_rewards(home: Path, tmp_path: Path) -> None:
    with pytest.raises(StudioError, match="names none"):
        reward_trial.trial(order(tmp_path, []))
    with pytest.raises(StudioError, match="no rewards to try"):
        reward_trial.trial(config.build({"data": {"train": "x.json"}}))


def test_the_terminal_lists_and_tries_them(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rewards", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [reward["name"] for reward in told] == list(REWARDS)
    file = tmp_path / "order.yaml"
    file.write_text(order(tmp_path, [{"name": "number"}]).to_yaml())
    assert main(["rewards", str(file), "--rows", "3"]) == 0
    said = capsys.readouterr().out
    assert "mean 1.00: number 1.00" in said
    assert said.count("What is") == 3


def test_what_a_judge_is_asked() -> None:
    judge = Judge(url="http://127.0.0.1:9/v1", model="m", prompt="{question}|{answer}|{reference}")
    assert judge.filled("{question}", asked("R")) == "Question?|{question}|R"


@pytest.mark.parametrize("key", ["allOf", "oneOf"])
def test_a_schema_whose_parts_multiply_is_refused_soon(key: str) -> None:
    """Thirty parts that each name the next one twice: a thousand million ways."""
    parts: dict[str, Any] = {f"a{n}": {key: [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(30)}
    parts["a30"] = {"type": ["object", "array", "string", "number", "null"]}
    bomb = {"$defs": parts, "$ref": "#/$defs/a0"}
    began = time.thread_time()
    with contextlib.suppress(ValueError):
        schema.checked(bomb)
    schema.fulfils({"a": 1}, bomb)
    assert time.thread_time() - began < 20 * schema.FOLLOWING


def test_a_schema_with_hundreds_of_patterns_is_refused() -> None:
    with pytest.raises(ValueError, match="more than 20 patterns"):
        schema.checked({"allOf": [{"pattern": f"a{n}"} for n in range(30)]})


def test_a_pattern_of_thousands_of_letters_is_tried_within_seconds() -> None:
    letters = "".join(chr(0x4E00 + n) for n in range(900))
    began = time.thread_time()
    patterns.slow_text(f"[{letters}]{{1,8}}[{letters}]*[xyz]")
    assert time.thread_time() - began < 50 * patterns.SECONDS
