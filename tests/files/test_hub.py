"""A name of a model may be anything, since files hold names too."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import folder
import pytest

from nfox import load
from nfox.errors import ModelError
from nfox.files.hub import HubOptions, file_of, model_files
from nfox.files.model_names import check_hub_id, local_folder
from nfox.models.loading import load_model
from nfox.models.options import ModelOptions

NAMES = ("x" * 5000, "/" + "x" * 300, "~nosuchperson/x", "a\0b", "/dev/null/x", "~" * 300)


@pytest.mark.parametrize("name", NAMES, ids=lambda name: repr(name)[:20])
def test_what_no_file_system_takes_is_no_folder_and_no_model(name: str) -> None:
    assert local_folder(name) is None
    with pytest.raises(ModelError) as caught:
        load_model(name)
    assert "\n" not in caught.value.message


def test_a_folder_is_one_also_below_the_persons_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    assert local_folder("~/model") == tmp_path / "model"
    assert file_of("~/model", "config.json", HubOptions()) == tmp_path / "model" / "config.json"
    assert local_folder("~/model/config.json") is None


@pytest.mark.parametrize(
    ("name", "known"),
    [
        *((name, "smollm2") for name in ("smolm2", "SmolLM2", "SmolLM2-135M")),
        ("embeded", "embedded"),
    ],
)
def test_a_name_that_is_nearly_known_is_refused_before_the_hub_is_asked(
    name: str, known: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nfox.files.hub._download", None)
    with pytest.raises(ModelError, match=f"{name}: no such folder") as unknown:
        load_model(name)
    assert unknown.value.hint == f"did you mean {known}?"


def test_a_file_may_have_a_name_that_is_nearly_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"smollm2\.gguf"):
        check_hub_id("smollm2.gguf")
    (tmp_path / "smollm2.gguf").write_bytes(b"GGUF")
    check_hub_id("smollm2.gguf")


def test_a_hub_that_cannot_be_reached_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def unreachable(url: str, timeout: float) -> None:
        asked.append(url)
        raise RuntimeError("an error of some client")

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", unreachable)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", None)
    with pytest.raises(ModelError, match="some/model: the hub cannot be reached"):
        load_model("some/model")
    assert len(asked) == 1 and "some/model" in asked[0]


def test_offline_says_so_where_a_model_is_not_there() -> None:
    with pytest.raises(ModelError, match="some/model: it is not in the local cache") as absent:
        load_model("some/model", ModelOptions(offline=True))
    assert absent.value.hint == "leave --offline out, or pass a folder"


@pytest.mark.parametrize(
    "index",
    ['{"weight_map": {"a": "../x"}}', '{"weight_map": {"a": 1}}', '{"weight_map": 7}', "{}"],
)
def test_an_index_names_files_beside_it(tmp_path: Path, index: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(ModelError, match=r"model.safetensors.index.json: .*") as caught:
        model_files(str(tmp_path), HubOptions())
    assert "weight_map" in caught.value.message + caught.value.hint


def test_loading_asks_the_hub_for_each_file_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every method looks for its own weights in heads that a person names."""
    asked = Counter[str]()

    def download(repository: str, name: str, *_: object) -> None:
        asked[name] += 1

    monkeypatch.setattr("nfox.files.hub._download", download)
    for _ in range(2):  # what is there may be another file by then
        with pytest.raises(ModelError, match="some/heads holds no heads"):
            load(str(folder.llama()), heads="some/heads")
    assert "config.json" in asked and {*asked.values()} == {2}
