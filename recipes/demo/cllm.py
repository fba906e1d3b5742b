"""The CLLM: trajectories of the target's own answers, and an adapter that learns from them."""

import json
import subprocess
import sys
from pathlib import Path

import torch
from heads import plain, split, train
from safetensors.torch import load_file, save_file

SETTINGS = Path(__file__).with_name("cllm.yaml")
NAME = "cllm"
STRENGTH = 5 / 8
"""How much of what was learned is added to the target: all of it iterates faster and says worse
things."""
WEIGHTS, ABOUT, RECORD = "adapter_model.safetensors", "adapter_config.json", "training.json"


def trajectories(target: Path, answers: Path) -> tuple[Path, Path]:
    """Collect them for the answers to learn from and for those to measure on."""
    made = []
    for questions in split(answers):
        file = questions.with_name(f"trajectories-{questions.name}")
        command = [sys.executable, "-m", "nfox.cli", "data", "trajectories", "--model", str(target)]
        command += ["--data", str(questions), "--out", str(file)]
        subprocess.run([*command, "--n", "16", "--max-new-seq-len", "256"], check=True)
        made.append(file)
    return made[0], made[1]


def train_cllm(target: Path, answers: Path, *, resume: bool) -> None:
    """Train the adapter and put it beside the target, where nfox finds it by name."""
    work = answers.with_name(NAME)
    data = trajectories(target, answers)
    train(NAME, [str(SETTINGS)], target, data, work, resume=resume)
    publish(work, target, target / "nfox" / "adapters" / NAME)


def publish(made: Path, target: Path, folder: Path) -> None:
    """Put a finished adapter in place, in bf16, with no path in it that means nothing elsewhere."""
    folder.mkdir(parents=True, exist_ok=True)
    adapter = made / "adapter"
    weights = {n: w.to(torch.bfloat16) for n, w in load_file(adapter / WEIGHTS).items()}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    about = json.loads((adapter / ABOUT).read_text(encoding="utf-8"))
    about["base_model_name_or_path"] = target.as_posix()
    about["lora_alpha"] = round(STRENGTH * about["lora_alpha"])
    record = json.loads((made / RECORD).read_text(encoding="utf-8"))
    record["base"] = target.as_posix()
    record["training"]["strength"] = STRENGTH
    record["training"] = {key: plain(value) for key, value in record["training"].items()}
    for name, what in ((ABOUT, about), (RECORD, record)):
        (folder / name).write_text(json.dumps(what, indent=2) + "\n", encoding="utf-8")
    (folder / WEIGHTS).chmod(0o644)
