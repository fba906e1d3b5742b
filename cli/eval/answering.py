"""What the evaluations by a model's answers share: they are asked, kept, and gone on with."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nfox.errors import NfoxError, UsageError

from ..display.progress import loading_display, progress_bar
from ..facts import command_line, model_facts
from ..generate.answering import answer_all
from ..load import load_engine
from ..options.groups import GenerationArguments, MethodArguments, ModelArguments

if TYPE_CHECKING:
    from nfox.batch import BatchPrompt
    from nfox.engine import Engine

Line = dict[str, Any]


@dataclass(frozen=True)
class Answering:
    """Who answers, and how.

    Args:
        model: its options.
        method: its options.
        generation: its options.
        prepare: changes the engine for the task, once it is loaded.
        more: what to add to the line of an answer; it is found anew where answers are read again.
    """

    model: ModelArguments
    method: MethodArguments
    generation: GenerationArguments
    prepare: Callable[[Engine], None] = lambda engine: None
    more: Callable[[Line], Line] = lambda line: {}

    def facts(self, **more: Any) -> Line:
        """Return all that the answers and their speed depend on."""
        places = {"draft_model": self.model.draft_model, "heads": self.model.heads}
        given = asdict(self.method) | asdict(self.generation)
        return model_facts(self.model) | places | given | more

    def lines(self, prompts: Sequence[BatchPrompt]) -> list[Line]:
        """Ask everything."""
        kept = io.StringIO()
        self._ask(prompts, kept.write)
        return [json.loads(line) for line in kept.getvalue().splitlines()]

    def lines_of(
        self, out: Path, prompts: Sequence[BatchPrompt], data: str, limit: int | None, **more: Any
    ) -> list[Line]:
        """Ask what a file has no answer to yet, add it there, and return all of them in order.

        Args:
            out: the file; it can be gone on with in the same way only, but for the limit.
            prompts: all that there are.
            data: where they come from.
            limit: how many are asked at most.
            more: facts that the answers depend on as well.

        Raises:
            UsageError: if the file was made by another command.
        """
        from nfox.batch import remaining
        from nfox.files import provenance
        from nfox.files.atomic import reporting_full_disk
        from nfox.files.jsonl import Share, append, finished_ids
        from nfox.text.template import Message

        asked = [
            [Message("user", "".join([*(m.content for m in prompt.opening), *prompt.questions]))]
            for prompt in prompts
        ]
        facts = self.facts(questions=provenance.digest(asked), **more)
        provenance.check(out, facts, data)
        if todo := remaining(prompts[:limit], finished_ids(out)):
            with reporting_full_disk(
                out, "what was written is whole", "free some space, and go on"
            ):
                begun = {"command": command_line(), "data": data}
                provenance.begin(out, begun | facts, Share())
                self._ask(todo, partial(append, out))
        found = {line["id"]: line for line in self._kept(out)}
        return [found[prompt.id] for prompt in prompts[:limit]]

    def _kept(self, out: Path) -> list[Line]:
        """Read answers; where what is to be added has changed since, the file is brought up."""
        from nfox.files.atomic import reporting_full_disk, write_text

        kept = _read(out)
        lines = [line | self.more(line) for line in kept]
        if lines != kept:
            text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
            with reporting_full_disk(
                out, "what was written is whole", "free some space, and go on"
            ):
                write_text(out, text)
        return lines

    def _ask(self, prompts: Sequence[BatchPrompt], keep: Callable[[str], object]) -> None:
        engine = self._load()
        with progress_bar("questions", len(prompts)) as on_done:
            answer_all(engine, prompts, keep, self.more, lambda: on_done(1))

    def _load(self) -> Engine:
        import sys

        with loading_display(sys.stderr.isatty()) as progress:
            engine = load_engine(self.model, self.method, self.generation, progress=progress)
        self.prepare(engine)
        return engine


def _read(path: Path) -> list[Line]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def report(name: str, lines: Sequence[Line], result: str) -> None:
    """Say what came of it; refused questions are said to be so.

    Args:
        name: of the task.
        lines: of the answers.
        result: in a few words.

    Raises:
        NfoxError: if none was answered.
    """
    from nfox.eval.answers.extract import Speed

    refused = [line for line in lines if "error" in line]
    if len(refused) == len(lines):
        raise NfoxError(f"no question was answered; the last error: {refused[-1]['error']}")
    method = next(line["spec"]["method"] for line in lines if "error" not in line)
    print(f"{name}: {result}")
    print(f"{method}: {Speed.of(lines)}")
    if refused:
        print(f"{len(refused)} were not answered, the last: {refused[-1]['error']}")


def needed(value: Any, name: str, usage: str) -> Any:
    """Return an option that must be given.

    Raises:
        UsageError: if it was not.
    """
    if value is None:
        raise UsageError(f"{name} is missing", usage)
    return value
