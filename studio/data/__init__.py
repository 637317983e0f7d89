"""Data: any instruction file in, and exactly what will be trained on shown before launch."""

from studio.data.checking import check
from studio.data.dataset import Conversations, Dataset, Selection
from studio.data.formats import formats
from studio.data.order import DataOrder, Source
from studio.data.prepare import Prepared, prepare
from studio.data.problem import KINDS, Problem
from studio.data.reading import read
from studio.data.samples import samples
from studio.data.split import split

__all__ = [
    "KINDS", "Conversations", "DataOrder", "Dataset", "Prepared", "Problem", "Selection", "Source",
    "check", "formats", "prepare", "read", "samples", "split",
]  # fmt: skip
