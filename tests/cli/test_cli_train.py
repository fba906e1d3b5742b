"""`nfox train` and `nfox eval heads`, run as a person runs them."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import fake_hub
import folder
import programs
import pytest
import training
from training import METHOD
from transformers import TrainingArguments
from transformers.integrations.deepspeed import unset_hf_deepspeed_config
from typer.testing import CliRunner, Result

from nfox.cli.app import app
from nfox.cli.train.interrupt import Interrupt
from nfox.errors import UsageError
from nfox.heads import checkpoint
from nfox.train.heads.job import HeadsJob
from nfox.train.job import TrainingResult
from nfox.train.run import train as run_training

SMALL = {"max_steps": 2, "use_cpu": True, "bf16": False, "logging_steps": 1, "save_steps": 99}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)])


def train(out: Path, *more: object, **changes: object) -> Result:
    needed = {"model_name_or_path": folder.llama(), "data_path": training.data()}
    settings = {**needed, "output_dir": out, f"{METHOD}_num_heads": 2, **SMALL, **changes}
    typed = [part for name, value in settings.items() for part in (f"--{name}", value)]
    return run("train", METHOD, *typed, *more)


def heads_info(out: Path) -> Any:
    info = checkpoint.read_info(str(out))
    assert info is not None
    return info


def test_heads_are_trained_measured_and_written(tmp_path: Path) -> None:
    done = train(tmp_path / "out", eval_data_path=training.data())
    assert done.exit_code == 0, done.stderr
    assert "parameters" in done.stderr
    assert "tokens" in done.stderr
    assert re.search(r"step 2 of 2: loss \d", done.stderr)
    assert re.search(r"^depth +top-1.*\n +1 +\d", done.stdout, re.MULTILINE)
    assert "tau" in done.stdout
    assert f"--method {METHOD}" in done.stdout
    info = heads_info(tmp_path / "out")
    assert info.training["learning_rate"] == 1e-3
    assert f"train {METHOD}" in info.training["command"]
    assert info.training["tokens"] > 0
    assert info.config["num_heads"] == 2
    answered = run("generate", "hello", "--model", folder.llama(), "--heads", tmp_path / "out",
                   "--max-new-tokens", 4, "--dtype", "float32", "--method", METHOD)  # fmt: skip
    assert json.loads(answered.stdout)["spec"]["method"] == METHOD


def test_the_names_of_published_commands_are_understood(tmp_path: Path) -> None:
    sizes = tmp_path / "heads.json"
    sizes.write_text('{"num_heads": 3, "num_layers": 1}')
    done = run(
        "train", METHOD, "--basepath", folder.llama(), "--tmpdir", training.data(),
        "--cpdir", tmp_path / "out", "--configpath", sizes, "--bs", 1, "--recover", "0",
        "--evaluation_strategy", "no", "--warmup-ratio=0.5", "--lazy_preprocess", "True",
        "--max_steps", 1, "--use_cpu", "--bf16", "False", "--model-max-length", 128,
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    info = heads_info(tmp_path / "out")
    assert (info.config["num_heads"], info.training["max_length"]) == (3, 128)


@pytest.mark.parametrize("kind", ["yaml", "json"])
def test_a_file_holds_the_same_names_and_typed_ones_win(kind: str, tmp_path: Path) -> None:
    config = tmp_path / f"config.{kind}"
    settings = {
        "model_name_or_path": str(folder.llama()),
        "data_path": str(training.data()),
        "output_dir": str(tmp_path / "out"),
        "lr_scheduler_kwargs": {},
        f"{METHOD}_num_heads": 2,
        "warmup_ratio": 0.1,
        "deepspeed": None,
        **SMALL,
        "max_steps": 3,
    }
    lines = [f"{name}: {json.dumps(value)}" for name, value in settings.items()]
    config.write_text(json.dumps(settings) if kind == "json" else "\n".join(lines))
    done = run("train", METHOD, config, "--max_steps", 1)
    assert done.exit_code == 0, done.stderr
    assert heads_info(tmp_path / "out").training["steps"] == 1


def parsed(*words: object, method: str = METHOD) -> tuple[HeadsJob, Any, list[str]]:
    """Read settings without training."""
    from nfox.cli.train.arguments import parse

    return parse(method, [str(word) for word in words], "")


def test_every_flag_of_the_published_commands_is_understood(tmp_path: Path) -> None:
    both = ["--evaluation_strategy", "no", "--save_steps", 200, "--save_total_limit", 2,
            "--learning_rate", "2e-4", "--weight_decay", "0.", "--warmup_ratio", 0.05,
            "--lr_scheduler_type", "cosine", "--logging_steps", 1, "--model_max_length", 1024,
            "--lazy_preprocess", "True", "--gradient_accumulation_steps", 4, "--bf16", "False",
            "--num_train_epochs", 2, "--per_device_train_batch_size", 2, "--output_dir", tmp_path,
            "--per_device_eval_batch_size", 4, "--load_in_4bit", "True", "--data_path", "d",
            "--cache_dir", tmp_path / "hub", f"--{METHOD}_num_layers", 1,
            f"--{METHOD}_num_heads", 3, "--model_name_or_path", "m"]  # fmt: skip
    job, args, notes = parsed(*both)
    assert (job.loading.quantisation, job.loading.cache_dir) == ("4bit", str(tmp_path / "hub"))
    assert (job.max_length, job.lazy, job.config["num_heads"]) == (1024, True, 3)
    assert (args.warmup_steps, args.gradient_accumulation_steps, notes) == (0.05, 4, [])
    alone = ["--tmpdir", "d", "--cpdir", tmp_path, "--basepath", "m", "--bs", 1, "--lr", "3e-5",
             "--gradient-accumulation-steps", 1, "--fixlen", 3, "--cw", 0.01, "--outdir", 0,
             "--recover", 0]  # fmt: skip
    job, args, notes = parsed(*alone)
    assert (job.config["num_heads"], args.learning_rate) == (3, 3e-5)
    assert (args.save_strategy, args.save_total_limit) == ("epoch", 1000)  # one of every epoch
    assert parsed(*alone, "--save_total_limit", 3)[1].save_total_limit == 3
    assert len(notes) == 1
    assert "--cw" in notes[0]
    job, args, notes = parsed(*alone, "--outdir", "o", "--group_by_length", "True", "--fp16")
    assert "--outdir" in "".join(notes)
    assert args.train_sampling_strategy == "group_by_length"
    assert (args.fp16, args.bf16) == (True, False)
    assert parsed(*alone, "--group_by_length", "False")[1].train_sampling_strategy == "random"


YAML = """
base_model: lmsys/vicuna-7b-v1.5
base_model_config: lmsys/vicuna-7b-v1.5
model_type: LlamaForCausalLM
tokenizer_type: LlamaTokenizer
is_llama_derived_model: true
load_in_8bit: false
load_in_4bit: true
strict: false
datasets:
  - path: ShareGPT_V4.3_unfiltered_cleaned_split.json
    type: sharegpt
