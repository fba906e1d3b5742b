"""The sampling that a model's authors recommend, as its generation_config.json says it."""

from __future__ import annotations

from typing import Any

from nfox.decoding.sampling import Sampling
from nfox.errors import UsageError

_APPLIED = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
# What does not change which token is chosen, or is looked at elsewhere.
_HARMLESS = {
    *_APPLIED, "do_sample", "eos_token_id", "bos_token_id", "pad_token_id", "max_length",
    "max_new_tokens", "decoder_start_token_id", "use_cache", "cache_implementation",
    "transformers_version", "num_assistant_tokens", "num_assistant_tokens_schedule",
    "return_dict_in_generate", "output_scores", "output_attentions", "output_hidden_states",
}  # fmt: skip


def sampling_of(config: Any, *, seed: int = 0) -> Sampling:
    """Return what `transformers` would do with a generation config.

    Args:
        config: a `GenerationConfig`.
        seed: of the noise, which no config holds.

    Raises:
        UsageError: if it asks for something that is not applied here, such as beams.
    """
    foreign = sorted(config.to_diff_dict().keys() - _HARMLESS)
    foreign = [name for name in foreign if not name.startswith("_")]
    if foreign:
        said = ", ".join(f"{name}={getattr(config, name, '?')}" for name in foreign)
        raise UsageError(
            f"the model's generation config asks for what nfox does not apply: {said}",
            "leave --sampling model out and give --temperature, --top-p, ... yourself",
        )
    given = {name: getattr(config, name, None) for name in _APPLIED}
    # JSON may say 1 where 1.0 is meant.
    values: dict[str, Any] = {
        name: int(value) if name == "top_k" else float(value)
        for name, value in given.items()
        if value is not None
    }
    if not config.do_sample:
        kept = {"repetition_penalty"} & values.keys()
        return Sampling(seed=seed, **{name: values[name] for name in kept})
    # Where a config is silent, transformers samples at temperature 1 from the 50 likeliest.
    silent: dict[str, Any] = {"temperature": 1.0, "top_k": 50}
    return Sampling(**silent | values, seed=seed)
