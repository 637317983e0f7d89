"""Turns that marks inside a text part: warned of as plain text, read as turns by format transcript, and taken out of
questions that end with the mark of their answer.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from studio import data
from studio.text.marks import turns_in
from tests.data.fixtures import as_lines
from tests.data.test_shapes import A, S, U, said, write
from tests.data.test_trained import encoder_of, trained

Q, ANSWER = "How long?", "Two minutes."
PREAMBLE = "Below is an instruction that describes a task."
MARKED = {
    "Guanaco": f"### Human: {Q}### Assistant: {ANSWER}",
    "headings": f"### User:\n{Q}\n\n### Assistant:\n{ANSWER}",
    "headings without a colon": f"### Instruction\n{Q}\n\n### Response\n{ANSWER}",
    "HH": f"\n\nHuman: {Q}\n\nAssistant: {ANSWER}",
    "letters": f"Q: {Q}\nA: {ANSWER}",
    "words": f"Question: {Q}\nAnswer: {ANSWER}",
    "in bold, numbered": f"**Q1:** {Q}\n**A1:** {ANSWER}",
    "Zephyr": f"<|user|>\n{Q}</s>\n<|assistant|>\n{ANSWER}</s>\n",
    "Open Assistant": f"<|prompter|>{Q}<|endoftext|><|assistant|>{ANSWER}<|endoftext|>",
    "Llama 2": f"<s>[INST] {Q} [/INST] {ANSWER} </s>",
    "Gemma": f"<bos><start_of_turn>user\n{Q}<end_of_turn>\n<start_of_turn>model\n{ANSWER}<end_of_turn>\n",
    "Llama 3": "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n"
    f"{Q}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n{ANSWER}<|eot_id|>",
    "DeepSeek": f"<｜begin▁of▁sentence｜><｜User｜>{Q}<｜Assistant｜>{ANSWER}<｜end▁of▁sentence｜>",
    "bots": f"<human>: {Q}\n<bot>: {ANSWER}",
    "MOSS": f"[Human]: {Q}<eoh> [MOSS]: {ANSWER}<eoa> ",
    "Chinese": f"问：{Q}\n答：{ANSWER}",
    "Alpaca": f"{PREAMBLE}\n\n### Instruction:\n{Q}\n\n### Response:\n{ANSWER}",
    "Vicuna": f"{PREAMBLE} USER: {Q} ASSISTANT: {ANSWER}</s>",
    "Llama 2, with a system prompt": f"<s>[INST] <<SYS>>\n{PREAMBLE}\n<</SYS>>\n\n{Q} [/INST] {ANSWER} </s>",
}


@pytest.mark.parametrize("kind", MARKED)
def test_marked_text_is_warned_of_and_read_by_the_hint(kind: str, home: Path, tmp_path: Path, tiny_model: Path) -> None:
    path = write(tmp_path, as_lines([{"text": MARKED[kind]}, {"text": MARKED[kind].replace("How", "So")}]))
    plain = data.read(path)
    assert (plain.format, plain.by_kind["marked_turns"].tolist()) == ("text", [1, 2])
    hint = next(p.hint for p in plain.problems if p.kind == "marked_turns")
    read = data.read(path, hint.split("--format ")[1].split(",")[0])
    system = [(S, PREAMBLE)] if PREAMBLE in MARKED[kind] else []
    assert (read.refused, said(read.conversations[0])) == (0, [*system, (U, Q), (A, ANSWER)])
    assert trained(encoder_of(tiny_model), read.conversations[0]) == f"{ANSWER}<|im_end|>"


PROSE = ("He said: no.\nAnswer: none.", "ANN: So?\nBEN: So.", "A: the first\nB: the second", 
         "## Input\nx\n## Output\ny", "An assistant answers: yes.", "User: a word.\n\nMore.", "Q: why?")  # fmt: skip


@pytest.mark.parametrize("text", PROSE)
def test_prose_is_no_transcript(text: str) -> None:
    assert turns_in(text) is None


SPOKEN = {
    "paragraphs": (f"Q: {Q}\nA: {ANSWER}\n\nQ: b?\nA: c.\n", 1),
    "no blank lines": (f"Q: {Q}\nA: {ANSWER}\nQ: b?\nA: c.\n", 1),
    "a blank line after each turn": (f"Human: {Q}\n\nAssistant: {ANSWER}\n\nHuman: b?\n\nAssistant: c.\n", 1),
    "several turns in a paragraph": (
        f"User: {Q}\nAssistant: {ANSWER}\nUser: d?\nAssistant: e.\n\nUser: b?\nAssistant: c.\n",
        2,
    ),
}


@pytest.mark.parametrize("kind", SPOKEN)
def test_a_question_and_its_answer_are_one_row_of_a_text_file(kind: str, home: Path, tmp_path: Path) -> None:
    text, answers = SPOKEN[kind]
    path = write(tmp_path, text.encode(), "a.txt")
    assert data.read(path).counts == {"marked_turns": 2}
    read = data.read(path, "transcript")
    assert said(read.conversations[0])[:2] == [(U, Q), (A, ANSWER)]
    assert (said(read.conversations[1]), len(read.conversations[0]["messages"])) == (
        [(U, "b?"), (A, "c.")],
        2 * answers,
    )


def test_a_text_without_marks_is_no_transcript(home: Path, tmp_path: Path) -> None:
    rows = [{"text": MARKED["letters"]}, {"text": "Tea is a drink."}]
    read = data.read(write(tmp_path, as_lines(rows)), "transcript")
    assert [(p.row, p.kind, p.field) for p in read.problems] == [(2, "no_assistant", "text")]


OPEN = f"\n\nHuman: a?\n\nAssistant: Be so.\n\nHuman: {Q}\n\nAssistant:"
QUESTIONS = {
    "prompt": {"prompt": OPEN, "completion": ANSWER},
    "alpaca": {"instruction": OPEN, "input": "", "output": ANSWER},
    "preference": {"prompt": OPEN, "chosen": ANSWER, "rejected": "No."},
}


@pytest.mark.parametrize("format", QUESTIONS)
def test_marks_around_a_question_are_turns_of_which_none_is_learnt(
    format: str, home: Path, tmp_path: Path, tiny_model: Path
) -> None:
    read = data.read(write(tmp_path, as_lines([QUESTIONS[format]])))
    assert (read.format, read.counts, read.refused) == (format, {"open_prompt": 1}, 0)
    assert said(read.conversations[0]) == [(U, "a?"), (A, "Be so."), (U, Q), (A, ANSWER)]
    assert trained(encoder_of(tiny_model), read.conversations[0]) == f"{ANSWER}<|im_end|>"


def test_a_question_that_only_ends_with_a_colon_stays(home: Path, tmp_path: Path) -> None:
    asked = f"Translate:\n{Q}\nAnswer:"
    read = data.read(write(tmp_path, as_lines([{"prompt": asked, "completion": ANSWER}])))
    assert (said(read.conversations[0]), read.counts) == ([(U, asked), (A, ANSWER)], {})


def test_a_file_to_evaluate_with_is_read_as_transcripts_too(home: Path, tmp_path: Path, tiny_model: Path) -> None:
    paths = [
        write(tmp_path, as_lines([{"text": MARKED["letters"].replace("How", word)}]), word) for word in ("So", "Too")
    ]
    order = data.DataOrder(train=str(paths[0]), eval=str(paths[1]), format="transcript", template="chatml")
    encoder = encoder_of(tiny_model)
    (row,) = data.prepare(order, encoder).eval
    learnt = encoder.tokenizer.decode([label for label in row["labels"] if label >= 0], skip_special_tokens=False)
    assert learnt == f"{ANSWER}<|im_end|>"
