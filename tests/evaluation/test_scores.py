"""Scores of answers against counts made by hand."""

from __future__ import annotations

import csv
import io
import json
import math
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from studio.evaluation import schema as schemas
from studio.evaluation import scores, statistics, table
from studio.evaluation.order import EvaluationOrder
from studio.evaluation.questions import distinct, question, spread
from studio.evaluation.task import bleu_tokenizer, detect, is_object, label, parsed, same_json

LABELS = detect(["yes", "no", "yes", "No.", "yes", "no"])
PLAIN = detect(
    [
        "The sea is wide and blue, and it never sleeps, as every sailor will tell you.",
        "Bread is made of flour, water, salt and time, and of hands that are not in a hurry.",
    ]
)


def answer(text: str, finish: str = "stop", tokens: int = 3) -> dict:
    return {"text": text, "finish": finish, "tokens": tokens}


def scored(text: str, reference: str, task=PLAIN, **order) -> dict[str, float]:
    return scores.score(answer(text), reference, task, EvaluationOrder(**order))


def lcs_f(candidate: list[str], reference: list[str]) -> float:
    """ROUGE-L by the definition: all subsequences of the shorter one are tried."""
    from itertools import combinations

    def is_in(part: tuple[str, ...], whole: list[str]) -> bool:
        rest = iter(whole)
        return all(word in rest for word in part)

    longest = max(
        (n for n in range(len(candidate) + 1) for part in combinations(candidate, n) if is_in(part, reference)),
        default=0,
    )
    if not longest:
        return 0.0
    precision, recall = longest / len(candidate), longest / len(reference)
    return 2 * precision * recall / (precision + recall)


# -- what kind of answers


@pytest.mark.parametrize(
    ("references", "labels"),
    [
        (["yes", "No.", " YES", "no", "yes!"], ("no", "yes")),
        (["好评", "差评", "好评", "差评。"], ("好评", "差评")),
        (["a", "b", "c", "d"], ()),  # each once: no classes
        (["yes"] * 9, ()),  # one class teaches nothing
        (["a sentence that is far too long to be the name of a class of anything"] * 4 + ["b"] * 4, ()),
        ([], ()),
    ],
)
def test_labels_are_few_short_and_come_again(references: list[str], labels: tuple[str, ...]) -> None:
    assert detect(references).labels == labels


def test_the_headline_suits_the_data() -> None:
    assert detect(["yes", "no"] * 4).headline == "label_accuracy"
    assert detect(['{"a": 1}', '{"a": 2}', '{"b": []}']).headline == "json_equal"
    assert detect(["Paris", "Rome", "Oslo"]).headline == "exact_match"
    assert PLAIN.headline == "rouge_l"
    assert detect(["a long text " * 9, "another one " * 9], has_regex=True).headline == "regex"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Yes.", "yes"),
        ("  “Positive”! ", "positive"),
        ("好评。", "好评"),
        ("very good", "very good"),
        ("?!", "?!"),
        ("Ｎｏ", "no"),
    ],
)
def test_a_label_is_a_word_without_its_dress(text: str, name: str) -> None:
    assert label(text) == name


@pytest.mark.parametrize(
    ("references", "tokenizer"),
    [
        (["The cat sat."], "13a"),
        (["今天天气很好，我们去公园吧。"], "zh"),
        (["使用 Python 的 open() 打开文件 data.txt"], "zh"),
        (["東京は大きい町です。とてもにぎやかです。"], "char"),
        (["오늘 날씨가 좋습니다."], "char"),
        (["The Chinese word 好 means good, and it is used in many ways."], "13a"),
        (["123 456"], "13a"),
    ],
)
def test_bleu_cuts_words_as_the_script_wants(references: list[str], tokenizer: str) -> None:
    assert bleu_tokenizer(references) == tokenizer


