"""Commands of published programs, as their pages print them, and what their words are read as."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import folder
import pytest
import serving
from command_line import root
from typer.testing import CliRunner, Result

from nfox.cli.app import app
from nfox.cli.published_commands import Reader, reader_of

_AS_PUBLISHED = [
    (
        "",
        '--input "The quick brown fox jumps over the lazy " '
        "--target_model_name bigscience/bloomz-7b1 --approx_model_name bigscience/bloom-560m",
        "--conv-template tokenizer-or-plain --prompt 'The quick brown fox jumps over the lazy ' "
        "--model bigscience/bloomz-7b1 --draft-model bigscience/bloom-560m",
        "read as published: --conv-template tokenizer-or-plain",
    ),
    (
        "",
        "--input hi -s 1 -b -p -v -M 20 -g 4",
        "--conv-template tokenizer-or-plain --prompt hi --seed 1 -b -v -M 20 -g 4",
        "not used: -p (nfox bench",
    ),
    ("", "--input hi --seed 3 --benchmark --profiling --max_tokens 5", None, "--profiling"),
    ("", "--model FasterDecoding/medusa-vicuna-7b-v1.3", None, ""),
    (
        "",
        "--model M --base-model B --load-in-8bit --conv-template vicuna_v1.1 --temperature 0.7 "
        "--max-steps 512 --no-history --style simple --multiline --mouse --debug",
        "--model M --base-model B --load-in-8bit --conv-template vicuna_v1.1 --temperature 0.7 "
        "--max-new-tokens 512 --no-history --style simple --multiline --debug",
        "not used: --mouse",
    ),
    (
        "",
        "--model_path cllm/consistency-llm-7b-math --cllm_type gsm8k --chat --debug",
        "--model cllm/consistency-llm-7b-math --cllm_type gsm8k --method jacobi --debug",
        "",
    ),
    (
        "",
        "--model_path M --model_type llama --chat --dtype float16 --device cuda:0 --cache_dir '' "
        "--max_new_tokens 16 --max_new_seq_len 1024",
        "--model M --method jacobi --dtype float16 --device cuda:0 -o window=16 "
        "--max-new-tokens 1024",
        "not used: --model_type",
    ),
    (
        "data distill",
        "--input-filename ShareGPT_Vicuna_unfiltered/ShareGPT_V4.3_unfiltered_cleaned_split.json "
        "--output-filename mistral.json",
        "--url http://localhost:8080/v1/chat/completions "
        "--data ShareGPT_Vicuna_unfiltered/ShareGPT_V4.3_unfiltered_cleaned_split.json "
        "--out mistral.json",
        "read as published: --url http://localhost:8080",
    ),
    (
        "data distill",
        "--input-filename a.json --output-filename b.json --model M --concurrency 8",
        "--data a.json --out b.json --model M --concurrency 8",
        "",
    ),
    (
        "data distill",
        "--data_path YOUR_DATA_PATH --output_path YOUR_OUTPUT_PATH --num_threads 256 "
        "--max_tokens 2048 --temperature 0.3",
        "--url http://localhost:8000/v1/chat/completions --data YOUR_DATA_PATH "
        "--out YOUR_OUTPUT_PATH --concurrency 256 --max-new-tokens 2048 --temperature 0.3",
        "read as published",
    ),
    (
        "data trajectories",
        "--filename data/raw_data/gsm8k_train.jsonl --model GAIR/Abel-7B-001 --max_new_tokens 16 "
        "--max_new_seq_len 512 --use_aug",
        "--out data/collected_jacobi_trajectory/cleaned_gsm8k_train.jsonl_jacobi_max_new_tokens16_"
        "augTrue_labels_False_max_seq_len_512.jsonl --filename data/raw_data/gsm8k_train.jsonl "
        "--model GAIR/Abel-7B-001 --max_new_tokens 16 --max_new_seq_len 512 --use_aug",
        "read as published: --out",
    ),
    (
        "eval heads",
        "--model_path 'FasterDecoding/medusa-vicuna-7b-v1.3' --model_name medusa-vicuna-7b-v1.3 "
        "--medusa_num_heads 5 --data_path ../../data/alpaca_eval.json --save_dir ../../data",
        "--model FasterDecoding/medusa-vicuna-7b-v1.3 --data ../../data/alpaca_eval.json "
        "--out ../../data/accuracy.json",
        "not used: --medusa_num_heads",
    ),
    (
        "eval gsm8k",
        "--model_dir path_to_cllm --temperature 0.0 --top_p 1.0 "
        "--output_file_name 'cllm_generated_gsm8k.jsonl' --dev_set \"gsm8k\" "
        "--prompt_type math-single --max_new_tokens_for_consistency 16 --max_tokens 1024 "
        "--use_consistency_decoding",
        "--model path_to_cllm --temperature 0.0 --top_p 1.0 --out cllm_generated_gsm8k.jsonl "
        "--conv-template cllm-math -o window=16 --max-new-tokens 1024 --method jacobi",
        "",
    ),
    (
        "eval gsm8k",
        "--model_dir M --use_consistency_decoding",
        "--model M --method jacobi",
        "",
    ),
    (
        "eval jacobi",
        "--test_model_path M --teacher_model_path T --max_new_tokens 16 --filename test.jsonl",
        "--model M --n 16 --data test.jsonl",
        "not used: --teacher_model_path (the tokenizer",
    ),
    (
        "bench",
        "--draft-model-path checkpoint_7b_vicuna --base-model-path vicuna-7b-v1.3 --model-id vc_7b "
        "--tree-choices medusa --bench-name mt_bench --use-safetensor-weight True",
        "--answers data/mt_bench/model_answer --heads checkpoint_7b_vicuna --model vicuna-7b-v1.3 "
        "--methods ctc:tree=mc_sim_7b_63 --prompts mt-bench",
        "not used: --use-safetensor-weight",
    ),
    (
        "bench",
        "--model-path FasterDecoding/medusa-vicuna-7b-v1.3 --model-id medusa-vicuna-7b-v1.3-0",
        "--answers data/mt_bench/model_answer --model FasterDecoding/medusa-vicuna-7b-v1.3",
        "not used: --model-id",
    ),
    (
        "bench",
        "--model-path M --answer-file answers --max-new-token 1024 --num-choices 1 "
        "--num-gpus-per-model 1 --num-gpus-total 1 --temperature 0.7 --top-p 0.8 "
        "--sampling typical --fast --medusa-choices mc_sim_7b_63 --question-begin 0 "
        "--question-end 10 --load-in-8bit",
        "--model M --answers answers --max-new-tokens 1024 --temperature 0.7 --top-p 0.8 "
        "--accept typical --methods medusa:tree=mc_sim_7b_63 --limit 10 --load-in-8bit",
        "not used: --fast",
    ),
    (
        "bench",
        "--model-path M --bench-name GS_bench --max_new_tokens_for_consistency 32 "
        "--use_consistency_decoding True",
        "--model M --prompts gsm8k --methods jacobi:window=32",
        "",
    ),
    (
        "worker",
        "--model-path lmsys/vicuna-7b-v1.5 --controller http://localhost:21001 --port 31000 "
        "--worker http://localhost:31000 --model-names vicuna --limit-worker-concurrency 5",
        "--model lmsys/vicuna-7b-v1.5 --controller http://localhost:21001 --port 31000 "
        "--worker-address http://localhost:31000 --served-model-name vicuna",
        "not used: --limit-worker-concurrency",
    ),
]
"""Our command, the words of the published one, ours, and a part of what is said."""


def reader(command: str) -> Reader:
    context: Any = root().make_context("nfox", [], resilient_parsing=True)
    for name in command.split():
        found = context.command.get_command(context, name)
        context = found.make_context(name, [], parent=context, resilient_parsing=True)
    return reader_of(context.command, context)


@pytest.mark.parametrize(("command", "line", "ours", "said"), _AS_PUBLISHED)
def test_it_is_read_as_it_was_meant(
    command: str,
    line: str,
    ours: str | None,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for bench in ("mt_bench", "GS_bench"):  # they come with the published programs
        Path("data", bench).mkdir(parents=True)
    words = reader(command).read(shlex.split(line))
    told = capsys.readouterr().err
    if ours is not None:
        assert words == shlex.split(ours)
    assert said in told
    assert bool(told) == bool(said)
    assert reader(command).read(words) == words  # ours are read as they are


def test_answers_go_to_a_folder_that_can_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # without the published program's own folders
    line = "--ea-model-path H --base-model-path M --model-id vc_7b --time-eval True"
    ours = "--answers model_answer --heads H --model M"
    assert reader("bench").read(shlex.split(line)) == ours.split()
    told = capsys.readouterr().err
    assert "read as published: --answers model_answer" in told
    assert "not used: --time-eval (times are always measured)" in told


def test_what_the_environment_says_is_not_implied_otherwise(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["--input-filename", "a", "--output-filename", "b"]
    monkeypatch.setenv("NFOX_URL", "http://elsewhere/v1/chat/completions")
    assert reader("data distill").read(line) == ["--data", "a", "--out", "b"]
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("", "-p -5 --model M -s 'You are 1.' -t 0.7"),
        ("", "--prompt --chat -s '' generate --input x"),
        ("", "generate --target_model_name x"),
        ("", "--model M --fast"),  # of a benchmark; what has no meaning here stays unknown
        ("bench", "compare --model-id x"),
        ("generate", "--max-new-tokens 5 -- --input -s 1"),
        ("eval loss", "--input-filename x"),
        ("data trajectories", "--filename a.json --out b.jsonl --tree-choices medusa"),
    ],
)
def test_what_is_ours_or_nobodys_stays_as_it_is(
    command: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = shlex.split(line)
    assert reader(command).read(words) == words
    assert not capsys.readouterr().err


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)])


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A target and its draft model, neither of which has a template, as the published pair."""
    place = tmp_path_factory.mktemp("bases")
    return (
        folder.without_template(place / "target", endless=True),
        folder.without_template(place / "draft", layers=1, seed=1),
    )


