"""`nfox export`: heads in the layout that other engines read, for others too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from nfox.errors import NfoxError, UsageError

from .grouped import grouped, option


@dataclass(frozen=True)
class ExportArguments:
    """What is written where."""

    method: Annotated[str, typer.Argument(help="Whose heads.")]
    heads: Annotated[str, typer.Argument(help="Folder or hub id of the heads.")]
    out: Annotated[Path | None, option("Export", "The folder to write.", "--out")] = None
    base_model: Annotated[
        str | None, option("Export", "Base of the heads, as others find it.", "--base-model")
    ] = None
    push_to_hub: Annotated[
        str | None, option("Export", "Also upload it, as this repository.", "--push-to-hub")
    ] = None
    private: Annotated[bool, option("Export", "Nobody else sees it there.", "--private")] = False
    debug: Annotated[bool, option("Export", "Show tracebacks.", "--debug")] = False


def export(arguments: ExportArguments) -> None:
    """Write heads in the layout of the published checkpoints of their method.

    Medusa's layout is other engines' too; heads of methods without one are copied as they are.
    """
    if arguments.out is None:
        raise UsageError("--out is missing", "nfox export METHOD HEADS --out FOLDER")
    from nfox.drafters import method
    from nfox.heads_drafter import HeadsDrafter
    from nfox.loading import ModelOptions
    from nfox.train.resume import full_disk_said

    made = method(arguments.method)
    if not issubclass(made, HeadsDrafter):
        raise UsageError(f"{arguments.method} has no heads to export")
    hub, name = ModelOptions(), arguments.push_to_hub
    what = made.holds(arguments.heads, hub)
    if what is None:
        raise UsageError(f"{arguments.heads} holds no {arguments.method} heads")
    base, adapted = arguments.base_model or what.base, _adapted(what.training)
    if adapted and arguments.base_model is None:
        raise UsageError(
            f"{arguments.heads} were trained together with a LoRA adapter, which is not exported: "
            "without it they guess worse",
            "merge the adapter into the base, and name that: --base-model MERGED",
        )
    if name:
        _check_push(name, base)
    said = what.model_copy(update={"base": base})
    # A base that lies here need not be downloaded under the name that others know it by.
    there = what.base if Path(what.base).is_dir() and not adapted else base
    there = base if Path(base).is_dir() else there
    with full_disk_said(arguments.out, "nothing there is half written", "free some space"):
        files = made.export(arguments.heads, said, there, hub, arguments.out)
    print(f"written to {arguments.out}")
    if name:
        _push(arguments.out, files, name, private=arguments.private)


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