dataset_prepared_path: last_run_prepared
val_set_size: 0.01
output_dir: ./stage1
adapter: qlora
lora_model_dir:
sequence_len: 4096
sample_packing: true
pad_to_sequence_len: true
lora_r: 32
lora_alpha: 16
lora_dropout: 0.05
lora_target_modules: [gate_proj, down_proj, up_proj, q_proj, v_proj, k_proj, o_proj, lm_head]
lora_target_linear:
lora_fan_in_fan_out:
lora_modules_to_save:
wandb_project:
gradient_accumulation_steps: 4
micro_batch_size: 2
num_epochs: 2
optimizer: adamw_bnb_8bit
lr_scheduler: cosine
learning_rate: 0.0005
train_on_inputs: false
group_by_length: false
bf16: auto
fp16: false
tf32: false
gradient_checkpointing: true
early_stopping_patience:
resume_from_checkpoint:
local_rank:
logging_steps: 1
xformers_attention:
flash_attention: true
warmup_steps: 40
eval_steps: 40
save_steps:
save_total_limit: 1
debug:
deepspeed:
weight_decay: 0.0
fsdp:
fsdp_config:
special_tokens:
  bos_token: "<s>"
METHOD_num_heads: 5
METHOD_num_layers: 1
METHOD_heads_coefficient: 0.2
METHOD_logging: true
METHOD_scheduler: constant
METHOD_lr_multiplier: 4.0
METHOD_only_heads: true
ddp_find_unused_parameters: true
""".replace("METHOD", METHOD)


def test_a_published_config_is_read_as_it_is(tmp_path: Path) -> None:
    config = tmp_path / "stage1.yml"
    config.write_text(YAML)
    job, args, notes = parsed(config)
    assert (job.model, job.data) == (
        "lmsys/vicuna-7b-v1.5",
        "ShareGPT_V4.3_unfiltered_cleaned_split.json",
    )
    assert (job.loading.quantisation, job.max_length, job.config["num_heads"]) == ("4bit", 4096, 5)
    assert (job.joint.base, job.joint.effective_lr_multiplier) == ("frozen", 4.0)
    assert (args.per_device_train_batch_size, args.num_train_epochs) == (2, 2)
    assert (args.optim, args.lr_scheduler_type) == ("adamw_bnb_8bit", "cosine")
    assert (args.activation_checkpointing, args.warmup_steps) == (True, 40)
    report = " ".join(notes)
    for name in ("base_model_config", "val_set_size", "sample_packing", "flash_attention",
                 "special_tokens", "eval_steps"):  # fmt: skip
        assert report.count(f"--{name}") == 1
    assert "--strict" not in report  # it is off
    changed = YAML.replace("type: sharegpt", "type: sharegpt\n    conversation: chatml")
    config.write_text(changed)
    assert parsed(config)[0].template == "chatml"


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--fsdp_transformer_layer_cls_to_wrap", "LlamaDecoderLayer"], "ZeRO-2"),
        (["--train_on_inputs", "true"], "only replies"),
        (["--lora_target_modules", "q_proj", "v_proj"], "all linear layers"),
        (["--lora_model_dir", "stage1"], "--heads"),
        (["--early_stopping_patience", "3"], "Ctrl-C"),
        (["--label_smoothing_factor", "0.1"], "papers"),
        (["--save_safetensors", "False"], "safetensors"),
        (["--datasets", '{"path": "a"}', '{"path": "b"}'], "one JSON file"),
        (["--datasets", '{"path": "a", "type": "alpaca"}'], "sharegpt"),
    ],
)
def test_what_is_not_offered_says_what_is(words: list[str], hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        parsed(*words)
    assert hint in f"{caught.value.message} {caught.value.hint}"
    assert "\n" not in f"{caught.value.message}{caught.value.hint}"


NEEDED = ["--model_name_or_path", "x", "--data_path", "y"]


def test_data_to_measure_on_are_measured_on_as_training_goes(tmp_path: Path) -> None:
    needed = [*NEEDED, "--output_dir", tmp_path]
    _, args, notes = parsed(*needed, "--eval_data_path", "z")
    assert (args.eval_strategy, args.eval_steps, notes) == ("steps", 0.1, [])
    _, args, notes = parsed(*needed, "--eval_data_path", "z", "--eval_steps", 40)
    assert (args.eval_strategy, args.eval_steps, notes) == ("steps", 40, [])
    _, args, _ = parsed(*needed, "--eval_data_path", "z", "--evaluation_strategy", "no")
    assert args.eval_strategy == "no"
    assert parsed(*needed)[1].eval_strategy == "no"
    _, args, notes = parsed(*needed, "--evaluation_strategy", "epoch")  # as published for CLLMs
    assert args.eval_strategy == "no"
    assert "--eval_strategy" in notes[0] and "--eval_data_path" in notes[0]


def test_a_report_to_what_is_not_there_names_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nfox.cli.train import reporting

    needed = [*NEEDED, "--output_dir", tmp_path]
    monkeypatch.setattr(reporting, "get_available_reporting_integrations", lambda: ["wandb"])
    parsed(*needed, "--report_to", "wandb")
    for name, package in (("tensorboard", "tensorboard"), ("comet_ml", "comet-ml")):
        with pytest.raises(UsageError, match=f"needs {package}") as caught:
            parsed(*needed, "--report_to", name)
        assert caught.value.hint == f"pip install {package}"
    with pytest.raises(UsageError, match="not known"):
        parsed(*needed, "--report_to", "nowhere")


@pytest.mark.slow
@pytest.mark.parametrize("bits", [4, 8])
def test_the_command_printed_after_a_quantised_training_quantises(
    bits: int, tmp_path: Path
) -> None:
    """In processes of their own: libraries warn once, and while they are imported."""
    pytest.importorskip("bitsandbytes")
    settings = {"model_name_or_path": folder.llama(), "data_path": training.data(),
                "output_dir": tmp_path, f"load_in_{bits}bit": True, "adapter": "lora",
                **SMALL, "max_steps": 1}  # fmt: skip
    typed = [str(part) for name, value in settings.items() for part in (f"--{name}", value)]
    if bits == 4:
        command = [*programs.COMMAND, "train", METHOD, *typed]
        done = subprocess.run(command, capture_output=True, text=True, env=programs.ENVIRONMENT)
    else:
        done = programs.run("train", METHOD, *typed)
    assert done.returncode == 0, done.stderr
    assert f"nfox --model {folder.llama()} --load-in-{bits}bit --adapter" in done.stdout
    foreign = [line for line in done.stderr.splitlines() if not line.startswith("nfox: ")]
    assert not foreign


@pytest.mark.slow
@pytest.mark.parametrize("method", training.METHODS)
def test_labels_that_are_not_the_papers_are_reported(method: str, tmp_path: Path) -> None:
    from nfox.train.heads.job import heads_class

    lines: list[str] = []
    for target_labels in (False, True):
        job = training.job(method, target_labels=target_labels)
        run_training(job, training.arguments(tmp_path, max_steps=1), log=lines.append)
    count = sum("--labels target" in line for line in lines)
    assert count == heads_class(method).heads_class.learns_target_labels


def test_sharding_by_the_launcher_is_refused_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    job, args, _ = parsed(*NEEDED, "--output_dir", tmp_path)
    with pytest.raises(UsageError, match="a GPU each"):
        run_training(replace(job, model=str(folder.llama()), data=str(training.data())), args)


@pytest.mark.slow
def test_the_published_line_of_ctc_runs_and_goes_on_from_an_epoch(tmp_path: Path) -> None:
    """As its page prints it: the config is that of a Llama, the data are a folder."""
    data = tmp_path / "train_data_vicuna7b"
    data.mkdir()
    records = json.loads(training.data().read_text())
    (data / "data.json").write_text(json.dumps(records[:2]))
    line = ("train", "ctc", "--tmpdir", data, "--cpdir", tmp_path / "out", "--basepath",
            folder.llama(), "--configpath", folder.llama() / "config.json", "--bs", 1, "--use_cpu",
            "--num_train_epochs", 2)  # fmt: skip
    done = run(*line)
    assert done.exit_code == 0, done.stderr
    assert done.stderr.count("not used: --configpath (it describes a model;") == 1
    assert "about 4 steps of 1 example" in done.stderr
    again = run(*line, "--recover", 0)
    assert again.exit_code == 0, again.stderr
    assert f"goes on from {tmp_path / 'out' / 'checkpoint-2'}" in again.stderr  # 2 steps an epoch
    late = run(*line, "--recover", 2)
    assert late.exit_code == 2
    assert "checkpoint-2 after 1 epochs, checkpoint-4 after 2 epochs" in late.stderr


@pytest.mark.skipif(find_spec("deepspeed") is not None, reason="it is installed here")
def test_a_package_that_is_not_installed_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^deepspeed\S* is not installed$") as caught:
        parsed(*NEEDED, "--output_dir", tmp_path, "--deepspeed", tmp_path / "deepspeed.json")
    assert caught.value.hint.startswith("pip install 'deepspeed")
    unset_hf_deepspeed_config()  # transformers keeps the half of one that it made for the process


def test_tf32_is_not_used_where_there_is_none(tmp_path: Path) -> None:
    typed = [*NEEDED, "--output_dir", tmp_path, "--tf32", "True"]
    _, args, notes = parsed(*typed)
    assert args.tf32 is None
    assert any("--tf32 (it is of NVIDIA" in note for note in notes)


def test_half_a_batch_is_a_step(tmp_path: Path) -> None:
    done = train(tmp_path, "--gradient_accumulation_steps", 64, max_steps=-1, num_train_epochs=1)
    assert done.exit_code == 0, done.stderr
    assert re.search(r"about 1 step of \d+ examples", done.stderr)
    assert re.search(r"step 1 of 1: loss", done.stderr)


def test_what_is_not_used_is_said(tmp_path: Path) -> None:
    done = train(tmp_path, "--outdir", "elsewhere", max_steps=1)
    assert done.exit_code == 0, done.stderr
    assert done.stderr.count("not used: --outdir (heads and checkpoints go to --output_dir)") == 1


@pytest.mark.slow
def test_downloads_are_kept_where_it_is_said(tmp_path: Path) -> None:
    cache = tmp_path / "kept"
    settings = {"model_name_or_path": "someone/model", "cache_dir": cache, "bf16": False,
                "data_path": training.data(), "output_dir": tmp_path / "out", "max_steps": 1,
                "use_cpu": True, "save_strategy": "no", f"{METHOD}_num_heads": 2}  # fmt: skip
    typed = [str(part) for name, value in settings.items() for part in (f"--{name}", value)]
    with fake_hub.hub(model=folder.llama()) as endpoint:
        hub = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "home")}
        done = subprocess.run(
            [*programs.COMMAND, "train", METHOD, *typed],
            env={**programs.ENVIRONMENT, **hub},
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    files = {path.name for path in cache.rglob("snapshots/*/*")}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= files
    assert not list((tmp_path / "home").rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["magic"], 2, "unknown method"),
        (["lookup"], 2, "no heads to train"),
        ([METHOD], 2, "--model_name_or_path is missing"),
        ([METHOD, *NEEDED], 2, "--output_dir is missing"),
        ([METHOD, "--learning_rte", "1"], 2, "did you mean --learning_rate"),
        ([METHOD, "--learning_rate", "much"], 2, "invalid float"),
        ([METHOD, "absent.yaml"], 2, "no such config file"),
        ([METHOD, f"--{METHOD}_feet", "1"], 2, "unknown setting"),
        ([METHOD, *NEEDED, "--output_dir", "o", "--resume_from_checkpoint", "true"], 2, "resume"),
        ([METHOD, *NEEDED[:1], "./absent", *NEEDED[2:], "--output_dir", "o"], 3, "no such folder"),
    ],
)
def test_mistakes_are_one_line_and_a_code(arguments: list[str], code: int, text: str) -> None:
    done = run("train", *arguments)
    assert done.exit_code == code, done.stderr
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2


def test_help_says_what_there_is() -> None:
    assert "METHOD" in run("train").stdout
    assert "--model_name_or_path" in run("train", "--help").stdout
    text = run("train", METHOD, "--help").stdout
    for name in ("--data_path", f"--{METHOD}_num_heads", "--gradient_accumulation_steps"):
        assert name in text


@pytest.mark.slow
def test_an_interrupt_saves_and_says_how_to_go_on(tmp_path: Path) -> None:
    settings = ["--model_name_or_path", folder.llama(), "--data_path", training.data()]
    more = ["--output_dir", tmp_path, "--max_steps", 100000, "--logging_steps", 1, "--use_cpu"]
    read, written = os.pipe()
    process = programs.start("train", METHOD, *settings, *more, stderr=written)
    os.close(written)
    with os.fdopen(read) as stderr:
        next(line for line in stderr if "step 2 of" in line)
        process.send_signal(signal.SIGINT)
        rest = stderr.read()
    assert process.wait(120) == 130, rest
    assert "--resume_from_checkpoint true" in rest
    assert len(list(tmp_path.glob("checkpoint-*/trainer_state.json"))) == 1


@pytest.mark.parametrize("processes", [1, 2])
def test_who_goes_on_starts_as_many_processes(
    processes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "checkpoint-1"
    stopped = TrainingResult(folder, True, "m")
    monkeypatch.setattr("nfox.train.run.train", lambda *_, **__: stopped)
    monkeypatch.setattr(TrainingArguments, "world_size", processes)
    done = run("train", METHOD, *NEEDED, "--output_dir", tmp_path, "--hub_token", "hush")
    assert done.exit_code == 130
    assert f"{folder} is written" in done.stderr
    assert done.stderr.strip().endswith("--resume_from_checkpoint true") is (processes == 1)
    assert (f"nfox train {METHOD}" in done.stderr) is (processes == 1)
    assert ("launcher of these 2 processes" in done.stderr) is (processes == 2)
    assert "--resume_from_checkpoint true" in done.stderr
    assert "hush" not in done.stderr


class Pressing(io.RawIOBase):
    """A terminal at which Ctrl-C is pressed while the first line is written."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        if not self.lines:
            self.lines.append(bytes(data))
            signal.raise_signal(signal.SIGINT)
        else:
            self.lines.append(bytes(data))
        return len(data)


