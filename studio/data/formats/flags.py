"""Flags of a turn on its training: for all of it, or for ranges of its characters (axolotl's train_detail)."""

from __future__ import annotations

from typing import Any

from studio.data.formats import ReportProblem, Row

FLAGS = (
    *("weight", "loss", "train", "training", "loss_weight"),  # OpenAI's, ms-swift's, axolotl's and LLaMA-Factory's
    *("train_on_turn", "train_on", "trainable", "is_trainable", "learn", "compute_loss", "output_with_loss"),
    *("loss_mask", "train_mask"),  # a mask multiplies the loss of its turn
)
INVERTED = ("no_loss", "ignore_loss", "skip_loss", "exclude_from_loss", "mask_loss", "no_train", "do_not_train")
UNSURE = ("mask", "masked", "ignore", "skip")  # 1 is said of what is trained, and of what is not
SPELLINGS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}  # as a spreadsheet writes them
ROW_FLAGS = frozenset(("weight", "train", "trainable", "is_trainable", "train_on", "learn"))  # columns of a row
SPLIT_COLUMNS = frozenset(("split", "set", "subset", "partition", "fold"))
HELD_OUT = frozenset(("test", "testing", "valid", "validation", "val", "dev", "eval", "evaluation", "测试", "验证"))
DETAILS = ("train_detail", "training_detail")
ENDS = ("begin_offset", "end_offset")  # the first and the last character; the last one is in the range


def flags_of(turn: dict[str, Any], role: str, report: ReportProblem, where: str) -> dict[str, Any] | None:
    """{"weight": 0} for an answer that is not trained on, else {}. None, and reported, for a value between."""
    flags: dict[str, Any] = {}
    for flag in (*FLAGS, *INVERTED):
        value = turn.get(flag)
        if value is None:
            continue
        if isinstance(value, str):
            value = SPELLINGS.get(value.strip().lower(), value)
        if not isinstance(value, (bool, int, float)) or value not in (0, 1):
            reason = (
                "Whether a turn is trained on must be 0 or 1, false or true: nothing between. Write weight: 0 or 1."
            )
            return report("wrong_type", f"{where}.{flag}", value, reason)
        if flag in INVERTED:
            value = not value
        if not value and role == "assistant":
            flags["weight"] = 0
        elif value and role != "assistant" and flag != "weight" and flag not in INVERTED:
            report("unheeded_flag", f"{where}.{flag}", value)
    for flag in UNSURE:
        if turn.get(flag) is not None and role == "assistant":
            reason = "Whether this means that the turn is learnt or is left out is not sure: the turn is learnt."
            report("unheeded_flag", f"{where}.{flag}", turn[flag], reason)
    return flags


def ranges_of(
    turn: dict[str, Any], role: str, content: str, report: ReportProblem, where: str
) -> dict[str, Any] | None:
    """{"untrained": [[first, end], …]}, characters outside all ranges; {} without ranges, None for a reported fault."""
    name = next((name for name in DETAILS if turn.get(name)), None)
    if name is None:
        return {}
    trained = _kept(turn[name], len(content))
    if trained is None:
        reason = (
            "It must be a list of {begin_offset, end_offset, train}: whole numbers within the text, and true or false."
        )
        return report("wrong_type", f"{where}.{name}", turn[name], reason)
    if role != "assistant":
        if trained:
            report("unheeded_flag", f"{where}.{name}", turn[name])
        return {}
    edges = [0, *(edge for span in trained for edge in span), len(content)]
    untrained = [[a, b] for a, b in zip(edges[::2], edges[1::2]) if a < b]
    return {"untrained": untrained} if untrained else {}


def _kept(details: Any, size: int) -> list[tuple[int, int]] | None:
    """The ranges to be trained, [first, end), in order and apart; None where they are not written as they must be."""
    if not isinstance(details, list) or not all(
        isinstance(detail, dict) and isinstance(detail.get("train"), bool) for detail in details
    ):
        return None
    pairs = [tuple(detail.get(key) for key in ENDS) for detail in details]
    if not all(type(a) is int and type(b) is int and 0 <= a <= b < size for a, b in pairs):
        return None
    trained: list[tuple[int, int]] = []
    for a, b in sorted((a, b + 1) for (a, b), detail in zip(pairs, details, strict=True) if detail["train"]):
        if trained and a <= trained[-1][1]:
            trained[-1] = trained[-1][0], max(b, trained[-1][1])
        else:
            trained.append((a, b))
    return trained


def marked_out(row: Row, used: set[str]) -> str | None:
    """The column by which a row says that it is not to be learnt. used: columns that are something else."""
    for name in ROW_FLAGS.intersection(row) - used:
        value = row[name]
        if isinstance(value, str):
            value = SPELLINGS.get(value.strip().lower(), value)
        if isinstance(value, (bool, int, float)) and value == 0:
            return name
    return None


def check_split(row: Row, used: set[str], report: ReportProblem) -> None:
    """Report a row whose column says that it belongs to the test or validation part of a data set."""
    for name in SPLIT_COLUMNS.intersection(row) - used:
        value = row[name]
        if isinstance(value, str) and value.strip().lower() in HELD_OUT:
            report("test_row", name, row[name])
