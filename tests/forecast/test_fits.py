"""Whether a model fits: the quick answers against the estimate's own, and against its search for the longest rows."""

from __future__ import annotations

import pytest

from studio import cards, choice, config
from studio.forecast import fits, remedies
from studio.memory.peak import peak
from studio.memory.studio_loop import RowStatistics

MODELS = ("Qwen/Qwen3-0.6B", "google/gemma-3-4b-it", "Qwen/Qwen3-30B-A3B-Instruct-2507")
ORDER = config.build({"data": {"train": "rows.json", "max_length": 1024}})


@pytest.mark.parametrize("card", ["RTX 4060", "Tesla T4", "NVIDIA H100 80GB"])
@pytest.mark.parametrize("name", MODELS)
def test_an_answer_is_the_estimate_of_its_settings(name: str, card: str) -> None:
    facts, device = choice.facts_of(name), cards.device(card)
    for method, answer in fits.fits(facts, ORDER, device).items():
        order = remedies.apply(fits.with_method(ORDER, method), answer.settings)
        expected = peak(facts, order, device, None)
        assert (answer.fits, answer.total) == (expected.fits, expected.total)
        assert answer.fits == (answer.max_length is not None)


@pytest.mark.parametrize("method", fits.METHODS)
def test_the_longest_rows_fit_and_much_longer_ones_do_not(method: str) -> None:
    facts, device = choice.facts_of("Qwen/Qwen3-0.6B"), cards.device("RTX 4060")
    order = fits.with_method(ORDER, method)
    answer = fits.fit(facts, order, device)
    saving = remedies.apply(order, fits._saving(order, device, None))

    def fitting(length: int) -> bool:
        return peak(facts, remedies.apply(saving, {"data.max_length": length}), device, None).fits

    assert fitting(answer.max_length)
    assert answer.max_length == facts.context or not fitting(int(1.3 * answer.max_length))


def test_nothing_fits_but_a_larger_card_would() -> None:
    facts, device = choice.facts_of("Qwen/Qwen2.5-32B-Instruct"), cards.device("RTX 4060")
    answers = fits.fits(facts, ORDER, device)
    assert not any(answer.fits for answer in answers.values())
    smallest = fits.smallest(answers, facts, ORDER, device)
    there = fits.fits(facts, ORDER, cards.device(smallest["device"]))
    assert there[smallest["method"]].fits
    smaller = [card for card in cards.CARDS if card.memory < 0.9 * smallest["memory"]]
    assert not any(fits.fits(facts, ORDER, cards.device(card.name))["qlora"].fits for card in smaller[-3:])


def test_what_is_known_of_the_data_gives_a_time() -> None:
    facts, device = choice.facts_of("Qwen/Qwen3-0.6B"), cards.device("RTX 4060")
    answer = fits.fit(facts, ORDER, device, RowStatistics(1000, 300_000, 200_000, 900, 50))
    assert answer.seconds > 0
    assert fits.fit(facts, ORDER, device).seconds is None


@pytest.mark.parametrize("method", fits.METHODS)
@pytest.mark.parametrize("checkpointing", [True, False])
def test_an_evaluation_takes_no_more_than_a_step(method: str, checkpointing: bool) -> None:
    """fits.py leaves evaluations out of its walks."""
    facts = choice.facts_of("google/gemma-3-1b-it")
    changes = {"training": {"checkpointing": checkpointing}, "data": {"max_length": 512}}
    order = fits.with_method(ORDER, method).with_changes(**changes)
    for card in ("RTX 4060", "Tesla T4"):
        device = cards.device(card)
        without = peak(facts, order.with_changes(data={"eval": 0}), device, None)
        assert peak(facts, order, device, None).step.peak == without.step.peak


def test_few_walks_answer_for_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixty models × three methods are answered in seconds because a method takes some three walks of the estimate."""
    walks: list[str] = []

    def counted(facts: object, order: object, *given: object) -> object:
        walks.append(order.method.name)
        return peak(facts, order, *given)

    monkeypatch.setattr(fits, "peak", counted)
    for name in (*MODELS, "Qwen/Qwen2.5-32B-Instruct"):
        facts, device = choice.facts_of(name), cards.device("RTX 4060")
        found = fits.fits(facts, ORDER, device)
        if not any(answer.fits for answer in found.values()):
            fits.smallest(found, facts, ORDER, device)
    assert len(walks) <= 3 * 3 * 4