def test_an_interrupt_in_the_middle_of_a_line_is_told_behind_it() -> None:
    terminal = Pressing()
    file = io.TextIOWrapper(io.BufferedWriter(terminal), line_buffering=True)
    with Interrupt(lambda line: print(line, file=file)) as interrupt:
        interrupt.on_train_begin(None, None, None)
        print("step 1", file=file)
        assert interrupt.requested()
        assert interrupt.requested()
    file.flush()
    assert [line.split()[0] for line in terminal.lines] == [b"step", b"stopping"]


@pytest.mark.slow
@pytest.mark.parametrize("method", training.METHODS)
def test_heads_are_measured_and_the_best_tree_found(method: str, tmp_path: Path) -> None:
    job = training.job(method, target_labels=True)
    training.learn(tmp_path / "heads", job, max_steps=60, save_steps=99)
    # The heads that are named decide, though a draft model and other heads lie beside the model.
    engine = ("--model", folder.equipped(), "--dtype", "float32", "--limit", 5)
    heads_options = ("--heads", tmp_path / "heads", "--data", training.data())
    written = ("--out", tmp_path / "out.json", "--picture", tmp_path / "out.svg")
    done = run("eval", "heads", *engine, *heads_options, "--nodes", 7, *written)
    assert done.exit_code == 0, done.stderr
    result = json.loads((tmp_path / "out.json").read_text())
    assert (result["method"], result["heads"]) == (method, str(tmp_path / "heads"))
    assert (result["conversations"], result["places"] > 0) == (5, True)
    assert len(result["tree"]) <= 7
    assert len(result["accuracy"]) == 2
    assert result["accuracy"][0][0] > 0.1
    assert "largest tree: 7 nodes" in done.stdout
    assert "\x1b" not in done.stdout
    assert done.stdout.count("rank ") == len(result["tree"])
    ElementTree.parse(tmp_path / "out.svg")
    tree = ("--tree", tmp_path / "out.json", "--max-new-tokens", 4)
    answered = run("generate", "hello", *engine[:-2], *heads_options[:2], *tree)
    nothing_pays = not result["tree"]  # on a busy machine
    assert answered.exit_code == (2 if nothing_pays else 0), answered.stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "--data is missing"),
        (["--data", "x.json", "--method", "none"], "no heads"),
        (["--data", "x.json"], "there are no heads for"),
        (["--data", "x.json", "--picture", "x.png"], "written as SVG"),
    ],
)
def test_measuring_needs_data_and_heads(arguments: list[str], text: str) -> None:
    done = run("eval", "heads", "--model", folder.llama(), *arguments)
    assert done.exit_code == 2
    assert text in done.stderr


