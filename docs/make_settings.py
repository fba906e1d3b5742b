"""Write the rows of `nfox train METHOD --help`: `python docs/make_settings.py`."""

from __future__ import annotations

import json

from nfox.cli.train.arguments import help_rows, methods
from nfox.cli.train.help import FILE


def text() -> str:
    """Return the whole file."""
    found = {method: help_rows(method, everything=False) for method in methods()}
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
