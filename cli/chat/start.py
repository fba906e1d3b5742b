"""The command `nfox` itself: from options to a chat, one answer, or answers to lines of JSON."""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from dataclasses import fields, replace

import typer

from nfox.characters import cleaned
from nfox.decoding import clock
from nfox.errors import UsageError

from .. import standard_input, unused
from ..engine_arguments import EngineArguments
from ..known_models import usual_model
from ..options.chat import LAST, DisplayArguments, SessionArguments
from ..options.dataclass_options import refuse_stray_options
from .background import asking_background
from .input import reads_keys
from .interrupt import silent_keyboard

_STDIN = "-"


def chat(
    context: typer.Context,
    engine_arguments: EngineArguments,
    display: DisplayArguments,
    session: SessionArguments,
) -> None:
    """Chat with a language model that answers faster by speculation, and shows it.

    Without a prompt and at a terminal: a chat; /help says what can be typed there. `nfox config
    --edit` opens a file for what you would type every time.
    """
    if context.invoked_subcommand is not None:
        refuse_stray_options(context)
        return
    engine_arguments.check()
    programmatic = display.style == "programmatic"
    prompt = None if programmatic else _prompt(session)
    _check_streams(session, prompt, programmatic)
    # A prompt that reads keys sets the terminal for itself; for all other moments it is set now, or
    # Enter typed while the model loads would be another key.
    keys = prompt is None and not programmatic and reads_keys(plain=display.style != "rich")
    with silent_keyboard(by_key=True) if keys else nullcontext():
        _load_and_answer(context, engine_arguments, display, session, prompt)


def _load_and_answer(
    context: typer.Context,
    engine_arguments: EngineArguments,
    display: DisplayArguments,
    session: SessionArguments,
    prompt: str | None,
) -> None:
    engine_arguments = replace(engine_arguments, model=usual_model(engine_arguments.model))
    with asking_background(prompt is None and _goes_by_background(display)) as terminal:
        begin = clock.now()
        engine = engine_arguments.load(quiet=display.quiet, bars=display.style == "rich")
        loading_seconds = clock.now() - begin
    programmatic = display.style == "programmatic"
    if not display.quiet:
        idle = unused.of_loading(engine) | unused.for_one_reply(engine)
        unused.report_typed(context, idle | _idle(session, display, prompt))
        if programmatic or session.as_json:  # under a reply that is drawn it stands by itself
            unused.report_idle_method(engine.drafter)
    # These take torch, which by now was imported with something to see.
    from ..display.palettes import theme_for
    from .oneshot import answer_json, answer_text, serve_lines
    from .repl import chat_loop

    if terminal.background:
        display = replace(display, theme=theme_for(terminal.background))
    if programmatic:
        serve_lines(engine, display, session)
    elif prompt is None:
        chat_loop(engine, loading_seconds, display, session, terminal.typed)
    elif session.as_json:
        answer_json(engine, prompt, display)
    else:
        answer_text(engine, prompt, display, compared=session.compare)


def _goes_by_background(display: DisplayArguments) -> bool:
    """Whether the colours of a chat are to be those for the background of the terminal."""
    has_colors = display.color != "never" and not (display.no_color or os.environ.get("NO_COLOR"))
    keys = reads_keys(plain=display.style != "rich") and sys.stdout.isatty()
    return display.theme == "auto" and has_colors and keys


def _idle(
    session: SessionArguments, display: DisplayArguments, prompt: str | None
) -> dict[str, str]:
    """Return the options of the chat that change nothing of what is asked for, with the reasons."""
    programmatic = display.style == "programmatic"
    idle: dict[str, str] = {}
    if programmatic or session.as_json:
        drawn = {field.name for field in fields(display)} - {"verbose", "quiet"}
        drawn -= {"style"} if programmatic else set()
        idle |= dict.fromkeys((*drawn, "compare"), "lines of JSON are written")
    elif prompt is None:
        idle["compare"] = "/compare does it in the chat"
    if programmatic or prompt is not None:
        idle["multiline"] = "nothing is typed"
    if prompt is not None:
        idle |= dict.fromkeys(("no_history", "context_policy"), "one prompt is answered")
    return idle


def _prompt(session: SessionArguments) -> str | None:
    """Return the one prompt to answer, or None for a chat.

    A text of --prompt and a text that is piped in are joined.
    """
    given = session.prompt
    texts = [] if given is None or given == _STDIN else [cleaned(given)]
    if given == _STDIN or not sys.stdin.isatty():
        try:
            texts.append(standard_input.read_all().strip("\n"))
        except standard_input.WriteOnlyError:
            if not texts:  # else nothing is missed
                raise
    elif not texts:
        return None
    prompt = "\n\n".join(filter(None, texts))
    if not prompt.strip():
        raise UsageError("the prompt is empty", "nfox -p TEXT, or text on stdin")
    return prompt


def _check_streams(session: SessionArguments, prompt: str | None, programmatic: bool) -> None:
    """Check that the options of the chat go together with where input and output lead."""
    if programmatic and session.prompt is not None:
        raise UsageError("--style programmatic reads prompts from stdin", "leave --prompt out")
    if session.resume is not None and (programmatic or prompt is not None):
        raise UsageError("--resume is of the chat", "leave it out, or the prompt")
    if session.resume is not None:
        _check_resumed(session.resume)
    if programmatic or prompt is not None:
        return
    if session.as_json:
        raise UsageError("--json needs a prompt", "nfox --json -p TEXT, or a pipe")
    if not sys.stdout.isatty():
        raise UsageError(
            "stdout is not a terminal, so there can be no chat", "nfox -p TEXT gives one answer"
        )


def _check_resumed(number: str) -> None:
    """Check, before a model is loaded, that there is the conversation to go on with."""
    from ..log.database import ConversationLog  # which takes pydantic
    from ..log.entry import id_of

    if number != LAST and id_of(number) is None:
        raise UsageError(f"--resume {number[:100]}: expected a number", "nfox log list has them")
    ConversationLog().read(id_of(number))
