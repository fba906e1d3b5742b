"""Rows that are known again in later epochs, so that the target need not read them again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from typing_extensions import override

from nfox.train.data import rows as plain


class NumberedRows(Dataset[dict[str, Any]]):
    """Rows with their index as `number`, by which what the target makes of them is cached.

    Args:
        rows: the rows of tokens.
    """

    def __init__(self, rows: plain.Rows) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    @override
    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self._rows[index], "number": index}

    @property
    def tokens(self) -> int | None:
        """The number of tokens of all rows; None where rows are tokenised lazily."""
        return self._rows.tokens


def collate(rows: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
    """Return the batch of `nfox.train.data.rows.collate`, and `number` [B] where rows have one."""
    batch = plain.collate(rows)
    if "number" in rows[0]:
        batch["number"] = torch.tensor([row["number"] for row in rows])
    return batch
