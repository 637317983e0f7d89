"""A model reference: a model found by name, its files, and the template and stop texts it was trained with."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from studio import json_text, new_tokens, run, template
from studio.base import source, tokenizer_files
from studio.base.quantization import Quantization
from studio.base.report import Report, silent
from studio.base.source import ModelOrder
from studio.errors import ModelError, RunError
from studio.method import Method
from studio.methods import of_adapter
from studio.new_tokens import NO_NEW_TOKENS, AddedTokens
from studio.runs import checkpoints, results
from studio.runs.continuation import check_base
from studio.talk.trust import check_rows, refuse_unwritten
from studio.template import Template

BASE = "base"  # the model under the loaded runs; alone: the starter
BASE_PREFIX = "base:"  # base:SOURCE, any model the studio can fetch


@dataclass(frozen=True)
class ModelReference:
    """A base model and, with `result`, the adapter, full weights or checkpoint trained on it.

    base and result are folders.
    """

    name: str
    base: Path
    template: Template
    result: Path | None = None
    method: Method | None = None
    stop: tuple[str, ...] = ()
    checkpoint: bool = False
    label: str = ""
    manifest: dict[str, Any] = field(default_factory=dict)
    quantization: Quantization | None = None  # of the base during training
    added_tokens: AddedTokens = NO_NEW_TOKENS  # tokens that the order adds to the base; a checkpoint needs them

    @property
    def standalone(self) -> bool:
        """Whether it has full weights of its own, loaded apart from every other model's."""
        return self.result is not None and (self.checkpoint or (self.method is not None and not self.method.adapter))

    @property
    def tokenizer(self) -> Path:
        """The folder of the tokenizer it was trained with: the base's, or its own where tokens were added."""
        if self.added_tokens.ids:
            return new_tokens.tokenizer_folder(self.base, tuple(self.added_tokens.ids))
        return self.result if self.result and self.manifest.get("own_tokenizer") else self.base

    @property
    def bytes(self) -> int:
        """Bytes of its weight files beside the base's."""
        files = self.result.rglob("*.safetensors") if self.result else ()
        return sum(file.stat().st_size for file in files)


def resolve(name: str, report: Report = silent) -> ModelReference:
    """Find a model by name.

    name: a run's id (or a unique part, or last), RUN@checkpoint-N, base, base:RUN, base:SOURCE, a .gguf file, or a
    folder with a model or an exported adapter. A base that is missing is fetched, with progress to `report`. Raises
    RunError or ModelError that list what there is.
    """
    if name == BASE:
        return of_base(source.fetch(ModelOrder(), report), name)
    if name.startswith(BASE_PREFIX):
        return _untuned(name, report)
    path = Path(name).expanduser()
    if ("/" in name or "\\" in name) and path.is_dir():
        return of_folder(path.resolve(), name)
    if name.endswith(".gguf") and path.is_file():
        return of_base(source.fetch(ModelOrder(source=name), report), name)
    run_id, _, step = name.partition("@")
    return of_run(run.find(run_id), step, report)


def of_base(folder: Path, name: str = BASE) -> ModelReference:
    """An untuned model with its own template."""
    own = template.load("auto", folder)
    return ModelReference(name, folder.resolve(), own, stop=tuple(own.stop_strings), label=folder.name)


def _untuned(name: str, report: Report) -> ModelReference:
    """base:RUN, the untuned model under a run, or base:SOURCE, any model."""
    run_or_source = name[len(BASE_PREFIX) :] or "starter"
    parent = next((known for known in run.runs() if known.id == run_or_source), None)
    if parent is None:
        return of_base(source.fetch(ModelOrder(source=run_or_source), report), name)
    base = of_base(_base_folder(parent, _manifest(parent.result), report), name)
    base = replace(base, quantization=parent.config.method.quantized())
    text = tokenizer_files.model_template(parent.result)
    if tokenizer_files.model_template(base.base) or not text:
        return base
    trained = Template("model", text, base.template.special)  # a base without a chat template is asked in the run's
    return replace(base, template=trained, stop=tuple(trained.stop_strings))


def _base_folder(parent: run.Run, manifest: dict[str, Any], report: Report) -> Path:
    """The base in a run's manifest, fetched where the home was moved or the run has no result yet."""
    folder = Path(manifest.get("base") or "/-")
    if (folder / "config.json").is_file():
        return folder
    order = parent.config.model
    if order.kind == "folder" and source.local(order) is None:
        hint = "Put it back there, or put a link to its new place there: it is recognised by its weights."
        raise ModelError(f"The base of {parent.id} is no longer in {order.source}.", hint, "model")
    return source.fetch(order, report)


def of_run(parent: run.Run, step: str = "", report: Report = silent, scores: bool = False) -> ModelReference:
    """A run's result, or with step ("checkpoint-50", "50" or "newest") one of its checkpoints.

    scores: a reward model is asked for; raises RunError where the run is none, or is one and text is asked for.
    """
    config, manifest = parent.config, _manifest(parent.result)
    _refuse_other_use(parent, scores)
    base = _base_folder(parent, manifest, report).resolve()
    text = tokenizer_files.model_template(parent.result)
    if text and manifest.get("template"):
        trained = Template(manifest["template"], text, tokenizer_files.special_tokens(base))
    else:
        tokenizer = new_tokens.tokenizer_folder(base, config.data.new_tokens)
        trained = template.load(config.data.template, tokenizer)
    if step or config.method.adapter:
        check_base(parent, base, manifest)
    reference = ModelReference(
        parent.id,
        base,
        trained,
        parent.result,
        config.method,
        tuple(manifest.get("stop") or trained.stop_strings),
        label=config.name or parent.id,
        manifest=manifest,
        quantization=config.method.quantized(),
    )
    if step:
        folder = _checkpoint(parent, step)
        return replace(
            reference,
            name=f"{parent.id}@{folder.name}",
            result=folder,
            checkpoint=True,
            label=f"{parent.id}, {folder.name}",
            manifest={},
            added_tokens=new_tokens.assign_ids(base, config.data.new_tokens),
        )
    if not manifest:
        names = [f"{parent.id}@checkpoint-{n}" for n in checkpoints.steps(parent.checkpoints)]
        others = f"Talk to a checkpoint of it: {', '.join(names[-3:])}."
        hint = others if names else "Wait until it is finished, or resume it."
        raise RunError(f"The run {parent.id} has no result yet: it is {parent.state()}.", hint, "model")
    results.check_result(parent)
    return reference


