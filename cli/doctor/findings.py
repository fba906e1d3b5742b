"""What the doctor says: findings, each marked, and what to do about them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from typing_extensions import override

from nfox.errors import NfoxError

Mark = Literal["ok", "warn", "wrong", "-"]


@dataclass(frozen=True)
class Advice:
    """Something to change.

    Args:
        text: what it does.
        command: the one to type; "" where it is not one that can be typed.
        gain: the speed with it, as a multiple of that without, as measured just now; None where
            that was not measured.
    """

    text: str
    command: str = ""
    gain: float | None = None

    @classmethod
    def of(cls, error: NfoxError) -> Advice | None:
        """Return what an error says is to be done; None if it says nothing."""
        if error.hint.partition(" ")[0] in ("nfox", "pip", "hf"):
            return cls("what is missing", error.hint)
        return cls(error.hint) if error.hint else None


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Args:
        section: the subject that it is of.
        name: the thing, in a word.
        text: what was found.
        mark: whether it is as it should be; "wrong" is what does not work, "-" what is not there
            and need not be.
        advice: what to do about it; None for nothing.
        facts: the same as numbers, for programs.
    """

    section: str
    name: str
    text: str
    mark: Mark = "ok"
    advice: Advice | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


def ordered_advice(findings: Iterable[Finding]) -> list[Advice]:
    """Return the advice of findings: what mends something wrong, then what gains most, then what
    was not measured.
    """
    given = [finding for finding in findings if finding.advice is not None]
    given.sort(key=lambda finding: (finding.mark != "wrong", -_gain(finding)))
    return list(dict.fromkeys(finding.advice for finding in given if finding.advice))


def _gain(finding: Finding) -> float:
    return (finding.advice.gain if finding.advice else None) or 0.0


class _Warnings(logging.Handler):
    """Keeps what nfox warns of."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.told: list[str] = []

    @override
    def emit(self, record: logging.LogRecord) -> None:
        self.told.append(record.getMessage())


@contextmanager
def warnings_kept() -> Iterator[list[str]]:
    """Yield a list to which what nfox warns of in this context is added, and not printed."""
    logger, handler = logging.getLogger("nfox"), _Warnings()
    propagates, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield handler.told
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagates
