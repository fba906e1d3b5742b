"""Replies as they were written, as events of `--json` or to the log, made into heat maps."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from nfox.files.model_names import short_name
from nfox.text.pieces import Piece, pieces_of_steps

from .chat.events import SCHEMA
from .display.heat_map import HeatMap, bands_of

Count = Annotated[int, Field(ge=0, strict=True)]
Runs = list[tuple[Count, Count]]
"""Of a text: so many characters, and the index of the step that completed them."""
Speed = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Start(BaseModel):
    event: Literal["start"]
    schema_: Literal["nfox.chat/1"] = Field(alias="schema")
    model: str
    adapter: str | None = None

    @property
    def name(self) -> str:
        """The name of the model for a person, with that of its adapter."""
        adapter = f" + {short_name(self.adapter)}" if self.adapter else ""
        return short_name(self.model) + adapter


class _Delta(BaseModel):
    event: Literal["delta"]
    text: str
    steps: Runs


class _Speculation(BaseModel):
    method: str
    lengths: list[Count]


class _Timings(BaseModel):
    predicted_per_second: Speed


class _End(BaseModel):
    spec: _Speculation
    timings: _Timings


class _Made(_End):
    steps: Runs


class Replies:
    """Takes events one by one, and makes a heat map of each reply that has ended."""

    def __init__(self) -> None:
        self._start: _Start | None = None
        self._pieces: list[Piece] = []

    def take(self, event: Any) -> HeatMap | None:
        """Take an event; return the heat map of the reply that it ends.

        Raises:
            ValueError: if it is none, or not one that can follow those before it.
        """
        kind = event.get("event") if isinstance(event, dict) else None
        if not isinstance(kind, str):
            raise ValueError("no event")
        if kind == "start":
            self._start = _Start.model_validate(event)
        elif self._start is None:
            raise ValueError(f"{kind} before any start of {SCHEMA}")
        elif kind == "delta":
            delta = _Delta.model_validate(event)
            self._pieces += _pieces(delta.text, delta.steps)
        elif kind in ("end", "error"):
            pieces, self._pieces = self._pieces, []
            return (
                _map(self._start.name, _End.model_validate(event), pieces)
                if kind == "end"
                else None
            )
        return None


def read_made(model: str, text: str, made: str) -> HeatMap:
    """Return the heat map of a reply in the log.

    Args:
        model: the name of the model.
        text: the reply; one that went on with another is drawn from there on.
        made: how it was made, as the log has it.

    Raises:
        ValueError: if its steps are not in the log.
    """
    read = _Made.model_validate_json(made)
    own = len(text) - sum(length for length, _ in read.steps)
    return _map(short_name(model), read, _pieces(text[max(own, 0) :], read.steps))


def _pieces(text: str, steps: Runs) -> list[Piece]:
    """Return a text with the steps that completed it."""
    if sum(length for length, _ in steps) != len(text):
        raise ValueError("the steps are not those of the text")
    return pieces_of_steps(text, steps)


def _map(model: str, end: _End, pieces: list[Piece]) -> HeatMap:
    """Return the heat map of a reply."""
    lengths = end.spec.lengths
    if any(piece.step >= len(lengths) for piece in pieces):
        raise ValueError(f"text of more steps than the {len(lengths)} of the reply")
    return HeatMap(
        bands_of(pieces, lengths),
        lengths,
        model,
        end.spec.method,
        end.timings.predicted_per_second,
    )
