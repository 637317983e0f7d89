"""Voice: something one can talk to, found by name. Where its files are, and the template and stop texts it was trained with."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from studio import json_text, model, new_tokens, run, template, token_rows
from studio.base import shards, source
from studio.base.quantization import Quantization
from studio.base.report import Report, silent
from studio.base.source import ModelOrder
from studio.errors import ModelError, RunError
from studio.events import latest
from studio.memory.states import quantized_bytes
from studio.method import Method
from studio.methods import METHODS
from studio.new_tokens import NO_NEW_TOKENS, AddedTokens
from studio.runs import checkpoints
from studio.template import Template

BASE = "base"  # the model under the loaded runs; alone: the starter
BASE_PREFIX = "base:"  # base:SOURCE, any model the studio can fetch


@dataclass(frozen=True)
class ModelReference:
    """base: folder of the model it stands on. result: folder of the adapter, whole weights or checkpoint; None: the base alone."""

    name: str
    base: Path
    template: Template
    result: Path | None = None
    method: Method | None = None
    stop: tuple[str, ...] = ()
    checkpoint: bool = False
    label: str = ""
    manifest: dict[str, Any] = field(default_factory=dict)
    held: Quantization | None = None  # in fewer bits, how the base stood beside what was trained
    added: AddedTokens = NO_NEW_TOKENS  # tokens that the order adds to the base: a checkpoint's own

    @property
    def whole(self) -> bool:
        """Whether it has weights of its own, to be loaded apart from every other voice's."""
        return self.result is not None and (self.checkpoint or (self.method is not None and not self.method.adapter))

    @property
    def tokenizer(self) -> Path:
        """The folder whose tokenizer it was trained with: the base's, or its own where words were added."""
        if self.added.ids:
            return new_tokens.tokenizer_folder(self.base, tuple(self.added.ids))
        return self.result if self.result and self.manifest.get("own_tokenizer") else self.base

    @property
    def bytes(self) -> int:
        """Bytes of its files beside the base's."""
        files = self.result.rglob("*.safetensors") if self.result else ()
        return sum(file.stat().st_size for file in files)


def resolve(name: str, report: Report = silent) -> ModelReference:
    """A run's id (or a unique part, or last), RUN@checkpoint-N, base, base:RUN, base:SOURCE, or a folder with a model or an exported adapter.

    Raises RunError or ModelError that say what there is. A base that is not here yet is fetched, with progress to `report`.
    """
    if name == BASE:
        return of_base(source.fetch(ModelOrder(), report), name)
    if name.startswith(BASE_PREFIX):
        return _under(name, report)
    path = Path(name).expanduser()
    if ("/" in name or "\\" in name) and path.is_dir():
        return of_folder(path.resolve(), name)
    identity, _, step = name.partition("@")
    if name.endswith(".gguf") and path.is_file():
        return of_base(source.fetch(ModelOrder(source=name), report), name)
    return of_run(run.find(identity), step, report)


def of_base(folder: Path, name: str = BASE) -> ModelReference:
    """An untuned model with its own template."""
    own = template.load("auto", folder)
    return ModelReference(name, folder.resolve(), own, stop=tuple(own.stop_strings), label=folder.name)


def _under(name: str, report: Report) -> ModelReference:
    """base:RUN, the untuned model under a run; base:SOURCE, any model."""
    wanted = name[len(BASE_PREFIX) :] or "starter"
    one = next((known for known in run.runs() if known.id == wanted), None)
    if one is None:
        return of_base(source.fetch(ModelOrder(source=wanted), report), name)
    folder = Path(_manifest(one.result).get("base") or "/-")
    made = of_base(folder if (folder / "config.json").is_file() else source.fetch(one.config.model, report), name)
    made = replace(made, held=one.config.method.quantized())
    if template.model_template(made.base) or not (text := template.model_template(one.result)):
        return made
    used = Template("model", text, made.template.special)  # a base that knows no chat format is asked in the run's
    return replace(made, template=used, stop=tuple(used.stop_strings))