@pytest.mark.slow
def test_the_command_that_talks_to_both_is_printed(tmp_path: Path) -> None:
    first = train(tmp_path / "one")
    assert first.exit_code == 0, first.stderr
    out = tmp_path / "two"
    second = train(out, heads=tmp_path / "one", adapter="lora")
    assert second.exit_code == 0, second.stderr
    assert "the base is trained with them, by LoRA of rank 32" in second.stderr
    command = f"nfox --model {folder.llama()} --adapter {out / 'adapter'} --method {METHOD}"
    assert f"{command} --heads {out}" in second.stdout
    third = train(tmp_path / "three", full_weights=True)
    assert third.exit_code == 0, third.stderr
    assert f"nfox --model {tmp_path / 'three' / 'base'} --method" in third.stdout


def test_settings_of_an_adapter_are_said_where_none_is_trained(tmp_path: Path) -> None:
    typed = [*NEEDED, "--output_dir", tmp_path, "--lora_r", 8]
    *_, notes = parsed(*typed, f"--{METHOD}_scheduler", "sine")
    assert sum("--lora_r (no adapter is trained" in note for note in notes) == 1
    assert sum(f"--{METHOD}_scheduler (the base is not trained)" in note for note in notes) == 1
    *_, notes = parsed(*typed, "--adapter", "lora", f"--{METHOD}_scheduler", "sine")
    assert notes == []
    *_, notes = parsed(*typed, method="cllm")
    assert sum("--lora_r" in note for note in notes) == 1
