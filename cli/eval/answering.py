"""What the evaluations by a model's answers share: questions are asked, and a run that was
interrupted goes on where it stopped.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nfox.controls import json_text
from nfox.errors import NfoxError, UsageError

from .. import unused
from ..display.progress import progress_bar
from ..engine_arguments import EngineArguments
from ..facts import command_line, model_facts
from ..generate.answering import answer_all
from ..printing import say

if TYPE_CHECKING:
    import typer

    from nfox.batch import BatchPrompt
    from nfox.engine import Engine

Line = dict[str, Any]


@dataclass(frozen=True)
class Answering:
    """How the questions of an evaluation are answered.

    Args:
        context: of the command.
        arguments: which engine answers.
        stop: strings that end an answer of the task, besides those of the options.
        on_load: is called with the engine, once it is loaded.
        judge: returns what to add to the line of an answer; where answers are read again from a
            file, it judges them anew.
    """

    context: typer.Context
    arguments: EngineArguments
    stop: Sequence[str] = ()
    on_load: Callable[[Engine], None] = lambda engine: None
    judge: Callable[[Line], Line] = lambda line: {}

    def facts(self, **more: Any) -> Line:
        """Return all that the answers and their speed depend on."""
        model = self.arguments.model
        drafters = {"draft_model": model.draft_model, "heads": model.heads}
        options = asdict(self.arguments.method) | asdict(self.arguments.generation)
        return model_facts(model) | drafters | options | more

    def lines(self, prompts: Sequence[BatchPrompt]) -> list[Line]:
        """Ask all prompts, and return the lines of their answers."""
        written = io.StringIO()
        self._ask(prompts, written.write)
        return [json.loads(line) for line in written.getvalue().splitlines()]

    def lines_of(
        self, out: Path, prompts: Sequence[BatchPrompt], data: str, limit: int | None, **more: Any
    ) -> list[Line]:
        """Ask the prompts that a file has no answer to yet, and return all lines in order.

        Args:
            out: the file that answers are added to; only the limit may differ from the run before.
            prompts: all prompts of the task.
            data: the file or data set that they come from.
            limit: the number of prompts that are asked at most.
            more: other facts that the answers depend on.

        Raises:
            UsageError: if the file was made by another command.
        """
        from nfox.batch import remaining
        from nfox.files import provenance
        from nfox.files.atomic import reporting_full_disk
        from nfox.files.jsonl import WorkShare, append_lines, finished_ids
        from nfox.text.messages import Message, questions_digest

        questions = [
            [Message("user", "".join([*(m.content for m in prompt.opening), *prompt.questions]))]
            for prompt in prompts
        ]
        facts = self.facts(questions=questions_digest(questions), **more)
        provenance.check(out, facts, data)
        if todo := remaining(prompts[:limit], finished_ids(out)):
            with reporting_full_disk(
                out, "what was written is whole", "free some space, and go on"
            ):
                run = {"command": command_line(), "data": data}
                provenance.begin(out, run | facts, WorkShare())
                self._ask(todo, partial(append_lines, out))
        lines = {line["id"]: line for line in self._judged_anew(out)}
        return [lines[prompt.id] for prompt in prompts[:limit]]

    def _judged_anew(self, out: Path) -> list[Line]:
        """Read answers and judge them; a file with other judgements is written anew."""
        from nfox.files.atomic import reporting_full_disk, write_text
        from nfox.files.jsonl import read_lines

        before = read_lines(out)
        lines = [line | self.judge(line) for line in before]
        if lines != before:
            text = "".join(json_text(line) + "\n" for line in lines)
            with reporting_full_disk(
                out, "what was written is whole", "free some space, and go on"
            ):
                write_text(out, text)
        return lines

    def _ask(self, prompts: Sequence[BatchPrompt], write: Callable[[str], object]) -> None:
        engine = self.arguments.load()
        idle = unused.of_loading(engine) | unused.for_one_reply(engine)
        unused.report_typed(self.context, idle)
        unused.report_idle_method(engine.drafter)
        engine.use_settings(replace(engine.settings, stop=(*engine.settings.stop, *self.stop)))
        self.on_load(engine)
        with progress_bar("questions", len(prompts)) as on_done:
            answer_all(engine, prompts, write, self.judge, lambda: on_done(1))


def report(name: str, lines: Sequence[Line], result: str) -> None:
    """Print the result of an evaluation, its speed, and how many questions were refused.

    Args:
        name: of the task.
        lines: of the answers.
        result: in a few words.

    Raises:
        NfoxError: if no question was answered.
    """
    from nfox.eval.answers.extract import Speed

    refused = [line for line in lines if "error" in line]
    if len(refused) == len(lines):
        raise NfoxError(f"no question was answered; the last error: {refused[-1]['error']}")
    method = next(line["spec"]["method"] for line in lines if "error" not in line)
    say(f"{name}: {result}")
    say(f"{method}: {Speed.of(lines)}")
    if refused:
        say(f"{len(refused)} were not answered, the last: {refused[-1]['error']}")


def required(value: Any, name: str, usage: str) -> Any:
    """Return the value of an option that must be given.

    Raises:
        UsageError: if it is missing.
    """
    if value is None:
        raise UsageError(f"{name} is missing", usage)
    return value
