"""Bottleneck adapters (Houlsby, Pfeiffer) as a tuner of peft, behind the last linear of a sublayer."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import torch
from peft.config import PeftConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer, _get_in_out_features
from torch import nn

NEAR_IDENTITY_STD = 0.01  # of the initial weights (Houlsby, section 3.6)


class BottleneckType(str, Enum):  # noqa: UP042 - the same kind of enum as peft's PeftType
    """The one member that peft's PeftType lacks; equal to the plain string in adapter_config.json."""

    BOTTLENECK = "BOTTLENECK"


@dataclass
class BottleneckConfig(PeftConfig):
    """The contents of adapter_config.json."""

    target_modules: list[str] | str | None = field(
        default=None, metadata={"help": "Linears that get a bottleneck behind them."}
    )
    exclude_modules: list[str] | str | None = field(default=None, metadata={"help": "Modules never to touch."})
    size: int = field(default=64, metadata={"help": "Width of the bottleneck."})
    activation: str = field(default="gelu", metadata={"help": "relu, gelu, silu or tanh."})
    residual: bool = field(default=True, metadata={"help": "Whether the input is added to the adapter's output."})
    init: str = field(default="identity", metadata={"help": "identity or near."})
    dropout: float = field(default=0.0, metadata={"help": "Share of the bottleneck switched off while training."})

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = BottleneckType.BOTTLENECK
        if isinstance(self.target_modules, list):
            self.target_modules = set(self.target_modules)


ACTIVATIONS = {"relu": nn.functional.relu, "gelu": nn.functional.gelu, "silu": nn.functional.silu, "tanh": torch.tanh}


class BottleneckLayer(nn.Module, BaseTunerLayer):
    """A linear with a bottleneck behind it for each adapter: y + up(f(down(y))), where y [..., d] is its output."""

    adapter_layer_names = ("adapter_down", "adapter_up")
    other_param_names = ("settings",)

    def __init__(self, base_layer: nn.Module, adapter_name: str, config: BottleneckConfig):
        super().__init__()
        self.base_layer = base_layer
        self.adapter_down, self.adapter_up = nn.ModuleDict(), nn.ModuleDict()
        self.settings: dict[str, BottleneckConfig] = {}
        self._disable_adapters, self.merged_adapters = False, []
        self.update_layer(adapter_name, config)

    def update_layer(self, adapter_name: str, config: BottleneckConfig) -> None:
        """Add the bottleneck of one more adapter."""
        _, width = _get_in_out_features(self.get_base_layer())
        down, up = nn.Linear(width, config.size), nn.Linear(config.size, width)
        nn.init.zeros_(up.bias)
        if config.init == "near":
            for weight in (down.weight, up.weight):
                nn.init.trunc_normal_(weight, std=NEAR_IDENTITY_STD, a=-2 * NEAR_IDENTITY_STD, b=2 * NEAR_IDENTITY_STD)
            nn.init.zeros_(down.bias)
        else:
            nn.init.zeros_(up.weight)
        self.adapter_down[adapter_name], self.adapter_up[adapter_name] = down, up
        self.settings[adapter_name] = config
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters)

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        out = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters:
            return out
        for name in self.active_adapters:
            if name not in self.adapter_down:
                continue
            down, up, config = self.adapter_down[name], self.adapter_up[name], self.settings[name]
            hidden = ACTIVATIONS[config.activation](down(out.to(down.weight.dtype)))
            delta = up(nn.functional.dropout(hidden, config.dropout, self.training)).to(out.dtype)
            out = out + delta if config.residual else delta
        return out

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        raise ValueError("A bottleneck adapter bends between its matrices and cannot be merged.")


class BottleneckModel(BaseTuner):
    """Puts BottleneckLayers into a model."""

    prefix = "adapter_"
    tuner_layer_cls = BottleneckLayer
    target_module_mapping: dict[str, list[str]] = {}

    def _create_and_replace(
        self,
        peft_config: BottleneckConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        **_: Any,
    ) -> None:
        if isinstance(target, BottleneckLayer):
            target.update_layer(adapter_name, peft_config)
            return
        layer = BottleneckLayer(target, adapter_name, peft_config)
        if adapter_name not in self.active_adapters:
            layer.requires_grad_(False)
        self._replace_module(parent, target_name, layer, target)


PEFT_TYPE_TO_CONFIG_MAPPING[BottleneckType.BOTTLENECK] = BottleneckConfig
PEFT_TYPE_TO_TUNER_MAPPING[BottleneckType.BOTTLENECK] = BottleneckModel
PEFT_TYPE_TO_PREFIX_MAPPING[BottleneckType.BOTTLENECK] = BottleneckModel.prefix
