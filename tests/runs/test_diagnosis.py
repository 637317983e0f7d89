"""The cause of an end, from exit code and log."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from studio.runs.diagnosis import diagnose, diagnose_lost
from studio.runs.log import ATTEMPT

BACK = "Traceback (most recent call last):\n  File x\n"
TEXTS = {
    "memory": [
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
        "RuntimeError: [enforce fail at alloc_cpu.cpp:118] . DefaultCPUAllocator: "
        "can't allocate memory: you tried to allocate 1 bytes.",
        "MemoryError",
        "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED",
        "RuntimeError: CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
        "RuntimeError: cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "RuntimeError: cuDNN error: CUDNN_STATUS_NOT_INITIALIZED",
        "torch.OutOfMemoryError: HIP out of memory. Tried to allocate 2.00 GiB.",
        "RuntimeError: Native API failed: UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY",
        "OSError: [Errno 12] Cannot allocate memory",
        "terminate called after throwing an instance of 'std::bad_alloc'",
    ],
    "disk": [
        "OSError: [Errno 28] No space left on device",
        "RuntimeError: [enforce fail at inline_container.cc:603] . unexpected pos",
        "OSError: [Errno 122] Disk quota exceeded",
        "safetensors_rust.SafetensorError: I/O error: No space left on device (os error 28)",
    ],
    "nan": ["NaNLossError: the loss is nan"],
    "gated": ["huggingface_hub.errors.GatedRepoError: 403 Client Error. Access to model x is restricted"],
    "model": [
        "huggingface_hub.errors.RepositoryNotFoundError: 404 Client Error.",
        "safetensors_rust.SafetensorError: Error while deserializing header: HeaderTooLarge",
    ],
    "network": [
        "requests.exceptions.ConnectionError: Max retries exceeded with url",
        "socket.gaierror: [Errno -2] Name or service not known",
    ],
    "device": [
        "RuntimeError: CUDA error: device-side assert triggered",
        "torch.distributed.DistBackendError: NCCL error",
        "torch.AcceleratorError: CUDA error: no kernel image is available for execution on the device",
        "RuntimeError: The NVIDIA driver on your system is too old (found version 12040).",
        "torch.AcceleratorError: CUDA error: an illegal memory access was encountered",
        "RuntimeError: HIP error: invalid argument",
    ],
    "install": ["ModuleNotFoundError: No module named 'bitsandbytes'"],
    "permission": ["PermissionError: [Errno 13] Permission denied: '/x'"],
    "bug": ["ValueError: odd"],
}


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in TEXTS.items() for text in texts])
def test_named(tmp_path: Path, kind: str, text: str) -> None:
    log = tmp_path / "log.txt"
    log.write_text(f"hello\n{BACK}{text}\n")
    cause = diagnose(1, log)
    assert cause.kind == kind
    assert cause.message
    assert cause.action


@pytest.mark.parametrize("text", [text for kind in ("memory", "device") for text in TEXTS[kind]])
def test_nobody_is_sent_to_restart_the_computer(tmp_path: Path, text: str) -> None:
    log = tmp_path / "log.txt"
    log.write_text(f"{BACK}{text}\n")
    assert "restart" not in diagnose(1, log).action.lower()


def test_a_card_that_torch_has_no_code_for_is_not_called_short_of_memory(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text(
        f"CUBLAS_STATUS_NOT_INITIALIZED\n{BACK}CUDA error: no kernel image is available for execution on the device\n"
    )
    assert "no code for this graphics card" in diagnose(1, log).message


@pytest.mark.parametrize(
    ("code", "kills", "kind", "word"),
    [
        (-signal.SIGKILL, 1, "memory", "ran out of memory"),
        (-signal.SIGKILL, 0, "killed", "SIGKILL"),
        (-signal.SIGTERM, 0, "interrupted", "SIGTERM"),
        (-signal.SIGSEGV, 0, "crash", "SIGSEGV"),
        (-signal.SIGRTMIN - 3, 0, "crash", "signal"),
        (3, 0, "bug", "exit code 3"),
    ],
)
def test_signals(tmp_path: Path, code: int, kills: int, kind: str, word: str) -> None:
    cause = diagnose(code, tmp_path / "none", kills)
    assert cause.kind == kind
    assert word in cause.message


def test_a_warning_about_the_network_is_not_the_cause(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text(f"warning: ConnectionError, trying again\nloaded\n{BACK}ValueError: odd\n")
    assert diagnose(1, log).kind == "bug"


def test_an_older_attempts_error_is_not_this_ones(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text(f"{ATTEMPT}1, x\n{BACK}CUDA out of memory\n{ATTEMPT}2, y\n{BACK}ValueError: odd\n")
    assert diagnose(1, log).kind == "bug"
    log.write_text(f"{ATTEMPT}1, x\n{BACK}CUDA out of memory\n{ATTEMPT}2, y\nfine\n")
    assert diagnose_lost(log).kind == "lost"
