"""Keys and passwords: they are used, and stand in nothing that is written or shown."""

from __future__ import annotations

import copy
import io
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import root, run
from transformers import TrainingArguments

from nfox import secrets
from nfox.cli.facts import command_line
from nfox.cli.train import command as train_command
from nfox.cli.train.arguments import parse
from nfox.cli.train.published_names import RENAMED
from nfox.errors import NfoxError, UsageError
from nfox.secrets import masked_url
from nfox.text.messages import Message
from nfox.train.data.api_answerer import ApiAnswerer

SECRET = "hf_hush"
NEEDED = ["--model", "m", "--data_path", "d", "--use_cpu"]


def options_of(command: Any) -> Iterator[str]:
    yield from (str(parameter.name) for parameter in command.params)
    for below in getattr(command, "commands", {}).values():
        yield from options_of(below)


def test_every_option_that_is_called_a_secret_is_treated_as_one() -> None:
    names = {*options_of(root()), *(field.name for field in fields(TrainingArguments)), *RENAMED}
    named = {name for name in names if re.search("(key|token|password|secret)$", name)}
    assert named == secrets.OPTIONS


@pytest.mark.parametrize("name", sorted(secrets.OPTIONS))
def test_values_of_secrets_are_masked_however_they_are_typed(name: str) -> None:
    for option in (f"--{name}", f"--{name.replace('_', '-')}"):
        for typed in (
            [option, SECRET],
            [f"{option}={SECRET}"],
            [option, f"--{SECRET}=1"],
            [option, option, SECRET],
        ):
            line = command_line(["train", *typed, "--lr", "1"])
            assert SECRET not in line
            assert option in line and "***" in line and line.endswith(" --lr 1")


def test_what_is_no_secret_is_recorded_as_it_was_typed() -> None:
    words = ["--tokens", "a", "https://here/v1?x=a@b", "-p", "mail a@b.c", "--api-key"]
    assert command_line(words) == (
        "nfox --tokens a 'https://here/v1?x=a@b' -p 'mail a@b.c' --api-key"
    )
    assert masked_url("http://me:p@ss@here:80/v1") == "http://***@here:80/v1"


def test_a_training_knows_its_token_and_records_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs: list[Any] = []

    def stopped(job: Any, args: Any, notes: Any, command: str) -> Any:
        jobs.append((job, args, command))
        raise KeyboardInterrupt

    monkeypatch.setattr(train_command, "_train", stopped)
    for typed in (["--hub_token", SECRET], [f"--push-to-hub-token={SECRET}"]):
        words = [*NEEDED, "--output_dir", str(tmp_path), *typed]
        with pytest.raises(KeyboardInterrupt):
            train_command.run("medusa", words)
        job, args, command = jobs.pop()
        assert SECRET not in job.command + command
        assert "***" in job.command
        assert args.hub_token == copy.deepcopy(args).hub_token == SECRET
        written = io.BytesIO()
        torch.save(args, written)  # as in every checkpoint
        assert SECRET.encode() not in written.getvalue()
        written.seek(0)
        assert torch.load(written, weights_only=False).hub_token is None


def test_a_setting_that_is_misspelled_is_named_without_its_value(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown setting --hub_tokn$"):
        parse("medusa", [*NEEDED, "--output_dir", str(tmp_path), "--hub_tokn", SECRET], "")


def test_nfox_config_says_that_a_key_is_set_and_not_which() -> None:
    shown = run("config", "serve", NFOX_API_KEY=SECRET).stdout
    assert SECRET not in shown
    assert re.search(r'^api-key = "\*\*\*" +NFOX_API_KEY$', shown, re.MULTILINE)
    assert re.search(r"^api-key = - +default$", run("config", "serve").stdout, re.MULTILINE)


def test_an_error_of_a_server_does_not_tell_the_password_in_its_url() -> None:
    answerer = ApiAnswerer(f"http://me:{SECRET}@127.0.0.1:9/v1", "m", wait=0)
    with pytest.raises(NfoxError, match=r"\*\*\*@127") as caught:
        answerer.answer([[Message("user", "hello")]])
    assert SECRET not in caught.value.message + caught.value.hint
