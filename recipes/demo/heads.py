"""The heads: `nfox train` on the target's own answers, and how it is called, for the draft too."""

import subprocess
import sys
from pathlib import Path

from nfox.heads import checkpoint
from nfox.models.options import ModelOptions

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


def train(
    method: str,
    settings: list[str],
    target: Path,
    data: tuple[Path, Path],
    work: Path,
    resume: bool,
) -> None:
    """Call `nfox train` with a settings file and more, on data to learn from and to measure on."""
    command = [sys.executable, "-m", "nfox.cli", "train", method, *settings]
    names = ("model_name_or_path", "data_path", "eval_data_path", "output_dir")
    for name, value in zip(names, (target, *data, work), strict=True):
        command += [f"--{name}", str(value)]
    if resume and any(work.glob("checkpoint-*")):
        command += ["--resume_from_checkpoint", "true"]
    subprocess.run(command, check=True)


def train_heads(method: str, target: Path, answers: Path, *, resume: bool) -> None:
    """Train the heads of a method and put them beside the target, where nfox finds them."""
    work = answers.with_name(method)
    train(method, [str(SETTINGS), *EXTRA[method]], target, split(answers), work, resume=resume)
    publish(work, target, target / "nfox" / method)


def plain(value: object) -> object:
    """A text with the last names of its absolute paths; anything else as it is."""
    if not isinstance(value, str):
        return value
    return " ".join(Path(word).name if Path(word).is_absolute() else word for word in value.split())


def publish(made: Path, target: Path, folder: Path) -> None:
    """Put finished heads in place, with no path in them that means nothing elsewhere."""
    found = checkpoint.read_info(str(made), ModelOptions())
    training = {key: plain(value) for key, value in found.training.items()}
    about = found.model_copy(update={"base": target.as_posix(), "training": training})
    checkpoint.write(folder, about, checkpoint.read(str(made), ModelOptions()))
    (folder / checkpoint.WEIGHTS_FILE).chmod(0o644)
