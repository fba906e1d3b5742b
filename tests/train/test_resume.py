"""Checkpoints that cannot be gone on from, and disks that are full: one line that is true."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from training import METHOD, METHODS, job, learn

from nfox.errors import ModelError, NfoxError
from nfox.heads.checkpoint import INFO_FILE
from nfox.train.checkpoints import checkpoints, training_disk_full
from nfox.train.heads.joint_training import JointTraining

pytestmark = pytest.mark.slow

FILES = ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth"]


def refused(folder: Path, point: str, **changes: object) -> ModelError:
    """Return why a training does not go on."""
    with pytest.raises(ModelError) as caught:
        learn(folder, job(**changes), resume_from_checkpoint=point)  # type: ignore[arg-type]
    assert "\n" not in caught.value.message + caught.value.hint
    return caught.value


@pytest.mark.parametrize("name", FILES)
def test_a_cut_checkpoint_names_the_last_whole_one(name: str, tmp_path: Path) -> None:
    learn(tmp_path)
    cut = tmp_path / "checkpoint-6" / name
    cut.write_bytes(cut.read_bytes()[:-40])
    error = refused(tmp_path, "6")
    assert name in error.message
    assert "last whole one is checkpoint-3" in error.hint
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-3"]
    _, later = learn(tmp_path, resume_from_checkpoint="true")
    assert list(later.losses) == [4, 5, 6]


@pytest.mark.parametrize("name", FILES[1:])
def test_what_only_reading_finds_is_one_line_too(name: str, tmp_path: Path) -> None:
    learn(tmp_path, max_steps=4)
    point = tmp_path / "checkpoint-3"
    torch.save({"param_groups": [], "state": {}}, point / name)
    assert str(point) in refused(tmp_path, "3").message


def test_the_only_checkpoint_has_none_to_take_in_its_place(tmp_path: Path) -> None:
    learn(tmp_path, max_steps=3)
    cut = tmp_path / "checkpoint-3" / "model.safetensors"
    cut.write_bytes(cut.read_bytes()[:-40])
    assert "leave --resume_from_checkpoint out" in refused(tmp_path, "3").hint


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize("foreign", ["method", "size", "base"])
def test_the_checkpoint_of_another_training_is_refused(
    foreign: str, finished: bool, tmp_path: Path
) -> None:
    learn(tmp_path)
    changes = {
        "method": {"method": METHODS[0]},
        "size": {"config": {"num_heads": 3}},
        "base": {"joint": JointTraining(base="lora", rank=4)},
    }[foreign]
    assert METHODS[0] != METHOD
    (tmp_path / INFO_FILE).unlink()  # as where it was stopped: heads would be refused before
    error = refused(tmp_path, "6" if finished else "3", **changes)
    assert "of another training" in error.message


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_disk_may_be_full_in_several_ways(code: int, tmp_path: Path) -> None:
    said = os.strerror(code)
    for error in (OSError(code, said), SafetensorError(f"I/O error: {said} (os error {code})")):
        with pytest.raises(NfoxError, match="disk is full"), training_disk_full(tmp_path):
            raise error


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device")
def test_torch_does_not_say_that_a_disk_is_full_but_it_is_known(tmp_path: Path) -> None:
    with pytest.raises(NfoxError, match="disk is full"), training_disk_full(tmp_path):
        torch.save({"a": torch.zeros(100_000)}, "/dev/full")


def test_where_no_checkpoint_is_none_is_to_be_gone_on_from(tmp_path: Path) -> None:
    with pytest.raises(NfoxError) as caught, training_disk_full(tmp_path):
        raise OSError(errno.ENOSPC, "")
    assert "no checkpoint was written" in caught.value.message
    assert "--resume_from_checkpoint" not in caught.value.hint
