"""A name of a model may be anything, since files hold names too."""

from __future__ import annotations

from pathlib import Path

import pytest

from nfox.errors import ModelError
from nfox.files.hub import HubOptions, file_of, local_folder, model_files
from nfox.models.loading import load_model

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
    "index",
    ['{"weight_map": {"a": "../x"}}', '{"weight_map": {"a": 1}}', '{"weight_map": 7}', "{}"],
)
def test_an_index_names_files_beside_it(tmp_path: Path, index: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(ModelError, match=r"model.safetensors.index.json: .*") as caught:
        model_files(str(tmp_path), HubOptions())
    assert "weight_map" in caught.value.message + caught.value.hint