def of_run(one: run.Run, step: str = "", report: Report = silent) -> ModelReference:
    """A run's result, or with step ("checkpoint-50", "50" or "newest") one of its checkpoints."""
    manifest = _manifest(one.result)
    config = one.config
    base = Path(manifest.get("base") or "/-")
    if not (base / "config.json").is_file():  # the home was moved, or there is no result yet
        base = source.fetch(config.model, report)
    base = base.resolve()
    used = (
        Template(manifest["template"], text, template.special_tokens(base))
        if (text := template.model_template(one.result)) and manifest.get("template")
        else template.load(config.data.template, new_tokens.tokenizer_folder(base, config.data.new_tokens))
    )
    stop = tuple(manifest.get("stop") or used.stop_strings)
    if step or config.method.adapter:
        _same_base(one, base, manifest)
    if step:
        folder = _checkpoint(one, step)
        return ModelReference(
            f"{one.id}@{folder.name}",
            base,
            used,
            folder,
            config.method,
            stop,
            True,
            f"{one.id}, {folder.name}",
            held=config.method.quantized(),
            added=new_tokens.assign_ids(base, config.data.new_tokens),
        )
    if not manifest:
        there = [f"{one.id}@checkpoint-{n}" for n in checkpoints.steps(one.checkpoints)]
        raise RunError(
            f"The run {one.id} has no result yet: it is {one.state()}.",
            f"Talk to a checkpoint of it: {', '.join(there[-3:])}."
            if there
            else "Wait until it is finished, or resume it.",
            "model",
        )
    return ModelReference(
        one.id,
        base,
        used,
        one.result,
        config.method,
        stop,
        False,
        config.name or one.id,
        manifest,
        config.method.quantized(),
    )


def _same_base(one: run.Run, base: Path, manifest: dict[str, Any]) -> None:
    """Raise ModelError where the base's weights are no longer those that were trained on."""
    known = manifest.get("base_fingerprint")
    if not known:  # a checkpoint of a run without a result
        known = latest(one.events(), "plan").get("base_fingerprint")
    if known and shards.fingerprint(base) != known:
        raise ModelError(
            f"The base under {one.id} has other weights than when it was trained: {base}.",
            "Put the weights of then back there (their revision on the Hub, a copy), or train anew on the new ones.",
            "model",
        )


def of_folder(folder: Path, name: str) -> ModelReference:
    """A model folder, a run's folder, or the folder of an adapter exported by the studio (its manifest names the base)."""
    if (folder / "config.yaml").is_file() and (folder / "events.jsonl").is_file():
        return of_run(run.Run(folder))
    manifest = _manifest(folder)
    if (folder / "adapter_config.json").is_file():
        base = _base_of_adapter(folder, manifest)
        own = template.load("auto", folder if template.model_template(folder) else base)
        if (
            not manifest and (folder / "tokenizer.json").is_file()
        ):  # made elsewhere: its own tokenizer, which may have words that the base has not
            manifest = {"own_tokenizer": True}
            _rows_for_words(folder, base)
        own = Template(own.name, own.text, template.special_tokens(folder if manifest.get("own_tokenizer") else base))
        method = METHODS.get((manifest.get("method") or {}).get("name", ""), METHODS["lora"])(
            **manifest.get("method", {})
        )
        return ModelReference(
            name,
            base,
            own,
            folder,
            method,
            tuple(manifest.get("stop") or own.stop_strings),
            False,
            folder.name,
            manifest,
            method.quantized(),
        )
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"{folder} holds neither a model (config.json) nor an adapter (adapter_config.json).",
            "Give the folder of one of them, or a run's id.",
            "model",
        )
    made = of_base(folder, name)
    return ModelReference(
        name, folder, made.template, stop=tuple(manifest.get("stop") or made.stop), label=folder.name, manifest=manifest
    )


