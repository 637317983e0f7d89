"""Take a run away: adapter, merged weights, GGUF, or an Ollama folder, each with a short README, its licence notes, and a proof."""

from __future__ import annotations

import glob
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from studio import model
from studio.errors import ExportError, StudioError
from studio.events import Lock, is_locked
from studio.export import gguf_families, llama_cpp, modelfile, readme
from studio.export.proof import prove, run_worker
from studio.home import write_atomic
from studio.talk.reference import ModelReference, resolve
from studio.talk.stopping import never_stops

KINDS = ("adapter", "merged", "gguf", "ollama")
GGUF = ("f16", "q8_0", "q6_k", "q5_k_m", "q4_k_m", "f32")
PRECISIONS = GGUF
ALLOWED = {"merged": ("f16", "f32"), "gguf": GGUF, "ollama": GGUF}
SAMPLE = (
    "adapter_model.safetensors",
    "adapter_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
ROUNDED = "Rounding to the base's 16 bits costs part of what was learnt (see the losses): --precision f16 keeps more at the same size, f32 all of it."
HALF = (
    "In float16, which holds the adapter's change best at this size. Computed in float16 too, a model made for bf16 can overflow: "
    "run it in bf16 or float32 if its answers come out empty."
)
LOCK = "lock"  # in a folder that an export writes to: held as long as the export lives
Tell = Callable[[str, int, int], None]


def export(
    name: str,
    kind: str,
    out: Path,
    precision: str = "",
    tell: Tell = lambda *_: None,
    proven: bool = True,
    imatrix: bool = False,
) -> dict[str, Any]:
    """{path, kind, bytes, note, proof}. out: a .zip for adapter, a folder for merged and ollama, a .gguf file (or a folder) for gguf.

    precision: one of GGUF, for gguf (f16 unless told) and ollama (q8_0 unless told); f16 or f32 for merged (the base's unless told).
    imatrix: K-quants weigh each column by what training rows put through it.
    It appears whole or not at all. Raises ExportError where the method cannot be merged, the target stands already, or the disk is too small.
    """
    found = resolve(name)
    if kind not in KINDS or (precision and precision not in ALLOWED.get(kind, ())):
        raise ExportError(
            f"There is no export {kind!r}{f' at {precision!r}' if precision else ''}.",
            f"Kinds: {', '.join(KINDS)}. Precisions: {'; '.join(f'{one}: {chr(44).join(some)}' for one, some in ALLOWED.items())}.",
            "--to",
        )
    precision = precision or {"ollama": "q8_0", "gguf": "f16"}.get(kind, "")
    if imatrix and "_k" not in precision:
        raise ExportError(
            "An importance matrix is for K-quants only.",
            "Add --precision q4_k_m, q5_k_m or q6_k, or leave --imatrix out.",
            "--imatrix",
        )
    if "_k" in precision and not llama_cpp.installed():
        raise llama_cpp.quantizer_missing()
    note = refuse(found, kind)
    out = _target(found, kind, Path(out).expanduser().absolute(), precision)
    _disk(
        found,
        out,
        0
        if kind == "adapter"
        else (4 if precision == "f32" else 2) + (4 if proven and kind in ("gguf", "ollama") else 0),
    )
    with _while_it_stands(found), whole(out) as temporary:
        {"adapter": _adapter, "merged": _merged, "gguf": _gguf, "ollama": _ollama}[kind](
            found, temporary, precision + "+imatrix" * imatrix, tell
        )
    proof = _proof(found, kind, out, precision, tell) if proven else None
    half = HALF if kind == "merged" and precision == "f16" and model.facts(found.base).dtype == "bfloat16" else ""
    lost = (proof or {}).get("loss") or {}
    if (
        kind == "merged"
        and not precision
        and lost.get("trained")
        and lost.get("exported")
        and lost["exported"] > 1.01 * lost["trained"]
    ):
        half = ROUNDED
    note = " ".join(part for part in (note, half, never_stops(found) if kind != "adapter" else "") if part)
    files = [out] if out.is_file() else [file for file in out.rglob("*") if file.is_file()]
    return {
        "path": str(out),
        "kind": kind,
        "precision": precision or None,
        "bytes": sum(file.stat().st_size for file in files),
        "note": note,
        "proof": proof,
    }


def refuse(found: ModelReference, kind: str) -> str:
    """Raise ExportError for what cannot be; returns a sentence to tell beside the result, or nothing."""
    method = found.method
    if kind == "adapter":
        if method is None or not method.adapter or found.checkpoint:
            raise ExportError(
                f"{found.name} has no adapter of its own.", "Export it merged: that is the whole model.", "--to"
            )
        return ""
    if kind in ("gguf", "ollama"):
        facts, note = model.facts(found.base), _merging(found)
        gguf_families.refuse(facts, found.tokenizer)
        return " ".join(part for part in (note, gguf_families.caution(facts)) if part)
    return _merging(found)


def _merging(found: ModelReference) -> str:
    """Raise ExportError for what cannot be merged; returns a sentence to tell beside the merge, or nothing."""
    method = found.method
    if found.whole and not found.checkpoint:
        return f"{method.label} has trained whole weights: nothing had to be merged."
    if method is not None and method.adapter and not method.mergeable:
        raise ExportError(
            f"{method.label} cannot be merged. {method.cannot_merge}",
            "Export the adapter: --to adapter.",
            "method.name",
        )
    if method is not None and method.quantized() is not None:
        return (
            f"Merged into the base at 16 bits, opened anew: {method.label} trained beside a base squeezed to fewer bits, and merging into "
            "those would round the adapter away. Answers can differ slightly from those of the run."
        )
    return ""


def _target(found: ModelReference, kind: str, out: Path, precision: str) -> Path:
    suffix = {"adapter": ".zip", "gguf": ".gguf"}.get(kind, "")
    if suffix and out.suffix != suffix:
        stem = found.name.replace("/", "-").replace("@", "-").strip("-")
        out = out / (f"{stem}-{precision}.gguf" if kind == "gguf" else f"{stem}-adapter.zip")
    if out.exists() and (out.is_file() or any(out.iterdir())):
        raise ExportError(f"{out} stands there already.", "Give another path, or remove it first.", "OUT")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(
            f"{out.parent} cannot be made: {error.strerror}.", "Give a path in a folder that you may write to.", "OUT"
        ) from error
    if not os.access(out.parent, os.W_OK):
        raise ExportError(
            f"{out.parent} may not be written to.", "Give a path in a folder that you may write to.", "OUT"
        )
    return out


def _disk(found: ModelReference, out: Path, each: int) -> None:
    """each: bytes a parameter, what the proof unpacks included; 0: an adapter."""
    need = int(1.1 * (each * model.facts(found.base).parameters if each else found.bytes)) + 50_000_000
    free = shutil.disk_usage(out.parent).free
    if free < need:
        raise ExportError(
            f"The export needs {need / 1e9:.1f} GB, and {free / 1e9:.1f} GB of the disk are free.",
            "Free some space, or give a path on another disk.",
            "OUT",
        )


@contextmanager
def whole(out: Path) -> Iterator[Path]:
    """A place beside `out` to write to, renamed to it when the block ends well and removed when it does not.

    What an export that was killed left beside it is removed first. Raises ExportError where another has written `out` meanwhile.
    """
    for left in out.parent.glob(f".{glob.escape(out.name)}.*"):
        if (left / LOCK).is_file() and not is_locked(left / LOCK):
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder, Lock(Path(folder, LOCK)):
        temporary = Path(folder, out.name)
        yield temporary
        if out.is_dir() and not any(out.iterdir()):
            out.rmdir()
        if out.exists():
            raise ExportError(
                f"{out} was written by another export meanwhile.", "Look at that one, or give another path.", "OUT"
            )
        os.rename(temporary, out)


@contextmanager
def _while_it_stands(found: ModelReference) -> Iterator[None]:
    """Raise ExportError where a failure comes from the run's being deleted meanwhile."""
    try:
        yield
    except (StudioError, OSError) as error:
        if found.result is None or found.result.exists():
            raise
        raise ExportError(
            f"{found.name} was deleted while it was being exported.", "Nothing was written.", "RUN"
        ) from error


def _adapter(found: ModelReference, out: Path, precision: str, tell: Tell) -> None:
    """A zip with the adapter, tokenizer and template; paths of this computer stay here."""
    tell("packing the adapter", 0, 0)
    source = found.manifest.get("model") or {"source": str(found.base)}
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed:
        for name in SAMPLE:
            file = found.result / name
            if not file.is_file():
                continue
            if name == "adapter_config.json":
                config = json.loads(file.read_text())
                config["base_model_name_or_path"] = readme.hub_name(source["source"])
                packed.writestr(name, json.dumps(config, indent=2))
            else:
                packed.write(file, name)
        packed.writestr("manifest.json", json.dumps({**found.manifest, "base": None}, indent=1, ensure_ascii=False))
        packed.writestr("README.md", readme.adapter(found))


def _merged(found: ModelReference, out: Path, precision: str, tell: Tell) -> None:
    tell("merging", 0, 0)
    run_worker(
        ["studio.worker.export", f"merged-{precision or 'own'}", found.name, str(out)],
        lambda done, total: tell("merging", done, total),
    )
    write_atomic(out / "README.md", readme.merged(found))


def _gguf(found: ModelReference, out: Path, precision: str, tell: Tell) -> None:
    tell(f"writing GGUF, {precision}", 0, 0)
    run_worker(
        ["studio.worker.export", precision, found.name, str(out)],
        lambda done, total: tell(f"writing GGUF, {precision}", done, total),
    )


def _ollama(found: ModelReference, out: Path, precision: str, tell: Tell) -> None:
    out.mkdir()
    _gguf(found, out / "model.gguf", precision, tell)
    write_atomic(
        out / "Modelfile",
        modelfile.modelfile(found.template, "model.gguf", found.stop, model.facts(found.base).max_position_embeddings),
    )
    write_atomic(out / "README.md", readme.ollama(found))


def _proof(found: ModelReference, kind: str, out: Path, precision: str, tell: Tell) -> dict[str, Any]:
    """The proof; {failed: {message, hint}} where it could not be made. The export stands either way."""
    try:
        if kind != "adapter":
            return prove(found, str(out / "model.gguf" if kind == "ollama" else out), tell)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
            with zipfile.ZipFile(out) as packed:
                packed.extractall(folder)
            return prove(found, folder, tell)
    except StudioError as error:
        return {"failed": {"message": error.message, "hint": error.hint}}
