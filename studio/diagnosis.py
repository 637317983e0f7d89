"""Why a trainer ended, and the one action that helps: from its exit code or signal and the end of its log."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import NamedTuple

from studio.log import tail


class Cause(NamedTuple):
    """kind: a short name for programs; what: one sentence; action: one thing to do."""

    kind: str
    what: str
    action: str


# Looked for in the log's end, first match wins. Sources: torch's OutOfMemoryError text, CPython's OSError text, huggingface_hub errors.
MARKS = (
    (r"CUDA out of memory|OutOfMemoryError|CUBLAS_STATUS_ALLOC_FAILED|DefaultCPUAllocator: can't allocate|MemoryError",
     Cause("memory", "The device ran out of memory.", "Use a smaller batch with more accumulation, gradient checkpointing, or a shorter max length.")),
    (r"No space left on device|Disk quota exceeded|\[enforce fail at inline_container",
     Cause("disk", "The disk is full.", "Free some space, then resume the run.")),
    (r"GatedRepoError|gated repo", Cause("gated", "The model is gated and its terms were not accepted.", "Accept them on the Hub and set HF_TOKEN.")),
    (r"RepositoryNotFoundError|is not a valid model identifier", Cause("model", "The model was not found.", "Check the model's name or path.")),
    (r"ConnectionError|Name or service not known|Max retries exceeded|LocalEntryNotFoundError",
     Cause("network", "The network could not be reached.", "Check the connection, or use a model that is on this computer.")),
)


def diagnose(code: int, log: Path) -> Cause:
    """The cause of an end without a word. code: as subprocess gives it, negative for a signal."""
    text = tail(log)
    for pattern, cause in MARKS:
        if re.search(pattern, text):
            return cause
    if code == -signal.SIGKILL:
        return Cause("killed", "The trainer was killed (SIGKILL); most often the system does that when memory runs out.",
                     "Use a smaller batch or a shorter max length, then resume.")
    if code < 0:
        name = signal.Signals(-code).name
        return Cause("signal", f"The trainer was ended by {name}.", "Resume it; if it happens again, read the end of the log.")
    lines = [line for line in text.strip().splitlines() if line.strip()]
    last = lines[-1].strip()[:300] if lines else "it said nothing"
    return Cause("bug", f"The trainer ended with exit code {code}: {last}", "Read the end of the log; if it names no cause of yours, report it as a bug.")
