"""python -m studio.worker.torch_devices [FILE]: the devices that torch sees and what it was built for.

One JSON object, printed or written into FILE: {version, cuda, hip, xpu, architectures, available, error, devices:
[{name, memory, capability}]}. Sizes in bytes.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

from studio.device import Device
from studio.driver import fit
from studio.errors import DeviceError
from studio.home import write_atomic


def inspect(every: bool = True) -> dict[str, Any]:
    """What torch reports of every device, or of the current one; what goes wrong is the answer's `error`."""
    answer: dict[str, Any] = {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "hip": torch.version.hip,
        "xpu": getattr(torch.version, "xpu", None),
        "architectures": architectures(),
        "available": False,
        "error": None,
        "devices": [],
    }
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            answer |= {"available": torch.accelerator.is_available(), "devices": usable_devices(every)}
        except Exception as error:  # noqa: BLE001 - whatever keeps torch from its device is the answer
            answer["error"] = str(error).splitlines()[0] if str(error) else type(error).__name__
    if not answer["available"] and answer["error"] is None and caught:
        answer["error"] = str(caught[-1].message).splitlines()[0]
    return answer


def architectures() -> list[str]:
    """sm_75, compute_90, … that torch's kernels were compiled for; known without a driver too."""
    flags = getattr(torch._C, "_cuda_getArchFlags", lambda: "")()
    return (flags or "").split()


def usable_devices(every: bool) -> list[dict[str, Any]]:
    """Each device (or the current one). Raises what torch raises where a first matrix product fails on it."""
    if not torch.accelerator.is_available():
        return []
    kind = torch.accelerator.current_accelerator().type
    module = getattr(torch, kind)
    devices = []
    for index in range(torch.accelerator.device_count()) if every else [torch.accelerator.current_device_index()]:
        matrix = torch.ones(64, 64, device=torch.device(kind, index))
        (matrix @ matrix).sum().item()
        properties = module.get_device_properties(index) if hasattr(module, "get_device_properties") else None
        devices.append(
            {
                "name": getattr(properties, "name", kind),
                "memory": getattr(properties, "total_memory", None),
                "capability": list(module.get_device_capability(index)) if kind == "cuda" else None,
            }
        )
    return devices


def refuse_unusable(device: Device) -> None:
    """Raise DeviceError where torch cannot use the device that its driver shows. Nothing for a CPU."""
    if not device.traits.cards:
        return
    fit.store_answer(device, inspect(every=False))
    misfit = fit.misfit(device)
    if misfit:
        raise DeviceError(misfit.text, misfit.hint, "device", "device")


if __name__ == "__main__":
    answer = json.dumps(inspect())
    if len(sys.argv) > 1:
        write_atomic(Path(sys.argv[1]), answer)
    else:
        print(answer)
