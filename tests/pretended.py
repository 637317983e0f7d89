"""A pretended accelerator: torch's Python PrivateUse1 backend under fake tensors, as a context in which a training step
runs without a card.

Nothing is computed; shapes, types and devices are those of a real one. What a real accelerator forbids or pays for
raises here: tensors of two devices in one operation, a tensor made on the host, a copy to the host, and every question
to the device (item, nonzero, bool of a tensor).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import torch
from torch import library as torchlib
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

NAME = "pretended"
# What CUDA's autocast computes in the narrow type, and what in float32 (torch's "Autocast Op Reference"), as far as
# language models use them.
NARROW = ("linear", "matmul", "mm", "addmm", "bmm", "baddbmm", "scaled_dot_product_attention")
WIDE = (
    "softmax.int",
    "log_softmax.int",
    "layer_norm",
    "pow.Tensor_Scalar",
    "rsqrt",
    "exp",
    "log",
    "sum",
    "sum.dim_IntList",
    "cumsum",
    "nll_loss",
    "cross_entropy_loss",
    "prod",
)


class _Module(backend_registration._DummyBackendModule):
    """What torch asks of torch.pretended."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]

    def is_bf16_supported(self) -> bool:
        return True

    def synchronize(self, device: Any = None) -> None:
        raise HostSync("synchronize")

    def get_rng_state(self, device: Any = None) -> torch.Tensor:
        return torch.zeros(16, dtype=torch.uint8)

    def set_rng_state(self, state: torch.Tensor, device: Any = None) -> None:
        return None


class HostSync(RuntimeError):
    """The host waited for the device."""


class WrongDevice(RuntimeError):
    """A tensor was made on the host while a step ran."""


def _autocast(library: torchlib.Library, name: str, narrow: bool) -> None:
    packet, overload = name.partition(".")[::2]
    function = getattr(getattr(torch.ops.aten, packet), overload or "default")
    outside = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)

    def cast(*args: Any, **kwargs: Any) -> Any:
        wanted = torch.get_autocast_dtype(NAME) if narrow else torch.float32
        with torch._C._ExcludeDispatchKeyGuard(outside):

            def one(value: Any) -> Any:
                given = (
                    isinstance(value, torch.Tensor)
                    and value.is_floating_point()
                    and value.device.type == NAME
                    and value.dtype != torch.float64
                )
                return value.to(wanted) if given else value

            args, kwargs = tree_map(one, (args, kwargs))
            return function(*args, **kwargs)

    library.impl(name, cast, "AutocastPrivateUse1")


_kept: list[torchlib.Library] = []


def register() -> None:
    """Make the device known to torch, once a process."""
    if _kept:
        return
    backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
    library = torchlib.Library("aten", "IMPL")
    for name in NARROW:
        _autocast(library, name, True)
    for name in WIDE:
        _autocast(library, name, False)
    library.impl(
        "empty.memory_format", _empty, "PrivateUse1"
    )  # for what torch makes below the fake tensors: torch.tensor([1, 2], device=…)
    library.impl("empty_strided", lambda size, stride, **options: _empty(size, **options), "PrivateUse1")
    library.impl("_copy_from", lambda source, target, non_blocking=False: target, "PrivateUse1")
    others = torchlib.Library("_", "IMPL", "AutocastPrivateUse1")
    others.fallback(torchlib.fallthrough_kernel)
    _kept.extend((library, others))


def _empty(size: Any, dtype: Any = None, **_: Any) -> torch.Tensor:
    return torch._C._acc.create_empty_tensor(list(size), dtype or torch.get_default_dtype())