def test_chinese_bleu_sees_characters() -> None:
    """One of eight characters differs: with words of blanks there would be no match at all."""
    chinese = detect(["我喜欢吃红苹果呀", "你喜欢吃绿苹果吗"])
    one = scored("我喜欢吃绿苹果呀", "我喜欢吃红苹果呀", chinese)
    # precisions of 1- to 4-grams by hand: 7/8, 5/7, 3/6, 1/5 (no 4-gram with the changed character but 我喜欢吃)
    by_hand = 100 * math.exp(sum(map(math.log, (7 / 8, 5 / 7, 3 / 6, 1 / 5))) / 4)
    assert one["bleu"] == pytest.approx(by_hand, abs=0.01)


# -- one answer


def test_exact_match_minds_letters_not_blanks() -> None:
    assert scored("  Paris is\n big ", "Paris is big")["exact_match"] == 1
    assert scored("paris is big", "Paris is big")["exact_match"] == 0
    assert scored("<think>\nhm, France\n</think>\n\nParis", "Paris")["exact_match"] == 1
    assert scored("<think>never closed Paris", "Paris")["exact_match"] == 0


@pytest.mark.parametrize(
    ("candidate", "reference", "words"),
    [
        ("the cat sat", "the cat sat down", (["the", "cat", "sat"], ["the", "cat", "sat", "down"])),
        ("down sat the CAT", "the cat sat down", (["down", "sat", "the", "cat"], ["the", "cat", "sat", "down"])),
        ("我爱你中国", "我爱中国", (list("我爱你中国"), list("我爱中国"))),
        ("用Python写", "用 python 写代码", (["用", "python", "写"], ["用", "python", "写", "代", "码"])),
        ("naïve Größe", "naïve größe!", (["naïve", "größe"], ["naïve", "größe"])),
        ("xyz", "abc", (["xyz"], ["abc"])),
    ],
)
def test_rouge_l_is_that_of_the_definition(candidate: str, reference: str, words: tuple[list[str], list[str]]) -> None:
    assert scores.RougeTokens().tokenize(candidate) == words[0]
    assert scores.rouge_l(candidate, reference) == pytest.approx(lcs_f(*words))


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ('{"a": 1}', True),
        ("[1, 2]", True),
        ('"text"', False),
        ("12", False),
        ('```json\n{"a": 1}\n```', False),
        ('{"a": NaN}', False),
        ("{'a': 1}", False),
        ("[" * 5000, False),
    ],
)
def test_json_is_valid_where_a_parser_takes_all_of_it(text: str, valid: bool) -> None:
    assert is_object(text) is valid


def test_equal_json_is_equal_by_value() -> None:
    assert same_json(parsed('{"a": 1, "b": [1.0]}'), parsed('{"b": [1], "a": 1}'))
    assert not same_json(parsed("[true]"), parsed("[1]"))
    assert not same_json(parsed("[1, 2]"), parsed("[2, 1]"))
    assert not same_json(parsed('{"a": 1}'), parsed('{"a": 1, "b": 2}'))


def test_schema_and_pattern() -> None:
    schema = {"type": "object", "required": ["age"], "properties": {"age": {"type": "integer", "minimum": 0}}}
    task = detect(['{"age": 3}', '{"age": 4}'], has_schema=True)
    for text, fulfils in (('{"age": 5}', 1), ('{"age": -5}', 0), ('{"name": "x"}', 0), ("age 5", 0)):
        assert scored(text, '{"age": 5}', task, json_schema=schema)["json_schema"] == fulfils
    assert scored("AB-12", "x", regex=r"[A-Z]{2}-\d+")["regex"] == 1
    assert scored("see AB-12", "x", regex=r"[A-Z]{2}-\d+")["regex"] == 0, "the whole answer must match"


def test_a_pattern_that_never_ends_is_no_match(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "REGEX_SECONDS", 0.02)
    assert scored("a" * 40, "x", regex=r"(a+)+b|(a|aa)+c")["regex"] == 0


