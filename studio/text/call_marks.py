"""The marks that models write around calls of tools: one table for the rows of data and for what a model says."""

from __future__ import annotations

import re
from collections.abc import Iterable

# who writes so: (what calls begin with, what else stands around and between them)
DIALECTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "Hermes, Qwen, GLM": (("<tool_call>",), ("</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>")),
    "Glaive": (("<functioncall>", "<function_call>"), ("</functioncall>", "</function_call>")),
    "Hunyuan, Jamba": (("<tool_calls>",), ("</tool_calls>",)),
    "Nemotron": (("<TOOLCALL>",), ("</TOOLCALL>",)),
    "Llama 3": (("<|python_tag|>",), ()),
    "Mistral": (("[TOOL_CALLS]",), ("[CALL_ID]", "[ARGS]")),
    "Phi, Granite": (("<|tool_call|>",), ("<|/tool_call|>",)),
    "LFM": (("<|tool_call_start|>",), ("<|tool_call_end|>",)),
    "InternLM": (("<|action_start|>",), ("<|plugin|>", "<|action_end|>")),
    "Cohere": (("<|START_ACTION|>",), ("<|END_ACTION|>",)),
    "Gemma 3": (("```tool_code",), ("```",)),
    "FunctionGemma": (("<start_function_call>",), ("<end_function_call>", "<start_function_response>", "<escape>")),
    "Gemma 4": (("<|tool_call>",), ("<tool_call|>", "<|tool_response>", '<|"|>')),
    "DeepSeek": (
        ("<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>"),
        ("<｜tool▁sep｜>", "<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>"),
    ),
    "DeepSeek 3.2": (
        ("<｜DSML｜function_calls>", "<｜DSML｜tool_calls>"),
        ("</｜DSML｜function_calls>", "</｜DSML｜tool_calls>", "｜DSML｜"),
    ),
    "MiniMax": (("<minimax:tool_call>",), ("</minimax:tool_call>",)),
    "Seed": (("<seed:tool_call>",), ("</seed:tool_call>",)),
    "Claude, OLMo, Muse": (
        ("<function_calls>", "<antml:function_calls>", "<atem:function_calls>"),
        ("</function_calls>", "</antml:function_calls>", "</atem:function_calls>"),
    ),
    "Kimi": (
        ("<|tool_calls_section_begin|>", "<|tool_call_begin|>"),
        ("<|tool_call_argument_begin|>", "<|tool_call_end|>", "<|tool_calls_section_end|>"),
    ),
    "gpt-oss": (
        ("<|start|>assistant to=", "<|start|>assistant<|channel|>commentary to=", "<|channel|>commentary to="),
        ("<|start|>", "<|channel|>", "<|constrain|>", "<|message|>", "<|call|>"),
    ),
}
# with which a call itself begins; the last: an answer
WORDS = ("<function=", *DIALECTS["gpt-oss"][0], " to=functions.")
BEGIN = (*(mark for begin, _ in DIALECTS.values() for mark in begin), "<function=")
AROUND = tuple(mark for _, around in DIALECTS.values() for mark in around)
ENDS = ("</s>", "<|eom_id|>", "<｜end▁of▁sentence｜>", "<|im_end|>", "<|eot_id|>", "<|call|>")
SPECIAL = (*BEGIN, *AROUND, "<|end|>")  # which of these are tokens, a model's vocabulary says


def _any_of(marks: Iterable[str]) -> str:
    return "|".join(map(re.escape, sorted(marks, key=len, reverse=True)))


MARK = re.compile(_any_of(BEGIN))
SAID = re.compile(_any_of([*BEGIN, *WORDS]))
FILLER = re.compile(rf"(?:[\s,;]|{_any_of({*BEGIN, *AROUND, *ENDS}.difference(WORDS, ('<|start|>', '<|channel|>')))})*")
CLOSING = re.compile(_any_of([*(m for m in AROUND if "/" in m or "end" in m.lower() or m == "```"), *ENDS]))
BARE = re.compile(r"\s*(?:\{|\[\s*(?:\{|[A-Za-z_][\w.]*(?:\(|\Z)|\Z))")  # calls without a mark, or their beginning


def starts(text: str, opens: bool = True) -> int:
    """The index where tool calls start or the text's end may start one, else the text's length.

    opens: the text is the beginning of an answer, which may be a call without a mark.
    """
    if opens and BARE.match(text):
        return 0
    if mark := SAID.search(text):
        return mark.start()
    return len(text) - longest_beginning(text, (*BEGIN, *WORDS))


def holds_mark(text: str) -> bool:
    """Whether a mark of calls stands in a text. Most texts have none of the signs that one begins with."""
    signs = "<" in text or ("[" in text and "[TOOL" in text) or ("`" in text and "```" in text)
    return signs and MARK.search(text) is not None


def longest_beginning(text: str, marks: Iterable[str]) -> int:
    """How many characters at the end of a text are the beginning of a mark."""
    beginnings = (mark[:length] for mark in marks for length in range(1, len(mark)))
    return max((len(beginning) for beginning in beginnings if text.endswith(beginning)), default=0)
