"""The speculators library: nothing of ours has a layout there.

Release 0.9.0 knows drafters that read the base's inner layers (eagle3, peagle, dflash, dspark, mtp,
xpress). Draft models had a type once, `independent` in 0.1.0 to 0.4.0, which refuses any
`config.json` with a `model_type`, so no model that transformers can load.
"""

from __future__ import annotations

from nfox.export.formats import ExportFormat

FORMAT = ExportFormat(
    {},
    "speculators 0.9 knows only drafters that read the base's inner layers; vLLM needs it neither "
    "for Medusa heads nor for draft models: nfox export vllm",
)
