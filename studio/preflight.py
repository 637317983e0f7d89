"""Checks before a run exists: order, device, model and data together. The trainer asks some of them again.

What cannot work, would be ignored, or would fail only once the model is loaded is refused here, with what to change.
"""

from __future__ import annotations

import difflib
import importlib.util
import os
import shutil
import sys
import sysconfig
from pathlib import Path

from studio import auto, data, model, origin, places, run, trackers, unused_settings
from studio.base import families, source
from studio.config import RunConfig
from studio.device import Device, devices
from studio.driver import fit
from studio.errors import ModelError, OrderError
from studio.evaluation import endpoint
from studio.talk import reference
from studio.text import patterns

OPTIMIZERS_BY_PACKAGE = {  # of transformers, those that need no more than their name
    "torch": "adamw adamw_torch adamw_torch_fused adafactor sgd adagrad rmsprop",
    "bitsandbytes": "adamw_8bit adamw_bnb_8bit ademamix ademamix_8bit lion_8bit lion_32bit paged_adamw_8bit "
    "paged_adamw_32bit paged_ademamix_8bit paged_ademamix_32bit paged_lion_8bit paged_lion_32bit rmsprop_bnb "
    "rmsprop_bnb_8bit rmsprop_bnb_32bit",
    "torchao": "adamw_torch_4bit adamw_torch_8bit",
    "schedulefree": "schedule_free_adamw schedule_free_radam schedule_free_sgd",
    "optimi": "stable_adamw",
    "grokadamw": "grokadamw",
}
OPTIMIZERS = {name: package for package, names in OPTIMIZERS_BY_PACKAGE.items() for name in names.split()}


def check(config: RunConfig) -> None:
    """Refuse what cannot work, by headers alone: model, data, settings that do not fit. Raises StudioError."""
    if config.combine:
        hint = "Combine them anew: python -m studio combine RUN RUN."
        raise OrderError("This order combines finished runs: it is not one to train from.", hint, "combine")
    if config.race:
        hint = "Race them anew: python -m studio race DATA --set method.rank=8,16."
        raise OrderError("This order is a race of several settings, not one to train from.", hint, "race")
    folder, device = source.check(config.model), places.device_of(config.place) or devices()[0]
    if not config.place.remote:
        fit.refuse(device)
    facts = model.facts(folder) if folder else None
    if facts:
        check_packages(facts)
    config.method.refuse(facts, config.training, device)
    config.stage.refuse(config.method, config.data, config.training)
    check_new_tokens(config, facts)
    check_answer_length(config, facts)
    check_settings(config, device)
    if facts and not config.place.remote:
        auto.fused_kernels(config, facts, device)
        auto.layout(config, facts, device, longest=1)  # what not even short rows can have
    origin.check(config)
    data.check(config.data, folder, num_virtual_tokens=config.virtual_tokens)
    check_rewards(config)


def check_packages(facts: model.ModelFacts) -> None:
    """Raise ModelError for a model whose class in transformers needs a package that is not here."""
    package = families.PACKAGES.get(facts.model_type)
    if package and importlib.util.find_spec(package) is None:
        hint = f"Install it: pip install {package}."
        raise ModelError(f"A {facts.model_type} model needs {package}, which is not installed.", hint, "model")


def check_new_tokens(config: RunConfig, facts: model.ModelFacts | None) -> None:
    """Raise OrderError where the rows of data.new_tokens would not be trained. facts: of the model, if it is here."""
    if not config.data.new_tokens:
        return
    if config.training.sharding == "fsdp":
        message = "New tokens are not trained in a model that is split over several devices (fsdp)."
        hint = "Set training.sharding to ddp, or leave data.new_tokens out."
        raise OrderError(message, hint, "training.sharding")
    if not config.method.trains_tokens:
        message = f"{config.method.label} trains no rows of the embedding, so new tokens would never be learnt."
        hint = "Set method.name to lora, qlora or full, or leave data.new_tokens out."
        raise OrderError(message, hint, "data.new_tokens")
    if facts is not None:
        config.method.refuse_tokens(facts)


