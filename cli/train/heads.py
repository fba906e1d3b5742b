"""`nfox train METHOD`: training of the heads of a method."""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Iterator
from typing import Any, Literal

from typing_extensions import override

from nfox.train.heads.job import HeadsJob, heads_class
from nfox.train.heads.savings import Savings
from nfox.train.job import TrainingResult
from nfox.train.metrics import HeadsAccuracy

from ..display.head_pictures import accuracy_table
from .joint import idle_settings, joint_arguments, read_joint
from .kinds import TrainingKind, chat_command, setting


@dataclasses.dataclass
class LabelArguments:
    """Settings of the labels of heads, and of the heads that the training starts from."""

    labels: Literal["data", "target"] = setting(
        "Labels: the data's tokens, or the base's own likeliest tokens in their places.", "data"
    )
    heads: str | None = setting("Folder or hub id of heads to go on with.")
    vocabulary_sample: int = setting(
        "Compute losses over the tokens of the batch and that many others, drawn anew each time, "
        "which takes a part of the time where the vocabulary is large; 0: over all.",
        Savings.vocabulary_sample,
    )
    keep_states: bool = setting(
        "Keep the base's hidden states in memory, so that later epochs need no base.",
        Savings.keep_states,
    )


class HeadsKind(TrainingKind):
    """Training of a method's heads.

    Args:
        method: the name of the method.

    Raises:
        UsageError: if there is no such method, or it has no heads.
    """

    def __init__(self, method: str) -> None:
        super().__init__(method)
        self._drafter = heads_class(method)

    @override
    def arguments(self) -> list[type]:
        return [LabelArguments, self._size_arguments(), joint_arguments(self.method)]

    def _size_arguments(self) -> type:
        """Return a dataclass of the fields of the heads' config, prefixed by the method's name."""
        fields = [
            (
                f"{self.method}_{name}",
                info.annotation,
                setting(f"Of the heads: {name}.", info.default),
            )
            for name, info in self._drafter.heads_class.Config.model_fields.items()
            if not info.is_required() and name != "vocab_size"
        ]
        return dataclasses.make_dataclass("HeadsArguments", fields)

    @override
    def job(self, arguments: list[Any], typed: Container[str], common: dict[str, Any]) -> HeadsJob:
        labels, sizes, joint = arguments
        in_4bit = common["loading"].quantisation == "4bit"
        return HeadsJob(
            **common,
            target_labels=labels.labels == "target",
            heads=labels.heads,
            config={
                name.removeprefix(f"{self.method}_"): value
                for name, value in vars(sizes).items()
                if not labels.heads or name in typed
            },
            savings=Savings(labels.vocabulary_sample, labels.keep_states),
            joint=read_joint(self.method, joint, in_4bit=in_4bit),
        )

    @override
    def idle(self, job: Any) -> dict[str, str]:
        idle = idle_settings(self.method, job.joint)
        if job.joint.base != "frozen":
            names = ("vocabulary_sample", "keep_states")
            idle |= dict.fromkeys(names, "the base is trained too")
        return idle

    @override
    def forecast(self, job: Any) -> str:
        published = HeadsAccuracy(0.0, [list(rates) for rates in self._drafter.prior_accuracy], 0)
        tokens = job.synthesis.count * job.synthesis.max_new_tokens
        return (
            f"to expect: a tau of up to {published.tau():.1f} with 63 nodes, which published heads "
            f"have after tens of millions of tokens; here at most {tokens:,} are learned from"
        )

    @override
    def report(self, job: Any, result: TrainingResult) -> Iterator[str]:
        accuracy: Any = result.metrics
        yield from accuracy_table(accuracy.accuracy).splitlines()
        yield f"loss {accuracy.loss:.4f}; tau {accuracy.tau():.2f} to expect of a tree of 63 nodes"
        yield f"written to {result.folder}; try them:"
        yield chat_command(job, result, "--method", job.method, "--heads", str(result.folder), "-v")
