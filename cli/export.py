"""`nfox export`: heads and draft models in published layouts, and in those of other engines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nfox.errors import NfoxError, UsageError, did_you_mean
from nfox.export import engine_names, find_format

from . import unused
from .options.completion import heads, layouts
from .options.dataclass_options import grouped, option
from .printing import say

if TYPE_CHECKING:
    from nfox.drafters.common.method import Method, SavedWeights
    from nfox.export.formats import ExportedFiles, ExportFormat
    from nfox.files.hub import HubOptions
    from nfox.heads.checkpoint import HeadsInfo


@dataclass(frozen=True)
class ExportArguments:
    """Which weights are written in which layout, and where to."""

    layout: Annotated[
        str,
        typer.Argument(
            help="Whose layout: a method's, as published for its heads, or another engine's: "
            f"{', '.join(engine_names())}.",
            autocompletion=layouts,
        ),
    ]
    weights: Annotated[
        str,
        typer.Argument(
            help="Folder or hub id of heads; for engines also of a draft model.",
            autocompletion=heads,
        ),
    ]
    out: Annotated[Path | None, option("Export", "The folder to write.", "--out")] = None
    base_model: Annotated[
        str | None, option("Export", "Base of the weights, as others find it.", "--base-model")
    ] = None
    push_to_hub: Annotated[
        str | None, option("Export", "Also upload it, as this repository.", "--push-to-hub")
    ] = None
    private: Annotated[bool, option("Export", "Nobody else sees it there.", "--private")] = False


def export(context: typer.Context, arguments: ExportArguments) -> None:
    """Write heads or a draft model in a published layout, or in another engine's.

    Medusa's published layout is other engines' too; heads of methods without one are copied as they
    are. For an engine, how it is started with what was written is said as well.
    """
    out, name = arguments.out, arguments.push_to_hub
    if out is None:
        raise UsageError("--out is missing", "nfox export LAYOUT WEIGHTS --out FOLDER")
    from nfox.drafters.common.method import SavedWeights
    from nfox.files.atomic import reporting_full_disk
    from nfox.files.hub import HubOptions
    from nfox.train.output_folder import refuse_other_weights

    if not name:
        unused.report_typed(context, {"private": "nothing is uploaded without --push-to-hub"})
    hub, export_format = HubOptions(), find_format(arguments.layout)
    method, info = _inspect(arguments, export_format, hub)
    base = _base(arguments, info)
    if out.resolve() != Path(arguments.weights).resolve():
        refuse_other_weights("--out", out, method.method_name(), info.config)
    if name:
        _check_push(name, base)
    # A base that lies here need not be downloaded under the name that others know it by.
    here = bool(info.base) and Path(info.base).is_dir() and not _trained_with_adapter(info)
    base_location = info.base if here and not Path(base).is_dir() else base
    with reporting_full_disk(out, "nothing there is half written", "free some space"):
        info = info.model_copy(update={"base": base})
        weights = SavedWeights(arguments.weights, info, base_location, hub)
        written = _write(method, export_format, weights, out)
    say(f"written to {out}", *written.instructions)
    if name:
        _push(out, written.names, name, private=arguments.private)


def _inspect(
    arguments: ExportArguments, export_format: ExportFormat | None, hub: HubOptions
) -> tuple[type[Method], HeadsInfo]:
    """Return the method that the weights are of, and what their folder says of them.

    Raises:
        UsageError: if no method knows them, or they cannot be written in that layout.
    """
    from nfox.drafters import method_class, method_names, methods_with_heads
    from nfox.models.training_folders import describe_folder, option_for

    layout, location, names = arguments.layout, arguments.weights, method_names()
    known = [*methods_with_heads(), *engine_names()]
    if layout not in known:
        wrong = (
            f"{layout} has no heads to export" if layout in names else f"unknown layout {layout!r}"
        )
        hint = f"available: {', '.join(known)}"
        raise UsageError(wrong, hint if layout in names else did_you_mean(layout, known, hint))
    methods = [method_class(name) for name in (names if export_format else [layout])]
    for method in methods:
        if info := method.inspect(location, hub):
            break
    else:
        wanted = "weights of any method" if export_format else f"{layout} heads"
        hint = option_for(location) or describe_folder(location)
        raise UsageError(
            f"{location} holds no {wanted}", export_format.hint if export_format else hint
        )
    if export_format and method.exchange_type not in export_format.writers:
        raise UsageError(
            f"{layout} cannot use weights of {method.method_name()}", export_format.hint
        )
    if export_format and arguments.out and arguments.out.resolve() == Path(location).resolve():
        raise UsageError("--out is the folder of the weights themselves", "name another")
    return method, info


def _base(arguments: ExportArguments, info: HeadsInfo) -> str:
    """Return the folder or hub id of the model that the weights were trained for.

    Raises:
        UsageError: if nothing says it, if it is not there, or if the weights need an adapter on it.
    """
    base = arguments.base_model or info.base
    if not base:
        raise UsageError(f"{arguments.weights} does not say whose it is", "add --base-model")
    if _trained_with_adapter(info) and arguments.base_model is None:
        raise UsageError(
            f"{arguments.weights} were trained together with a LoRA adapter, which is not "
            "exported: without it they guess worse",
            "merge the adapter into the base, and name that: --base-model MERGED",
        )
    is_path = Path(base).is_absolute() or base.startswith(".") or base.count("/") > 1
    if is_path and not Path(base).is_dir():
        raise UsageError(
            f"the base of {arguments.weights} is not here: {base}",
            "add --base-model with its folder or hub id",
        )
    return base


def _write(
    method: type[Method], export_format: ExportFormat | None, weights: SavedWeights, out: Path
) -> ExportedFiles:
    """Write weights in the layout of an engine, or in the published one of their method."""
    from nfox.drafters.common.heads import HeadsDrafter
    from nfox.export.formats import ExportedFiles

    if export_format and method.exchange_type:
        return export_format.writers[method.exchange_type](method.to_exchange(weights), out)
    assert issubclass(method, HeadsDrafter)
    return ExportedFiles(method.export(weights, out), [])


def _trained_with_adapter(info: HeadsInfo) -> bool:
    """Whether heads were trained together with a LoRA adapter of their base."""
    joint = info.training.get("joint")
    return isinstance(joint, dict) and joint.get("base") == "lora"


def _check_push(name: str, base: str) -> None:
    """Check before the work begins that the weights can be uploaded."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    if Path(base).expanduser().is_absolute() or Path(base).is_dir():
        raise UsageError(
            f"the base {base} is a folder, which others do not have", "add --base-model with its id"
        )
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        reason = _first_line(error)
        raise UsageError(f"--push-to-hub {name}: {reason}", "expected NAME/HEADS") from error
    with _hub_errors("nobody is logged in to the hub, or it cannot be reached", "hf auth login"):
        HfApi().whoami()


def _push(folder: Path, files: list[str], name: str, *, private: bool) -> None:
    """Upload the named files of a folder to the hub, and print their address there."""
    from huggingface_hub import HfApi

    hub, hint = HfApi(), f"all is in {folder}: hf upload {name} {folder}"
    with _hub_errors(f"cannot upload to {name}", hint):
        hub.create_repo(name, private=private, exist_ok=True)
        commit = hub.upload_folder(repo_id=name, folder_path=str(folder), allow_patterns=files)
    say(commit.repo_url)


@contextmanager
def _hub_errors(message: str, hint: str) -> Iterator[None]:
    """Turn an error of the hub's client into an NfoxError of one line, with a hint."""
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    try:
        yield
    except (OSError, HTTPError) as error:  # HTTPError is no OSError where no connection is made
        raise NfoxError(f"{message}: {_first_line(error)}", hint) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("export")(grouped(export))