def test_a_schema_is_followed_within_itself_and_within_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    def fulfils(value: Any, schema: dict[str, Any]) -> float:
        task, text = detect(['{"a": 3}', '{"a": 4}'], has_schema=True), json.dumps(value)
        EvaluationOrder(json_schema=schema)
        return scored(text, '{"a": 1}', task, json_schema=schema)["json_schema"]

    inner = {"$defs": {"word": {"type": "string", "pattern": "^a+$"}}, "properties": {"a": {"$ref": "#/$defs/word"}}}
    assert [fulfils({"a": text}, inner) for text in ("aa", "b", 5)] == [1, 0, 0]
    keys = {"patternProperties": {"^a": {"type": "string"}}}
    assert [fulfils({"ab": value}, keys) for value in ("x", 5)] == [1, 0]
    monkeypatch.setattr(schemas, "SECONDS", 0.02)
    assert fulfils({"a": "a" * 40}, {"properties": {"a": {"pattern": "(a+)+b|(a|aa)+c"}}}) == 0


@pytest.mark.parametrize(
    "settings",
    [
        {"regex": "("},
        {"regex": "(a{999}){999}"},  # written out: 270 MB; one level more takes all memory there is
        {"regex": "(?x)(a{9#}\n99}){9 9 9}"},
        {"regex": "a{999999999}"},
        {"regex": "(" * 900 + ")" * 900},
        {"json_schema": {"type": "nonsense"}},
        {"json_schema": {"type": [[place] if place % 2 else place for place in range(3000)]}},
        {"json_schema": {"enum": list(range(9000))}},
        {"json_schema": {"$ref": "file:///etc/passwd"}},
        {"json_schema": {"properties": {"name": {"$ref": "http://127.0.0.1:9/name"}}}},
        {"json_schema": {"$ref": "#/nothing"}},
        {"json_schema": {"$ref": "#"}},
        {"json_schema": {"properties": {"a": {"$ref": "#/properties/a"}}}},
        {"json_schema": {"properties": {"name": {"pattern": "("}}}},
        {"rows": -1},
        {"max_new_tokens": 0},
    ],
)
def test_an_order_that_cannot_work_is_refused(settings: dict) -> None:
    with pytest.raises(ValidationError):
        EvaluationOrder(**settings)


# -- all answers


def test_macro_f1_by_hand() -> None:
    """cat: tp 2, fp 1, fn 1; dog: tp 1, fp 0, fn 2 (one of them answered with a sentence); cow: tp 1, fp 1, fn 0."""
    references = ["cat", "cat", "cat", "dog", "dog", "dog", "cow"]
    answers = ["cat", "Cat.", "cow", "dog", "cat", "It is a dog, I think", "cow"]
    by_hand = (2 * 2 / (2 * 2 + 1 + 1) + 2 * 1 / (2 * 1 + 0 + 2) + 2 * 1 / (2 * 1 + 1 + 0)) / 3
    assert statistics.macro_f1(answers, references, ["cat", "cow", "dog"]).point() == pytest.approx(by_hand)


def test_corpus_bleu_sums_counts_and_is_no_mean_of_sentences() -> None:
    """Two sentences: counts of both are added before the precisions are taken (Papineni et al. 2002)."""
    answers, references = ["the cat sat on the mat", "a b c d e"], ["the cat sat on a mat", "a b c d e"]
    # matches 1-4: 5+5, 3+4, 2+3, 1+2 of 6+5, 5+4, 4+3, 3+2; equal lengths: no brevity penalty
    by_hand = 100 * math.exp(sum(map(math.log, (10 / 11, 7 / 9, 5 / 7, 3 / 5))) / 4)
    assert statistics.corpus(scores.bleu("13a"), answers, references).point() == pytest.approx(by_hand)


def test_shares_means_and_ends() -> None:
    references = ["yes", "no", "yes", "no"]
    given = [answer("yes", tokens=2), answer("yes", tokens=4), answer("maybe", "length", 30), answer("No.", tokens=4)]
    rows = [scores.score(one, reference, LABELS, EvaluationOrder()) for one, reference in zip(given, references)]
    found = statistics.of_answers([one["text"] for one in given], references, rows, LABELS)
    points = {name: one.point() for name, one in found.items()}
    assert points["label_accuracy"] == 0.5
    assert points["exact_match"] == 0.25
    assert points["ended"] == 0.75
    assert points["length"] == 10
    assert "json_valid" not in points
    assert "regex" not in points


def test_the_loss_is_weighed_by_tokens() -> None:
    assert statistics.ratio([10.0, 1.0], [5, 5]).point() == pytest.approx(1.1)
    assert statistics.ratio([10.0, 1.0], [2, 9]).point() == pytest.approx(1.0)


