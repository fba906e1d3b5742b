"""`nfox train METHOD` for methods that have heads."""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Iterator
from typing import Any, Literal

from typing_extensions import override

from nfox.train.heads.job import HeadsJob, heads_class
from nfox.train.job import Done

from ..display.head_pictures import accuracy_table
from .joint import joint_arguments, read_joint
from .kinds import Kind, about, command


@dataclasses.dataclass
class LearnedArguments:
    """What heads learn, and what they begin with."""

    labels: Literal["data", "target"] = about(
        "What is learned: the data's tokens, or the base's own choices there.", "data"
    )
    heads: str | None = about("Folder or hub id of heads to go on with.")


class HeadsKind(Kind):
    """Heads.

    Args:
        method: whose.

    Raises:
        UsageError: if it has none.
    """

    def __init__(self, method: str) -> None:
        super().__init__(method)
        self._made = heads_class(method)

    @override
    def arguments(self) -> list[type]:
        return [LearnedArguments, self._sizes(), joint_arguments(self.method)]

    def _sizes(self) -> type:
        """Make a dataclass of the fields that the heads have, each with the method's name."""
        fields = [
            (
                f"{self.method}_{name}",
                info.annotation,
                about(f"Of the heads: {name}.", info.default),
            )
            for name, info in self._made.heads_class.Config.model_fields.items()
            if not info.is_required() and name != "vocab_size"
        ]
        return dataclasses.make_dataclass("HeadsArguments", fields)

    @override
    def job(self, given: list[Any], said: Container[str], common: dict[str, Any]) -> HeadsJob:
        learned, heads, joint = given
        sizes = {n: value for n, value in vars(heads).items() if not learned.heads or n in said}
        in_4bit = common["loading"].quantisation == "4bit"
        return HeadsJob(
            **common,
            own_labels=learned.labels == "target",
            heads=learned.heads,
            config={name.removeprefix(f"{self.method}_"): value for name, value in sizes.items()},
            joint=read_joint(self.method, joint, in_4bit=in_4bit),
        )

    @override
    def report(self, job: Any, done: Done) -> Iterator[str]:
        found: Any = done.measured
        yield accuracy_table(found.accuracy)
        yield f"loss {found.loss:.4f}; tau {found.tau():.2f} to expect of a tree of 63 nodes"
        yield f"written to {done.folder}; try them:"
        yield command(job, done, "--method", job.method, "--heads", str(done.folder), "-v")
