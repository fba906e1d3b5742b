"""What a file of answers or results records of its making: the model, and the command line."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nfox.demo import NAME
from nfox.secrets import masked_words

from .options.engine import ModelArguments


def model_facts(model: ModelArguments) -> dict[str, Any]:
    """Return the options of the model on which its greedy answers depend, as files record them."""
    name = model.model or NAME
    folder = Path(name).expanduser()
    return {
        "model": str(folder.resolve()) if folder.is_dir() else name,
        "template": model.conv_template,
        "system": model.system,
        "adapter": model.adapter,
        "revision": model.revision,
        "dtype": model.dtype,
        "max_context": model.max_context,
        "quantisation": model.quantisation,
    }


def command_line(words: Sequence[str] | None = None) -> str:
    """Return a command as it was typed, with *** in the place of secrets.

    Args:
        words: the words after `nfox`; by default those of this process.
    """
    return shlex.join(["nfox", *masked_words(sys.argv[1:] if words is None else words)])
