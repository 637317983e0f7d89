"""Which files of a folder are the model's weights, as transformers chooses them: model.safetensors, else the shards
that the index names.
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from studio.errors import ModelError

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
IGNORED = (
    "consolidated*",
    "*/*",
)  # a second copy of the same weights in another format, and what lies in folders below

READ_WHOLE, SAMPLED = 50_000_000, 16_384  # bytes: of a file that is read to its end, of each sample of a larger one


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files to read, in order. Raises ModelError where there are none, or one that the index names is
    missing.

    Without index all files count but a second copy of the same weights; such a folder can be measured, and `loadable`
    refuses it.
    """
    if (folder / WHOLE).is_file():
        return [folder / WHOLE]
    if (folder / INDEX).is_file():
        return _indexed(folder)
    files = [file for file in sorted(folder.glob("*.safetensors")) if not file.name.startswith("consolidated")]
    return files or loadable(folder)


def loadable(folder: Path) -> list[Path]:
    """As weight_files, and raises ModelError for a folder that transformers would not load."""
    if (folder / WHOLE).is_file() or (folder / INDEX).is_file():
        return weight_files(folder)
    raise ModelError(
        f"{folder} holds {_instead(folder)}.",
        f"Give the folder that transformers' save_pretrained wrote ({WHOLE}, or shards with {INDEX}): "
        "download it again, or load it with transformers and call save_pretrained.",
        "model",
    )


def bare(folder: Path) -> bool:
    """Whether a folder holds no weights and names none: enough for an estimate from config.json alone."""
    return not any(file.suffix in (".safetensors", ".bin") or file.name == INDEX for file in folder.iterdir())


def fingerprint(folder: Path) -> str:
    """Of a model's weights, whatever folder they lie in: headers, and of every tensor its beginning, middle and end;
    small files whole.

    Some megabytes are read of a model of any size. Raises ModelError where the weights are not whole.

    """
    files = weight_files(folder)
    return _fingerprint(tuple((file, file.stat().st_size, file.stat().st_mtime_ns) for file in files))


@lru_cache(maxsize=32)
def _fingerprint(files: tuple[tuple[Path, int, int], ...]) -> str:
    told = []
    for file, size, _ in files:
        with open(file, "rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            head = json.loads(stream.read(length))
            for name, tensor in sorted(head.items()):
                if name != "__metadata__":
                    told.append(
                        (
                            name,
                            tensor["dtype"],
                            tensor["shape"],
                            _sampled(stream, 8 + length, tensor["data_offsets"], size <= READ_WHOLE),
                        )
                    )
    return hashlib.sha256(json.dumps(sorted(told)).encode()).hexdigest()[:32]


def _sampled(stream: BinaryIO, base: int, offsets: list[int], whole: bool) -> str:
    first, last = offsets
    mark = hashlib.sha256()
    for start in (first,) if whole else sorted({first, (first + last - SAMPLED) // 2, last - SAMPLED}):
        start = max(first, start)
        stream.seek(base + start)
        mark.update(stream.read(last - first if whole else min(SAMPLED, last - start)))
    return mark.hexdigest()


def _indexed(folder: Path) -> list[Path]:
    try:
        named = sorted(set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ModelError(f"{folder / INDEX} is no index of weights.", "Download it again.", "model") from error
    missing = [name for name in named if not (folder / name).is_file()]
    if missing:
        raise ModelError(
            f"{folder} lacks {len(missing)} of the {len(named)} files that {INDEX} names: {', '.join(missing[:3])}"
            f"{', …' if len(missing) > 3 else ''}.",
            "Download the missing files again.",
            "model",
        )
    return [folder / name for name in named]


def _instead(folder: Path) -> str:
    """What lies there in the place of weights, in words."""
    others = sorted(file.name for file in folder.glob("*.safetensors"))
    pickles = sorted(file.name for file in folder.glob("*.bin"))
    if others:
        return f"{others[0]}, but neither {WHOLE} nor {INDEX}"
    return f"only {pickles[0]}, a pickle file that can run code" if pickles else "no weights"


def there(folder: Path) -> bool:
    """Whether all of a model's weights lie in a folder."""
    try:
        return bool(loadable(folder))
    except ModelError:
        return False