def test_the_bootstrap_of_a_share_is_the_binomials() -> None:
    """Resampling n rows of which a share p is right draws from Binomial(n, p) / n: its deviation is √(p (1-p) / n)."""
    n, p = 400, 0.3
    values = [1.0] * int(n * p) + [0.0] * int(n * (1 - p))
    sampled = statistics._sampled(statistics.mean(values), statistics._counts(n))
    assert np.mean(sampled) == pytest.approx(p, abs=0.004)
    assert np.std(sampled) == pytest.approx(math.sqrt(p * (1 - p) / n), rel=0.08)
    one = statistics.compare({"x": statistics.mean(values)}, {"x": statistics.mean(values)})["x"]
    assert one.tuned.half == pytest.approx(1.96 * math.sqrt(p * (1 - p) / n), rel=0.12)


def test_the_difference_is_paired() -> None:
    """Each row is better by exactly a tenth: rows vary widely, their difference does not at all."""
    base = [n / 100 for n in range(100)]
    tuned = [value + 0.1 for value in base]
    found = statistics.compare({"x": statistics.mean(base)}, {"x": statistics.mean(tuned)})["x"]
    assert found.difference.low == pytest.approx(0.1)
    assert found.difference.high == pytest.approx(0.1)
    assert found.base.half > 0.04


def test_one_row_has_no_interval() -> None:
    found = statistics.compare({"x": statistics.mean([1.0])}, {"x": statistics.mean([2.0])})["x"]
    assert (found.difference.value, found.difference.low, found.tuned.half) == (1.0, None, None)


# -- the questions


def test_the_question_is_what_stands_before_an_answer() -> None:
    row = {
        "messages": [
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": "One?"},
            {"role": "assistant", "content": "1"},
            {"role": "user", "content": "Two?"},
            {"role": "assistant", "content": "2"},
        ]
    }
    first, last = question(row), question(row, last=True)
    assert (first.text, first.reference, len(first.messages)) == ("One?", "1", 2)
    assert (last.text, last.reference, len(last.messages)) == ("Two?", "2", 4)
    assert question({"text": "plain"}) is None
    assert question({"messages": [{"role": "assistant", "content": "Hello."}]}) is None
    call = [{"role": "user", "content": "Weather?"}, {"role": "assistant", "content": "", "tool_calls": [{}]}]
    assert question({"messages": call}) is None, "a call without text is no answer that can be compared"


def test_distinct_questions_and_a_fair_spread() -> None:
    rows = [{"messages": [{"role": "user", "content": c}, {"role": "assistant", "content": "x"}]} for c in "aabbc"]
    assert [one.text for one in distinct(rows, 3)] == ["a", "b", "c"]
    places = spread(1000, 100)
    assert len(set(places)) == 100
    assert 350 < sum(places[:50]) / 50 < 650, "any first part is spread over all of it"
    assert spread(3, 100) == spread(3, 100)


def test_the_csv_reads_back_as_it_was() -> None:
    row = {
        "row": 7,
        "prompt": 'Say "hi",\nthen go',
        "reference": "你好",
        "base": "-5",
        "tuned": "=1+1",
        "change": 1.0,
        "finish": {"base": "stop", "tuned": "length"},
        "scores": {"base": {"exact_match": 0.0}, "tuned": {"exact_match": 1.0}},
    }
    text = table.as_csv([row])
    assert text.startswith("\ufeff"), "by which spreadsheets read Chinese"
    (read,) = csv.DictReader(io.StringIO(text[1:]))
    assert (read["prompt"], read["reference"], read["tuned"]) == (row["prompt"], "你好", "'=1+1")
    assert read["base"] == "-5", "a number is no formula"
    assert (read["tuned_exact_match"], read["base_finish"]) == ("1.0", "stop")


def test_wilson() -> None:
    """Against the published example: 9 of 10 lies between 0.596 and 0.982."""
    low, high = statistics.wilson(9, 10)
    assert (round(low, 3), round(high, 3)) == (0.596, 0.982)
