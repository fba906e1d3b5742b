"""The options that say which engine answers, in the groups of the help text.

Nothing here may import torch, nor anything that does: help must be instant.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Literal

from nfox.drafters import method_names
from nfox.errors import UsageError
from nfox.models.options import Compilation, Quantisation, WeightBits, choose_quantisation

from .dataclass_options import few_threads, option, rare, split_variable, typed_otherwise

_PANELS = ("Model", "Method", "Generation")
_model, _method, _generation = (partial(option, panel) for panel in _PANELS)
_rare_model, _rare_method, _rare_generation = (partial(rare, panel) for panel in _PANELS)
Text = str | None
Switch = bool
DType = Literal["auto", "float32", "float16", "bfloat16"]
DeviceMap = Literal["auto", "balanced", "balanced_low_0", "sequential"]
Attention = Literal["auto", "sdpa", "eager", "flash_attention_2"]
Think = Literal["auto", "on", "off"]
Accept = Literal["exact", "rejection", "typical"]
CllmType = Literal["spider", "python", "gsm8k", "sharegpt"]

CLLM_TEMPLATES: dict[CllmType, str] = {
    "spider": "cllm-spider",
    "python": "cllm-python",
    "gsm8k": "cllm-math",
    "sharegpt": "vicuna_v1.1",
}
"""The prompts that the published CLLMs were trained with, one for each kind of task."""


@dataclass(frozen=True)
class ModelArguments:
    """Which model, heads and template are loaded, and how."""

    model: Annotated[
        Text,
        _model("Folder, GGUF file, hub id, name; or heads.", "--model", "-m"),
    ] = None
    base_model: Annotated[Text, _rare_model("Base of the heads, if moved.", "--base-model")] = None
    heads: Annotated[Text, _rare_model("Folder or hub id of trained heads.", "--heads")] = None
    draft_model: Annotated[
        Text, _model("Folder, GGUF file or hub id that drafts.", "--draft-model")
    ] = None
    adapter: Annotated[
        Text, _rare_model("A LoRA of the model: name, folder or hub id.", "--adapter")
    ] = None
    load_in_4bit: Annotated[Switch, _rare_model("Quantise to nf4.", "--load-in-4bit")] = False
    load_in_8bit: Annotated[Switch, _rare_model("Quantise to int8.", "--load-in-8bit")] = False
    quantize: Annotated[
        WeightBits | None, _rare_model("Quantise for speed: weights in groups of 32.", "--quantize")
    ] = None
    draft_load_in_4bit: Annotated[
        Switch, _rare_model("The draft model too.", "--draft-load-in-4bit")
    ] = False
    draft_load_in_8bit: Annotated[
        Switch, _rare_model("The draft model too.", "--draft-load-in-8bit")
    ] = False
    draft_quantize: Annotated[
        WeightBits | None, _rare_model("The draft model too.", "--draft-quantize")
    ] = None
    compile: Annotated[
        Compilation, _rare_model("Run forwards by the library compiled for this CPU.", "--compile")
    ] = "auto"
    reproducible: Annotated[
        Switch, _rare_model("The same text by every method, or an error.", "--reproducible")
    ] = False
    dtype: Annotated[DType, _rare_model("Of weights and activations.", "--dtype")] = "auto"
    attn: Annotated[Attention, _rare_model("The attention of transformers.", "--attn")] = "auto"
    device: Annotated[Text, _rare_model("cpu, cuda:1, ... [default: a GPU if any]", "--device")] = (
        None
    )
    threads: Annotated[
        int | None,
        _rare_model(
            "Of the CPU. [default: the faster of 1 and all]",
            "--threads",
            min=1,
            callback=few_threads,
        ),
    ] = None
    device_map: Annotated[
        DeviceMap | None, _rare_model("Split the model over all devices.", "--device-map")
    ] = None
    max_memory: Annotated[
        Text, _rare_model("Of --device-map: 0=9GiB,cpu=20GiB; the rest: disk.", "--max-memory")
    ] = None
    max_context: Annotated[
        int | None, _rare_model("Positions to use at most.", "--max-context", min=8)
    ] = None
    revision: Annotated[Text, _rare_model("Commit, tag or branch on the hub.", "--revision")] = None
    offline: Annotated[Switch, _rare_model("Use local files only.", "--offline")] = False
    trust_remote_code: Annotated[
        Switch, _rare_model("Run code that comes with the model.", "--trust-remote-code")
    ] = False
    conv_template: Annotated[
        Text,
        _rare_model("FastChat's name, a .json file, tokenizer:NAME, or `list`.", "--conv-template"),
    ] = None
    cllm_type: Annotated[
        CllmType | None,
        _rare_model("Of a CLLM: a short name for its --conv-template.", "--cllm-type"),
    ] = None
    system: Annotated[
        Text, _model("Replaces the system message.", "--system", "--conv-system-msg", "-s")
    ] = None

    @property
    def quantisation(self) -> Quantisation | None:
        """The quantisation of the model."""
        return choose_quantisation(self.load_in_4bit, self.load_in_8bit, self.quantize)

    @property
    def draft_quantisation(self) -> Quantisation | None:
        """The quantisation of the draft model."""
        return choose_quantisation(
            self.draft_load_in_4bit, self.draft_load_in_8bit, self.draft_quantize
        )

    def __post_init__(self) -> None:
        if self.cllm_type is None:
            return
        template = CLLM_TEMPLATES[self.cllm_type]
        if self.conv_template not in (None, template):
            raise UsageError(
                f"--cllm-type {self.cllm_type} is short for --conv-template {template}, and "
                f"--conv-template {self.conv_template} was given too",
                "give one of the two",
            )
        object.__setattr__(self, "conv_template", template)


@dataclass(frozen=True)
class MethodArguments:
    """Which method drafts, with which options, and which rule accepts."""

    method: Annotated[
        Text, _method(f"{' | '.join(method_names())} [default: auto, or none]", "--method")
    ] = None
    options: Annotated[
        list[str],
        _rare_method(
            "An option of the method.",
            "--option",
            "-o",
            metavar="NAME=VALUE",
            callback=split_variable,
        ),
    ] = field(default_factory=list)
    gamma: Annotated[
        int | None,
        _rare_method("Draft length: -o gamma=N.", "--gamma", "-g", min=0, callback=typed_otherwise),
    ] = None
    tree: Annotated[
        Text,
        _rare_method("Of heads, a name or file: -o tree=.", "--tree", callback=typed_otherwise),
    ] = None
    accept: Annotated[Accept, _rare_method("The acceptance rule.", "--accept")] = "exact"
    lenience: Annotated[
        float | None, _rare_method("Of rejection: below 1 it is lossy.", "--lenience", min=0, max=1)
    ] = None
    epsilon: Annotated[
        float | None,
        _rare_method("Of typical: the posterior threshold.", "--epsilon", min=0, max=1),
    ] = None
    delta: Annotated[
        float | None, _rare_method("Of typical: the posterior alpha.", "--delta", min=0)
    ] = None


@dataclass(frozen=True)
class GenerationArguments:
    """How tokens are sampled, and when a reply ends. None stands for the default of `Settings`."""

    temperature: Annotated[
        float | None, _generation("0: the likeliest token.", "--temperature", "-t", min=0)
    ] = None
    top_p: Annotated[
        float | None, _rare_generation("Nucleus sampling.", "--top-p", min=0.0001, max=1)
    ] = None
    top_k: Annotated[int | None, _rare_generation("0: all tokens.", "--top-k", min=0)] = None
    min_p: Annotated[
        float | None, _rare_generation("Relative to the likeliest.", "--min-p", min=0, max=1)
    ] = None
    repetition_penalty: Annotated[
        float | None, _rare_generation("1: none.", "--repetition-penalty", min=0.01, max=100)
    ] = None
    sampling: Annotated[
        Literal["greedy", "model"],
        _rare_generation("model: as its generation_config says.", "--sampling"),
    ] = "greedy"
    seed: Annotated[
        int | None,
        _rare_generation("The same seed gives the same text. [default: 0]", "--seed", min=0),
    ] = None
    stop: Annotated[
        list[str],
        _rare_generation(
            "Text that ends a reply; repeatable. NFOX_STOP: words, in quotes if need be.",
            "--stop",
            callback=split_variable,
        ),
    ] = field(default_factory=list)
    max_new_tokens: Annotated[
        int,
        _generation("Of a reply.", "--max-new-tokens", "-M", min=1),
    ] = 512
    think: Annotated[
        Think | None, _generation("Tell the model to think first, or not to.", "--think")
    ] = None
