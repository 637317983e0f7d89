"""RunConfig: the complete order for one run; to YAML and back, losing nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from studio import order_faults, yaml_text
from studio.base.source import ModelOrder
from studio.combination import Combination
from studio.contest import Contest
from studio.data.dataset_info import INFO_FILE
from studio.data.files import ARCHIVE_ENDINGS, COMPRESSED_ENDINGS, DATA_ENDINGS
from studio.data.order import DataOrder
from studio.errors import OrderError, reason_of
from studio.evaluation.order import EvaluationOrder
from studio.knob import KNOBS
from studio.methods import METHODS, AnyMethod
from studio.order_faults import TAGGED
from studio.places import AnyPlace
from studio.places.here import Here
from studio.stages import AnyStage
from studio.stages.sft import SFT
from studio.training import Training

DEFAULT_METHOD = "lora"
LONGEST_ORDER = 1 << 16  # bytes


class RunConfig(BaseModel):
    """What is trained on what, how. Everything has a default but data.train; unknown keys are refused."""

    model_config = KNOBS

    name: str | None = Field(None, max_length=120, title="Name")
    """What to call the run; left out: date, method and model."""
    model: ModelOrder = Field(default_factory=ModelOrder)
    data: DataOrder
    stage: AnyStage = Field(default_factory=SFT, title="Stage")
    """What is learnt from what: sft from answers, dpo and orpo from pairs, kto from verdicts, grpo from rewards."""
    start: str | None = Field(None, min_length=1, max_length=200, title="Start from")
    """A finished run whose adapter goes on: SFT first, then dpo. Left out: a new adapter."""
    method: AnyMethod = Field(default_factory=lambda: METHODS[DEFAULT_METHOD].model_validate({}))
    training: Training = Field(default_factory=Training)
    place: AnyPlace = Field(default_factory=Here, title="Place")
    """Which computer does the work: here, ssh:HOST or job:HARDWARE."""
    evaluation: EvaluationOrder | None = Field(None, title="Evaluation")
    """After training base and tuned model answer held-out questions, which are scored; {} for the defaults. Left out:
    on request only."""
    combine: Combination | None = Field(None, title="Combination")
    """Nothing is trained: the adapters of these runs are made into one."""
    race: Contest | None = Field(None, title="Race")
    """Several settings are trained in turns over one base, the better ones on."""

    @model_validator(mode="after")
    def _tell_data_its_stage(self) -> RunConfig:
        self.data.learnt_by(self.stage.examples, self.stage.answer_tokens)
        return self

    @property
    def learning_rate(self) -> float:
        """The rate ordered, or the method's own, as is usual for the stage."""
        usual = self.method.learning_rate * self.stage.rate_scale
        return usual if self.training.learning_rate is None else self.training.learning_rate

    def steps(self, rows: int) -> int:
        """Optimizer steps of the whole run."""
        return self.training.max_steps or self.training.steps(rows) * self.stage.steps_per_batch

    @property
    def virtual_tokens(self) -> int:
        """Tokens that the method puts before every row."""
        return getattr(self.method, "virtual_tokens", 0)

    @property
    def switches_adapter_off(self) -> bool:
        """Whether the stage's reference is the model with its adapter off; else it is asked once, before the start."""
        return self.start is None and self.stage.switches_adapter_off(self.method)

    def data_sections(self) -> list[tuple[DataOrder, int]]:
        """(data, seed) of what was learnt from: its own, or that of each run that a combination is made of."""
        return (
            [(parent.data, parent.seed) for parent in self.combine.held_out]
            if self.combine
            else [(self.data, self.training.seed)]
        )

    def to_yaml(self) -> str:
        """The order as YAML: the method in full, elsewhere only what was set or differs from the default."""
        plain = self.model_dump(mode="json", exclude_unset=True)
        plain["method"] = self.method.model_dump(mode="json")
        if "stage" in plain:
            plain["stage"] = self.stage.model_dump(mode="json")
        plain.setdefault("model", self.model.model_dump(mode="json", exclude_none=True))
        if plain["model"].keys() == {"source"}:
            plain["model"] = plain["model"]["source"]
        order = [key for key in type(self).model_fields if key in plain]
        return yaml.safe_dump({key: plain[key] for key in order}, sort_keys=False, allow_unicode=True)

    def with_absolute_paths(self) -> RunConfig:
        """The order with absolute paths: a run works in a folder of its own."""
        plain = self.model_dump(mode="json", exclude_unset=True)
        ordered = plain["data"]
        if isinstance(ordered["train"], str):
            ordered["train"] = _absolute(ordered["train"])
        else:
            for source in ordered["train"]:
                source["source"] = _absolute(source["source"])
        if isinstance(ordered.get("eval"), str):
            ordered["eval"] = _absolute(ordered["eval"])
        if self.model.kind in ("folder", "gguf"):
            plain["model"]["source"] = _absolute(self.model.source)
        for place, reward in enumerate(getattr(self.stage, "rewards", ())):
            if reward.code:
                plain["stage"]["rewards"][place]["file"] = _absolute(reward.code)
        return build(plain)

    def with_changes(self, **sections: dict[str, Any] | str) -> RunConfig:
        """A copy with some keys of some sections set: config.with_changes(training={"batch_size": 2})."""
        plain = self.model_dump(mode="json", exclude_unset=True)
        for section, values in sections.items():
            plain[section] = {**plain.get(section, {}), **values} if isinstance(values, dict) else values
        return build(plain)


