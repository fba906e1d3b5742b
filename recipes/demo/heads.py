"""The heads: `nfox train` on the target's own answers."""

import subprocess
import sys
from pathlib import Path

from nfox import checkpoint
from nfox.loading import ModelOptions

SETTINGS = Path(__file__).with_name("heads.yaml")
EXTRA = {
    "medusa": ["--num_train_epochs", "6", "--medusa_num_layers", "2"],
    "chimera": ["--num_train_epochs", "4"],
    "ctc": ["--num_train_epochs", "6"],
}
HELD_OUT = 50  # one of so many answers is measured on


def split(answers: Path) -> tuple[Path, Path]:
    """Write the answers to learn from and those to measure on into two files."""
    lines = answers.read_text(encoding="utf-8").strip().split("\n")
    made = []
    for name, held in (("learn", False), ("measure", True)):
        kept = [line for i, line in enumerate(lines, 1) if (i % HELD_OUT == 0) is held]
        file = answers.with_name(f"own-{name}.jsonl")
        file.write_text("\n".join(kept) + "\n", encoding="utf-8")
        made.append(file)
    return made[0], made[1]


def train_heads(method: str, target: Path, answers: Path, *, resume: bool) -> None:
    """Train the heads of a method and put them beside the target, where nfox finds them."""
    learn, measure = split(answers)
    work = answers.with_name(method)
    train = [sys.executable, "-m", "nfox.cli", "train", method, str(SETTINGS), *EXTRA[method]]
    names = ("model_name_or_path", "data_path", "eval_data_path", "output_dir")
    for name, value in zip(names, (target, learn, measure, work), strict=True):
        train += [f"--{name}", str(value)]
    if resume and any(work.glob("checkpoint-*")):
        train += ["--resume_from_checkpoint", "true"]
    subprocess.run(train, check=True)
    publish(work, target, target / "nfox" / method)


def publish(made: Path, target: Path, folder: Path) -> None:
    """Put finished heads in place, with no path in them that means nothing elsewhere."""
    found = checkpoint.about(str(made), ModelOptions())
    names = {name: Path(found.training[name]).name for name in ("data", "measured_on")}
    words = found.training["command"].split()
    command = " ".join(Path(word).name if Path(word).is_absolute() else word for word in words)
    training = {**found.training, **names, "command": command}
    about = found.model_copy(update={"base": target.as_posix(), "training": training})
    checkpoint.write(folder, about, checkpoint.read(str(made), ModelOptions()))
    (folder / checkpoint.WEIGHTS).chmod(0o644)
