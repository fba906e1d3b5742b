"""Conversations as rows of tokens and labels, rendered by the template that the chat uses too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset
from typing_extensions import override

from nfox.errors import ModelError, NfoxError, UsageError
from nfox.heads.base import IGNORE
from nfox.text.messages import Message
from nfox.text.template import Template

Row = dict[str, list[int]]
"""`input_ids`, and as many `labels`: the token ids that are learned, IGNORE elsewhere."""

_EMPTY_ROW: Row = {"input_ids": [0], "labels": [IGNORE]}


class Rows(Dataset[Row]):
    """A dataset with one row of tokens for each conversation.

    Args:
        conversations: the conversations, see `ConversationDataset.conversations`.
        template: the model's conversation template.
        tokenizer: the model's tokenizer, a fast one.
        max_length: the maximum number of tokens of a row; longer ones are cut off at their end.
        lazy: tokenise a row when it is needed. A conversation that the template refuses, or that
            has no label within `max_length`, is then an empty row; otherwise it is left out and
            counted.

    Attributes:
        left_out: the number of conversations that were left out.

    Raises:
        ModelError: if the tokenizer is no fast one, which alone knows the characters of a token.
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
        rows = [self._row(item) for item in self._items if not isinstance(item, dict)]
        self._items = [row for row in rows if row]
        self.left_out = len(rows) - len(self._items)
        if not self._items and self._refusal:
            raise self._refusal
        if not self._items:
            raise UsageError(
                f"no conversation has a reply within its first {self.max_length} tokens",
                "raise --model_max_length",
            )

    def _row(self, messages: Sequence[Message]) -> Row | None:
        """Return a conversation's row; None if the template refuses it or it has no label."""
        try:
            ids, learned = self.template.encode_supervised(self.tokenizer, messages)
        except NfoxError as error:
            self._refusal = error
            return None
        pairs = zip(ids, learned, strict=True)
        labels = [token if flag else IGNORE for token, flag in pairs][: self.max_length]
        if all(label == IGNORE for label in labels):
            return None
        return {"input_ids": ids[: self.max_length], "labels": labels}

    def __len__(self) -> int:
        return len(self._items)

    @override
    def __getitem__(self, index: int) -> Row:
        item = self._items[index]
        return item if isinstance(item, dict) else self._row(item) or _EMPTY_ROW

    @property
    def tokens(self) -> int | None:
        """The number of tokens of all rows; None where rows are tokenised lazily."""
        rows = [item for item in self._items if isinstance(item, dict)]
        return sum(len(row["input_ids"]) for row in rows) if rows else None


def collate(rows: Sequence[Row]) -> dict[str, Tensor]:
    """Return a batch of rows padded on the right: `input_ids`, `attention_mask` and `labels`, each
    [B, T].
    """

    def padded(name: str, value: int) -> Tensor:
        sequences = [torch.tensor(row[name]) for row in rows]
        return pad_sequence(sequences, batch_first=True, padding_value=value)

    ones = [torch.ones(len(row["input_ids"]), dtype=torch.long) for row in rows]
    return {
        "input_ids": padded("input_ids", 0),
        "attention_mask": pad_sequence(ones, batch_first=True),
        "labels": padded("labels", IGNORE),
    }