def _absolute(text: str) -> str:
    """The absolute path of what exists; a sample, a Hub id, a missing path as they are. FILE:NAME keeps its name."""
    if text.partition(":")[0] == "sample":
        return text
    file, _, name = text.rpartition(":")
    path, end = (Path(file).expanduser(), f":{name}") if Path(file).name == INFO_FILE else (Path(text).expanduser(), "")
    return f"{path.absolute()}{end}" if path.exists() else text


def load(path: str | Path, settings: Sequence[str] = ()) -> RunConfig:
    """Read an order from a YAML file, with `--set` changes (a.b=value) on top; data in its place are trained on with
    every default. Raises OrderError.
    """
    path = Path(path)
    if holds_rows(path):
        return parse(yaml.safe_dump({"data": {"train": str(path)}}, allow_unicode=True), settings, where=str(path))
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        hint = "Give the path of a YAML order or of a data file; `python -m studio train sample` needs none."
        raise OrderError(f"There is no file {path}.", hint, str(path)) from None
    except (OSError, UnicodeDecodeError) as error:
        hint = "Give a YAML text file in UTF-8."
        raise OrderError(f"{path} cannot be read: {reason_of(error)}.", hint, str(path)) from error
    return parse(text, settings, where=str(path))


def holds_rows(path: Path) -> bool:
    """Whether a path given as an order leads to data: a folder, or a file with an ending of data. JSON may be either:
    an order's `data` is an object.
    """
    if path.is_dir():
        return True
    name = path.name.lower()
    if not path.is_file() or not name.endswith((*DATA_ENDINGS, *COMPRESSED_ENDINGS, *ARCHIVE_ENDINGS)):
        return False
    if not name.endswith((".json", ".txt")) or path.stat().st_size > LONGEST_ORDER:
        return True
    try:
        plain = yaml_text.read(path.read_text(encoding="utf-8-sig"), str(path))
    except (OrderError, OSError, UnicodeDecodeError):
        return True
    return not (isinstance(plain, dict) and isinstance(plain.get("data"), dict))


def parse(text: str, settings: Sequence[str] = (), where: str = "the order") -> RunConfig:
    """An order from YAML text. Raises OrderError that names every wrong key with its nearest right name."""
    plain = yaml_text.read(text, where)
    if not isinstance(plain, dict):
        raise OrderError(f"{where} holds no keys.", "The least order is\n  data: {train: my-data.json}", where)
    for setting in settings:
        _set(plain, setting)
    return build(plain)


def build(plain: dict[str, Any]) -> RunConfig:
    """An order from plain values. Raises OrderError; all faults of the order are in one message."""
    plain = dict(plain)
    if isinstance(plain.get("method"), str):
        plain["method"] = {"name": plain["method"]}
    elif isinstance(plain.get("method"), dict):
        plain["method"] = {"name": DEFAULT_METHOD, **plain["method"]}
    if isinstance(plain.get("stage"), str):
        plain["stage"] = {"name": plain["stage"]}
    if isinstance(plain.get("evaluation"), bool):
        plain["evaluation"] = {} if plain["evaluation"] else None
    try:
        return RunConfig.model_validate(plain)
    except ValidationError as error:
        raise order_faults.error(error, RunConfig) from error


def _set(plain: dict[str, Any], setting: str) -> None:
    key, sign, value = setting.partition("=")
    if not sign or not key:
        raise OrderError(f"--set {setting!r} has no value.", "Write --set method.rank=16.", setting)
    section = plain
    *parents, last = key.strip().split(".")
    for parent in parents:
        inner = section.get(parent)
        if isinstance(inner, str) and parent == "model":
            inner = {"source": inner}
        elif isinstance(inner, str) and parent in TAGGED:
            inner = {TAGGED[parent][0]: inner}
        section[parent] = dict(inner) if isinstance(inner, dict) else {}
        section = section[parent]
    if parents in (["method"], ["stage"]) and last == "name" and section.get("name") != value:
        section.clear()  # another method or stage has other knobs
    section[last] = yaml_text.read(value, f"--set {key}")
