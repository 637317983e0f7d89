"""The verdict in words: better, worse or no difference that the rows can show, by one figure."""

from __future__ import annotations

from typing import Any, NamedTuple

from studio.evaluation.statistics import Compared

FEWEST = 10  # rows, for a verdict
SHARES = {  # shown in percent
    "exact_match": "{0} exact",
    "label_accuracy": "{0} right labels",
    "json_equal": "{0} the same JSON",
    "json_schema": "{0} fulfil the schema",
    "regex": "{0} match the pattern",
    "rouge_l": "{0} ROUGE-L",
}
LOSS = "held-out loss {0}"
STATES = {
    "better": "better: {0}, was {1}",
    "worse": "worse: {0}, was {1}",
    "same": "no clear difference: {0}, was {1}",
    "few": "too few rows ({2}) to say: {0}, was {1}",
}


class Verdict(NamedTuple):
    """state: better, worse, same or few. metric: the figure it goes by. text: the sentence."""

    state: str
    metric: str
    text: str

    def as_dict(self) -> dict[str, Any]:
        return self._asdict()


def judge(metric: str, compared: Compared, rows: int) -> Verdict:
    """The verdict by a paired difference: its 95 % interval is above, below or around 0. Less loss is better."""
    low, high = compared.difference.low, compared.difference.high
    sign = -1 if metric == "loss" else 1
    if rows < FEWEST or low is None or high is None:
        state = "few"
    elif min(sign * low, sign * high) > 0:
        state = "better"
    else:
        state = "worse" if max(sign * low, sign * high) < 0 else "same"
    after, before = compared.tuned, compared.base
    if metric == "loss":
        spread = "" if after.half is None else f" ± {after.half:.2f}"
        figure, was = LOSS.format(f"{after.value:.2f}{spread}"), f"{before.value:.2f}"
    else:
        spread = "" if after.half is None else f" ± {100 * after.half:.0f}"
        figure, was = SHARES[metric].format(f"{100 * after.value:.0f} %{spread}"), f"{100 * before.value:.0f} %"
    return Verdict(state, metric, STATES[state].format(figure, was, rows))
