"""A model folder that is damaged in any way is refused in words that name it: by the page's questions and jobs, and by
the terminal.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from studio.__main__ import main
from studio.ui.questions import reads


def _json(file: str, **values: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / file
        found = json.loads(path.read_text()) if path.is_file() else {}
        path.write_text(json.dumps(found | values))

    return change


def _text(file: str, content: str | bytes) -> Callable[[Path], None]:
    return lambda folder: (
        (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode()) and None
    )


def _head(content: str, length: int | None = None) -> Callable[[Path], None]:
    return _text(
        "model.safetensors", (len(content) if length is None else length).to_bytes(8, "little") + content.encode()
    )


def _folder(file: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / file).unlink(missing_ok=True)
        (folder / file).mkdir()

    return change


def _circle(file: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / file).unlink(missing_ok=True)
        (folder / file).symlink_to(file)

    return change


DAMAGES: dict[str, Callable[[Path], None]] = {
    "config empty": _text("config.json", ""),
    "config no JSON": _text("config.json", "{"),
    "config a list": _text("config.json", "[]"),
    "config null": _text("config.json", "null"),
    "config nested": _text("config.json", "[" * 100_000),
    "config binary": _text("config.json", b"\xff\xfe\x00"),
    "config long number": _text("config.json", '{"hidden_size": ' + "9" * 5000 + "}"),
    "config a folder": _folder("config.json"),
    "config a circle": _circle("config.json"),
    "widths are text": _json("config.json", hidden_size="32"),
    "no heads": _json("config.json", num_attention_heads=0),
    "fewer than none": _json("config.json", num_hidden_layers=-3, vocab_size=-1),
    "kv heads text": _json("config.json", num_key_value_heads="x"),
    "architectures text": _json("config.json", architectures=7),
    "text_config a list": _json("config.json", text_config=[1]),
    "type a list": _json("config.json", model_type=["llama"]),
    "weights empty": _text("model.safetensors", b""),
    "weights cut": _head('{"a": ', 500),
    "weights no JSON": _head("}{"),
    "weights a list": _head("[1, 2]"),
    "weights nested": _head("[" * 100_000),
    "weights without shape": _head('{"a": {"dtype": "F32"}}'),
    "weights of text": _head('{"a": "b"}'),
    "weights with odd shape": _head('{"a": {"dtype": "F32", "shape": ["x"], "data_offsets": [0, 4]}}'),
    "weights beyond": _head("{}", 2**62),
    "weights a folder": _folder("model.safetensors"),
    "tokenizer empty": _text("tokenizer.json", ""),
    "tokenizer a list": _text("tokenizer.json", "[]"),
    "tokenizer nested": _text("tokenizer.json", "[" * 100_000),
    "tokenizer binary": _text("tokenizer.json", b"\xff\x00"),
    "tokenizer without model": _text("tokenizer.json", '{"version": "1.0"}'),
    "tokenizer a folder": _folder("tokenizer.json"),
    "special tokens a list": _text("special_tokens_map.json", "[1]"),
    "settings a list": _text("tokenizer_config.json", "[]"),
    "settings binary": _text("tokenizer_config.json", b"\xff\xfe"),
    "template a number": _json("tokenizer_config.json", chat_template=7),
    "template binary": _text("chat_template.jinja", b"\xff\xfe"),
    "template broken": _text("chat_template.jinja", "{% for %}"),
    "generation a list": _text("generation_config.json", "[]"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_model_is_refused_in_words(
    kind: str, home: Path, tiny_model: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    DAMAGES[kind](folder)
    order = {"model": str(folder), "data": {"train": str(tiny_data)}, "method": {"name": "lora"}}
    for name in ("tune/look", "data/inspect", "data/preview", "data/lengths"):
        answer = reads()[name]({"order": order, "row": 1})
        for fault in (answer.get("fault"), answer.get("error")):
            assert fault is None or fault["message"], (name, fault)
    file = tmp_path / "order.yaml"
    file.write_text(json.dumps(order))
    for arguments in (["estimate", str(file)], ["preview", str(tiny_data), "--row", "1", "--model", str(folder)]):
        status = main([*arguments, "--json"])
        told = json.loads(capsys.readouterr().out)
        assert status == (2 if "error" in told else 0), arguments
        assert "error" not in told or (told["error"]["message"] and "Traceback" not in told["error"]["message"])