def check_answer_length(config: RunConfig, facts: model.ModelFacts | None) -> None:
    """Raise OrderError where virtual tokens and the answers that are written leave no room for a prompt."""
    tokens = config.stage.answer_tokens
    if facts is None or not facts.context or tokens + config.virtual_tokens < facts.context:
        return
    if config.virtual_tokens >= facts.context:
        raise OrderError(
            f"method.virtual_tokens is {config.virtual_tokens}, and the model reads {facts.context} tokens in all.",
            f"Set it to {facts.context // 4} or less.",
            "method.virtual_tokens",
        )
    raise OrderError(
        f"stage.max_new_tokens is {tokens}, and the model reads {facts.context} tokens of prompt and answer together.",
        f"Set it to {facts.context // 2} or less.",
        "stage.max_new_tokens",
    )


def check_rewards(config: RunConfig) -> None:
    """Raise StudioError for a reward that cannot be given: no answer to compare with, no reward model, no address."""
    rewards = getattr(config.stage, "rewards", ())
    if comparing := [reward for reward in rewards if reward.needs_reference]:
        data.check_references(config.data, comparing)
    for reward in rewards:
        for pattern in reward.patterns:
            if text := patterns.slow_text(pattern):
                raise OrderError(
                    f"The search for the pattern {pattern[:200]} does not come to an end in a long text such as "
                    f"{text!r}…",
                    "Write no repeat within a repeat: a+ instead of (a+)+.",
                    "stage.rewards",
                )
        if config.place.remote and (reward.run_id or reward.code):
            message = f"The reward {reward.name} needs what is on this computer, and this run is for another one."
            hint = "Train here, or take other rewards."
            raise OrderError(message, hint, "stage.rewards")
        if reward.run_id:
            reference.of_run(run.find(reward.run_id), scores=True)
        if reward.address:
            endpoint.check_url(reward.address)
            if not config.place.remote:
                endpoint.check_answers(reward.address)
        if reward.code and not Path(reward.code).expanduser().is_file():
            raise OrderError(f"There is no file {reward.code}.", "Give the path of a .py file.", "stage.rewards")


def check_settings(config: RunConfig, device: Device) -> None:
    """Raise OrderError for a setting that this device cannot run; asked before a run exists, and by its trainer."""
    unused_settings.refuse(config)
    _check_optimizer(config.training.optimizer)
    auto.precision(config, device)
    auto.weights(config, device)
    auto.loss(config)
    auto.optimizer(config, device)
    auto.attention(config, device)
    if config.training.compile:
        _check_compiler()
    for tracker in config.training.report_to:
        if not auto.installed(tracker):
            hint = f"Install it (pip install {tracker}), or take it off training.report_to."
            raise OrderError(f"The tracker {tracker} is not installed.", hint, "training.report_to")
        if setting := trackers.refusal(tracker):
            raise OrderError(
                f"{setting} in the environment has {tracker} send metrics, and there is no account "
                f"({trackers.TRACKERS[tracker].key} is not set).",
                "Set that key, or leave the mode out: then the metrics stay on this computer.",
                "training.report_to",
            )


def _check_optimizer(name: str) -> None:
    if name == "auto":
        return
    if name not in OPTIMIZERS:
        near = difflib.get_close_matches(name, OPTIMIZERS, n=1, cutoff=0.5)
        hint = f"Did you mean {near[0]}?" if near else f"Known are: {', '.join(OPTIMIZERS)}."
        raise OrderError(f"There is no optimizer {name!r} here.", hint, "training.optimizer")
    if importlib.util.find_spec(OPTIMIZERS[name]) is None:
        message = f"The optimizer {name} needs the package {OPTIMIZERS[name]}, which is not installed."
        hint = "Install it, or set training.optimizer to auto."
        raise OrderError(message, hint, "training.optimizer")


def _check_compiler() -> None:
    """torch.compile writes C++ (for a CPU, and for CUDA's launchers): it needs a compiler and Python's headers."""
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(compiler) is None:
        message = f"torch.compile needs the C++ compiler {compiler}, which is not installed."
        hint = "Install it (on Debian and Ubuntu: apt install g++), or set training.compile to false."
        raise OrderError(message, hint, "training.compile")
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        message = "torch.compile needs Python's header files, which are not installed."
        hint = "Install them (on Debian and Ubuntu: apt install python3-dev), or set training.compile to false."
        raise OrderError(message, hint, "training.compile")
