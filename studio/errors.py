"""Trouble the user can act on: what was found, what would be right, what to do."""

from __future__ import annotations


class StudioError(Exception):
    """A refusal in words.

    message: what was found, with the value. hint: what would be right and what to do.
    where: the key, file or row it concerns, e.g. "method.rank" or "data.json:12".
    reason: a short name of the cause for programs, written into a run's end: "memory", "nan", "gated", …; else that of the kind of trouble.
    """

    reason = "refused"

    def __init__(self, message: str, hint: str = "", where: str | None = None, reason: str | None = None):
        super().__init__(message)
        self.message, self.hint, self.where, self.reason = message, hint, where, reason or self.reason

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()

    def as_dict(self) -> dict[str, str | None]:
        return {"message": self.message, "hint": self.hint, "where": self.where}


class OrderError(StudioError):
    """The order (a RunConfig) cannot be carried out as written."""

    reason = "order"


class DataError(StudioError):
    """A data file cannot be read, or a row cannot be trained on."""

    reason = "data"


class TemplateError(StudioError):
    """A chat template is missing, broken, or trains the wrong tokens."""

    reason = "template"


class ModelError(StudioError):
    """A base model cannot be found, fetched or understood."""

    reason = "model"


class DeviceError(StudioError):
    """The device lacks what was asked of it."""

    reason = "device"


class RunError(StudioError):
    """A run does not exist, or is not in a state that allows what was asked."""

    reason = "run"


class ExportError(StudioError):
    """A result could not be merged, exported or pushed."""

    reason = "export"