def _refuse_other_use(parent: run.Run, scores: bool) -> None:
    """Raise RunError where scores are asked of a model that writes, or text of one that scores."""
    if parent.config.stage.scores and not scores:
        hint = f"Score a file with it: python -m studio score {parent.id} FILE."
        raise RunError(f"{parent.id} is a reward model: it scores answers and writes none.", hint, "model")
    if scores and not parent.config.stage.scores:
        hint = "Train one on preference pairs: stage: reward."
        raise RunError(f"{parent.id} is no reward model: its stage is {parent.config.stage.name}.", hint, "model")


def of_folder(folder: Path, name: str) -> ModelReference:
    """A model folder, a run's folder, or the folder of an exported adapter, whose manifest names the base."""
    if (folder / "config.yaml").is_file() and (folder / "events.jsonl").is_file():
        return of_run(run.Run(folder))
    manifest = _manifest(folder)
    if (folder / "adapter_config.json").is_file():
        return _of_adapter(folder, name, manifest)
    if not (folder / "config.json").is_file():
        message = f"{folder} holds neither a model (config.json) nor an adapter (adapter_config.json)."
        hint = "Give the folder of one of them, or a run's id."
        raise ModelError(message, hint, "model")
    base = of_base(folder, name)
    return replace(base, base=folder, stop=tuple(manifest.get("stop") or base.stop), manifest=manifest)


def _of_adapter(folder: Path, name: str, manifest: dict[str, Any]) -> ModelReference:
    results.check_whole(folder, "Copy or download the folder again.")
    config = json_text.read((folder / "adapter_config.json").read_text(), "adapter_config.json")
    name_of_base = manifest.get("base") or config.get("base_model_name_or_path")
    if not name_of_base and not manifest.get("model"):
        hint = "Write the base's folder or Hub id into its adapter_config.json: base_model_name_or_path."
        raise ModelError(f"The adapter in {folder} does not say which base it was trained on.", hint, "model")
    base = Path(name_of_base or "/-")
    if not (base / "config.json").is_file():
        order = {"source": name_of_base, "revision": config.get("revision")}
        base = source.fetch(ModelOrder.model_validate(manifest.get("model") or order))
    base = base.resolve()
    own = template.load("auto", folder if tokenizer_files.model_template(folder) else base)
    # an adapter that was not exported by the studio: its tokenizer may be larger than the base's
    if not manifest and (folder / "tokenizer.json").is_file():
        manifest = {"own_tokenizer": True}
        check_rows(folder, base)
    own = Template(
        own.name, own.text, tokenizer_files.special_tokens(folder if manifest.get("own_tokenizer") else base)
    )
    refuse_unwritten(folder, config, manifest)
    method = of_adapter(config, manifest.get("method") or {})
    return ModelReference(
        name,
        base,
        own,
        folder,
        method,
        tuple(manifest.get("stop") or own.stop_strings),
        label=folder.name,
        manifest=manifest,
        quantization=method.quantized(),
    )


def _checkpoint(parent: run.Run, step: str) -> Path:
    if step == "newest":
        folder = checkpoints.newest(parent.checkpoints)
    else:
        folder = parent.checkpoints / f"checkpoint-{step.removeprefix('checkpoint-')}"
    known = [f"checkpoint-{n}" for n in checkpoints.steps(parent.checkpoints)]
    if folder is None or folder.name not in known:
        hint = f"Its checkpoints: {', '.join(known) or 'none yet'}."
        raise RunError(f"The run {parent.id} has no {step!r}.", hint, "model")
    faults = checkpoints.faults(folder)
    if faults:
        hint = f"Its checkpoints: {', '.join(known)}."
        raise RunError(f"{folder.name} of {parent.id} is not whole: {'; '.join(faults[:3])}.", hint, "model")
    return folder


def _manifest(folder: Path) -> dict[str, Any]:
    return json_text.read_or_default(folder / "manifest.json", {})


def canonical_name(name: str) -> str:
    """Turn what a person wrote into an exact name: `last` and parts of a run's id become the id, folders absolute.

    Raises RunError for what is neither.
    """
    if name == BASE:
        return name
    if name.startswith(BASE_PREFIX):
        path = Path(name[len(BASE_PREFIX) :]).expanduser()
        return BASE_PREFIX + str(path.resolve()) if "/" in name and path.is_dir() else name
    path = Path(name).expanduser()
    is_folder = ("/" in name or name == ".") and path.is_dir()
    if is_folder or (name.endswith(".gguf") and path.is_file()):
        return str(path.resolve())
    run_id, at, step = name.partition("@")
    parent = run.find(run_id)
    return parent.id + at + (_checkpoint(parent, step).name if step else "")
