"""A model before it is loaded: whether its files are there, and the memory that it needs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rich.filesize import decimal

from nfox.drafters import method_class, ready_methods
from nfox.errors import ModelError
from nfox.files.hub import file_of
from nfox.files.model_names import check_hub_id, hint_at_model, local_folder
from nfox.heads.checkpoint import INFO_FILE
from nfox.loader import LEAST_CONTEXT
from nfox.models.checkpoint_files import check_files
from nfox.models.decoding_model import decoding_options
from nfox.models.devices import choose_device
from nfox.models.gguf_files import find_gguf
from nfox.models.memory import (
    cache_bytes,
    config_of_model,
    context_of,
    copy_bytes,
    free_bytes,
    number_dtype,
    weight_bytes,
)
from nfox.models.options import ModelOptions
from nfox.models.training_folders import base_in

from .findings import Advice, Finding
from .subject import Subject


def place_of(name: str, options: ModelOptions) -> str:
    """Return the folder or the GGUF file of a model, or of heads, on this machine.

    Raises:
        ModelError: if it is not there, or no model.
    """
    check_hub_id(name)
    if path := find_gguf(name, options.hub):
        return str(path)
    if folder := local_folder(name):
        folder = base_in(name) or folder
        if (folder / "config.json").is_file():
            check_files(name, folder)
        return str(folder)
    files = (file_of(name, file, options.hub) for file in ("config.json", INFO_FILE))
    if found := next(filter(None, files), None):
        return str(found.parent)
    otherwise = f"hf download {name}"
    if "/" not in name:  # hardly an id of the hub
        otherwise = "name a folder, an id of the hub (org/name), or one of `nfox models`"
    raise ModelError(f"{name} is not on this machine", hint_at_model(name, otherwise))


@dataclass(frozen=True)
class Memory:
    """The bytes that a model and what drafts for it take, estimated before they are loaded.

    Args:
        weights: of the target.
        copy: of its weights in the layout of the fused forward, where there is room.
        drafting: the weights of all that is ready to draft, and the copies of these.
        cache_per_token: of the target's keys and values, and of those of draft models.
        free: on the device.
    """

    weights: int
    copy: int
    drafting: int
    cache_per_token: int
    free: int

    def needed(self, tokens: int) -> int:
        """Return what a context of so many tokens takes, copies left out."""
        return self.weights + self.drafting + tokens * self.cache_per_token

    @property
    def has_room_for_copy(self) -> bool:
        """Whether the copy is made: it takes less than half of what the weights leave free."""
        return 2 * self.copy < self.free - self.weights

    @property
    def longest(self) -> int:
        """How many tokens of a context there is room for."""
        left = self.free - self.weights - self.drafting - self.copy * self.has_room_for_copy
        return max(left, 0) // max(self.cache_per_token, 1)


def of_model(subject: Subject, section: str) -> Iterator[Finding]:
    """Yield findings about a model that is not loaded yet; one is "wrong" where it cannot be.

    Args:
        subject: the model with its options.
        section: of these findings.

    Raises:
        NfoxError: if it is not there, or its files are not whole.
    """
    name = subject.named.base
    place = place_of(name, subject.loading)
    loading = decoding_options(place, subject.loading)
    config = config_of_model(place)
    context = context_of(config) or LEAST_CONTEXT
    tokens = min(subject.arguments.max_context or context, context)
    kind = ", ".join(config.get("architectures") or [str(config.get("model_type", "a model"))])
    dtype = str(number_dtype(place, loading)).removeprefix("torch.")
    packed = ", weights as the file has them" if loading.keeps_packed else ""
    words = f"{kind}, {dtype}{packed}, a context of {context:,} tokens, in {place}"
    facts = {"place": place, "dtype": dtype, "context": context}
    yield Finding(section, "files", words, facts=facts)
    yield _of_memory(subject, section, _memory(subject, place), tokens)


def _memory(subject: Subject, place: str) -> Memory:
    loading = decoding_options(place, subject.loading)
    drafting, per_token = 0, _per_token(place, loading)
    names = ready_methods(subject.named.base, subject.sources)
    found = {method_class(one).locate(subject.named.base, subject.sources) for one in names}
    for location in filter(None, found):
        own = place_of(location, subject.draft_loading)
        options = decoding_options(own, subject.draft_loading)
        drafting += weight_bytes(own, options) + copy_bytes(own, options)
        per_token += _per_token(own, options)
    return Memory(
        weight_bytes(place, loading),
        copy_bytes(place, loading),
        drafting,
        per_token,
        free_bytes(loading),
    )


def _per_token(place: str, options: ModelOptions) -> int:
    """Return the bytes of a token in the cache of a model; 0 for heads, which have none."""
    return cache_bytes(config_of_model(place), 1, number_dtype(place, options).itemsize)


def _of_memory(subject: Subject, section: str, memory: Memory, tokens: int) -> Finding:
    """Return whether weights and cache find room, and what each of them takes."""
    cache = tokens * memory.cache_per_token
    parts = {
        "weights": memory.weights,
        "a copy of them for the fused forward": memory.copy,
        "what drafts": memory.drafting,
        f"the cache of {tokens:,} tokens": cache,
    }
    whole = memory.needed(tokens) + memory.copy * memory.has_room_for_copy
    told = ", ".join(f"{part} {decimal(size)}" for part, size in parts.items() if size)
    words = f"needs {decimal(whole)}, {decimal(memory.free)} are free: {told}"
    if memory.copy and not memory.has_room_for_copy:
        words += "; there is no room for the copy, so torch's operators run the forward, "
        words += "in float32 on a CPU without bfloat16 arithmetic"
    facts = {
        "weight_bytes": memory.weights,
        "copy_bytes": memory.copy,
        "drafting_bytes": memory.drafting,
        "cache_bytes": cache,
        "free_bytes": memory.free,
    }
    least = memory.needed(min(tokens, LEAST_CONTEXT))
    if subject.loading.device_map is None and least > memory.free:
        return Finding(section, "memory", words, "wrong", _smaller(subject), facts)
    if whole > memory.free:
        fitting = max(memory.longest // 256 * 256, 8)
        advice = Advice(
            f"a context for which there is room: {fitting:,} tokens",
            subject.command(max_context=fitting),
        )
        return Finding(section, "memory", words, "warn", advice, facts)
    return Finding(section, "memory", words, facts=facts)


def _smaller(subject: Subject) -> Advice:
    """Return the quantisation by which a model needs less memory while it is loaded."""
    if choose_device(subject.loading.device).type == "cpu" and not subject.loading.quantisation:
        return Advice("weights of 4 bits", subject.command("doctor", load_in_4bit=True))
    return Advice("all devices together", subject.command("doctor", device_map="auto"))
