"""What files say of how they were made: which model answered, and what was typed."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

from .options.groups import ModelArguments

EMBEDDED = "embedded"
"""What the model is called where files need a name and none was given."""


def model_facts(model: ModelArguments) -> dict[str, Any]:
    """Return what a model's greedy answers depend on."""
    name = model.model or EMBEDDED
    local = Path(name).expanduser().is_dir()
    return {
        "model": str(Path(name).expanduser().resolve()) if local else name,
        "template": model.conv_template,
        "system": model.system,
        "adapter": model.adapter,
        "revision": model.revision,
        "dtype": model.dtype,
        "max_context": model.max_context,
        "quantisation": "4bit" if model.load_in_4bit else "8bit" if model.load_in_8bit else None,
    }


def command_line(key: str | None = None) -> str:
    """Return what was typed, but for the key of a server."""
    words = [word.replace(key, "***") if key else word for word in sys.argv[1:]]
    return shlex.join(["nfox", *words])
