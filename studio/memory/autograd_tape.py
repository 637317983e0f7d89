"""A tape that allocates, holds and frees like PyTorch's autograd, but counts bytes instead of computing.

What autograd keeps of an operation is what its derivative needs (torch's tools/autograd/derivatives.yaml); a buffer lives
while a Python name, a node of the graph or the gradient on its way holds it. Walking one layer forwards and backwards by
these rules gives the peak and its causes without a single fitted number.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence


class Buffer:
    """Some bytes with a cause, alive while somebody holds it."""

    __slots__ = ("bytes", "cause", "holders")

    def __init__(self, size: int, cause: str):
        self.bytes, self.cause, self.holders = size, cause, 1


class Value:
    """A tensor as Python sees it: its buffer, its elements and bytes each, and the node that made it (None: no gradient)."""

    __slots__ = ("buffer", "size", "each", "node")

    def __init__(self, buffer: Buffer, size: int, each: int, node: Node | None):
        self.buffer, self.size, self.each, self.node = buffer, size, each, node

    @property
    def bytes(self) -> int:
        return self.size * self.each


class Node:
    """One step of the backward pass: edges lead to (node, bytes of its gradient; 0: the same tensor is passed on).

    reads: whether it reads something that forward kept, be it a weight.
    """

    __slots__ = ("edges", "saved", "scratch", "weights", "gradient", "replay", "reads")

    def __init__(
        self,
        edges: list[tuple[Node, int]],
        saved: list[Buffer],
        scratch: int,
        weights: int,
        replay: Callable | None,
        reads: bool,
    ):
        self.edges, self.saved, self.scratch, self.weights, self.replay, self.reads = (
            edges,
            saved,
            scratch,
            weights,
            replay,
            reads,
        )
        self.gradient: Buffer | None = None


class Tape:
    """Live bytes by cause, their highest sum, and at which moment it was. block: sizes are rounded up to it (512 on CUDA).

    gradients: bytes of trained weights' gradients; of each, one part in `shards` stays (FSDP). reads: operations so far that keep something
    for backward; left: how many of them a recomputation still has to do, None outside of one; mute: it has done them all, and stops.
    """

    def __init__(self, block: int = 512, gradients_stay: bool = False, shards: int = 1):
        self.block, self.gradients_stay, self.shards = block, gradients_stay, shards
        self.live = self.gradients = self.reads = 0
        self.left: int | None = None
        self.mute = False
        self.causes: dict[str, int] = defaultdict(int)
        self.peaks: dict[str, int] = defaultdict(int)  # moment -> highest
        self.at_peak: dict[str, dict[str, int]] = {}  # moment -> causes then
        self.moment = "load"
        self.nodes: list[Node] = []
        self.saving = True

    def enter(self, moment: str) -> None:
        """From here on it is this moment."""
        self.moment = moment
        if self.live > self.peaks[moment]:
            self.peaks[moment], self.at_peak[moment] = self.live, dict(self.causes)

    # -- buffers

    def take(self, size: int, cause: str) -> Buffer:
        """A new buffer with one holder."""
        buffer = Buffer(0 if self.mute else -(-int(size) // self.block) * self.block, cause)
        self.live += buffer.bytes
        self.causes[cause] += buffer.bytes
        if self.live > self.peaks[self.moment]:
            self.peaks[self.moment] = self.live
            self.at_peak[self.moment] = dict(self.causes)
        return buffer

    def add(self, size: int, cause: str) -> None:
        """Bytes that stay (negative: that go)."""
        if size >= 0:
            self.take(size, cause)
        else:
            self.live += size
            self.causes[cause] += size

    def hold(self, buffer: Buffer) -> Buffer:
        buffer.holders += 1
        return buffer

    def free(self, buffer: Buffer) -> None:
        buffer.holders -= 1
        if buffer.holders == 0:
            self.live -= buffer.bytes
            self.causes[buffer.cause] -= buffer.bytes

    def drop(self, *values: Value | None) -> None:
        """Python lets go of these names."""
        for value in values:
            if value is not None:
                self.free(value.buffer)

    def name(self, value: Value) -> Value:
        """Another Python name for the same tensor."""
        self.hold(value.buffer)
        return value

    def scratch(self, size: int, cause: str) -> None:
        """Bytes that live for a moment only."""
        if size:
            self.free(self.take(size, cause))

    # -- operations

    def op(
        self,
        size: int,
        each: int,
        parents: Iterable[Value],
        saves: Sequence[Value] = (),
        *,
        cause: str = "activations",
        scratch: int = 0,
        back_scratch: int = 0,
        weights: int = 0,
        alias: bool = False,
        saves_result: bool = False,
        reads: bool = False,
    ) -> Value:
        """An operation with a new result of `size` elements; gradients have the parents' size, or are passed on as they are (alias).

        weights: bytes of the gradients of trained weights that its backward makes; saves: what its backward reads; reads: it reads a frozen weight.
        """
        edges = [
            (parent.node, 0 if alias and parent.each == each and parent.size == size else parent.size * parent.each)
            for parent in parents
            if parent.node is not None
        ]
        kept = bool(edges or weights) and (reads or saves_result or len(saves) > 0)
        if kept and not saves_result:
            self._keep()
        result = self.take(size * each, cause)
        self.scratch(scratch, "workspace")
        if kept and saves_result:
            self._keep()
        if not edges and not weights:
            return Value(result, size, each, None)
        held = [value.buffer for value in saves] + ([result] if saves_result else [])
        return Value(result, size, each, self.node(edges, held, back_scratch, weights, reads=kept))

    def _keep(self) -> None:
        """Count an operation that keeps something; a recomputation ends at the last of them (torch.utils.checkpoint's early stop)."""
        if self.left is None:
            self.reads += 1
        else:
            self.left -= 1
            self.mute = self.left <= 0

    def node(
        self,
        edges: list[tuple[Node, int]],
        held: list[Buffer],
        scratch: int = 0,
        weights: int = 0,
        replay: Callable | None = None,
        reads: bool = False,
    ) -> Node:
        saved = [self.hold(buffer) for buffer in held] if self.saving or replay else []
        node = Node(edges, saved, scratch, weights, replay, reads)
        self.nodes.append(node)
        return node

    def view(self, value: Value, size: int | None = None) -> Value:
        """The same bytes under another shape (one more name)."""
        self.hold(value.buffer)
        return Value(value.buffer, value.size if size is None else size, value.each, value.node)

    # -- the way back

    def backward(self, nodes: list[Node], until_read: bool = False) -> None:
        """Run nodes in reverse order of their making; the last one's gradient must have been set. until_read: up to the first that reads."""
        while nodes:
            if until_read and nodes[-1].reads and nodes[-1].gradient is not None:
                return
            node = nodes.pop()
            given = node.gradient
            if given is None:  # nothing downstream used it
                for buffer in node.saved:
                    self.free(buffer)
                continue
            node.gradient = None
            if node.replay is not None:
                node.replay(self, node, given)
            else:
                self._step(node, given)
            for buffer in node.saved:
                self.free(buffer)
            self.free(given)

    def _step(self, node: Node, given: Buffer) -> None:
        workspace = self.take(node.scratch, "workspace") if node.scratch else None
        for parent, size in node.edges:
            self.send(parent, self.take(size, "gradients in flight") if size else self.hold(given))
        if node.weights:
            self.weight_gradient(node.weights)
        if workspace is not None:
            self.free(workspace)

    def weight_gradient(self, size: int) -> None:
        """The gradient of a trained weight: kept, or added to the one that is there already."""
        part = -(-size // self.shards)
        if self.gradients_stay:
            self.scratch(part, "gradients in flight")
        else:
            self.gradients += self.take(part, "gradients").bytes

    def grow(self, size: int) -> None:
        """Gradients of layers that are not walked themselves."""
        self.gradients += size
        self.add(size, "gradients")

    def send(self, node: Node, gradient: Buffer) -> None:
        """Hand a gradient (one holder) to a node, adding to what it has: in place when nobody else holds that."""
        if node.gradient is None:
            node.gradient = gradient
            return
        if node.gradient.holders > 1:
            both = self.take(max(node.gradient.bytes, gradient.bytes), "gradients in flight")
            self.free(node.gradient)
            node.gradient = both
        self.free(gradient)
