"""Rows of embedding and head for new tokens: added to a model, trained by peft, brought along by an adapter."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studio.base.tensors import TABLES
from studio.errors import ModelError
from studio.new_tokens import AddedTokens

if TYPE_CHECKING:
    import torch

# where peft's wrappers keep a table whole; it writes them too, beside the table itself, where the vocabulary grew
IN_WRAPPERS = re.compile(r"\.(modules_to_save|original_module|token_adapter\.base_layer)(?=\.weight$)")
DELTA_SUFFIX = ".token_adapter.trainable_tokens_delta"  # peft's name of the trained rows of a table


def add_rows(base: Any, added: AddedTokens) -> Any:
    """The base with a row for each new token in embedding and head, initialized to the mean of the others.

    transformers draws rows beyond the end close to the mean (resize_token_embeddings, mean_resizing): seed torch
    before. Spare rows that the base already has start at the mean, too. `base.token_rows` lists the rows to be trained.
    """
    import torch

    if not added.rows:
        return base
    embedding, head = base.get_input_embeddings(), base.get_output_embeddings()
    tables = {embedding.weight} if head is None else {embedding.weight, head.weight}
    size = embedding.weight.shape[0]
    spare = [row for row in added.rows if row < size]
    if spare:
        with torch.no_grad():
            for table in tables:
                is_used = torch.ones(size, dtype=torch.bool, device=table.device)
                is_used[spare] = False
                table[spare] = table[is_used].float().mean(0).to(table.dtype)
    if added.size > size:
        base.resize_token_embeddings(added.size, mean_resizing=True)
    base.token_rows = list(added.rows)
    return base


def trainable_indices(model: Any, fully_trained: Iterable[str] = ()) -> dict[str, list[int]] | None:
    """peft's trainable_token_indices (table -> rows) for a base with added rows; a tied head follows the embedding."""
    rows = getattr(model, "token_rows", None)
    if not rows:
        return None
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    tables = [embedding] if head is None or head.weight is embedding.weight else [embedding, head]
    names = [name for name, module in model.named_modules() if any(module is table for table in tables)]
    return {name: list(rows) for name in names if name not in fully_trained} or None


def saved_indices(folder: Path) -> dict[str, list[int]]:
    """Table -> rows that the adapter in folder trains alone; "" is the embedding where peft's config names no table."""
    file = folder / "adapter_config.json"
    config = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    indices = config.get("trainable_token_indices")
    if not indices and config.get("peft_type") == "TRAINABLE_TOKENS":
        indices = config.get("token_indices")
    indices = indices or {}
    return indices if isinstance(indices, dict) else {"": indices}


def is_table(name: str) -> bool:
    """Whether a tensor of an adapter is a whole embedding or head."""
    return TABLES.search(IN_WRAPPERS.sub("", name)) is not None


def table_rows(folder: Path) -> int | None:
    """Rows of the embedding or head that an adapter brings whole, else None. Raises ModelError where they differ."""
    from safetensors import safe_open

    file = folder / "adapter_model.safetensors"
    if not file.is_file():
        return None
    rows: dict[str, int] = {}
    with safe_open(file, "pt") as stored:
        for name in stored.keys():  # noqa: SIM118 - not a dict
            shape = stored.get_slice(name).get_shape()
            if is_table(name) and len(shape) == 2:
                rows[name] = shape[0]
    if len(set(rows.values())) > 1:
        lengths = ", ".join(f"{name}: {length}" for name, length in rows.items())
        message = f"The adapter in {folder.name} brings tables of different length: {lengths}."
        hint = "Save it again with one length for embedding and head."
        raise ModelError(message, hint, str(folder))
    return next(iter(rows.values()), None)


def table_size(folder: Path, base: int) -> int:
    """Rows that a base of `base` rows has with the adapter in folder on it."""
    whole = table_rows(folder)
    if whole is not None:
        return whole
    return max([base, *(row + 1 for rows in saved_indices(folder).values() for row in rows)])


def prepare_base(model: Any, folder: Path) -> None:
    """Give a base the table size of the adapter in folder, before it is attached.

    Where the adapter writes rows into the tables, they are copied first: the model may share its weights with others on
    the same base (worker/loaded.py), whose tables must not change.
    """
    import torch

    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    size = embedding.weight.shape[0]
    new_size = table_size(folder, size)
    if saved_indices(folder):
        is_tied = head is not None and head.weight is embedding.weight
        embedding.weight = torch.nn.Parameter(embedding.weight.detach().clone(), requires_grad=False)
        if is_tied:
            head.weight = embedding.weight
        elif head is not None:
            head.weight = torch.nn.Parameter(head.weight.detach().clone(), requires_grad=False)
    if new_size != size:
        model.resize_token_embeddings(new_size, mean_resizing=False)


def merge_rows(model: Any) -> Any:
    """Write trained rows into the tables that `prepare_base` copied; peft would copy them at every forward."""
    from peft.utils.other import TrainableTokensWrapper

    for module in list(model.modules()):
        if isinstance(module, TrainableTokensWrapper) and not module.token_adapter.merged:
            module.token_adapter.merge()
    return model


def overwrite_rows(table: torch.Tensor, rows: list[int], values: torch.Tensor) -> torch.Tensor:
    """table [n, width] with `values` in these rows, grown for rows beyond its end. Raises ModelError for a gap."""
    import torch

    size = max(len(table), 1 + max(rows))
    if set(range(len(table), size)) - set(rows):
        raise ModelError(
            f"The adapter brings rows up to {max(rows)}, but not all of those beyond the {len(table)} of its base.",
            "Save it again with its embedding (peft: save_embedding_layers=True).",
            "model",
        )
    longer = torch.cat([table, table.new_zeros(size - len(table), table.shape[1])])
    return longer.index_copy(0, torch.tensor(rows, device=table.device), values.to(longer))
