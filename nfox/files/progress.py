"""How far a download or the loading of weights has come, as numbers.

huggingface_hub and transformers report to tqdm bars. The bars made here draw nothing, whatever
stderr is: they pass the numbers on to a callback.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from huggingface_hub.utils import logging as hub_logging
from huggingface_hub.utils.tqdm import tqdm
from transformers.utils.logging import disable_progress_bar, set_tqdm_hook, set_verbosity_error
from typing_extensions import override

ProgressCallback = Callable[[str, int, int], None]
"""Called with the unit that is counted ("bytes" downloaded or "weights" loaded), the count so far,
and the total (0: not known yet; of several files, that of those which were begun). It is called
from any thread, but never from two at once."""

_UNITS = {"B": "bytes", "weights": "weights"}  # by the unit of a bar; bars of files have another


def quiet() -> None:
    """Keep the libraries from drawing bars and writing warnings of their own."""
    disable_progress_bar()
    set_verbosity_error()
    hub_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    # It says that weights which were offloaded are not where the model runs.
    logging.getLogger("accelerate.big_modeling").setLevel(logging.ERROR)
    # It warns of a kernel that is optional, and of a cast that it always makes.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    # peft asks for what transformers has under another name by now.
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)


@contextmanager
def reporting(progress: ProgressCallback) -> Iterator[type[tqdm]]:
    """Report, within this context, on the weights that transformers loads.

    Args:
        progress: is called for every part that has come.

    Yields:
        The class of bars to give `from_pretrained` as its `tqdm_class`, so that downloads are
        reported as well.
    """

    class Bar(tqdm):
        """A bar that counts and draws nothing."""

        monitor_interval = 0  # no thread is needed to redraw it

        def __init__(self, *arguments: Any, **options: Any) -> None:
            # Of the two bars of a download, the bytes on the network have no total to be sure of.
            network = str(options.get("name")).endswith(".transfer")
            self._unit = None if network else _UNITS.get(options.get("unit", ""))
            hidden = {**options, "disable": True}
            super().__init__(*arguments, **hidden)  # type: ignore[no-untyped-call]

        @override
        def update(self, n: float | None = 1) -> None:
            with self.get_lock():  # files come in several threads
                self.n += n or 0
                if self._unit:
                    progress(self._unit, int(self.n), int(self.total or 0))

        def __iter__(self) -> Iterator[Any]:
            for item in self.iterable:
                yield item
                self.update()

    def weights_bar(factory: object, arguments: tuple[Any, ...], options: dict[str, Any]) -> Bar:
        return Bar(*arguments, **{**options, "unit": "weights"})

    former_hook = set_tqdm_hook(weights_bar)
    try:
        yield Bar
    finally:
        set_tqdm_hook(former_hook)
