"""`nfox export`: layouts, the name of the base, and uploads that are checked before the work."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import folder
import pytest
import torch
from click.testing import Result
from safetensors.torch import load_file
from typer.testing import CliRunner

from nfox import drafters
from nfox.cli.app import app
from nfox.drafters.common.heads import HeadsDrafter
from nfox.drafters.medusa import Medusa, MedusaConfig, MedusaHeads
from nfox.files.hub import HubOptions
from nfox.heads import checkpoint
from nfox.heads.checkpoint import HeadsInfo, write
from nfox.models.loading import load_model
from nfox.models.options import LoadedModel, ModelOptions

OTHERS = [
    name
    for name in drafters.method_names()
    if name != "medusa" and issubclass(drafters.method_class(name), HeadsDrafter)
]


def export(method: str, heads: Path, out: Path, *more: str) -> Result:
    return CliRunner().invoke(app, ["export", method, str(heads), "--out", str(out), *more])


def medusa(place: Path, base: str, *, own: bool = True, **training: Any) -> Path:
    torch.manual_seed(2)
    config = MedusaConfig(hidden_size=64, vocab_size=320, num_heads=2, own_vocabulary=own)
    about = HeadsInfo(method="medusa", base=base, config=config.model_dump(), training=training)
    write(place, about, MedusaHeads(config).state_dict())
    return place


def refused(done: Result, said: str, code: int = 2) -> None:
    assert done.exit_code == code, done.stderr
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2


@pytest.mark.parametrize("own", [True, False])
def test_exported_heads_are_in_the_published_layout_and_guess_alike(
    tmp_path: Path, own: bool
) -> None:
    base = folder.llama()
    out = tmp_path / "out"
    done = export("medusa", medusa(tmp_path / "heads", str(base), own=own), out)
    assert done.exit_code == 0, done.stderr
    said = json.loads((out / "config.json").read_text())
    assert said["base_model_name_or_path"] == str(base)
    assert (said["medusa_num_heads"], said["medusa_num_layers"]) == (2, 1)
    assert sorted(load_file(out / "medusa_lm_head.safetensors")) == sorted(
        f"{k}.{name}" for k in range(2) for name in ("0.linear.weight", "0.linear.bias", "1.weight")
    )
    target = load_model(str(base), ModelOptions(dtype="float32")).target
    hidden = torch.randn(5, 64)
    one, _ = Medusa.load_heads(LoadedModel("x", target), str(tmp_path / "heads"), HubOptions())
    other, _ = Medusa.load_heads(LoadedModel("x", target), str(out), HubOptions())
    with torch.inference_mode():
        same = torch.allclose(
            one.logits(hidden, target).float(), other.logits(hidden, target).float(), atol=0.05
        )
    assert same


@pytest.mark.parametrize("method", OTHERS)
def test_heads_without_a_published_layout_keep_their_own(method: str, tmp_path: Path) -> None:
    heads, out = folder.equipped() / "nfox" / method, tmp_path / "out"
    done = export(method, heads, out, "--base-model", "some/base")
    assert done.exit_code == 0, done.stderr
    was, now = checkpoint.read_info(str(heads)), checkpoint.read_info(str(out))
    assert was is not None
    assert now == was.model_copy(update={"base": "some/base"})
    one, other = checkpoint.read_weights(str(heads)), checkpoint.read_weights(str(out))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_methods_without_heads_are_refused(tmp_path: Path) -> None:
    refused(export("lookup", tmp_path, tmp_path / "out"), "no heads")


def test_the_base_that_was_named_is_written_down(tmp_path: Path) -> None:
    heads = medusa(tmp_path / "heads", "/moved/away")
    base = str(folder.llama())
    assert export("medusa", heads, tmp_path / "out", "--base-model", base).exit_code == 0
    said = json.loads((tmp_path / "out" / "config.json").read_text())
    assert said["base_model_name_or_path"] == base


def test_heads_that_need_an_adapter_are_refused_until_it_is_merged(tmp_path: Path) -> None:
    base = str(folder.llama())
    heads = medusa(tmp_path / "heads", base, joint={"base": "lora"})
    refused(export("medusa", heads, tmp_path / "out"), "LoRA")
    assert export("medusa", heads, tmp_path / "out", "--base-model", base).exit_code == 0


def test_a_full_disk_is_one_line_and_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads, out = medusa(tmp_path / "heads", str(folder.llama())), tmp_path / "out"
    assert export("medusa", heads, out).exit_code == 0
    before = {file.name: file.read_bytes() for file in out.iterdir()}

    def full(tensors: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("nfox.files.atomic.save_file", full)
    refused(export("medusa", heads, out), f"{out}: the disk is full", 1)
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    """A hub client that remembers what it is asked, and fails where it is told to."""

    def made(fails: str = "") -> list[Any]:
        asked: list[Any] = []

        def ask(name: str) -> Callable[..., Any]:
            def act(*arguments: Any, **more: Any) -> Any:
                asked.append((name, arguments, more))
                if name == fails:
                    raise OSError(f"{name} failed\nand a long story")
                return SimpleNamespace(repo_url="https://hub/me/heads")

            return act

        client = SimpleNamespace(**{n: ask(n) for n in ("whoami", "create_repo", "upload_folder")})
        monkeypatch.setattr("huggingface_hub.HfApi", lambda: client)
        return asked

    return made


@pytest.mark.parametrize("method", ["medusa", *OTHERS])
def test_heads_are_uploaded_and_nothing_else(
    method: str, tmp_path: Path, hub: Callable[..., list[Any]]
) -> None:
    asked, out = hub(), tmp_path / "out"
    out.mkdir()
    (out / "diary.txt").write_text("dear diary")
    heads = folder.equipped() / "nfox" / method
    if method == "medusa":
        heads = medusa(tmp_path / "heads", str(folder.llama()))
    done = export(method, heads, out, "--base-model", "some/base", "--push-to-hub", "me/heads")
    assert done.exit_code == 0, done.stderr
    assert "https://hub/me/heads" in done.stdout
    assert [name for name, _, _ in asked] == ["whoami", "create_repo", "upload_folder"]
    sent = asked[-1][2]["allow_patterns"]
    assert sorted(sent) == sorted(p.name for p in out.iterdir() if p.name != "diary.txt")


@pytest.mark.parametrize(
    ("name", "fails", "said", "code"),
    [("no/such/name", "", "--push-to-hub", 2), ("me/heads", "whoami", "whoami failed", 1)],
)
def test_name_and_login_are_checked_before_the_work(
    name: str, fails: str, said: str, code: int, tmp_path: Path, hub: Callable[..., list[Any]]
) -> None:
    hub(fails)
    heads = medusa(tmp_path / "heads", str(folder.llama()))
    more = ("--base-model", "some/base", "--push-to-hub", name)
    refused(export("medusa", heads, tmp_path / "out", *more), said, code)
    assert not (tmp_path / "out").exists()


def test_an_upload_that_fails_is_one_line(tmp_path: Path, hub: Callable[..., list[Any]]) -> None:
    hub("upload_folder")
    heads = medusa(tmp_path / "heads", str(folder.llama()))
    more = ("--base-model", "some/base", "--push-to-hub", "me/heads")
    done = export("medusa", heads, tmp_path / "out", *more)
    refused(done, "upload_folder failed", 1)
    assert "long story" not in done.stderr


def test_a_base_that_nobody_else_has_is_not_published(
    tmp_path: Path, hub: Callable[..., list[Any]]
) -> None:
    asked = hub()
    heads = medusa(tmp_path / "heads", "/a/folder/of/mine")
    done = export("medusa", heads, tmp_path / "out", "--push-to-hub", "me/heads")
    refused(done, "--base-model")
    assert not asked
