"""The terminal program: `nfox`, or `python -m nfox.cli`."""

from __future__ import annotations


def main() -> None:
    """Run the command line and exit with its code."""
    import sys

    from . import printing, streams

    streams.prepare()
    printing.clean_libraries()
    if "--debug" not in sys.argv:
        printing.silence_libraries()
    from .app import app
    from .errors import output_failed, print_traceback

    code: str | int | None = 0
    try:
        # What a shell is to complete is the command `nfox`, also where it is asked for by -m.
        is_asked = any(word.endswith("-completion") for word in sys.argv[1:2])
        app(prog_name="nfox" if is_asked else None)
    except SystemExit as end:
        code = end.code
    except Exception as error:
        code = 0 if isinstance(error, OSError) and streams.finish() else 1
        if code:
            print_traceback(error)
    # A command that went on all the same, or never knew, has not done what it was to do.
    if (refusal := streams.finish()) and (not code or isinstance(refusal, BrokenPipeError)):
        code = output_failed(refusal)
    sys.exit(code)
