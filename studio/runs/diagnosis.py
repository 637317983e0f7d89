"""Why a trainer ended and what to do, from its exit code or signal and the end of its log."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import NamedTuple

from studio.runs.log import attempt_tail


class Cause(NamedTuple):
    """kind: a short name for programs; message: one sentence; action: one thing to do."""

    kind: str
    message: str
    action: str


MEMORY = Cause(
    "memory",
    "The device ran out of memory.",
    "Use a smaller batch with more accumulation, gradient checkpointing, or a shorter max length, then resume.",
)
KILLED_FOR_MEMORY = Cause(
    "memory",
    "The system killed the trainer because the computer ran out of memory.",
    "Use a smaller batch, a shorter max length or a smaller model, then resume.",
)
DISK = Cause(
    "disk", "The disk is full.", "Free some space, then resume: it goes on from its last checkpoint, if there is one."
)
NAN = Cause(
    "nan",
    "The loss is not a number any more: the training has blown up.",
    "Start again with a third of the learning rate, or in bf16 or fp32 instead of fp16.",
)
DISK_LOW = Cause(
    "disk",
    "Stopped because the disk is almost full.",
    "Free some space, then resume: it goes on from its last checkpoint, if there is one.",
)
LOST = Cause(
    "lost",
    "The run ended without a word: the computer was restarted, or its supervisor was killed.",
    "Resume the run: it goes on from its last checkpoint.",
)
NO_EVENTS = Cause(
    "diary",
    "The run's diary (events.jsonl) is gone, and with it how it ended.",
    "Resume the run: it goes on from its last checkpoint; its curve begins there.",
)

NO_KERNEL = Cause(
    "device",
    "The installed torch has no code for this graphics card.",
    "Run `python -m studio doctor --only devices`: it names the torch to install for this card and driver.",
)
OLD_DRIVER = Cause(
    "device",
    "The graphics driver is too old for the installed torch.",
    "Run `python -m studio doctor --only devices`: it names the driver, or the torch, to install.",
)
# The first match counts. Sources: torch's OutOfMemoryError and allocator, CPython's OSError, huggingface_hub.errors,
# NCCL, bitsandbytes.
PATTERNS = (
    (r"[Nn]o kernel image is available", NO_KERNEL),
    (r"driver version is insufficient|NVIDIA driver on your system is too old", OLD_DRIVER),
    (
        r"(CUDA|HIP|XPU) out of memory|OutOfMemoryError|"
        r"(CUBLAS|CUSOLVER|CUSPARSE|CUDNN|HIPBLAS|ROCBLAS)_STATUS_(INTERNAL_ERROR_)?(ALLOC_FAILED|NOT_INITIALIZED)|"
        r"CUDA driver error: out of memory|hipErrorOutOfMemory|OUT_OF_DEVICE_MEMORY|rocblas_status_memory_error|"
        r"CUDA error: out of memory|can't allocate memory|Cannot allocate memory|not enough memory: you tried|"
        r"std::bad_alloc|\bMemoryError\b|MPS backend out of memory",
        MEMORY,
    ),
    (r"No space left on device|Disk quota exceeded|enforce fail at inline_container|PytorchStreamWriter failed", DISK),
    (r"loss is (nan|not a number)|NaNLossError|Loss is NaN|found a nan", NAN),
    (
        r"GatedRepoError|gated repo|awaiting a review from the repo authors",
        Cause(
            "gated",
            "The model is gated: its owner asks for consent first.",
            "Accept its terms on the Hub with your account, set HF_TOKEN, then resume.",
        ),
    ),
    (
        r"RepositoryNotFoundError|RevisionNotFoundError|is not a valid model identifier|EntryNotFoundError|"
        r"is not a local folder",
        Cause("model", "The model was not found.", "Check its name, revision or path; a private one needs HF_TOKEN."),
    ),
    (
        r"SafetensorError|Error while deserializing header|UnpicklingError|invalid load key|Unable to load weights",
        Cause(
            "model",
            "The model's files cannot be read: they are damaged or not what their names say.",
            "Fetch the model again, then start anew.",
        ),
    ),
    (
        r"Name or service not known|Temporary failure in name resolution|Max retries exceeded|LocalEntryNotFoundError|"
        r"OfflineModeIsEnabled|ConnectionError|ConnectTimeout|ReadTimeout|ConnectError|Network is unreachable",
        Cause(
            "network",
            "The network could not be reached.",
            "Check the connection and resume, or use a model that is on this computer.",
        ),
    ),
    (
        r"device-side assert",
        Cause(
            "device",
            "A number was out of a table's range on the graphics card, mostly a token that the model's vocabulary "
            "does not have.",
            "Check that tokenizer and model belong together; with CUDA_LAUNCH_BLOCKING=1 before the command the log "
            "names the very line.",
        ),
    ),
    (
        r"uncorrectable ECC|GPU is lost|fallen off the bus|cudaErrorDevicesUnavailable",
        Cause(
            "device",
            "The graphics card has failed or was lost by the system.",
            "Restart the computer, then resume; if it happens again, look at the card.",
        ),
    ),
    (
        r"NCCL",
        Cause(
            "device",
            "The processes of the run lost contact with each other.",
            "Look in the log for the one that ended first; then resume, on one device if it happens again.",
        ),
    ),
    (
        r"CUDA driver|CUDA error|HIP error|cudaError|illegal memory access|unspecified launch failure",
        Cause(
            "device",
            "The graphics card or its driver reported an error.",
            "Resume: it goes on from its last checkpoint. If it happens again, run `python -m studio "
            "doctor`, which says "
            "what does not work on this card.",
        ),
    ),
    (
        r"ModuleNotFoundError|ImportError",
        Cause("install", "A library is missing or does not fit.", "Install what requirements.txt names, then resume."),
    ),
    (
        r"PermissionError|Permission denied|Read-only file system",
        Cause(
            "permission",
            "A file or folder may not be read or written.",
            "Change its permissions, or choose another home, then resume.",
        ),
    ),
    (
        r"KeyboardInterrupt",
        Cause("interrupted", "The trainer was interrupted.", "Resume: it goes on from its last checkpoint."),
    ),
)
SYSTEM_CAUSES = (MEMORY, DISK)  # reported by the system, so also searched for outside the last traceback


# of torchrun, when a signal ended one of its processes
RANK_DIED = re.compile(r"failed \(exitcode: -(\d+)\) local_rank: (\d+)")


def diagnose(code: int, log: Path, memory_kills: int = 0, output_lost: bool = False) -> Cause:
    """The cause of an end without an end event.

    code: as of subprocess, negative for a signal. memory_kills: processes that the system killed for memory meanwhile.
    output_lost: the end of the output is not in the log, because the disk was full.
    """
    text = attempt_tail(log)
    if code in (-signal.SIGKILL, 128 + signal.SIGKILL) and memory_kills:
        return KILLED_FOR_MEMORY
    died = RANK_DIED.search(text)
    if died:  # the errors of the other processes follow from losing this one
        if died[1] == "9" and memory_kills:
            return KILLED_FOR_MEMORY
        return _killed_by_signal(int(died[1]), f"Process {died[2]} of the trainer")
    error = text[max(0, text.rfind("Traceback (most recent call last)")) :]
    for pattern, cause in PATTERNS:
        if re.search(pattern, error) or (cause in SYSTEM_CAUSES and re.search(pattern, text)):
            return cause
    if output_lost:
        return DISK
    if code < 0:
        return _killed_by_signal(-code)
    lines = [line for line in text.strip().splitlines() if line.strip()]
    last = lines[-1].strip()[:300] if lines else "it said nothing."
    return Cause(
        "bug",
        f"The trainer ended with exit code {code}: {last}",
        "Read the end of the log; if it names no cause of yours, report it as a bug.",
    )


def _killed_by_signal(number: int, who: str = "The trainer") -> Cause:
    if number == signal.SIGKILL:
        return Cause(
            "killed",
            f"{who} was killed (SIGKILL): by somebody, or by the system when memory ran out.",
            "Resume: it goes on from its last checkpoint. If it happens again, use a smaller batch.",
        )
    if number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        return Cause(
            "interrupted",
            f"{who} was ended from outside ({signal.Signals(number).name}).",
            "Resume: it goes on from its last checkpoint.",
        )
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    return Cause(
        "crash",
        f"The trainer crashed ({name}) in compiled code.",
        "Resume; if it happens again, read the end of the log and report it as a bug.",
    )


def diagnose_lost(log: Path, no_events: bool = False) -> Cause:
    """The likeliest cause for a run without an end event: from its log, else that both processes were killed."""
    text = attempt_tail(log)
    for pattern, cause in PATTERNS:
        if cause in SYSTEM_CAUSES and re.search(pattern, text):
            return cause
    return NO_EVENTS if no_events else LOST
