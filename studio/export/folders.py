"""Exports of a run: adapter, merged weights, GGUF or an Ollama folder, each with a README and a proof."""

from __future__ import annotations

import glob
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from studio import model
from studio.errors import ExportError, StudioError
from studio.events import Lock, is_locked
from studio.export import gguf_families, gguf_template, hf_files, llama_cpp, modelfile, readme
from studio.export.proof import prove
from studio.home import write_atomic
from studio.job_process import run_worker
from studio.talk.reference import ModelReference, resolve
from studio.talk.stopping import never_stops
from studio.tokens import Encoder

KINDS = ("adapter", "merged", "gguf", "ollama")
NO_TOOLS = (
    "Ollama shows this model its tools from version 0.30 on, which takes the chat template inside the GGUF file; for "
    "earlier versions its tools cannot be written."
)
GGUF = ("f16", "q8_0", "q6_k", "q5_k_m", "q4_k_m", "f32")
PRECISIONS = GGUF
ALLOWED = {"merged": ("f16", "f32"), "gguf": GGUF, "ollama": GGUF}
ADAPTER_FILES = (
    "adapter_model.safetensors",
    "adapter_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
ROUNDED = (
    "Rounding to the base's 16 bits costs part of what was learnt (see the losses): --precision f16 keeps more at the "
    "same size, f32 all of it."
)
HALF = (
    "In float16, which holds the adapter's change best at this size. Computed in float16 too, a model made for bf16 "
    "can overflow: run it in bf16 or float32 if its answers come out empty."
)
LOCK = "lock"  # a lock in the temporary folder of an export, held while the export lives
Progress = Callable[[str, int, int], None]


def export(
    name: str,
    kind: str,
    out: Path,
    precision: str = "",
    progress: Progress = lambda *_: None,
    proven: bool = True,
    imatrix: bool = False,
) -> dict[str, Any]:
    """Export a model and prove it; returns {path, kind, precision, bytes, note, proof}.

    `out` appears complete or not at all.

    out: a .zip for adapter, a folder for merged and ollama, a .gguf file (or a folder) for gguf.
    precision: one of GGUF for gguf (default f16) and ollama (default q8_0); f16 or f32 for merged (default the base's).
    imatrix: weigh columns of K-quants by the activations of training rows.
    Raises ExportError where the method cannot be merged, the target exists, or the disk is too small.
    """
    reference = resolve(name)
    if kind not in KINDS or (precision and precision not in ALLOWED.get(kind, ())):
        at = f" at {precision!r}" if precision else ""
        allowed = "; ".join(f"{kind}: {','.join(precisions)}" for kind, precisions in ALLOWED.items())
        hint = f"Kinds: {', '.join(KINDS)}. Precisions: {allowed}."
        raise ExportError(f"There is no export {kind!r}{at}.", hint, "--to")
    precision = precision or {"ollama": "q8_0", "gguf": "f16"}.get(kind, "")
    if imatrix and "_k" not in precision:
        hint = "Add --precision q4_k_m, q5_k_m or q6_k, or leave --imatrix out."
        raise ExportError("An importance matrix is for K-quants only.", hint, "--imatrix")
    note = refuse(reference, kind, precision)
    out = _target(reference, kind, Path(out).expanduser().absolute(), precision)
    _check_disk(reference, kind, out, precision, proven)
    write = {"adapter": _adapter, "merged": _merged, "gguf": _gguf, "ollama": _ollama}[kind]
    with _unless_deleted(reference), atomic(out) as temporary:
        write(reference, temporary, precision + ("+imatrix" if imatrix else ""), progress)
    proof = _proof(reference, kind, out, progress) if proven else None
    notes = [note]
    if kind == "merged":
        notes.append(_rounding_note(reference, precision, (proof or {}).get("loss") or {}))
    if kind != "adapter":
        notes.append(never_stops(reference))
    files = [out] if out.is_file() else [file for file in out.rglob("*") if file.is_file()]
    return {
        "path": str(out),
        "kind": kind,
        "precision": precision or None,
        "bytes": sum(file.stat().st_size for file in files),
        "note": " ".join(filter(None, notes)),
        "proof": proof,
    }


def _rounding_note(reference: ModelReference, precision: str, loss: dict[str, Any]) -> str:
    if precision == "f16" and model.facts(reference.base).dtype == "bfloat16":
        return HALF
    trained, exported = loss.get("trained"), loss.get("exported")
    return ROUNDED if not precision and trained and exported and exported > 1.01 * trained else ""


def refuse(reference: ModelReference, kind: str, precision: str = "") -> str:
    """Raise ExportError for an export that is not possible. Returns a note for the result, or ""."""
    if "_k" in precision and not llama_cpp.installed():
        raise llama_cpp.quantizer_missing()
    method = reference.method
    if kind == "adapter":
        if method is None or not method.adapter or reference.checkpoint:
            hint = "Export it merged: that is the whole model."
            raise ExportError(f"{reference.name} has no adapter of its own.", hint, "--to")
        return ""
    if kind in ("gguf", "ollama"):
        facts, note = model.facts(reference.base), _merge_note(reference)
        gguf_families.refuse(facts, reference.tokenizer)
        template = reference.template
        hidden = kind == "ollama" and template.shows_tools and not modelfile.shows_tools(template)
        return " ".join(
            filter(None, (note, gguf_families.caution(facts, reference.tokenizer), NO_TOOLS if hidden else ""))
        )
    return _merge_note(reference)


def _merge_note(reference: ModelReference) -> str:
    """Raise ExportError for a method that cannot be merged. Returns a note for the result, or ""."""
    method = reference.method
    if reference.standalone and not reference.checkpoint:
        return f"{method.label} has trained whole weights: nothing had to be merged."
    if method is not None and method.adapter and not method.mergeable:
        hint = "Export the adapter: --to adapter."
        raise ExportError(f"{method.label} cannot be merged. {method.cannot_merge}", hint, "method.name")
    if method is not None and method.quantized() is not None:
        return (
            f"Merged into the base at 16 bits, opened anew: {method.label} trained beside a base squeezed to fewer "
            "bits, and merging into those would round the adapter away. Answers can differ slightly from those of the "
            "run."
        )
    return ""


def _target(reference: ModelReference, kind: str, out: Path, precision: str) -> Path:
    suffix = {"adapter": ".zip", "gguf": ".gguf"}.get(kind, "")
    if suffix and out.suffix != suffix:
        stem = reference.name.replace("/", "-").replace("@", "-").strip("-")
        out = out / (f"{stem}-{precision}.gguf" if kind == "gguf" else f"{stem}-adapter.zip")
    if out.exists() and (out.is_file() or any(out.iterdir())):
        raise ExportError(f"{out} stands there already.", "Give another path, or remove it first.", "OUT")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        hint = "Give a path in a folder that you may write to."
        raise ExportError(f"{out.parent} cannot be made: {error.strerror}.", hint, "OUT") from error
    if not os.access(out.parent, os.W_OK):
        hint = "Give a path in a folder that you may write to."
        raise ExportError(f"{out.parent} may not be written to.", hint, "OUT")
    return out


def _check_disk(reference: ModelReference, kind: str, out: Path, precision: str, proven: bool) -> None:
    """Raise ExportError where the disk has no room for the export and what its proof unpacks."""
    size = reference.bytes
    if kind != "adapter":
        bytes_per_parameter = 4 if precision == "f32" else 2
        if proven and kind in ("gguf", "ollama"):
            bytes_per_parameter += 4
        size = bytes_per_parameter * model.facts(reference.base).parameters
    need, free = int(1.1 * size) + 50_000_000, shutil.disk_usage(out.parent).free
    if free < need:
        raise ExportError(
            f"The export needs {need / 2**20:,.0f} MiB, and the disk of {out.parent} has {free / 2**20:,.0f} MiB free.",
            "Free some space, or give a path on another disk.",
            "OUT",
        )


@contextmanager
def atomic(out: Path) -> Iterator[Path]:
    """Yield a temporary path beside `out` that is renamed to it when the block succeeds, else removed.

    Leftovers of killed exports are removed first. Raises ExportError where another export has written `out` meanwhile.
    """
    for leftover in out.parent.glob(f".{glob.escape(out.name)}.*"):
        if (leftover / LOCK).is_file() and not is_locked(leftover / LOCK):
            shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder, Lock(Path(folder, LOCK)):
        temporary = Path(folder, out.name)
        yield temporary
        if out.is_dir() and not any(out.iterdir()):
            out.rmdir()
        if out.exists():
            hint = "Look at that one, or give another path."
            raise ExportError(f"{out} was written by another export meanwhile.", hint, "OUT")
        os.rename(temporary, out)


@contextmanager
def _unless_deleted(reference: ModelReference) -> Iterator[None]:
    """Raise ExportError for a failure after which the run is gone: it was deleted meanwhile."""
    try:
        yield
    except (StudioError, OSError) as error:
        if reference.result is None or reference.result.exists():
            raise
        hint = "Nothing was written."
        raise ExportError(f"{reference.name} was deleted while it was being exported.", hint, "RUN") from error


def _adapter(reference: ModelReference, out: Path, precision: str, progress: Progress) -> None:
    """A zip with the adapter, tokenizer and template, without paths of this computer."""
    progress("packing the adapter", 0, 0)
    source = reference.manifest.get("model") or {"source": str(reference.base)}
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name in ADAPTER_FILES:
            file = reference.result / name
            if not file.is_file():
                continue
            if name == "adapter_config.json":
                config = json.loads(file.read_text())
                config["base_model_name_or_path"] = readme.hub_name(source["source"])
                archive.writestr(name, json.dumps(config, indent=2))
            else:
                archive.write(file, name)
        manifest = json.dumps({**reference.manifest, "base": None}, indent=1, ensure_ascii=False)
        archive.writestr("manifest.json", manifest)
        archive.writestr("README.md", readme.adapter(reference))


def _merged(reference: ModelReference, out: Path, precision: str, progress: Progress) -> None:
    progress("merging", 0, 0)
    run_worker(
        ["studio.worker.export", f"merged-{precision or 'own'}", reference.name, str(out)],
        lambda done, total: progress("merging", done, total),
    )
    write_atomic(out / "README.md", readme.merged(reference))


def _gguf(reference: ModelReference, out: Path, precision: str, progress: Progress) -> None:
    progress(f"writing GGUF, {precision}", 0, 0)
    run_worker(
        ["studio.worker.export", precision, reference.name, str(out)],
        lambda done, total: progress(f"writing GGUF, {precision}", done, total),
    )


def _ollama(reference: ModelReference, out: Path, precision: str, progress: Progress) -> None:
    out.mkdir()
    _gguf(reference, out / "model.gguf", precision, progress)
    facts, special = model.facts(reference.base), reference.template.special
    tokenizer = Encoder(reference.tokenizer, reference.template).tokenizer
    template = replace(reference.template, text=hf_files.plain_template(reference.template.text))
    template = gguf_template.adapted(template, tokenizer, special.get("eos_token", ""))
    context = gguf_families.longrope_switch(facts) or facts.max_position_embeddings
    sampling = hf_files.sampling(reference.base)
    text = modelfile.modelfile(template, "model.gguf", reference.stop, context, sampling)
    write_atomic(out / "Modelfile", text)
    write_atomic(out / "README.md", readme.ollama(reference))


def _proof(reference: ModelReference, kind: str, out: Path, progress: Progress) -> dict[str, Any]:
    """The proof, or {failed: {message, hint}}. The export stays either way."""
    try:
        if kind != "adapter":
            return prove(reference, str(out / "model.gguf" if kind == "ollama" else out), progress)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
            with zipfile.ZipFile(out) as archive:
                archive.extractall(folder)
            return prove(reference, folder, progress)
    except StudioError as error:
        return {"failed": {"message": error.message, "hint": error.hint}}
