"""A tape that allocates, keeps and frees as PyTorch's autograd does, but counts bytes instead of computing.

What autograd saves of an operation is what its derivative reads (torch's tools/autograd/derivatives.yaml). A storage
lives while a Python name, a node of the graph or a gradient on its way refers to it. Walking one layer forwards and
backwards by these rules gives the peak and its causes without a fitted number.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(slots=True, eq=False)
class Storage:
    """Bytes with a cause, alive while refcount is not 0."""

    nbytes: int
    cause: str
    refcount: int = 1


@dataclass(slots=True, eq=False)
class FakeTensor:
    """A tensor without data. itemsize: bytes of an element; grad_fn: None where it has no gradient."""

    storage: Storage
    numel: int
    itemsize: int
    grad_fn: Node | None

    @property
    def nbytes(self) -> int:
        return self.numel * self.itemsize


@dataclass(slots=True, eq=False)
class Node:
    """A step of the backward pass.

    edges: (node, bytes of the gradient that it is given; 0: the same tensor is passed on). weights: bytes of the
    gradients of trained weights that it makes. recompute: runs instead of the plain step. reads: whether it reads what
    forward saved.
    """

    edges: list[tuple[Node, int]]
    saved: list[Storage]
    workspace: int
    weights: int
    recompute: Callable | None
    reads: bool
    grad: Storage | None = None


class Back(NamedTuple):
    """What an operation's backward does, beside reading the tensors that it saved.

    scratch: bytes needed meanwhile; weights: bytes of the gradients of trained weights that it makes; alias: gradients
    as large as a parent are passed on as they are; saves_result, reads: it reads its own result, a frozen weight.
    """

    scratch: int = 0
    weights: int = 0
    alias: bool = False
    saves_result: bool = False
    reads: bool = False


PLAIN = Back()


class Tape:
    """Live bytes by cause, and the highest sum of each phase.

    block: sizes are rounded up to it (512 on CUDA). gradients_stay: those of trained weights are there before and
    after. shards: of each such gradient one part stays (FSDP). gradients: their bytes so far. reads: operations so far
    that save something for backward. recompute_left: how many of them a recomputation still has to do, None outside of
    one; stopped: it has done them all.
    """

    def __init__(self, block: int = 512, gradients_stay: bool = False, shards: int = 1):
        self.block, self.gradients_stay, self.shards = block, gradients_stay, shards
        self.live = self.gradients = self.reads = 0
        self.recompute_left: int | None = None
        self.stopped = False
        self.saving = True  # False: no graph is kept (torch.no_grad)
        self.causes: dict[str, int] = defaultdict(int)
        self.peaks: dict[str, int] = defaultdict(int)  # phase -> highest
        self.at_peak: dict[str, dict[str, int]] = {}  # phase -> causes then
        self.phase, self.peak = "load", 0  # peak: of this phase
        self.nodes: list[Node] = []

    def enter_phase(self, phase: str) -> None:
        self.phase, self.peak = phase, self.peaks[phase]
        if self.live > self.peak:
            self._note_peak()

    def _note_peak(self) -> None:
        self.peak = self.peaks[self.phase] = self.live
        self.at_peak[self.phase] = dict(self.causes)

    # -- storages

    def allocate(self, size: int, cause: str) -> Storage:
        """A new storage of `size` bytes with one reference."""
        nbytes = 0 if self.stopped else -(-int(size) // self.block) * self.block
        self.live += nbytes
        self.causes[cause] += nbytes
        if self.live > self.peak:
            self._note_peak()
        return Storage(nbytes, cause, 1)

    def new(self, numel: int, itemsize: int, cause: str = "activations") -> FakeTensor:
        """A new tensor without a gradient."""
        return FakeTensor(self.allocate(numel * itemsize, cause), numel, itemsize, None)

    def allocate_briefly(self, size: int, cause: str) -> None:
        """Bytes that are freed at once."""
        if size and self.live + size + self.block > self.peak:  # else it cannot be part of a peak
            self.release(self.allocate(size, cause))

    def add(self, size: int, cause: str) -> None:
        """Bytes that stay to the end, or, where negative, that go."""
        if size >= 0:
            self.allocate(size, cause)
        else:
            self.live += size
            self.causes[cause] += size

    def retain(self, storage: Storage) -> Storage:
        storage.refcount += 1
        return storage

    def release(self, storage: Storage) -> None:
        storage.refcount -= 1
        if storage.refcount == 0:
            self.live -= storage.nbytes
            self.causes[storage.cause] -= storage.nbytes

    def delete(self, *tensors: FakeTensor | None) -> None:
        """Python's `del` of these names."""
        for tensor in tensors:
            if tensor is not None:
                self.release(tensor.storage)

    def alias(self, tensor: FakeTensor) -> FakeTensor:
        """Another Python name for the same tensor."""
        self.retain(tensor.storage)
        return tensor

    def view(self, tensor: FakeTensor, numel: int | None = None) -> FakeTensor:
        """The same storage under another shape."""
        self.retain(tensor.storage)
        return FakeTensor(tensor.storage, tensor.numel if numel is None else numel, tensor.itemsize, tensor.grad_fn)

    # -- operations

    def op(
        self,
        numel: int,
        itemsize: int,
        parents: Iterable[FakeTensor],
        saves: Sequence[FakeTensor] = (),
        *,
        cause: str = "activations",
        deletes: Sequence[FakeTensor | None] = (),
        back: Back = PLAIN,
    ) -> FakeTensor:
        """An operation's result, a new tensor.

        saves: tensors that its backward reads. deletes: names that are deleted afterwards. back: what else its
        backward does.
        """
        edges = []
        for parent in parents:
            if parent.grad_fn is not None:
                passed_on = back.alias and parent.itemsize == itemsize and parent.numel == numel
                edges.append((parent.grad_fn, 0 if passed_on else parent.numel * parent.itemsize))
        recorded = bool(edges or back.weights)
        saving = recorded and bool(back.reads or back.saves_result or saves)
        if saving and not back.saves_result:
            self._count_read()
        result = self.allocate(numel * itemsize, cause)
        if recorded and back.saves_result:
            self._count_read()
        saved = [*(tensor.storage for tensor in saves), *([result] if back.saves_result else [])]
        grad_fn = self.node(edges, saved, back.scratch, back.weights, reads=saving) if recorded else None
        self.delete(*deletes)
        return FakeTensor(result, numel, itemsize, grad_fn)

    def _count_read(self) -> None:
        """A recomputation ends at the last operation that saves something (torch.utils.checkpoint's early stop)."""
        if self.recompute_left is None:
            self.reads += 1
        else:
            self.recompute_left -= 1
            self.stopped = self.recompute_left <= 0

    def node(
        self,
        edges: list[tuple[Node, int]],
        saved: list[Storage],
        workspace: int = 0,
        weights: int = 0,
        recompute: Callable | None = None,
        reads: bool = False,
    ) -> Node:
        retained = saved if self.saving or recompute else []
        for storage in retained:
            storage.refcount += 1
        node = Node(edges, retained, workspace, weights, recompute, reads)
        self.nodes.append(node)
        return node

    # -- backward

    def backward(self, nodes: list[Node], until_read: bool = False) -> None:
        """Run nodes in reverse order; the last one's grad must be set. until_read: stop before the first reader."""
        while nodes:
            if until_read and nodes[-1].reads and nodes[-1].grad is not None:
                return
            node = nodes.pop()
            grad, node.grad = node.grad, None
            if grad is not None:  # None: nothing downstream used its result
                if node.recompute is not None:
                    node.recompute(self, node, grad)
                else:
                    self._step(node, grad)
            for storage in node.saved:
                self.release(storage)
            if grad is not None:
                self.release(grad)

    def _step(self, node: Node, grad: Storage) -> None:
        workspace = self.allocate(node.workspace, "workspace") if node.workspace else None
        for parent, size in node.edges:
            self.accumulate_grad(parent, self.allocate(size, "gradients in flight") if size else self.retain(grad))
        if node.weights:
            self.weight_gradient(node.weights)
        if workspace is not None:
            self.release(workspace)

    def weight_gradient(self, size: int) -> None:
        """The gradient of a trained weight: kept, or added to the one that is there already."""
        part = -(-size // self.shards)
        if self.gradients_stay:
            self.allocate_briefly(part, "gradients in flight")
        else:
            self.gradients += self.allocate(part, "gradients").nbytes

    def grow(self, size: int) -> None:
        """Gradients of layers that are not walked themselves."""
        self.gradients += size
        self.add(size, "gradients")

    def accumulate_grad(self, node: Node, grad: Storage) -> None:
        """Add a gradient (one reference) to what the node has, in place where nobody else refers to that."""
        if node.grad is None:
            node.grad = grad
            return
        if node.grad.refcount > 1:
            total = self.allocate(max(node.grad.nbytes, grad.nbytes), "gradients in flight")
            self.release(node.grad)
            node.grad = total
        self.release(grad)
