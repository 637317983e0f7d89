"""RunConfig: the complete order for one run; to YAML and back, losing nothing."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from studio import yaml_text
from studio.base.source import ModelOrder
from studio.combination import Combination
from studio.contest import Contest
from studio.data.dataset_info import INFO_FILE
from studio.data.files import ARCHIVE_ENDINGS, COMPRESSED_ENDINGS, DATA_ENDINGS
from studio.data.order import DataOrder
from studio.errors import OrderError, reason_of
from studio.evaluation.order import EvaluationOrder
from studio.knob import KNOBS, described
from studio.methods import METHODS, AnyMethod
from studio.places import PLACES, AnyPlace
from studio.places.here import Here
from studio.rewards import REWARDS
from studio.stages import STAGES, AnyStage
from studio.stages.sft import SFT
from studio.training import Training

DEFAULT_METHOD = "lora"
LONGEST_ORDER = 1 << 16  # bytes
PLAIN_WORDS = {  # for pydantic's
    r", unable to (interpret input|parse string as an? \w+)": "",
    r"a valid dictionary or instance of \w+": "keys with values",
    r"a valid string": "text",
    r"a valid (tuple|list)": "a list",
}
UNION_TAG = re.compile(
    r"str|int|float|bool|constrained-\w+|[\w-]+\[.*\]"
)  # in pydantic's locations: float, list[Source]
TAGGED: dict[str, tuple[str, Mapping[str, Any]]] = {  # sections of several kinds: the key that names it, and the kinds
    "method": ("name", METHODS),
    "stage": ("name", STAGES),
    "place": ("kind", PLACES),
}


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
        raise OrderError(
            f"There is no file {path}.",
            "Give the path of a YAML order or of a data file; `python -m studio train sample` needs none.",
            str(path),
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise OrderError(
            f"{path} cannot be read: {reason_of(error)}.", "Give a YAML text file in UTF-8.", str(path)
        ) from error
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
        items = _of_each_value(error.errors())
        faults = [_fault(item) for item in items]
        raise OrderError(
            " ".join(message for message, _ in faults),
            " ".join(dict.fromkeys(hint for _, hint in faults if hint)),
            _dotted(items[0]["loc"]),
        ) from error


def _of_each_value(items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """pydantic's errors, those of one value as one: a union has one for each of its kinds, and where a value is of one
    of them but for something inside it, only that counts.
    """
    found: dict[str, dict[str, Any]] = {}
    for item in items:
        where = _dotted(item["loc"])
        if before := found.get(where):
            before["msg"] += f", or {_expected(item).removeprefix('should ')}"
        else:
            found[where] = dict(item)
    return [item for where, item in found.items() if not any(other.startswith(f"{where}.") for other in found)]


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


def _dotted(loc: tuple) -> str:
    """pydantic's location without the tags of unions: types, and the kinds of a section or of a reward."""
    tags = TAGGED[loc[0]][1] if loc and loc[0] in TAGGED else {}
    parts = [
        part
        for index, part in enumerate(loc)
        if not (index == 1 and part in tags) and not (index and UNION_TAG.fullmatch(str(part)))
    ]
    return ".".join(
        str(part)
        for index, part in enumerate(parts)
        if not (index and isinstance(parts[index - 1], int) and part in REWARDS)
    )


def _fault(item: Mapping[str, Any]) -> tuple[str, str]:
    """One pydantic error as (what was found, what would be right)."""
    where, kind, value = _dotted(item["loc"]), item["type"], item.get("input")
    if kind == "extra_forbidden":
        known = _known(item["loc"])
        near = difflib.get_close_matches(str(item["loc"][-1]), known, n=1, cutoff=0.5)
        return f"Unknown key {where}.", f"Did you mean {near[0]}?" if near else f"Known there: {', '.join(known)}."
    if kind == "missing":
        if where == "place.host":
            return "place.host is missing.", "Name the computer as after ssh: gpu-box or me@203.0.113.7."
        hint = "It says which data to train on: a file, a Hub id or sample."
        return f"{where} is missing.", hint if where in ("data", "data.train") else ""
    if kind in ("union_tag_invalid", "union_tag_not_found") and where == "place":
        return (
            f"There is no place {value.get('kind') if isinstance(value, dict) else value!r}.",
            f"Places: {', '.join(PLACES)}.",
        )
    if kind in ("union_tag_invalid", "union_tag_not_found") and where.startswith("stage.rewards"):
        name = value.get("name") if isinstance(value, dict) else value
        return f"There is no reward {name!r} ({where}).", f"{_nearest(name, REWARDS)}Rewards: {', '.join(REWARDS)}."
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return _unknown_name(where, value)
    shown = repr(value) if len(repr(value)) < 80 else repr(value)[:77] + "…"
    return f"{where} is {shown}, but {_expected(item)}.", _meaning(item["loc"])


def _unknown_name(where: str, value: Any) -> tuple[str, str]:
    """A method or stage that does not exist, or has no name."""
    names = TAGGED[where][1]
    name = value.get("name") if isinstance(value, dict) else value
    if where == "stage" and name is None:
        return "stage has no name.", f"Write it as stage: {{name: dpo, beta: 0.1}}. Stages: {', '.join(names)}."
    suggestion = _nearest(name, names)
    if where == "stage":
        return f"There is no stage {name!r}.", f"{suggestion}Stages: {', '.join(names)}."
    return f"There is no method {name!r}.", f"{suggestion}Methods: {', '.join(names)}."


def _nearest(name: Any, names: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.4)
    return f"Did you mean {near[0]}? " if near else ""


def _expected(item: Mapping[str, Any]) -> str:
    text = item["msg"].removeprefix("Value error, ").removeprefix("Input ")
    for theirs, ours in PLAIN_WORDS.items():
        text = re.sub(theirs, ours, text)
    return text[0].lower() + text[1:]


def _meaning(loc: tuple) -> str:
    """What a key of the order is, as its help says; "" for a key that has none."""
    names = [part for part in loc if not isinstance(part, int) and not UNION_TAG.fullmatch(part)]
    section = _section((*names,))
    return described(section).get(names[-1], "") if section and names else ""


def _known(loc: tuple) -> list[str]:
    """The keys allowed beside an unknown one."""
    return list(getattr(_section(loc), "model_fields", {}))


def _section(loc: tuple) -> Any:
    """The model whose key a location ends in; None where it is not told."""
    kind: Any = RunConfig
    for part in loc[:-1]:
        if isinstance(part, int) or UNION_TAG.fullmatch(part):
            continue
        kinds_of_parts = [kinds for _, kinds in TAGGED.values()] + [REWARDS]
        tagged = next((kinds[part] for kinds in kinds_of_parts if part in kinds), None)
        if tagged and not (isinstance(kind, type) and part in getattr(kind, "model_fields", {})):
            kind = tagged
            continue
        field = getattr(kind, "model_fields", {}).get(part)
        if field is None:
            return None
        if part in (*TAGGED, "rewards"):
            continue
        kind = next(_models(field.annotation), None)
    return kind


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models in a field's type: of X | None, of str | list[X]."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)
