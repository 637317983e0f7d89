"""A dispatch mode that counts live bytes of tensors while a real training step runs, under fake tensors: nothing is
computed.
"""

from __future__ import annotations

import weakref
from collections import defaultdict
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class Count(TorchDispatchMode):
    """live, and peaks[moment]: the highest while `moment` was set. Bytes of every storage an operation makes, until it
    is freed.
    """

    def __init__(self, block: int = 1):
        super().__init__()
        self.block, self.live, self.moment = block, 0, "load"
        self.peaks: dict[str, int] = defaultdict(int)
        self._known: dict[int, Any] = {}

    def add(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        size = -(-storage.nbytes() // self.block) * self.block
        self.live += size
        self._known[key] = weakref.finalize(storage, self._gone, key, size)
        self.peaks[self.moment] = max(self.peaks[self.moment], self.live)

    def _gone(self, key: int, size: int) -> None:
        self.live -= size
        self._known.pop(key, None)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for item in tree_iter(result):
            if isinstance(item, torch.Tensor):
                self.add(item)
        return result


class Unrolled(TorchFunctionMode):
    """torch.softmax with a type and `out` widens its input into a copy that no dispatch mode sees: the same in two
    steps.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        if func is torch.softmax and "out" in given:
            return torch.ops.aten._softmax.out(
                args[0].to(given.get("dtype") or args[0].dtype), args[1], False, out=given["out"]
            )
        return func(*args, **given)