class Strict(TorchDispatchMode):
    """Raises WrongDevice and HostSync.

    Single numbers on the host (a step count, a wrapped constant) are allowed: they cost nothing.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func)
        asks = any(word in name for word in ("_local_scalar_dense", "nonzero", "aten.equal.default"))
        if asks and any(_there(one) for one in tree_leaves((args, kwargs))):
            raise HostSync(name)
        out = func(*args, **(kwargs or {}))
        for one in tree_leaves(out):
            if isinstance(one, torch.Tensor) and one.device.type == "cpu" and one.dim():
                if any(_there(given) for given in tree_leaves((args, kwargs))):
                    raise HostSync(f"{name} brings {list(one.shape)} to the host")
                raise WrongDevice(f"{name} makes {list(one.shape)} on the host")
        return out


def _there(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.device.type == NAME


@contextlib.contextmanager
def accelerator() -> Iterator[FakeTensorMode]:
    """A process in which tensors can be put on the pretended device."""
    register()
    kept, torch.nn.Module._apply = torch.nn.Module._apply, _apply
    try:
        with FakeTensorMode() as mode:
            mode.__deepcopy__ = lambda memo: mode  # a copy of a module stays in this mode
            yield mode
    finally:
        torch.nn.Module._apply = kept


def loaded(load: Any, *args: Any, **kwargs: Any) -> Any:
    """What load(…) gives from files, as a model of fake tensors: on the host, or on the device where it is in 4 bits,
    as bitsandbytes puts it there.
    """
    with unset_fake_temporarily():
        model = load(*args, **kwargs)
    place = NAME if getattr(model, "quantization_method", None) else "cpu"
    return _apply(model, lambda value: given(value, place))


def given(value: Any, device: str = NAME) -> Any:
    """A tensor's like on the device, made from nothing; what is no tensor as it is."""
    return torch.empty(value.shape, dtype=value.dtype, device=device) if isinstance(value, torch.Tensor) else value


def _apply(model: torch.nn.Module, change: Any, recurse: bool = True) -> torch.nn.Module:
    """torch.nn.Module._apply for fake tensors, which cannot take other data in: parameters are exchanged; tied ones
    stay tied.
    """
    made: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def changed(value: torch.Tensor) -> torch.Tensor:
        if id(value) not in made:
            with torch.no_grad():
                new = change(value)
            made[id(value)] = value, _parameter(value, new, changed) if isinstance(value, torch.nn.Parameter) else new
        return made[id(value)][1]

    for module in model.modules():
        for table in (module._parameters, module._buffers, vars(module)):
            table.update({name: changed(value) for name, value in table.items() if isinstance(value, torch.Tensor)})
    return model


def _parameter(old: torch.nn.Parameter, new: torch.Tensor, changed: Any) -> torch.nn.Parameter:
    """One of 4 bits (bitsandbytes' Params4bit) keeps what it knows of its packing, whose tensors go with it."""
    made = torch.nn.Parameter(new, old.requires_grad)
    if not isinstance(old, FakeTensor):
        vars(made).update({name: value for name, value in vars(old).items() if name not in vars(made)})
    elif hasattr(old, "quant_state"):
        made.quant_state = old.quant_state
    states = [
        state
        for state in (getattr(old, "quant_state", None), getattr(getattr(old, "quant_state", None), "state2", None))
        if state is not None
    ]
    for state in states:
        vars(state).update(
            {name: changed(value) for name, value in vars(state).items() if isinstance(value, torch.Tensor)}
        )
    return made


def real_answers(monkeypatch: Any) -> None:
    """transformers leaves out its questions to the device for fake tensors: here they are asked, as for real ones."""
    from transformers.utils import import_utils

    monkeypatch.setattr(import_utils, "is_fake_tensor", lambda tensor: False)


def fake_files(monkeypatch: Any) -> None:
    """Tensors that are read from a file while fake ones are in use are fake, on the host."""
    import safetensors

    def opened(*args: Any, **kwargs: Any) -> Any:
        file = safe_open(*args, **kwargs)
        read = file.get_tensor

        def get_tensor(name: str) -> torch.Tensor:
            with unset_fake_temporarily():
                tensor = read(name)
            return given(tensor, "cpu")

        return contextlib.nullcontext(SimpleNamespace(keys=file.keys, get_tensor=get_tensor))

    safe_open = safetensors.safe_open
    monkeypatch.setattr(safetensors, "safe_open", opened)
