"""Rows of embedding and head for new tokens: made in a loaded model, given to peft to train, brought along by an adapter."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studio.errors import ModelError
from studio.model import TABLES
from studio.new_tokens import AddedTokens

if TYPE_CHECKING:
    import torch

DELTA_SUFFIX = ".token_adapter.trainable_tokens_delta"  # how peft names the trained rows of a table


def add_rows(base: Any, added: AddedTokens) -> Any:
    """The base with a row for each new token, which starts as the mean of the others; `token_rows` tells which rows are to be trained.

    transformers draws added rows close to the mean (resize_token_embeddings, mean_resizing): seed torch before. Rows that the base has to
    spare are no words of its own, and start there too.
    """
    import torch

    if not added.rows:
        return base
    tables = (
        {base.get_input_embeddings().weight, head.weight}
        if (head := base.get_output_embeddings()) is not None
        else {base.get_input_embeddings().weight}
    )
    before = base.get_input_embeddings().weight.shape[0]
    spare = [row for row in added.rows if row < before]
    with torch.no_grad():
        for table in tables if spare else ():
            kept = torch.ones(before, dtype=torch.bool, device=table.device)
            kept[spare] = False
            table[spare] = table[kept].float().mean(0).to(table.dtype)
    if added.size > before:
        base.resize_token_embeddings(added.size, mean_resizing=True)
    base.token_rows = list(added.rows)
    return base


def trainable_indices(model: Any, whole: Iterable[str] = ()) -> dict[str, list[int]] | None:
    """peft's trainable_token_indices for a grown base: table -> rows; a tied head follows the embedding. whole: modules trained in full."""
    rows = getattr(model, "token_rows", None)
    if not rows:
        return None
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    tables = [embedding] if head is None or head.weight is embedding.weight else [embedding, head]
    names = [name for name, module in model.named_modules() if any(module is table for table in tables)]
    return {name: list(rows) for name in names if name not in whole} or None


def saved_indices(folder: Path) -> dict[str, list[int]]:
    """Table -> rows that an adapter's folder trains alone, as peft's config tells; "" is the embedding where it names none."""
    file = folder / "adapter_config.json"
    told = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    found = (
        told.get("trainable_token_indices")
        or (told.get("token_indices") if told.get("peft_type") == "TRAINABLE_TOKENS" else None)
        or {}
    )
    return found if isinstance(found, dict) else {"": found}


def table_rows(folder: Path) -> int | None:
    """Rows of the embedding or head that an adapter brings whole; None where it brings neither. Raises ModelError where the two differ."""
    from safetensors import safe_open

    file = folder / "adapter_model.safetensors"
    if not file.is_file():
        return None
    with safe_open(file, "pt") as stored:
        found = {
            name: stored.get_slice(name).get_shape()[0]
            for name in stored.keys()  # noqa: SIM118 - not a dict
            if TABLES.search(name) and len(stored.get_slice(name).get_shape()) == 2
        }
    if len(set(found.values())) > 1:
        raise ModelError(
            f"The adapter in {folder.name} brings tables of different length: {', '.join(f'{name}: {rows}' for name, rows in found.items())}.",
            "Save it again with one length for embedding and head.",
            str(folder),
        )
    return next(iter(found.values()), None)


def table_size(folder: Path, base: int) -> int:
    """Rows that a base of `base` rows has with the adapter in folder on it."""
    whole = table_rows(folder)
    return (
        whole
        if whole is not None
        else max([base, *(row + 1 for rows in saved_indices(folder).values() for row in rows)])
    )


def prepare_base(model: Any, folder: Path) -> None:
    """Before an adapter is attached: tables of its length, which are the model's own where the adapter writes rows into them.

    The model may share its weights with others on the same base (worker/loaded.py), whose tables must stay as they are.
    """
    import torch

    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    before = embedding.weight.shape[0]
    wanted = table_size(folder, before)
    if saved_indices(folder):
        tied = head is not None and head.weight is embedding.weight
        embedding.weight = torch.nn.Parameter(embedding.weight.detach().clone(), requires_grad=False)
        if head is not None:
            head.weight = (
                embedding.weight if tied else torch.nn.Parameter(head.weight.detach().clone(), requires_grad=False)
            )
    if wanted != before:
        model.resize_token_embeddings(wanted, mean_resizing=False)


def merge_rows(model: Any) -> Any:
    """Trained rows written into the tables of a model that `fit` prepared: peft would copy a whole table at every forward."""
    from peft.utils.other import TrainableTokensWrapper

    for module in list(model.modules()):
        if isinstance(module, TrainableTokensWrapper) and not module.token_adapter.merged:
            module.token_adapter.merge()
    return model


def overwrite_rows(table: torch.Tensor, rows: list[int], values: torch.Tensor) -> torch.Tensor:
    """table [n, width] with `values` [len(rows), width] in these rows, longer where rows lie beyond its end. Raises ModelError for a gap."""
    import torch

    size = max(len(table), 1 + max(rows))
    if set(range(len(table), size)) - set(rows):
        raise ModelError(
            f"The adapter brings rows up to {max(rows)}, but not all of those beyond the {len(table)} of its base.",
            "Save it again with its embedding (peft: save_embedding_layers=True).",
            "model",
        )
    made = torch.cat([table, table.new_zeros(size - len(table), table.shape[1])])
    return made.index_copy(0, torch.tensor(rows, device=table.device), values.to(made))