def _rows_for_words(folder: Path, base: Path) -> None:
    """Raise ModelError where an adapter's tokenizer has words for which neither the base nor the adapter has rows."""
    words, facts = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8")), model.facts(base)
    count = 1 + max(
        [*words["model"].get("vocab", {"": -1}).values(), *(one["id"] for one in words.get("added_tokens", []))]
    )
    rows, alone = token_rows.table_size(folder, facts.rows), token_rows.saved_indices(folder)
    gap = (
        any(set(range(facts.rows, count)) - set(one) for one in alone.values())
        and token_rows.table_rows(folder) is None
    )
    if count > rows or gap:
        raise ModelError(
            f"The tokenizer of the adapter {folder.name} has {count} tokens, but there are rows for {rows} only: the words that were added "
            "have none.",
            "Save the adapter again with its embedding (peft: save_embedding_layers=True).",
            "model",
        )


def _base_of_adapter(folder: Path, manifest: dict[str, Any]) -> Path:
    named = (
        manifest.get("base")
        or json_text.read((folder / "adapter_config.json").read_text(), "adapter_config.json").get(
            "base_model_name_or_path"
        )
        or ""
    )
    if (Path(named) / "config.json").is_file():
        return Path(named).resolve()
    order = manifest.get("model") or {"source": named}
    return source.fetch(ModelOrder.model_validate(order)).resolve()


def _checkpoint(one: run.Run, step: str) -> Path:
    found = (
        checkpoints.newest(one.checkpoints)
        if step == "newest"
        else one.checkpoints / f"checkpoint-{step.removeprefix('checkpoint-')}"
    )
    known = [f"checkpoint-{n}" for n in checkpoints.steps(one.checkpoints)]
    if found is None or found.name not in known:
        raise RunError(
            f"The run {one.id} has no {step!r}.", f"Its checkpoints: {', '.join(known) or 'none yet'}.", "model"
        )
    faults = checkpoints.faults(found)
    if faults:
        raise RunError(
            f"{found.name} of {one.id} is not whole: {'; '.join(faults[:3])}.",
            f"Its checkpoints: {', '.join(known)}.",
            "model",
        )
    return found


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / "manifest.json").read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def size(voices: list[ModelReference], squeezed: bool = False) -> int:
    """Bytes of weights that these voices hold in memory together: each base once, adapters beside it, whole models for themselves.

    squeezed: bases that stood in fewer bits beside what was trained, in those bits.
    """
    bases = {(one.base, one.held if squeezed else None) for one in voices if not one.whole}
    return sum(_held(base, held) for base, held in bases) + sum(
        max(one.bytes, model.facts(one.base).bytes) if one.whole else one.bytes for one in voices
    )


def _held(base: Path, held: Quantization | None) -> int:
    """Bytes of a base's weights, as its files hold them or with its linears squeezed."""
    facts = model.facts(base)
    if held is None:
        return facts.bytes
    linears = {f"{name}.weight" for name in facts.linears()}
    return sum(
        quantized_bytes(tensor.shape, held.kind, held.double) if name in linears else 2 * tensor.size
        for name, tensor in facts.tensors.items()
    )


def canonical_name(wanted: str) -> str:
    """The exact name of what a person wrote: `last` and parts of a run's id become the id; folders become absolute.

    Raises RunError for what is neither.
    """
    if wanted == BASE or wanted.startswith(BASE_PREFIX):
        source_name = wanted[len(BASE_PREFIX) :]
        return (
            wanted
            if wanted == BASE or "/" not in source_name or not Path(source_name).expanduser().is_dir()
            else BASE_PREFIX + str(Path(source_name).expanduser().resolve())
        )
    path = Path(wanted).expanduser()
    if ("/" in wanted or wanted == ".") and path.is_dir() or wanted.endswith(".gguf") and path.is_file():
        return str(path.resolve())
    identity, at, step = wanted.partition("@")
    one = run.find(identity)
    return one.id + at + (_checkpoint(one, step).name if step else "")
