"""The weight files of a model's folder, as transformers chooses them: model.safetensors, else the index's shards."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from studio.base.tensors import header, read_head
from studio.errors import ModelError

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
# a second copy of the same weights in another format, and what lies in folders below
IGNORED = ("consolidated*", "*/*")
READ_WHOLE, SAMPLE = 50_000_000, 16_384  # bytes: of a file that is read to its end, of each sample of a larger one


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that transformers reads, in order. Raises ModelError where there are none, or one of the
    index is missing.
    """
    if (folder / WHOLE).is_file():
        return [folder / WHOLE]
    if not (folder / INDEX).is_file():
        raise _not_loadable(folder)
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        names = sorted(set(index["weight_map"].values()))
        dict(index["metadata"])  # transformers asks for it
        if not names:
            raise ValueError("it names no file")
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ModelError(f"{folder / INDEX} is no index of weights.", "Download it again.", "model") from error
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise ModelError(
            f"{folder} lacks {len(missing)} of the {len(names)} files that {INDEX} names: {', '.join(missing[:3])}"
            f"{', …' if len(missing) > 3 else ''}.",
            "Download the missing files again.",
            "model",
        )
    return [folder / name for name in names]


def _not_loadable(folder: Path) -> ModelError:
    """What a folder holds in place of weights that transformers would load."""
    if (folder / WHOLE).is_symlink():
        message = f"{folder / WHOLE} is a link to {(folder / WHOLE).readlink()}, which is not there."
        hint = "Put the file back there, or download the model again."
        return ModelError(message, hint, "model")
    others = sorted(file.name for file in folder.glob("*.safetensors") if file.is_file())
    pickles = sorted(file.name for file in folder.glob("*.bin"))
    content = f"only {pickles[0]}, a pickle file that can run code" if pickles else "no weights"
    if others:
        content = f"{others[0]}, but neither {WHOLE} nor {INDEX}"
    return ModelError(
        f"{folder} holds {content}.",
        f"Give the folder that transformers' save_pretrained wrote ({WHOLE}, or shards with {INDEX}): "
        "download it again, or load it with transformers and call save_pretrained.",
        "model",
    )


def loadable(folder: Path) -> None:
    """Raise ModelError as weight_files does, and for a file that is not whole: transformers would not load it."""
    for file in weight_files(folder):
        header(file)


def bare(folder: Path) -> bool:
    """Whether a folder holds no weights and names none: enough for an estimate from config.json alone."""
    return not any(file.suffix in (".safetensors", ".bin") or file.name == INDEX for file in folder.iterdir())


def fingerprint(folder: Path) -> str:
    """A hash of a model's weights, whatever folder they lie in: of headers, and of each tensor's beginning, middle and
    end; of small files whole.

    Some megabytes are read of a model of any size. Raises ModelError where the weights are not whole.
    """
    files = weight_files(folder)
    return _fingerprint(tuple((file, file.stat().st_size, file.stat().st_mtime_ns) for file in files))


@lru_cache(maxsize=32)
def _fingerprint(files: tuple[tuple[Path, int, int], ...]) -> str:
    tensors = []
    for file, size, _ in files:
        with open(file, "rb") as stream:
            head, begin = read_head(stream, file, size)
            for name, tensor in sorted(head.items()):
                sample = _sampled(stream, begin, tensor["data_offsets"], size <= READ_WHOLE)
                tensors.append((name, tensor["dtype"], tensor["shape"], sample))
    return hashlib.sha256(json.dumps(sorted(tensors)).encode()).hexdigest()[:32]


def _sampled(stream: BinaryIO, base: int, offsets: list[int], whole: bool) -> str:
    first, last = offsets
    digest = hashlib.sha256()
    for start in (first,) if whole else sorted({first, (first + last - SAMPLE) // 2, last - SAMPLE}):
        start = max(first, start)
        stream.seek(base + start)
        digest.update(stream.read(last - first if whole else min(SAMPLE, last - start)))
    return digest.hexdigest()


def complete(folder: Path) -> bool:
    """Whether all of a model's weights lie in a folder."""
    try:
        loadable(folder)
    except ModelError:
        return False
    return True
