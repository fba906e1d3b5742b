"""Train the CLLM adapter, on Jacobi trajectories of the target's own answers."""

import json
import subprocess
import sys
from pathlib import Path

import torch
from heads import split, train, without_folders
from safetensors.torch import load_file, save_file

from nfox.files.hub import read_json

SETTINGS = Path(__file__).with_name("cllm.yaml")
NAME = "cllm"
STRENGTH = 5 / 8
"""The factor of the adapter's scale: at full strength the target iterates faster, but answers
worse."""
WEIGHTS, CONFIG, RECORD = "adapter_model.safetensors", "adapter_config.json", "training.json"


def trajectories(target: Path, answers: Path) -> tuple[Path, Path]:
    """Collect trajectories for the answers to learn from and for those to measure on; return the
    two files.
    """
    files = []
    for questions in split(answers):
        file = questions.with_name(f"trajectories-{questions.name}")
        command = [sys.executable, "-m", "nfox.cli", "data", "trajectories", "--model", str(target)]
        command += ["--data", str(questions), "--out", str(file)]
        subprocess.run([*command, "--n", "16", "--max-new-seq-len", "256"], check=True)
        files.append(file)
    return files[0], files[1]


def train_cllm(target: Path, answers: Path, *, resume: bool) -> None:
    """Train the adapter and publish it beside the target, where nfox finds it by name."""
    work = answers.with_name(NAME)
    data = trajectories(target, answers)
    train(NAME, [str(SETTINGS)], target, data, work, resume=resume)
    publish(work, target, target / "nfox" / "adapters" / NAME)


def publish(work: Path, target: Path, folder: Path) -> None:
    """Write a trained adapter to its published folder in bf16, without paths of this machine."""
    folder.mkdir(parents=True, exist_ok=True)
    adapter = work / "adapter"
    weights = {n: w.to(torch.bfloat16) for n, w in load_file(adapter / WEIGHTS).items()}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    config = read_json(adapter / CONFIG)
    config["base_model_name_or_path"] = target.as_posix()
    config["lora_alpha"] = round(STRENGTH * config["lora_alpha"])
    record = read_json(work / RECORD)
    record["base"] = target.as_posix()
    record["training"]["strength"] = STRENGTH
    record["training"] = {key: without_folders(value) for key, value in record["training"].items()}
    for name, content in ((CONFIG, config), (RECORD, record)):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    (folder / WEIGHTS).chmod(0o644)
