"""Conversations as tokens: the chat's own renderer writes them and says which are learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from nfox.errors import ModelError, NfoxError, UsageError
from nfox.heads.base import IGNORE
from nfox.text.messages import Message
from nfox.text.template import Template

Row = dict[str, list[int]]
"""`input_ids`, and `labels`: the same where a token is learned, IGNORE elsewhere."""

_EMPTY: Row = {"input_ids": [0], "labels": [IGNORE]}


class Rows(Dataset[Row]):
    """One row of tokens for each conversation.

    Args:
        conversations: as `nfox.train.data.conversations.read` gives them.
        template: of the model.
        tokenizer: of the model, a fast one.
        max_length: tokens of a row at most; what is longer is cut off at its end.
        lazy: tokenise a row when it is asked for. A conversation that the template refuses, or
            that has nothing to learn within `max_length`, is then an empty row; otherwise it is
            left out and counted.

    Attributes:
        left_out: conversations that gave no row.

    Raises:
        ModelError: if the tokenizer cannot say where tokens stand.
        NfoxError: if no conversation gives a row.
    """

    def __init__(
        self,
        conversations: Sequence[Sequence[Message]],
        template: Template,
        tokenizer: Any,
        max_length: int,
        *,
        lazy: bool = False,
    ) -> None:
        if not tokenizer.is_fast:
            raise ModelError("training needs a fast tokenizer", "convert it to tokenizer.json")
        self.template = template
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.left_out = 0
        self._refusal: NfoxError | None = None
        self._items: list[Row | Sequence[Message]] = list(conversations)
        if not lazy:
            self._tokenise()

    def _tokenise(self) -> None:
        made = [self._row(item) for item in self._items if not isinstance(item, dict)]
        self._items = [row for row in made if row]
        self.left_out = len(made) - len(self._items)
        if not self._items and self._refusal:
            raise self._refusal
        if not self._items:
            raise UsageError(
                f"no conversation has a reply within its first {self.max_length} tokens",
                "raise --model_max_length",
            )

    def _row(self, messages: Sequence[Message]) -> Row | None:
        try:
            ids, supervised = self.template.encode_supervised(self.tokenizer, messages)
        except NfoxError as error:  # the template refuses it
            self._refusal = error
            return None
        pairs = zip(ids, supervised, strict=True)
        labels = [token if learned else IGNORE for token, learned in pairs][: self.max_length]
        if all(label == IGNORE for label in labels):
            return None
        return {"input_ids": ids[: self.max_length], "labels": labels}

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Row:
        item = self._items[index]
        return item if isinstance(item, dict) else self._row(item) or _EMPTY

    @property
    def tokens(self) -> int | None:
        """How many tokens the rows have; None where they are made when asked for."""
        rows = [item for item in self._items if isinstance(item, dict)]
        return sum(len(row["input_ids"]) for row in rows) if rows else None


def collate(rows: Sequence[Row]) -> dict[str, Tensor]:
    """Return `input_ids`, `attention_mask` and `labels`, each [B, T], padded on the right."""

    def padded(name: str, value: int) -> Tensor:
        made = [torch.tensor(row[name]) for row in rows]
        return pad_sequence(made, batch_first=True, padding_value=value)

    ones = [torch.ones(len(row["input_ids"]), dtype=torch.long) for row in rows]
    return {
        "input_ids": padded("input_ids", 0),
        "attention_mask": pad_sequence(ones, batch_first=True),
        "labels": padded("labels", IGNORE),
    }
