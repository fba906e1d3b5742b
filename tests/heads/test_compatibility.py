"""Heads and the base they were trained on: when they are told to be for another one."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import folder
import pytest
import tiny
import torch
from training import FLOAT32, job, learn

from nfox.heads import checkpoint
from nfox.heads.compatibility import FINGERPRINT_KEY, _is_close, fingerprint
from nfox.loader import load
from nfox.models.loading import load_model
from nfox.models.options import ModelOptions
from nfox.train.heads.joint_training import JointTraining


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
def test_a_base_in_another_dtype_is_the_same(family: str, dtype: torch.dtype) -> None:
    own = fingerprint(tiny.target(family))
    assert len(own) == 16
    assert _is_close(own, fingerprint(tiny.recast(family, dtype)))
    assert not _is_close(own, fingerprint(tiny.draft(family)))


def test_heads_say_when_their_base_is_another_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    learn(tmp_path / "heads", max_steps=1)
    place = str(tmp_path / "heads")
    moved = shutil.copytree(folder.llama(), tmp_path / "moved")
    other = folder.llama(seed=1)
    for model, lines in ((folder.llama(), 0), (moved, 0), (other, 1)):
        caplog.clear()
        load(str(model), loading=FLOAT32, heads=place)
        assert len(caplog.records) == lines
    assert caplog.records[0].levelno == logging.WARNING
    assert str(folder.llama()) in caplog.text
    about = tmp_path / "heads" / checkpoint.INFO_FILE
    said = json.loads(about.read_text())
    said["training"].pop(FINGERPRINT_KEY)  # as older versions wrote it
    about.write_text(json.dumps(said))
    caplog.clear()
    load(str(other), loading=FLOAT32, heads=place)
    assert not caplog.records


def test_heads_trained_with_an_adapter_name_the_flag_that_adds_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    done, _ = learn(tmp_path, job(joint=JointTraining(base="lora", rank=4)), max_steps=1)
    load(done.model, loading=FLOAT32, heads=str(tmp_path))
    assert f"--adapter {done.adapter}" in caplog.text
    assert len(caplog.records) == 1
    caplog.clear()
    adapted = ModelOptions(dtype="float32", device="cpu", adapter=str(done.adapter))
    load(done.model, loading=adapted, heads=str(tmp_path))
    merged = load_model(done.model, adapted).target.model
    shutil.copytree(folder.llama(), tmp_path / "merged")
    merged.save_pretrained(tmp_path / "merged")
    load(str(tmp_path / "merged"), loading=FLOAT32, heads=str(tmp_path))
    assert not caplog.records