def test_a_base_model_goes_on_with_the_text(
    bases: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    target, draft = bases
    models = ("--target_model_name", target, "--approx_model_name", draft, "--max_tokens", 8)
    published = run("--input", "The quick brown fox", *models, "-s", 1, "-b")
    assert published.exit_code == 0, published.stderr
    assert "texts are taken as they are" in caplog.text
    assert "identical output: yes" in published.stderr.replace("\n", " ")
    plain = run("--model", target, "-p", "The quick brown fox", "--conv-template", "plain", "-M", 8)
    assert published.stdout == plain.stdout != ""
    refused = run("--model", target, "-p", "The quick brown fox")
    assert (refused.exit_code, "no chat template" in refused.stderr) == (3, True)


def test_a_server_of_a_base_model_goes_on_with_texts(bases: tuple[Path, Path]) -> None:
    served = serving.serve(serving.load_tiny(bases[0], template="tokenizer-or-none"))
    with serving.client(served) as client:
        text = client.post("/predict", json={"prompt": "The quick", "max_tokens": 4})
        assert (text.status_code, text.json()[:9]) == (200, "The quick")
        body = {"messages": serving.QUESTION, "max_tokens": 4}
        chat = client.post("/v1/chat/completions", json=body)
        assert chat.status_code == 400
        assert "has no chat template" in chat.json()["error"]["message"]
    served.worker.stop()
