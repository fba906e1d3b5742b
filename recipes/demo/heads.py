"""Train the heads by `nfox train` on the target's own answers; draft and adapter call it too."""

import subprocess
import sys
from pathlib import Path

from nfox.heads import checkpoint
from nfox.heads.compatibility import FINGERPRINT_KEY, fingerprint
from nfox.models.loading import load_model
from nfox.models.options import ModelOptions

SETTINGS = Path(__file__).with_name("heads.yaml")
EXTRA = {
    "medusa": ["--num_train_epochs", "6", "--medusa_num_layers", "2"],
    "chimera": ["--num_train_epochs", "4"],
    "ctc": ["--num_train_epochs", "6"],
}
HELD_OUT = 50  # every 50th answer is measured on


def split(answers: Path) -> tuple[Path, Path]:
    """Write the answers to learn from and those to measure on to two files, and return these."""
    lines = answers.read_text(encoding="utf-8").strip().split("\n")
    files = []
    for name, held_out in (("learn", False), ("measure", True)):
        part = [line for i, line in enumerate(lines, 1) if (i % HELD_OUT == 0) is held_out]
        file = answers.with_name(f"own-{name}.jsonl")
        file.write_text("\n".join(part) + "\n", encoding="utf-8")
        files.append(file)
    return files[0], files[1]


def train(
    method: str,
    settings: list[str],
    target: Path,
    data: tuple[Path, Path],
    work: Path,
    resume: bool,
) -> None:
    """Run `nfox train`.

    Args:
        method: the name of what is trained.
        settings: a settings file, and further flags.
        target: the target's folder.
        data: the files to learn from and to measure on.
        work: the output folder.
        resume: whether to resume from a checkpoint in it.
    """
    command = [sys.executable, "-m", "nfox.cli", "train", method, *settings]
    names = ("model_name_or_path", "data_path", "eval_data_path", "output_dir")
    for name, value in zip(names, (target, *data, work), strict=True):
        command += [f"--{name}", str(value)]
    if resume and any(work.glob("checkpoint-*")):
        command += ["--resume_from_checkpoint", "true"]
    subprocess.run(command, check=True)


def train_heads(method: str, target: Path, answers: Path, *, resume: bool) -> None:
    """Train the heads of a method and publish them beside the target, where nfox finds them."""
    work = answers.with_name(method)
    train(method, [str(SETTINGS), *EXTRA[method]], target, split(answers), work, resume=resume)
    publish(work, target, target / "nfox" / method)


def without_folders(value: object) -> object:
    """Return a text with absolute paths shortened to their last names, any other value as it is."""
    if not isinstance(value, str):
        return value
    return " ".join(Path(word).name if Path(word).is_absolute() else word for word in value.split())


def publish(work: Path, target: Path, folder: Path) -> None:
    """Write trained heads to their published folder, without paths of this machine, as those of the
    target that they lie beside, also where it learned a little more after them.
    """
    info = checkpoint.read_info(str(work))
    training = {key: without_folders(value) for key, value in info.training.items()}
    model = load_model(str(target), ModelOptions(dtype="float32", device="cpu"))
    training[FINGERPRINT_KEY] = fingerprint(model.target)
    published = info.model_copy(update={"base": target.as_posix(), "training": training})
    checkpoint.write(folder, published, checkpoint.read_weights(str(work)))
    (folder / checkpoint.WEIGHTS_FILE).chmod(0o644)
