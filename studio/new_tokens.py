"""data.new_tokens: tokens that an order adds to the base's tokenizer, and the embedding rows they need.

The tokenizer with the tokens added is a folder of files like a base's own, for whatever reads a tokenizer.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Container, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from studio import model
from studio.errors import ModelError, StudioError, reading_model_file
from studio.home import subfolder

# what a tokenizer consists of
FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
    "vocab.json", "vocab.txt", "merges.txt", "*.model", "*.tiktoken", "tokenizer.*.json"
)  # fmt: skip
MAX_CHARACTERS = 100  # characters of a new token


class AddedTokens(NamedTuple):
    """What an order's new tokens come to with one base's tokenizer.

    ids: the id of each token that is added. known: the id of each that is a single token already.
    size: rows that embedding and head need. rows: those that are trained: of the tokens added, and all the base lacks.
    """

    ids: dict[str, int]
    known: dict[str, int]
    size: int
    rows: tuple[int, ...]


NO_NEW_TOKENS = AddedTokens({}, {}, 0, ())


def check(texts: Sequence[str]) -> None:
    """Raise ValueError, in words that follow "data.new_tokens is …, but", for texts that cannot be tokens."""
    for text in texts:
        if not text.strip():
            raise ValueError("a new token must hold more than blanks")
        if len(text) > MAX_CHARACTERS:
            raise ValueError(f"a new token has at most {MAX_CHARACTERS} characters")
    twice = sorted({text for text in texts if list(texts).count(text) > 1})
    if twice:
        raise ValueError(f"{twice[0]!r} stands there twice")


def assign_ids(folder: Path, texts: Sequence[str]) -> AddedTokens:
    """The ids of the tokens added to the base in `folder`, and their rows. Raises ModelError without tokenizer.json."""
    if not texts:
        return NO_NEW_TOKENS
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise ModelError(
            f"{folder.name} has no tokenizer.json to add tokens to.",
            "Load its tokenizer once with transformers and save it "
            "(AutoTokenizer.from_pretrained(…).save_pretrained(…)).",
            "data.new_tokens",
        )
    ids, known, last = _assign_ids(file, file.stat().st_mtime_ns, tuple(texts))
    rows = _rows(folder)
    if rows is None:  # only a tokenizer is here
        return AddedTokens(ids, known, last + 1, tuple(ids.values()))
    # a token of the tokenizer that the model was never given a row for
    short = any(number >= rows for number in known.values())
    size = max(rows, last + 1) if ids or short else rows
    return AddedTokens(ids, known, size, tuple(sorted({*ids.values(), *range(rows, size)})))


def _rows(folder: Path) -> int | None:
    try:
        return model.facts(folder).rows
    except StudioError:
        return None


@lru_cache(maxsize=32)
def _assign_ids(file: Path, mtime_ns: int, texts: tuple[str, ...]) -> tuple[dict[str, int], dict[str, int], int]:
    """(ids of the tokens added, ids of those known already, the highest id in use), as `tokenizers` assigns them."""
    from tokenizers import AddedToken, Tokenizer  # late: a compiled library that the page's first second does not need

    with reading_model_file(file):
        tokenizer = Tokenizer.from_file(str(file))
    known: dict[str, int] = {}
    for text in texts:
        alone = tokenizer.encode(text, add_special_tokens=False).ids
        if (token_id := tokenizer.token_to_id(text)) is not None:
            known[text] = token_id
        elif (
            len(alone) == 1 and tokenizer.decode(alone, skip_special_tokens=False).strip() == text
        ):  # not the token for what is unknown
            known[text] = alone[0]
    new = [text for text in texts if text not in known]
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in new])
    return (
        {text: tokenizer.token_to_id(text) for text in new},
        known,
        max(tokenizer.get_vocab(with_added_tokens=True).values()),
    )


def tokenizer_folder(folder: str | Path, texts: Sequence[str]) -> Path:
    """The tokenizer's folder: the base's own, or a cached copy with the tokens added. Raises ModelError."""
    folder = Path(folder)
    ids = assign_ids(folder, texts).ids
    if not ids:
        return folder
    files = sorted({file for pattern in FILES for file in folder.glob(pattern)})
    content = hashlib.sha256(json.dumps([folder.name, *ids.items()]).encode())
    for file in files:
        content.update(file.name.encode() + b"\0" + file.read_bytes())
    final = subfolder("cache") / f"tokenizer-{content.hexdigest()[:32]}" / folder.name
    if not (final / "tokenizer.json").is_file():
        _write(files, ids, final)
    return final


def _write(files: Sequence[Path], ids: dict[str, int], final: Path) -> None:
    """The files copied, the tokens entered where each of them lists tokens; in place whole or not at all."""
    final.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=final.parent) as temporary:
        draft = Path(temporary, final.name)
        draft.mkdir()
        for file in files:
            shutil.copyfile(file, draft / file.name)
        entries = {str(number): _entry(text) for text, number in ids.items()}
        _edit(
            draft / "tokenizer.json",
            lambda content: content.update(
                added_tokens=[
                    *(content.get("added_tokens") or []),
                    *({"id": int(number), **entry} for number, entry in entries.items()),
                ]
            ),
        )
        if (draft / "added_tokens.json").is_file():
            _edit(draft / "added_tokens.json", lambda content: content.update(ids))
        if (draft / "tokenizer_config.json").is_file():
            _edit(
                draft / "tokenizer_config.json", lambda content: content.get("added_tokens_decoder", {}).update(entries)
            )
        try:
            os.rename(draft, final)
        except OSError:
            if not (final / "tokenizer.json").is_file():  # else another process was quicker
                raise


def _entry(text: str) -> dict[str, Any]:
    return {
        "content": text,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }


def _edit(file: Path, change: Any) -> None:
    with reading_model_file(file):
        content = json.loads(file.read_text(encoding="utf-8"))
        change(content)
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8")


def unseen(folder: Path, texts: Sequence[str], seen: Container[int]) -> list[str]:
    """The ordered tokens whose rows are to be trained and that are not among the ids seen."""
    found = assign_ids(folder, texts)
    return [text for text, number in (found.ids | found.known).items() if number in found.rows and number not in seen]


def describe_unseen(tokens: Sequence[str]) -> str:
    """A sentence for new tokens that no row to train on holds, or ""."""
    if not tokens:
        return ""
    return (
        f"No row to train on holds {', '.join(map(repr, tokens))} of data.new_tokens: what these tokens mean is not "
        "learnt. Add rows that hold them, or leave them out."
    )


def describe_known(folder: Path, texts: Sequence[str]) -> str:
    """A sentence for the ordered tokens that the base has already, or ""."""
    found = assign_ids(folder, texts)
    known = {text: number for text, number in found.known.items() if number not in found.rows}
    if not known:
        return ""
    named = ", ".join(f"{text!r} ({number})" for text, number in known.items())
    return f"Nothing is added for data.new_tokens that are single tokens of this model already: {named}."
