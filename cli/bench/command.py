"""`nfox bench`: every method and other programs against plain decoding, on the same prompts in the
same run.
"""

from __future__ import annotations

from contextlib import closing

import typer

from ..engine_arguments import EngineArguments
from ..known_models import usual_model
from ..options.dataclass_options import refuse_stray_options
from ..options.engine import GenerationArguments, ModelArguments
from ..output_files import check_folder, check_out
from .arguments import BenchArguments, ResultArguments
from .explain import print_definitions
from .report import check_report


def bench(
    context: typer.Context,
    arguments: BenchArguments,
    results: ResultArguments,
    model: ModelArguments,
    generation: GenerationArguments,
) -> None:
    """Measure methods against plain decoding, in turn and on the same prompts, with exactness."""
    if context.invoked_subcommand is not None:
        refuse_stray_options(context)
        return
    if results.explain:
        print_definitions()
        return
    model = usual_model(model)
    EngineArguments(model, generation=generation).check()
    EngineArguments.check_names(arguments.methods)
    check_out(results.out)
    check_report(results.html, results.plots)
    check_folder(results.answers, "answers")
    check_folder(results.profile, "profiles")
    from .run import all_settings, open_journal, prepare, report_idle, run_rounds

    with closing(prepare(arguments, model, generation)) as benchmark:
        report_idle(context, benchmark, arguments)
        settings = all_settings(benchmark, arguments, model, generation)
        journal = open_journal(results.out, benchmark, settings) if results.out else None
        trials, complete = run_rounds(benchmark, arguments, journal)
        from .outputs import result_of, show, write_more

        if trials:
            show(result_of(benchmark, trials, settings), results, complete=complete)
        if not complete:
            raise KeyboardInterrupt
        write_more(benchmark, trials, settings, results)
