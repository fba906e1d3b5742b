"""What forwards take over their width and the context, beside the memory's floor."""

from __future__ import annotations

import json
from pathlib import Path

import folder
import pytest
import tiny
import torch
from test_bench_report import MACHINE, cut
from typer.testing import CliRunner

from nfox.cli.app import app
from nfox.eval.bench import forwards
from nfox.eval.bench.forwards import ForwardsResult, ForwardTime, bytes_per_second, weight_bytes
from nfox.eval.bench.result import read
from nfox.eval.report.forward_plots import forward_plots
from nfox.models.native.library import NativeLibraryError, native_library
from nfox.models.options import WeightBits
from nfox.models.quantised_layers import quantise_layers


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read to measure the memory is small."""
    monkeypatch.setitem(forwards._MOST_READ, "cpu", 1 << 24)


def made() -> ForwardsResult:
    """Forwards of 1 ms for a token, .25 ms for each more, and 1 ms for a thousand of context."""
    times = [
        ForwardTime(context=c, width=n, seconds=1.0, fastest=(1 + 0.25 * (n - 1) + c / 1000) / 1000)
        for c in (128, 1024)
        for n in (1, 2, 8)
    ]
    return ForwardsResult(
        machine=MACHINE, target="a model", forward="by hand", weight_bytes=10**7,
        bytes_per_second=1e10, times=times,
    )  # fmt: skip


def test_the_plot_has_the_fastest_forwards_and_the_floor() -> None:
    result = made()
    assert result.floor == pytest.approx(1e-3)
    figure = forward_plots(result)["forwards"]
    over_width, over_context = figure.axes
    lines = {str(line.get_label()): list(line.get_ydata()) for line in over_width.get_lines()}
    assert lines["after 1,024 tokens"] == pytest.approx([2.024, 2.274, 3.774])
    assert set(lines["reading the weights once: 1.0 ms"]) == {1.0}
    lines = {str(line.get_label()): list(line.get_ydata()) for line in over_context.get_lines()}
    assert lines["8 at once"] == pytest.approx([2.878, 3.774])
    assert cut(figure) == []


def test_the_command_writes_what_it_measured(tmp_path: Path) -> None:
    out = tmp_path / "forwards.json"
    done = CliRunner().invoke(
        app,
        ["bench", "forwards", "--model", str(folder.llama()), "--dtype", "float32",
         "--widths", "1,4", "--contexts", "16,64,2000", "--rounds", "2", "--json", str(out),
         "--plots", str(tmp_path / "plots")],
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    assert "no room for 2000" in done.stderr
    result = read(out, ForwardsResult)
    assert [(time.context, time.width) for time in result.times] == [
        (16, 1), (16, 4), (64, 1), (64, 4),
    ]  # fmt: skip
    assert all(0 < time.fastest <= time.seconds for time in result.times)
    assert json.loads(out.read_text())["schema"] == "nfox.bench.forwards/1"
    assert f"{1e3 * result.fastest(64, 4):.2f}" in done.stdout
    assert (tmp_path / "plots" / "forwards.svg").read_text().startswith("<?xml")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--widths", "1,none"], "--widths: 'none' is no number of tokens"),
        (["--contexts", ","], "--contexts lists no numbers of tokens"),
        (["--contexts", "600"], "none fits into a context of 512"),
    ],
)
def test_mistakes_are_one_line(words: list[str], said: str) -> None:
    done = CliRunner().invoke(app, ["bench", "forwards", "--model", str(folder.llama()), *words])
    assert done.exit_code == 2
    assert said in done.stderr


def test_the_bytes_of_a_forward_are_those_of_all_weights_but_rows_of_an_embedding() -> None:
    target = tiny.target()
    model = target.model
    everything = sum(weight.numel() * weight.itemsize for weight in model.parameters())
    embedding = model.get_input_embeddings().weight
    assert embedding is not model.get_output_embeddings().weight
    assert weight_bytes(target) == everything - embedding.numel() * embedding.itemsize
    assert 1e8 < bytes_per_second(torch.device("cpu"), rounds=1) < 1e13


@pytest.mark.parametrize(("weight_format", "size"), [("int8", 34), ("int4", 20)])
def test_quantised_weights_are_counted_as_they_are_packed(
    weight_format: WeightBits, size: int
) -> None:
    """The vocabulary matrix has 8 bits in both."""
    try:
        native_library()
    except NativeLibraryError as error:
        pytest.skip(f"no native library: {error}")
    target = tiny.recast("llama", torch.bfloat16)
    head, embedding = (
        target.model.get_output_embeddings(),
        target.model.get_input_embeddings(),
    )
    norms = sum(weight.nbytes for weight in target.model.parameters() if weight.dim() == 1)
    layers = sum(weight.numel() for weight in target.model.parameters() if weight.dim() > 1)
    layers -= head.weight.numel() + embedding.weight.numel()
    expected = norms + (layers * size + head.weight.numel() * 34) // 32
    quantise_layers("a model", target.model, weight_format)
    assert weight_bytes(target) == expected
