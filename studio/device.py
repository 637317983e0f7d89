"""Which accelerators there are, asked of the driver (nvidia-ml-py), never of torch."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from pydantic import BaseModel, ConfigDict


class Device(BaseModel):
    """One accelerator, or the CPU with its RAM. Memory in bytes."""

    model_config = ConfigDict(frozen=True)
    kind: str  # "cuda", "mps" or "cpu"
    index: int = 0
    name: str
    memory: int
    free: int
    capability: tuple[int, int] | None = None  # CUDA compute capability, e.g. (8, 6)
    bf16: bool = False
    utilisation: int | None = None  # percent
    temperature: int | None = None  # °C
    cores: int | None = None

    @property
    def id(self) -> str:
        """The name under which the queue locks it: "cuda:0", "cpu"."""
        return f"cuda:{self.index}" if self.kind == "cuda" else self.kind


def devices() -> list[Device]:
    """CUDA devices if the driver shows any (CUDA_VISIBLE_DEVICES honoured), else Apple's, else the CPU."""
    found = _cuda()
    if not found and platform.system() == "Darwin" and platform.machine() == "arm64":
        found = [cpu().model_copy(update={"kind": "mps", "name": "Apple GPU (shared memory)", "bf16": True})]
    return found or [cpu()]


def cpu() -> Device:
    """The CPU and its RAM; inside a container, the container's limit and its own use."""
    total, free = _ram()
    return Device(kind="cpu", name=_cpu_name(), memory=total, free=free, bf16=_cpu_has_bf16(), cores=cores())


def patience() -> dict[str, str]:
    """Environment for a process that computes beside others: its threads look a few microseconds for their next work, then sleep.

    Asleep at once (OMP_WAIT_POLICY=PASSIVE) every small operation waits for its threads to wake: 164 instead of 250 tokens a second on the
    bundled sample, 2 cores. Spinning on (libgomp's default), two such processes on the same cores took a quarter longer. What the user has
    set stands.
    """
    return {} if "OMP_WAIT_POLICY" in os.environ else {"GOMP_SPINCOUNT": "10000", "KMP_BLOCKTIME": "1"}  # libgomp: turns; LLVM's and Intel's: ms


def cores() -> int:
    """Cores this process may use: CPU_CORES on a Space, else the affinity mask."""
    named = os.environ.get("CPU_CORES", "")
    if named.replace(".", "", 1).isdigit() and float(named) >= 1:
        return int(float(named))
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cuda() -> list[Device]:
    try:
        import pynvml
        pynvml.nvmlInit()
    except Exception:  # noqa: BLE001 - no driver shows itself in many ways (missing library, no permission); all mean: no CUDA
        return []
    try:
        return [_one_cuda(pynvml, place, handle) for place, handle in enumerate(_visible(pynvml))]
    finally:
        pynvml.nvmlShutdown()


def _visible(pynvml) -> list:
    """Handles in the order CUDA numbers them: CUDA_VISIBLE_DEVICES may reorder, hide, or name by UUID."""
    handles = [pynvml.nvmlDeviceGetHandleByIndex(n) for n in range(pynvml.nvmlDeviceGetCount())]
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return handles
    chosen = []
    for word in filter(None, (part.strip() for part in named.split(","))):
        if word.isdigit():
            if int(word) >= len(handles):
                break
            chosen.append(handles[int(word)])
        else:
            match = [h for h in handles if str(pynvml.nvmlDeviceGetUUID(h)).startswith(word)]
            if not match:  # CUDA stops at the first name it does not know; "-1" hides all
                break
            chosen.append(match[0])
    return chosen


def _one_cuda(pynvml, index: int, handle) -> Device:
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    name = pynvml.nvmlDeviceGetName(handle)
    capability = tuple(pynvml.nvmlDeviceGetCudaComputeCapability(handle))
    seen: dict[str, int] = {}
    for key, ask in (("utilisation", lambda: pynvml.nvmlDeviceGetUtilizationRates(handle).gpu),
                     ("temperature", lambda: pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU))):
        try:
            seen[key] = int(ask())
        except pynvml.NVMLError:  # MIG slices and some cloud cards do not tell
            continue
    return Device(kind="cuda", index=index, name=name if isinstance(name, str) else name.decode(), memory=memory.total,
                  free=memory.free, capability=capability, bf16=capability >= (8, 0), cores=cores(), **seen)


def _ram() -> tuple[int, int]:
    import psutil
    memory = psutil.virtual_memory()
    total, free = memory.total, memory.available
    for limit_file, used_file in (("memory.max", "memory.current"),
                                  ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")):
        try:
            limit = int(Path("/sys/fs/cgroup", limit_file).read_text())
            used = int(Path("/sys/fs/cgroup", used_file).read_text())
        except (OSError, ValueError):
            continue
        if limit < total:
            total, free = limit, min(free, limit - used)
    return total, free


def _cpu_flags() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""


def _cpu_name() -> str:
    for line in _cpu_flags().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine() or "CPU"


def _cpu_has_bf16() -> bool:
    """bf16 products in hardware (AVX512-BF16 or AMX, or Arm's bf16): without them bf16 is slower than float32."""
    flags = _cpu_flags()
    return any(f" {flag}" in flags for flag in ("avx512_bf16", "amx_bf16", "bf16"))
