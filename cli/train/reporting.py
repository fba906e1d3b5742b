"""Where a training is reported to besides the terminal: what `--report_to` may name."""

from __future__ import annotations

from collections.abc import Sequence

from transformers.integrations import get_available_reporting_integrations
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from nfox.errors import UsageError

_PACKAGES = {"comet_ml": "comet-ml"}  # of what has another name
_UNSEEN = ("azure_ml", "flyte")  # which transformers does not always list, though they are there


def check_reports(names: Sequence[str]) -> None:
    """Refuse to report to what is not installed, before anything is loaded.

    Args:
        names: as transformers understood them, without none and all.

    Raises:
        UsageError: if one is not known or not installed.
    """
    for name in names:
        if name not in INTEGRATION_TO_CALLBACK:
            known = ", ".join(sorted(INTEGRATION_TO_CALLBACK))
            raise UsageError(f"--report_to {name} is not known", f"expected none, all, {known}")
        if name not in (*_UNSEEN, *get_available_reporting_integrations()):
            package = _PACKAGES.get(name, name)
            raise UsageError(
                f"--report_to {name} needs {package}, which is not installed",
                f"pip install {package}",
            )
