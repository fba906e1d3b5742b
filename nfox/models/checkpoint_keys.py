"""Whether the tensors of a checkpoint are those that a model is made of.

transformers and peft give random numbers to what a checkpoint lacks, drop what they do not know,
and log both. Here their lists decide.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from nfox.errors import ModelError
from nfox.files.tensors import name_some

# Buffers that older checkpoints hold and models compute anew; transformers knows most of them.
_COMPUTED = re.compile(
    r"(inv_freq|(cos|sin)_cached|position_ids|masked_bias|attn\.bias|attention\.bias"
    r"|_extra_state|num_batches_tracked|\bversion)$"
)
# Of a cache of 8 bits, as vLLM has it, beside weights that are not quantised.
_CACHE_SCALE = re.compile(r"\.(k|v|kv|q|prob)_scale$")
_LORA = re.compile(r"\.(lora_|base_layer\.|dora_|modules_to_save\.)")
_QUANTISED = re.compile(
    r"\.(SCB|weight_format|absmax|quant_map|nested_\w+|quant_state\S*|qweight|qzeros|scales|g_idx"
    r"|weight_scale\w*|weight_zero_point|weight_packed)$"
)
_LAYER = re.compile(r"(?:layers|h|blocks?)\.(\d+)\.")

Mismatch = tuple[str, Sequence[int], Sequence[int]]
"""The name of a tensor, its shape in the checkpoint, and its shape in the model."""


def check_keys(
    name: str,
    *,
    missing: Collection[str] = (),
    unexpected: Collection[str] = (),
    mismatched: Collection[Mismatch] = (),
    hint: str = "",
) -> None:
    """Refuse weights that are not whole.

    Args:
        name: of the model or adapter, as the person wrote it.
        missing: the names of tensors that the model has and the weights have not.
        unexpected: the names of tensors that the weights have and the model has not, without those
            that change nothing (`used_keys`).
        mismatched: the tensors whose shapes differ.
        hint: what to do; by default what the names say of the cause.

    Raises:
        ModelError: if there is any of them; it names a few and counts the rest.
    """
    shapes = [f"{key} {tuple(stored)}, not {tuple(made)}" for key, stored, made in mismatched]
    kinds = {
        "the weights lack": missing,
        "the weights have tensors that the model has no place for:": unexpected,
        "the sizes differ from the config's:": shapes,
    }
    found = [f"{what} {name_some(names)}" for what, names in kinds.items() if names]
    if found:
        hint = hint or _hint(missing, unexpected, mismatched)
        raise ModelError(f"{name}: {'; '.join(found)}", hint)


def used_keys(unexpected: Iterable[str], missing: Collection[str], model: Any) -> list[str]:
    """Return the names of those unexpected tensors without which a model says something else.

    A tensor beside the decoder changes nothing: the value head of a reward model, Medusa heads, a
    vision tower, layers that predict several tokens. One within its layers does: a bias that the
    config denies, a layer more than it counts, scales, a LoRA. So does one that is missing under
    another name.

    Args:
        unexpected: names of tensors that the model of transformers has no place for.
        missing: names of tensors that the model has and the weights have not.
        model: the model.
    """
    wanted = tuple(f".{key}" for key in missing)
    renamed = [key for key in unexpected if key.endswith(wanted) or (missing and _LORA.search(key))]
    modules = {name for name, _ in model.named_modules()}
    buffers = {name for name, _ in model.named_buffers()}
    beside = {"", *_paths_of(model, (model.base_model, getattr(model.base_model, "decoder", None)))}
    is_quantised = getattr(model, "hf_quantizer", None) is not None
    return renamed + [
        key
        for key in unexpected
        if key not in buffers
        and key not in renamed
        and not is_computed(key)
        and _owner(key, modules) not in beside
        and not _predicts_more(key, model.config)
        # Scales that only other engines use lie beside the weights.
        and not _CACHE_SCALE.search(key)
        and not (is_quantised and key.rpartition(".")[2] not in ("weight", "bias"))
    ]


def is_computed(key: str) -> bool:
    """Whether a tensor is a buffer that models compute anew."""
    return _COMPUTED.search(key) is not None


def _paths_of(model: Any, parts: Collection[Any]) -> set[str]:
    return {name for name, module in model.named_modules() if any(module is p for p in parts)}


def _owner(key: str, modules: Collection[str]) -> str:
    """Return the innermost module of a model in whose name a tensor's name begins."""
    path = key
    while path:
        path = path.rpartition(".")[0]
        if path in modules:
            return path
    return ""


def _predicts_more(key: str, config: Any) -> bool:
    """Whether a tensor is of a layer after the last, which predicts tokens further ahead."""
    text = config.get_text_config(decoder=True)
    further = getattr(text, "num_nextn_predict_layers", None)
    layer = _LAYER.search(key)
    if not further or not layer:
        return False
    return 0 <= int(layer[1]) - int(text.num_hidden_layers) < int(further)


def _hint(
    missing: Collection[str], unexpected: Collection[str], mismatched: Collection[Mismatch]
) -> str:
    """Return what to do about weights that are not whole, as far as their names say why."""
    if any(_LORA.search(key) for key in unexpected):
        return "merge the adapter into the weights (merge_and_unload of peft) before saving them"
    if any(_QUANTISED.search(key) for key in unexpected):
        return "the weights are quantised: config.json needs their quantization_config"
    if mismatched or (unexpected and not missing):
        return "config.json is not that of these weights: copy both from one model"
    if unexpected:
        return "the names are those of another architecture: save the model by save_pretrained"
    if all(key.endswith(("lm_head.weight", "embed_out.weight")) for key in missing):
        return (
            "copy the checkpoint again; if its output is its input embedding, config.json needs "
            '"tie_word_embeddings": true'
        )
    return "copy the checkpoint again: a file is not whole, or the config is another model's"
