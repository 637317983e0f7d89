"""What the page colours is what the trainer learns: the preview against the first batch that the trainer's own loader
gives.

For every template and every format that can be trained on, padded and packed, token by token.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from studio import config, data, template
from studio.data import DataOrder
from studio.data.formats import formats
from studio.kernels import IGNORE_INDEX
from studio.template import Template
from studio.tokens import Encoder
from studio.ui import data_rows, measure
from studio.worker.batches import EffectiveBatchSampler, MicroBatchCollator, StepLoader
from studio.worker.packing import Layout
from tests.data.fixtures import FIXTURES, MESSAGES, TOOLS, as_lines

EFFECTIVE = 2  # rows of an optimizer step
LAYOUTS = {
    "packed": Layout(packed=True, max_tokens=2048, max_rows=1),
    "padded": Layout(packed=False, max_tokens=2048, max_rows=2),
}
FILES = {  # format -> fixture files
    "alpaca": ("alpaca-input.jsonl", "alpaca-history.json"),
    "chatml": ("messages.jsonl", "tools.jsonl"),
    "chatml_text": ("tagged.jsonl",),
    "chosen": ("pairs.jsonl", "share-pairs.json"),
    "good": ("kto.json",),
    "prompt": ("questions.csv",),
    "sharegpt": ("sharegpt.json",),
    "text": ("story.txt",),
    "transcript": ("marked.jsonl",),
}
ORDERED = ("chosen", "good", "transcript")  # formats that are never recognised
TOOLED = ("chatml", "qwen3")  # templates that write calls of tools
NAMES = ["model", *template.names()]
Sequence = tuple[tuple[int, ...], tuple[int, ...]]  # ids, labels


def test_every_format_that_can_be_trained_on_is_here() -> None:
    assert set(FILES) == {name for name, form in formats().items() if getattr(form, "STAGE", "sft") == "sft"}


@pytest.mark.parametrize("form", FILES)
@pytest.mark.parametrize("name", NAMES)
def test_first_batch(name: str, form: str, home: Path, tmp_path: Path, tiny_model: Path) -> None:
    for file in FILES[form]:
        if file != "tools.jsonl" or name in TOOLED:
            compare(tiny_model, name, form, file, tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_calls_of_tools_are_learnt_or_refused(name: str, home: Path, tmp_path: Path, tiny_model: Path) -> None:
    """Where a template leaves them out, the model would learn to answer with nothing."""
    path = tmp_path / "tools.jsonl"
    path.write_bytes(as_lines([*TOOLS, *MESSAGES]))
    encoder = Encoder(tiny_model, template.load(name, tiny_model), 4096)
    made = data.prepare(DataOrder(train=str(path), eval=0), encoder)
    if name in TOOLED:
        said = encoder.tokenizer.decode([label for label in made.train[0]["labels"] if label != IGNORE_INDEX])
        assert '{"name": "weather", "arguments": {}}' in said
        assert "sunny\n" not in said
    else:
        assert made.record["dropped"] == {"unrenderable": {"count": 1, "rows": "1"}}


@pytest.mark.parametrize("train_on", ["last", "all"])
@pytest.mark.parametrize("form", [form for form in FILES if form != "text"])
def test_first_batch_of_other_choices(form: str, train_on: str, home: Path, tmp_path: Path, tiny_model: Path) -> None:
    for file in FILES[form]:
        compare(tiny_model, "chatml", form, file, tmp_path, train_on)


@pytest.mark.parametrize(("too_long", "left"), [("cut", 3), ("drop", 2)])
def test_first_batch_of_rows_over_the_limit(
    too_long: str, left: int, home: Path, tmp_path: Path, tiny_model: Path
) -> None:
    file = "alpaca-input.jsonl"  # rows of 55, 69 and 50 tokens
    assert compare(tiny_model, "model", "alpaca", file, tmp_path, limit=60, too_long=too_long) == left


@pytest.mark.parametrize("form", FILES)
@pytest.mark.parametrize(("name", "limit"), [("model", 4096), ("model", 90), ("llama3", 4096), ("alpaca", 200)])
def test_first_batch_and_the_page(
    form: str, name: str, limit: int, home: Path, tmp_path: Path, tiny_model: Path
) -> None:
    """The Data tab's own answer, row by row: as many tokens, coloured as the first batch has labels, and their texts
    make up the row's.
    """
    for file in FILES[form][: 1 if form == "chatml" else None]:
        path = tmp_path / file
        path.write_bytes(next(f for f in FIXTURES if f.name == file).content())
        chosen = {
            "train": str(path),
            "eval": 0,
            "template": name,
            "max_length": limit,
            "format": form,
            "train_on": "all" if form == "text" else "assistant",
        }
        wanted = config.build({"model": str(tiny_model), "data": chosen})
        read = data.read(path, form)
        pages = [data_rows.preview_of(wanted, read, row, "en") for row in read.conversations.rows]
        assert all(page["text"].startswith("".join(text for text, _ in page["tokens"])) for page in pages)
        left = [tuple(bool(on) for _, on in page["tokens"]) for page in pages if page["trained"]]
        folder = measure.folder_of(wanted)
        rows = data.prepare(
            wanted.data, Encoder(folder, template.load(name, folder), limit, "cut", chosen["train_on"])
        ).train
        numbers = next(iter(EffectiveBatchSampler(len(rows), EFFECTIVE, 42)))
        batch = next(
            iter(
                StepLoader(
                    rows,
                    batch_sampler=EffectiveBatchSampler(len(rows), EFFECTIVE, 42),
                    collate_fn=MicroBatchCollator(LAYOUTS["packed"]),
                )
            )
        )
        learnt = sequences(batch, [len(left[n]) for n in numbers], packed=True)
        assert sorted(tuple(label != IGNORE_INDEX for label in labels) for _, labels in learnt) == sorted(
            left[n] for n in numbers
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_first_batch_with_the_real_tokenizer(name: str, with_starter: Path, tmp_path: Path) -> None:
    for form, files in FILES.items():
        for file in files if name in TOOLED else [file for file in files if file != "tools.jsonl"]:
            compare(with_starter / "models" / "starter", name, form, file, tmp_path)


def compare(
    model: Path, name: str, form: str, file: str, folder: Path, train_on: str = "assistant", **limits: Any
) -> int:
    """Prepare the file as a run does; what each layout's first batch learns must be what the preview of its rows
    colours. Gives the rows.
    """
    path = folder / file
    path.write_bytes(next(f for f in FIXTURES if f.name == file).content())
    chosen = template.load(name, model)
    chosen = Template(name, chosen.text, {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"} | chosen.special)
    on = "all" if form == "text" else train_on
    order = DataOrder(train=str(path), eval=0, train_on=on, format=form if form in ORDERED else "auto")
    encoder = Encoder(model, chosen, limits.get("limit", 4096), limits.get("too_long", "cut"), on)
    rows = data.prepare(order, encoder).train
    read = data.read(path, order.format)
    assert read.format == form
    shown = [seen for seen in (preview(encoder, one) for one in read.conversations) if seen is not None]
    assert len(shown) == len(rows) > 0
    numbers = next(iter(EffectiveBatchSampler(len(rows), EFFECTIVE, 42)))
    wanted = sorted(shown[n] for n in numbers)
    assert any(label != IGNORE_INDEX for _, labels in wanted for label in labels)
    for layout in LAYOUTS.values():
        batch = next(
            iter(
                StepLoader(
                    rows,
                    batch_sampler=EffectiveBatchSampler(len(rows), EFFECTIVE, 42),
                    collate_fn=MicroBatchCollator(layout),
                )
            )
        )
        assert sorted(sequences(batch, [len(ids) for ids, _ in wanted], layout.packed)) == wanted
        assert batch[0]["num_items_in_batch"] == sum(label != IGNORE_INDEX for _, labels in wanted for label in labels)
    return len(rows)


def preview(encoder: Encoder, conversation: dict[str, Any]) -> Sequence | None:
    """ids and colours (the id, where the preview says trained) up to the cut that it marks; None where it says that the
    row is dropped.
    """
    e = encoder.encode(conversation, whole=True)
    kept = len(e.ids) - e.overflow
    return None if e.overflow and encoder.too_long == "drop" else (tuple(e.ids[:kept]), tuple(e.labels[:kept]))


def sequences(batch: list[dict[str, Any]], sizes: list[int], packed: bool) -> list[Sequence]:
    """The rows that stand in a batch's tensors. sizes: tokens of the rows that should; whatever else is there must not
    be learnt.
    """
    found, left = [], sorted(sizes)
    for piece in batch:
        ids, labels = piece["input_ids"].tolist(), piece["labels"].tolist()
        if packed:
            edges = piece["cu_seq_lens_q"].tolist()
            places = piece["position_ids"][0].tolist()
            for a, b in zip(edges, edges[1:]):
                padding = not any(ids[0][a:b]) and not any(places[a:b])
                assert padding or places[a:b] == [*range(b - a)], "positions begin anew with each row"
            rows = [(ids[0][a:b], labels[0][a:b]) for a, b in zip(edges, edges[1:])]
        else:
            rows = list(zip(ids, labels, strict=True))
        for row, learnt in rows:
            last = max((n for n, label in enumerate(learnt) if label != IGNORE_INDEX), default=None)
            if last is None and packed:
                continue  # what fills the piece up
            size = next(
                size for size in left if size > (last or 0) and not any(row[size:]) and (not packed or size == len(row))
            )
            left.remove(size)
            found.append((tuple(row[:size]), tuple(learnt[:size])))
    assert not left
    return found
