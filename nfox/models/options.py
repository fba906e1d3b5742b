"""How a model is to be loaded, and what a loaded one is. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from nfox.errors import UsageError
from nfox.files.hub import HubOptions

if TYPE_CHECKING:
    from nfox.models.transformers_target import TransformersTarget

DTYPES = ("auto", "float32", "float16", "bfloat16")
ATTENTIONS = ("auto", "sdpa", "eager", "flash_attention_2")
DEVICE_MAPS = ("auto", "balanced", "balanced_low_0", "sequential")
Quantisation = Literal["4bit", "8bit"]


def choose_quantisation(load_in_4bit: bool, load_in_8bit: bool) -> Quantisation | None:
    """Return the quantisation that two switches ask for; None where both are off.

    Raises:
        UsageError: if both are on.
    """
    if load_in_4bit and load_in_8bit:
        raise UsageError("4 bit and 8 bit at once", "choose one of the two")
    return "4bit" if load_in_4bit else "8bit" if load_in_8bit else None


@dataclass(frozen=True)
class ModelOptions:
    """How a model is loaded.

    Args:
        dtype: of weights and activations; "auto" is bfloat16 on a CPU that computes in it, else
            float32, and the checkpoint's own on a GPU.
        quantisation: "4bit" (nf4) or "8bit" by bitsandbytes, while loading.
        attn: transformers' attention; "auto" is sdpa where the model has it; flash_attention_2
            takes no masks, so it scores chains only.
        device: "cpu", "cuda:1", ...; by default a GPU if there is one.
        device_map: how the model is split over devices, in transformers' words: "auto",
            "balanced", "balanced_low_0" or "sequential"; None puts all of it on one.
        max_memory: what each device may hold, {"0": "9GiB", "cpu": "20GiB"}; what finds no room
            stays on the disk, from where it is read in every forward.
        revision: commit, tag or branch on the hub.
        cache_dir: where downloads are kept; None is the hub's own folder.
        offline: use nothing but local files.
        trust_remote_code: run code that comes with the checkpoint.
        adapter: a LoRA, merged into weights that are not quantised: its folder or hub id, or the
            name of one that lies beside the model, see `nfox.models.adapters`.
    """

    dtype: str = "auto"
    quantisation: Quantisation | None = None
    attn: str = "auto"
    device: str | None = None
    device_map: str | None = None
    max_memory: dict[str, str] = field(default_factory=dict)
    revision: str | None = None
    cache_dir: str | None = None
    offline: bool = False
    trust_remote_code: bool = False
    adapter: str | None = None

    def __post_init__(self) -> None:
        split = self.device_map or DEVICE_MAPS[0]
        for given, known in (
            (self.dtype, DTYPES),
            (self.attn, ATTENTIONS),
            (split, DEVICE_MAPS),
        ):
            if given not in known:
                raise UsageError(f"{given!r} is not one of {', '.join(known)}")

    @classmethod
    def of_hub(cls, hub: HubOptions) -> ModelOptions:
        """Return the default options, with files fetched as `hub` says."""
        return cls(revision=hub.revision, cache_dir=hub.cache_dir, offline=hub.offline)

    def for_draft(self) -> ModelOptions:
        """Return the options of a draft model for a target that is loaded by these: the same, but
        neither quantised nor split nor adapted, and of its own repository's main branch.
        """
        return replace(
            self, quantisation=None, adapter=None, revision=None, device_map=None, max_memory={}
        )

    @property
    def hub(self) -> HubOptions:
        """How files are fetched from the hub."""
        return HubOptions(self.revision, self.cache_dir, self.offline)


@dataclass(frozen=True)
class LoadProgress:
    """Who is told how loading goes.

    Args:
        stage: told what is being done.
        amount: told what is counted there ("bytes" downloaded or "weights" loaded), how many there
            are, and of how many (0: not known yet). Called from any thread, by one at a time.
    """

    stage: Callable[[str], None] = lambda stage: None
    amount: Callable[[str, int, int], None] = lambda what, done, total: None


@dataclass(frozen=True)
class LoadedModel:
    """A language model, ready to run.

    Args:
        name: folder or hub id, as given.
        target: the model.
        tokenizer: its tokenizer; None if the folder has none.
        adapter: the LoRA that was loaded with it, as given; None for none.
    """

    name: str
    target: TransformersTarget
    tokenizer: Any = None
    adapter: str | None = None
