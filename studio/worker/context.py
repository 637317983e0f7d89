"""What a run is made of once its model is here and its data is read."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from studio import data
from studio.config import RunConfig
from studio.run import Run
from studio.tokens import Encoder
from studio.worker.report import Report


class RunContext(NamedTuple):
    """folder: of the base model's files; rows: those trained on and those held out, as tokens."""

    run: Run
    config: RunConfig
    folder: Path
    encoder: Encoder
    rows: data.Prepared
    report: Report
