"""The sampling that the authors of a model recommend in its generation_config.json."""

from __future__ import annotations

from typing import Any

from nfox.decoding.sampling import Sampling
from nfox.errors import UsageError

_APPLIED = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
# These change no choice of a token, or are read elsewhere.
_ACCEPTED = {
    *_APPLIED, "do_sample", "eos_token_id", "bos_token_id", "pad_token_id", "max_length",
    "max_new_tokens", "decoder_start_token_id", "use_cache", "cache_implementation",
    "transformers_version", "num_assistant_tokens", "num_assistant_tokens_schedule",
    "return_dict_in_generate", "output_scores", "output_attentions", "output_hidden_states",
}  # fmt: skip


def sampling_of(config: Any, *, seed: int = 0) -> Sampling:
    """Return the sampling that transformers would do by a generation config.

    Args:
        config: a `GenerationConfig` of transformers.
        seed: the seed of the noise, which no config holds.

    Raises:
        UsageError: if the config asks for something that nfox does not apply, such as beams.
    """
    foreign = sorted(config.to_diff_dict().keys() - _ACCEPTED)
    foreign = [name for name in foreign if not name.startswith("_")]
    if foreign:
        values_asked = ", ".join(f"{name}={getattr(config, name, '?')}" for name in foreign)
        raise UsageError(
            f"the model's generation config asks for what nfox does not apply: {values_asked}",
            "leave --sampling model out and give --temperature, --top-p, ... yourself",
        )
    # JSON may say 1 where 1.0 is meant.
    values: dict[str, Any] = {
        name: int(value) if name == "top_k" else float(value)
        for name in _APPLIED
        if (value := getattr(config, name, None)) is not None
    }
    if not config.do_sample:
        of_greedy = {"repetition_penalty"} & values.keys()
        return Sampling(seed=seed, **{name: values[name] for name in of_greedy})
    # Where a config is silent, transformers samples at temperature 1 from the 50 likeliest.
    defaults: dict[str, Any] = {"temperature": 1.0, "top_k": 50}
    return Sampling(**defaults | values, seed=seed)
