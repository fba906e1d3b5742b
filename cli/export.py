"""`nfox export`: heads and draft models in the layouts that others read, other engines too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nfox import export as engines
from nfox.errors import NfoxError, UsageError

from .options.dataclass_options import grouped, option

if TYPE_CHECKING:
    from nfox.drafters.common.method import Method, SavedWeights
    from nfox.export.formats import ExportFormat, Written
    from nfox.files.hub import HubOptions
    from nfox.heads.checkpoint import HeadsInfo


@dataclass(frozen=True)
class ExportArguments:
    """What is written where."""

    layout: Annotated[
        str,
        typer.Argument(
            help="Whose layout: a method's, as published for its heads, or another engine's: "
            f"{', '.join(engines.names())}."
        ),
    ]
    weights: Annotated[
        str, typer.Argument(help="Folder or hub id of heads; for engines also of a draft model.")
    ]
    out: Annotated[Path | None, option("Export", "The folder to write.", "--out")] = None
    base_model: Annotated[
        str | None, option("Export", "Base of the weights, as others find it.", "--base-model")
    ] = None
    push_to_hub: Annotated[
        str | None, option("Export", "Also upload it, as this repository.", "--push-to-hub")
    ] = None
    private: Annotated[bool, option("Export", "Nobody else sees it there.", "--private")] = False
    debug: Annotated[bool, option("Export", "Show tracebacks.", "--debug")] = False


def export(arguments: ExportArguments) -> None:
    """Write heads or a draft model in the layout of published checkpoints, or of another engine.

    Medusa's published layout is other engines' too; heads of methods without one are copied as they
    are. For an engine, how it is started with what was written is said as well.
    """
    out, name = arguments.out, arguments.push_to_hub
    if out is None:
        raise UsageError("--out is missing", "nfox export LAYOUT WEIGHTS --out FOLDER")
    from nfox.drafters.common.method import SavedWeights
    from nfox.files.atomic import reporting_full_disk
    from nfox.files.hub import HubOptions

    hub, export_format = HubOptions(), engines.find(arguments.layout)
    made, what = _held(arguments, export_format, hub)
    base, adapted = arguments.base_model or what.base, _adapted(what.training)
    if not base:
        raise UsageError(f"{arguments.weights} does not say whose it is", "add --base-model")
    if adapted and arguments.base_model is None:
        raise UsageError(
            f"{arguments.weights} were trained together with a LoRA adapter, which is not "
            "exported: without it they guess worse",
            "merge the adapter into the base, and name that: --base-model MERGED",
        )
    elsewhere = Path(base).is_absolute() or base.startswith(".") or base.count("/") > 1
    if elsewhere and not Path(base).is_dir():
        raise UsageError(
            f"the base of {arguments.weights} is not here: {base}",
            "add --base-model with its folder or hub id",
        )
    if name:
        _check_push(name, base)
    info = what.model_copy(update={"base": base})
    # A base that lies here need not be downloaded under the name that others know it by.
    there = what.base if Path(what.base).is_dir() and not adapted else base
    there = base if Path(base).is_dir() else there
    with reporting_full_disk(out, "nothing there is half written", "free some space"):
        weights = SavedWeights(arguments.weights, info, there, hub)
        written = _write(made, export_format, weights, out)
    print("\n".join((f"written to {out}", *written.lines)))
    if name:
        _push(out, written.files, name, private=arguments.private)


def _held(
    arguments: ExportArguments, export_format: ExportFormat | None, hub: HubOptions
) -> tuple[type[Method], HeadsInfo]:
    """Return whose weights these are, and what they are.

    Raises:
        UsageError: if they are nobody's, or cannot be written in that layout.
    """
    from nfox import drafters
    from nfox.drafters.common.heads import HeadsDrafter

    layout, place = arguments.layout, arguments.weights
    if export_format is None and layout not in drafters.names():
        heads = [n for n in drafters.names() if issubclass(drafters.method(n), HeadsDrafter)]
        known = ", ".join(heads + engines.names())
        raise UsageError(f"unknown layout {layout!r}", f"available: {known}")
    methods = [drafters.method(name) for name in (drafters.names() if export_format else [layout])]
    if export_format is None and not issubclass(methods[0], HeadsDrafter):
        raise UsageError(f"{layout} has no heads to export")
    found = ((made, made.inspect(place, hub)) for made in methods)
    made, what = next(((m, held) for m, held in found if held), (None, None))
    if made is None or what is None:
        wanted = "weights of any method" if export_format else f"{layout} heads"
        raise UsageError(
            f"{place} holds no {wanted}", export_format.instead if export_format else ""
        )
    if export_format and made.exchange_type not in export_format.layouts:
        raise UsageError(f"{layout} cannot use weights of {made.method()}", export_format.instead)
    if export_format and arguments.out and arguments.out.resolve() == Path(place).resolve():
        raise UsageError("--out is the folder of the weights themselves", "name another")
    return made, what


def _write(
    made: type[Method], export_format: ExportFormat | None, weights: SavedWeights, out: Path
) -> Written:
    """Write weights in the layout of an engine, or in the published one of their method."""
    from nfox.drafters.common.heads import HeadsDrafter
    from nfox.export.formats import Written

    if export_format and made.exchange_type:
        return export_format.layouts[made.exchange_type](made.to_exchange(weights), out)
    assert issubclass(made, HeadsDrafter)
    return Written(made.export(weights, out), [])


def _adapted(training: dict[str, object]) -> bool:
    """Whether heads were trained together with an adapter of their base."""
    joint = training.get("joint")
    return isinstance(joint, dict) and joint.get("base") == "lora"


def _check_push(name: str, base: str) -> None:
    """Find out before the work whether it can be uploaded."""
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
        raise UsageError(f"--push-to-hub {name}: {_line(error)}", "expected NAME/HEADS") from error
    with _hub_errors("nobody is logged in to the hub, or it cannot be reached", "hf auth login"):
        HfApi().whoami()


def _push(folder: Path, files: list[str], name: str, *, private: bool) -> None:
    """Upload files of a folder, and nothing else that may lie there."""
    from huggingface_hub import HfApi

    hub, again = HfApi(), f"all is in {folder}: hf upload {name} {folder}"
    with _hub_errors(f"cannot upload to {name}", again):
        hub.create_repo(name, private=private, exist_ok=True)
        done = hub.upload_folder(repo_id=name, folder_path=str(folder), allow_patterns=files)
    print(done.repo_url)


@contextmanager
def _hub_errors(what: str, hint: str) -> Iterator[None]:
    """Turn what the hub's client raises into one line."""
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    try:
        yield
    except (OSError, HTTPError) as error:  # HTTPError is no OSError where no connection is made
        raise NfoxError(f"{what}: {_line(error)}", hint) from error


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("export")(grouped(export))
