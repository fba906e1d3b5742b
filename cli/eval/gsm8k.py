"""`nfox eval gsm8k`: how many grade-school problems a model solves, and how fast."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from nfox.errors import UsageError

from ..load import check
from ..options.dataclass_options import option
from ..options.groups import GenerationArguments, MethodArguments, ModelArguments
from ..output_files import check_out
from .answering import Answering, Line, report
from .results import all_of

if TYPE_CHECKING:
    from nfox.engine import Engine

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
    debug: Annotated[bool, option("Data", "Show tracebacks.", "--debug")] = False


def gsm8k(
    model: ModelArguments,
    method: MethodArguments,
    generation: GenerationArguments,
    arguments: Gsm8kArguments,
) -> None:
    """Solve GSM8K's problems: exact match of the number after ####, or else of the last one."""
    check_out(arguments.out, "answers")
    check(model, method)
    from nfox.batch import BatchPrompt
    from nfox.eval.answers.extract import SHOT_ENDS, few_shot, final_answer, share

    problems = _problems(arguments.data)
    wanted = {str(place): final_answer(answer) for place, (_, answer) in enumerate(problems)}
    if odd := next((place for place, number in wanted.items() if number is None), None):
        raise UsageError(f"{arguments.data}, problem {odd}: its answer has no number")
    examples = _problems(arguments.examples)[: arguments.shots] if arguments.shots else []
    prompts = [
        BatchPrompt(str(place), place, (), (few_shot(examples, question),))
        for place, (question, _) in enumerate(problems)
    ]

    def prepare(engine: Engine) -> None:
        if examples:
            stop = (*engine.settings.stop, *SHOT_ENDS)
            engine.use_settings(replace(engine.settings, stop=stop))

    def judged(line: Line) -> Line:
        said, right = final_answer(line["text"]), wanted[line["id"]]
        return {"prediction": said, "gold": right, "correct": said == right}

    asking = Answering(model, method, generation, prepare, judged)
    out, data, limit = arguments.out, arguments.data, arguments.limit
    lines = (
        asking.lines_of(out, prompts, data, limit, shots=arguments.shots)
        if out
        else asking.lines(prompts[:limit])
    )
    right = sum(line["correct"] for line in lines)
    report("gsm8k", lines, share(right, len(lines)))
    if right < 0.05 * len(lines):
        print("below 5 % that is noise: compare models by `nfox eval loss`")


def _problems(data: str) -> list[tuple[str, str]]:
    """Read questions and answers, all of them."""
    from nfox.train.data.tasks import read

    kept = all_of(data, read(data), '{"question", "answer"}')
    return [(messages[-2].content, messages[-1].content) for messages in kept]
