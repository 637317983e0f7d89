"""A function in a Python file: a program of one's own."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from studio.errors import OrderError, named_reason
from studio.evaluation.questions import Question
from studio.reward import Reward, Scorer

FUNCTION = "reward"


class Python(Reward):
    """def reward(text, row): row is {"prompt", "messages", "reference"}; it returns a number, or None for no reward."""

    name: Literal["python"] = Field("python", frozen=True, title="Reward", description="A program.")
    list_position: ClassVar[int] = 8
    label: ClassVar[str] = "A program of your own"
    about: ClassVar[str] = (
        "What the function reward(text, row) of a Python file returns. The file is code: it runs on this computer with "
        "all your rights."
    )

    file: str = Field(min_length=1, max_length=1000, title="File", description="The path of a .py file.")

    @property
    def code(self) -> str:
        return self.file

    def open(self) -> Scorer:
        function = loaded(Path(self.file).expanduser())

        return lambda texts, questions: list(map(partial(_called, function, self.file), texts, questions))


def loaded(path: Path) -> Callable[..., Any]:
    """The function of a file. Runs the file. Raises OrderError where there is none."""
    where = "stage.rewards"
    if not path.is_file() or path.suffix != ".py":
        raise OrderError(f"There is no Python file {path}.", "Give the path of a .py file on this computer.", where)
    spec = importlib.util.spec_from_file_location(f"studio_reward_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise _failed(path, error) from error
    function = getattr(module, FUNCTION, None)
    if not callable(function):
        raise OrderError(f"{path} has no function {FUNCTION}.", f"Write def {FUNCTION}(text, row): in it.", where)
    return function


def _called(function: Callable[..., Any], file: str, text: str, question: Question) -> float | None:
    row = {"prompt": question.text, "messages": question.messages, "reference": question.reference}
    try:
        value = function(text, row)
        number = None if value is None else float(value)
    except Exception as error:
        raise _failed(Path(file), error) from error
    if number is not None and not math.isfinite(number):
        raise OrderError(f"{file} returned {number} for an answer.", "Return a number, or None.", "stage.rewards")
    return number


def _failed(path: Path, error: Exception) -> OrderError:
    return OrderError(f"{path} failed: {named_reason(error)}", "Correct the program.", "stage.rewards")
