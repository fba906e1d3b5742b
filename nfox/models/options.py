"""How a model is to be loaded, and what a loaded model is. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from nfox.errors import ModelError, UsageError
from nfox.files.hub import HubOptions

if TYPE_CHECKING:
    from nfox.models.transformers_target import TransformersTarget

DTYPES = ("auto", "float32", "float16", "bfloat16")
ATTENTIONS = ("auto", "sdpa", "eager", "flash_attention_2")
DEVICE_MAPS = ("auto", "balanced", "balanced_low_0", "sequential")
COMPILATIONS = ("auto", "on", "off")
Compilation = Literal["auto", "on", "off"]
WeightBits = Literal["int8", "int4"]
Quantisation = Literal["4bit", "8bit", "int8", "int4"]


class FormatError(ModelError):
    """The weights of a model cannot have the format that was asked for."""


def choose_quantisation(
    load_in_4bit: bool, load_in_8bit: bool, quantize: WeightBits | None = None
) -> Quantisation | None:
    """Return the quantisation that options ask for; None where they ask for none.

    Args:
        load_in_4bit: nf4, by bitsandbytes.
        load_in_8bit: int8, by bitsandbytes.
        quantize: of weights alone, in groups, for speed.

    Raises:
        UsageError: if they ask for several.
    """
    if load_in_4bit and load_in_8bit:
        raise UsageError("4 bit and 8 bit at once", "choose one of the two")
    if quantize and (load_in_4bit or load_in_8bit):
        bits = 4 if load_in_4bit else 8
        raise UsageError(
            f"--quantize {quantize} and --load-in-{bits}bit at once", "choose one of the two"
        )
    return quantize or ("4bit" if load_in_4bit else "8bit" if load_in_8bit else None)


@dataclass(frozen=True)
class ModelOptions:
    """How a model is loaded.

    Args:
        dtype: the dtype of weights and activations, one of `DTYPES`. "auto" is bfloat16 on a CPU
            that computes in it, float32 on another CPU, and the checkpoint's own dtype on a GPU. A
            model to decode with is in bfloat16 on every CPU where the native library runs it, and
            one of a GGUF file has the weights that are stored there (`keeps_packed`).
        quantisation: "int8" or "int4" for speed: weights in groups of 32, on a CPU by the native
            library, on a GPU by torchao. "4bit" (nf4) or "8bit" (int8) for memory: by bitsandbytes.
            None leaves the weights as they are.
        compile: whether forwards run by the native library, which is compiled for the CPU that it
            runs on, one of `COMPILATIONS`: "auto" where it can be, "on" without fail, "off" never.
        reproducible: refuse a model whose forward cannot promise the same text by every method: to
            the last bit the same logits, whatever stands beside a token.
        attn: the attention of transformers, one of `ATTENTIONS`. "auto" is sdpa where the model
            has it. flash_attention_2 takes no masks, so with it only chains are scored.
        device: the device of the whole model, such as "cpu" or "cuda:1". None is a GPU if there
            is one.
        device_map: how transformers splits the model over devices, one of `DEVICE_MAPS`. None
            puts all of it on one device.
        max_memory: the most memory that a split model takes on each device, such as
            {"0": "9GiB", "cpu": "20GiB"}. Layers that find no room stay on the disk, from where
            they are read in every forward.
        revision: the commit, tag or branch of the model's repository on the hub.
        cache_dir: the folder where downloads are kept; None is the hub's own folder.
        offline: use local files only.
        trust_remote_code: run the code that comes with the checkpoint.
        adapter: a LoRA for the model: its folder, its hub id, or the name of one that lies beside
            the model (`nfox.models.adapters`). It is merged into weights that are not quantised.
        threads: of the CPU; None measures whether one or all are faster, now and while it is used.
        keeps_packed: leave weights of a GGUF file as they are stored, where the native library
            multiplies with them: for decoding on a CPU in bfloat16, without an adapter.
        drafts: the model only guesses for another one, so that its weights may be rounded where
            that is faster.

    Raises:
        UsageError: for a dtype, an attention, a device map or a compilation that there is not, and
            for options that contradict each other.
    """

    dtype: str = "auto"
    quantisation: Quantisation | None = None
    compile: Compilation = "auto"
    reproducible: bool = False
    attn: str = "auto"
    device: str | None = None
    device_map: str | None = None
    max_memory: dict[str, str] = field(default_factory=dict)
    revision: str | None = None
    cache_dir: str | None = None
    offline: bool = False
    trust_remote_code: bool = False
    adapter: str | None = None
    threads: int | None = None
    keeps_packed: bool = False
    drafts: bool = False

    def __post_init__(self) -> None:
        device_map = self.device_map or DEVICE_MAPS[0]
        for choice, choices in (
            (self.dtype, DTYPES),
            (self.attn, ATTENTIONS),
            (device_map, DEVICE_MAPS),
            (self.compile, COMPILATIONS),
        ):
            if choice not in choices:
                raise UsageError(f"{choice!r} is not one of {', '.join(choices)}")
        self._check_native()

    @property
    def weight_bits(self) -> WeightBits | None:
        """The form of weights that are quantised for speed; None where they are not."""
        return self.quantisation if self.quantisation in ("int8", "int4") else None

    @property
    def tries_native(self) -> bool:
        """Whether forwards on a CPU run by the native library, if the model is of its kind."""
        packed = self.quantisation in ("4bit", "8bit")
        return self.compile != "off" and self.device_map is None and not packed

    def _check_native(self) -> None:
        """Refuse what the native library does not go with."""
        if self.compile == "off" and self.reproducible:
            raise UsageError(
                "--reproducible is a promise of the native library, which --compile off leaves out",
                "choose one of the two",
            )
        if self.keeps_packed and self.dtype != "bfloat16":
            raise UsageError(f"weights that stay packed compute in bfloat16, not in {self.dtype}")
        if self.weight_bits is None:
            return
        quantize = f"--quantize {self.weight_bits}"
        if self.dtype not in ("auto", "bfloat16"):
            raise UsageError(
                f"{quantize} computes in bfloat16, not in {self.dtype}", "leave --dtype out"
            )
        if self.device_map:
            raise UsageError(f"{quantize} is for a model on one device", "leave --device-map out")

    @classmethod
    def of_hub(cls, hub: HubOptions) -> ModelOptions:
        """Return the default options, with files fetched as `hub` says."""
        return cls(revision=hub.revision, cache_dir=hub.cache_dir, offline=hub.offline)

    def for_draft(self) -> ModelOptions:
        """Return the options of a draft model for a target that these options load: the same, but
        without the target's quantisation, device map and adapter, and with its own repository's
        main branch. What it guesses changes no text, so nothing is promised of it: it has 8 bits
        where that is fast and no dtype is named.
        """
        return replace(
            self,
            quantisation=None,
            adapter=None,
            revision=None,
            reproducible=False,
            device_map=None,
            max_memory={},
            drafts=True,
        )

    @property
    def hub(self) -> HubOptions:
        """How files are fetched from the hub."""
        return HubOptions(self.revision, self.cache_dir, self.offline)


@dataclass(frozen=True)
class LoadProgress:
    """The callbacks that report how loading goes.

    Args:
        stage: is called with a description of what is being done.
        amount: is called with the unit that is counted ("bytes" downloaded or "weights" loaded),
            the count so far, and the total (0: not known yet). It is called from any thread, but
            never from two at once.
    """

    stage: Callable[[str], None] = lambda stage: None
    amount: Callable[[str, int, int], None] = lambda unit, done, total: None


@dataclass(frozen=True)
class LoadedModel:
    """A language model, ready to run.

    Args:
        name: the folder or hub id of the model, as the person wrote it.
        target: the model as a target of decoding.
        tokenizer: the tokenizer of the model; None if its folder has none.
        adapter: the LoRA that the model was loaded with, as the person wrote it; None without.
    """

    name: str
    target: TransformersTarget
    tokenizer: Any = None
    adapter: str | None = None
