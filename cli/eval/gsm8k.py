"""`nfox eval gsm8k`: how many grade-school problems a model solves, and how fast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from nfox.errors import UsageError

from .. import unused
from ..engine_arguments import EngineArguments
from ..known_models import usual_model
from ..options.dataclass_options import option
from ..output_files import check_out
from ..printing import say
from .answering import Answering, Line, report
from .results import require_all

_HUB = "openai/gsm8k@main"


@dataclass(frozen=True)
class Gsm8kArguments:
    """What is asked, and where the answers go."""

    data: Annotated[
        str, option("Data", "GSM8K's test.jsonl, or a dataset on the hub.", "--data")
    ] = f"{_HUB}:test"
    limit: Annotated[int | None, option("Data", "Problems at most.", "--limit", min=1)] = None
    shots: Annotated[
        int,
        option("Data", "Solved problems before each; 0: the problem alone.", "--shots", min=0),
    ] = 0
    examples: Annotated[
        str, option("Data", "Where these come from: GSM8K's train.jsonl.", "--examples")
    ] = f"{_HUB}:train"
    out: Annotated[
        Path | None,
        option("Data", "Where answers are added; what is there is not asked again.", "--out"),
    ] = None


def gsm8k(
    context: typer.Context, engine_arguments: EngineArguments, arguments: Gsm8kArguments
) -> None:
    """Solve GSM8K's problems: exact match of the number after ####, or else of the last one."""
    check_out(arguments.out, "answers")
    engine_arguments = replace(engine_arguments, model=usual_model(engine_arguments.model))
    engine_arguments.check()
    if not arguments.shots:
        unused.report_typed(context, {"examples": "--shots says how many of them are put before"})
    from nfox.batch import BatchPrompt
    from nfox.eval.answers.extract import SHOT_ENDS, few_shot, final_answer

    problems = _problems(arguments.data)
    gold = {str(number): final_answer(answer) for number, (_, answer) in enumerate(problems)}
    if odd := next((number for number, answer in gold.items() if answer is None), None):
        raise UsageError(f"{arguments.data}, problem {odd}: its answer has no number")
    examples = _problems(arguments.examples)[: arguments.shots] if arguments.shots else []
    prompts = [
        BatchPrompt(str(number), number, (), (few_shot(examples, question),))
        for number, (question, _) in enumerate(problems)
    ]

    def judge(line: Line) -> Line:
        prediction, right = final_answer(line["text"]), gold[line["id"]]
        return {"prediction": prediction, "gold": right, "correct": prediction == right}

    stop = SHOT_ENDS if examples else ()
    answering = Answering(context, engine_arguments, stop, judge=judge)
    out, data, limit = arguments.out, arguments.data, arguments.limit
    lines = (
        answering.lines_of(out, prompts, data, limit, shots=arguments.shots)
        if out
        else answering.lines(prompts[:limit])
    )
    _report(lines)


def _report(lines: Sequence[Line]) -> None:
    from nfox.eval.answers.extract import share

    right = sum(line["correct"] for line in lines)
    report("gsm8k", lines, share(right, len(lines)))
    if right < 0.05 * len(lines):
        say("below 5 % that is noise: compare models by `nfox eval loss`")


def _problems(data: str) -> list[tuple[str, str]]:
    """Read the questions and answers of all problems."""
    from nfox.train.data.tasks import read_tasks

    conversations = require_all(data, read_tasks(data), '{"question", "answer"}')
    return [(messages[-2].content, messages[-1].content) for messages in conversations]
