"""Turns marked inside a text: ### Human: … ### Assistant: …, [INST] … [/INST], <|user|> … <|assistant|>, Q: … A: …"""

from __future__ import annotations

import re
from typing import NamedTuple

Turn = dict[str, str]
WORDS = {
    "system": "system 系统",
    "user": "human user instruction input question q prompter customer prompt inst 问 用户 问题 問題 人类",
    "assistant": "assistant response answer a output bot gpt ai model moss /inst 答 助手 回答 答案 机器人",
}
ROLES = {word: role for role, words in WORDS.items() for word in words.split()}
_WHO = "(?P<who>(?i:" + "|".join(sorted(map(re.escape, ROLES), key=len, reverse=True)) + "))"
_LINE = (  # perhaps in bold, perhaps numbered
    r"(?:\*\*)?(?P<who>Human|HUMAN|User|USER|Question|Q|Customer|Instruction|Assistant|ASSISTANT|Answer|A|Bot|AI|GPT"
    r"|Model|Response|System|SYSTEM|问题?|用户|人类|回?答|助手|机器人|系统)"
    r"[ \t]?\d{0,3}(?:[:：]\*\*|\*\*[:：]|[:：])[ \t]?"
)
_HEADING = r"(?P<who>(?i:human|user|instruction|question|assistant|response|answer))(?=[ \t]*\n)"


class Style(NamedTuple):
    """mark: matches what stands before a turn, its group `who` says whose. heading: text may stand before the first."""

    mark: re.Pattern[str]
    heading: bool = True


STYLES = (
    Style(re.compile(rf"#{{2,3}}[ \t]*{_WHO}[ \t]*:")),
    Style(re.compile(rf"^#{{2,3}}[ \t]*{_HEADING}", re.MULTILINE)),
    Style(re.compile(r"\[(?P<who>/?INST)\]")),
    Style(re.compile(rf"<\|{_WHO}\|>:?")),
    Style(re.compile(r"<｜(?P<who>User|Assistant|System)｜>")),
    Style(re.compile(r"<start_of_turn>(?P<who>user|model|system)\b")),
    Style(re.compile(r"<\|start_header_id\|>(?P<who>system|user|assistant)<\|end_header_id\|>")),
    Style(re.compile(r"<(?P<who>human|bot|user|assistant)>:")),
    Style(re.compile(r"\[(?P<who>Human|MOSS|User|Assistant)\]:")),
    Style(re.compile(r"\[\|(?P<who>Human|AI|User|Assistant)\|\]")),
    Style(re.compile(r"(?<!\S)(?P<who>USER|ASSISTANT|HUMAN|SYSTEM):(?=\s|$)")),
    Style(re.compile(rf"^[ \t]*{_LINE}", re.MULTILINE), heading=False),
)
LINE_START = re.compile(rf"[ \t]*(?:{_LINE}|#{{2,3}}[ \t]*(?P<heading>Human|User|Assistant)[ \t]*:)")
# what a text with marks of an answer holds: looked for first, as most texts have none
TAGS = ("<|", "<｜", "<start_of_turn>", "<bot>:", "<assistant>:")
ANSWER_LINE = re.compile(
    r"\n[ \t]*(?:\*\*)?(?:Assistant|ASSISTANT|Answer|A|Bot|AI|GPT|Model|Response|回?答|助手|机器人)[ \t]?\d{0,3}[:：*]"
)
BEGIN = ("<s>", "<bos>", "<|begin_of_text|>", "<｜begin▁of▁sentence｜>", "<|startoftext|>")
END = (
    *("</s>", "<|endoftext|>", "<|end|>", "<end_of_turn>", "<|eot_id|>", "<|im_end|>", "<|eom_id|>", "<|end_of_text|>"),
    *("<｜end▁of▁sentence｜>", "<eos>", "<eoh>", "<eoa>", "<eom>", *BEGIN),
)
SYSTEM = re.compile(r"\s*<<SYS>>(.*?)<</SYS>>", re.DOTALL)
OPEN_ENDS = frozenset(":：]>\n ")  # with which a question ends that leaves a mark of the answer behind


def turns_in(text: str) -> list[Turn] | None:
    """The turns of a text whose marks say who speaks; None for other text.

    They begin with the user's or the system's and hold an answer; where the last mark is the assistant's and nothing
    stands behind it, the last turn is empty.
    """
    if not _may_be_marked(text):
        return None
    for style in STYLES:
        if turns := _turns(text, style):
            return turns
    return None


def _may_be_marked(text: str) -> bool:
    if "##" in text or "[/INST]" in text or "ASSISTANT:" in text or "]:" in text or "|]" in text:
        return True
    if "<" in text and any(tag in text for tag in TAGS):
        return True
    return "\n" in text and ANSWER_LINE.search(text) is not None


def asked(question: str) -> list[Turn] | None:
    """The turns of a question that ends with the mark of its answer, as in "Human: … Assistant:"; None for others."""
    if question[-1:] not in OPEN_ENDS:
        return None
    turns = turns_in(question)
    if turns is None or turns[-1]["content"] or turns[-1]["role"] != "assistant":
        return None
    return turns[:-1]


def speaker(line: str) -> str | None:
    """The role that a mark at the beginning of a line names."""
    match = LINE_START.match(line)
    return ROLES[(match["who"] or match["heading"]).lower()] if match else None


def unmarked(line: str) -> str:
    """The line without the mark at its beginning that says who speaks."""
    return LINE_START.sub("", line, count=1).lstrip()


def _turns(text: str, style: Style) -> list[Turn] | None:
    marks = list(style.mark.finditer(text))
    roles = [ROLES[mark["who"].lower()] for mark in marks]
    if "user" not in roles or "assistant" not in roles or roles.index("assistant") < roles.index("user"):
        return None
    before = _words(text[: marks[0].start()])
    if before and not style.heading:
        return None
    turns = [{"role": "system", "content": before}] if before else []
    for n, (mark, role) in enumerate(zip(marks, roles, strict=True)):
        words = text[mark.end() : marks[n + 1].start() if n + 1 < len(marks) else len(text)]
        if role == "user" and (system := SYSTEM.match(words)):
            turns.append({"role": "system", "content": system[1].strip()})
            words = words[system.end() :]
        content = _words(words)
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] = "\n".join(filter(None, [turns[-1]["content"], content]))
        elif content or role != "system":
            turns.append({"role": role, "content": content})
    return turns


def _words(text: str) -> str:
    """The text without blanks and a model's marks of beginning and end at its edges."""
    words, size = text.strip(), -1
    while len(words) != size:
        size = len(words)
        for token in BEGIN:
            words = words.removeprefix(token).lstrip()
        for token in END:
            words = words.removesuffix(token).rstrip()
    return words
