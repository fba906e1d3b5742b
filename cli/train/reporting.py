"""The services that `--report_to` may name, to which a training is reported."""

from __future__ import annotations

from collections.abc import Sequence

from transformers.integrations import get_available_reporting_integrations
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from nfox.errors import UsageError

_PACKAGES = {"comet_ml": "comet-ml"}
"""The packages of services that have another name than theirs."""

_NOT_ALWAYS_LISTED = ("azure_ml", "flyte")
"""Services that transformers does not always list, though they are installed."""


def check_reports(names: Sequence[str]) -> None:
    """Refuse services that are unknown or not installed, before a model is loaded.

    Args:
        names: the names of services, without "none" and "all".

    Raises:
        UsageError: if a service is not known or not installed.
    """
    for name in names:
        if name not in INTEGRATION_TO_CALLBACK:
            known = ", ".join(sorted(INTEGRATION_TO_CALLBACK))
            raise UsageError(f"--report_to {name} is not known", f"expected none, all, {known}")
        if name not in (*_NOT_ALWAYS_LISTED, *get_available_reporting_integrations()):
            package = _PACKAGES.get(name, name)
            raise UsageError(
                f"--report_to {name} needs {package}, which is not installed",
                f"pip install {package}",
            )
