"""`nfox export`: heads in the layout that other engines read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from nfox.errors import UsageError

from .grouped import grouped, option


@dataclass(frozen=True)
class ExportArguments:
    """What is written where."""

    method: Annotated[str, typer.Argument(help="Whose published layout.")]
    heads: Annotated[str, typer.Argument(help="Folder or hub id of the heads.")]
    out: Annotated[Path | None, option("Export", "The folder to write.", "--out")] = None
    base_model: Annotated[
        str | None, option("Export", "Base of the heads, if moved.", "--base-model")
    ] = None
    push_to_hub: Annotated[
        str | None, option("Export", "Also upload it, as this repository.", "--push-to-hub")
    ] = None
    private: Annotated[bool, option("Export", "Nobody else sees it there.", "--private")] = False
    debug: Annotated[bool, option("Export", "Show tracebacks.", "--debug")] = False


def export(arguments: ExportArguments) -> None:
    """Write heads in the layout of the published checkpoints of their method."""
    if arguments.out is None:
        raise UsageError("--out is missing", "nfox export METHOD HEADS --out FOLDER")
    from nfox.drafters import method
    from nfox.heads_drafter import HeadsDrafter
    from nfox.loading import ModelOptions, load_model

    made = method(arguments.method)
    if not issubclass(made, HeadsDrafter):
        raise UsageError(f"{arguments.method} has no heads to export")
    hub = ModelOptions()
    what = made.holds(arguments.heads, hub)
    if what is None:
        raise UsageError(f"{arguments.heads} holds no {arguments.method} heads")
    base = arguments.base_model or what.base
    target = load_model(base).target
    heads, _ = made.load(base, target, arguments.heads, hub)
    made.export(heads, what, target, arguments.out)
    print(f"written to {arguments.out}")
    if arguments.push_to_hub:
        _push(arguments.out, arguments.push_to_hub, private=arguments.private)


def _push(folder: Path, name: str, *, private: bool) -> None:
    """Upload a folder."""
    from huggingface_hub import HfApi

    hub = HfApi()
    hub.create_repo(name, private=private, exist_ok=True)
    print(hub.upload_folder(repo_id=name, folder_path=str(folder)).repo_url)


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("export")(grouped(export))
