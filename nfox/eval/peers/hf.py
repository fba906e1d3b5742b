"""`generate` of transformers: plain, with a draft model (assisted generation), with prompt lookup.

It runs the model object that nfox runs, with the same attention and dtype.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

import torch
import transformers
from torch import Tensor
from transformers import GenerationConfig
from transformers.generation.streamers import BaseStreamer
from typing_extensions import override

from nfox.decoding.generate import Limits, Prompt
from nfox.drafters.spec import Speculative
from nfox.engine import Engine
from nfox.errors import ModelError
from nfox.eval.peers.base import OnTokens, Peer
from nfox.reply import Settings

_CONFIDENCE = "assistant_confidence_threshold"
_LOOKUP_TOKENS = 10  # the value in transformers' documentation; it has no default


class Generate(Peer):
    """Plain decoding.

    Args:
        model: the target's model of transformers.
        arguments: more arguments of `generate`.
    """

    name: ClassVar[str] = "hf"

    def __init__(self, model: Any, **arguments: Any) -> None:
        self.model = model
        self.arguments = arguments

    @override
    @classmethod
    def build(cls, engine: Engine) -> Self:
        return cls._checked(engine)

    @classmethod
    def _checked(cls, engine: Engine, **arguments: Any) -> Self:
        """Return a peer that has generated a token.

        Raises:
            ModelError: if transformers does not generate with this model and these arguments.
        """
        generate = cls(engine.model.target.model, **arguments)
        prompt = Prompt((0,))
        if engine.model.target.is_encoder_decoder:
            prompt = Prompt((engine.model.target.decoder_start_token,), (0,))
        try:
            generate.answer(prompt, engine.settings, Limits(1), lambda tokens: None)
        except (ValueError, TypeError, RuntimeError) as error:
            line = (str(error) or type(error).__name__).splitlines()[0]
            raise ModelError(f"transformers does not generate so: {line}") from error
        return generate

    @override
    @torch.inference_mode()
    def answer(
        self, prompt: Prompt, settings: Settings, limits: Limits, on_tokens: OnTokens
    ) -> None:
        ids = torch.tensor([list(prompt.encoder_ids or prompt.ids)], device=self.model.device)
        inputs = {"inputs": ids, "attention_mask": torch.ones_like(ids)}
        if prompt.encoder_ids is not None:
            decoder_ids = torch.tensor([list(prompt.ids)], device=self.model.device)
            inputs["decoder_input_ids"] = decoder_ids
        config = _config(settings, limits)
        models_config = self.model.generation_config
        # What a config leaves open is taken from the model's own: penalties, beams and the like.
        self.model.generation_config = GenerationConfig(
            decoder_start_token_id=models_config.decoder_start_token_id
        )
        devices = [self.model.device] if self.model.device.type == "cuda" else []
        try:
            with torch.random.fork_rng(devices):
                torch.manual_seed(settings.sampling.seed)
                self.model.generate(
                    **inputs,
                    generation_config=config,
                    streamer=_Streamer(on_tokens),
                    **self.arguments,
                )
        finally:
            self.model.generation_config = models_config

    @override
    def describe(self) -> str:
        attention = self.model.config._attn_implementation
        return f"generate of transformers {transformers.__version__}, {attention}, DynamicCache"


class Assisted(Generate):
    """Assisted generation, with the draft model of method `spec` and transformers' own settings."""

    name = "hf-assisted"

    @override
    @classmethod
    def build(cls, engine: Engine) -> Self:
        """Return the peer for an engine's model.

        Raises:
            ModelError: as method `spec` does, if there is no draft model.
        """
        drafter = engine.make(Speculative.__module__.rpartition(".")[2])  # named as its file
        assert isinstance(drafter, Speculative)
        return cls._checked(engine, assistant_model=drafter.draft.model)

    @override
    def describe(self) -> str:
        # What a model's own config leaves open, `generate` fills in from these.
        defaults = GenerationConfig._get_default_generation_params()
        config = self.arguments["assistant_model"].generation_config
        names = ("num_assistant_tokens", "num_assistant_tokens_schedule", _CONFIDENCE)
        values = {name: getattr(config, name) for name in names}
        max_tokens, schedule, confidence = (
            defaults[name] if value is None else value for name, value in values.items()
        )
        return (
            f"assisted {super().describe()}, {max_tokens} tokens at most ({schedule}), "
            f"while it is sure by {confidence}"
        )


class Lookup(Generate):
    """Prompt lookup decoding."""

    name = "hf-lookup"

    @override
    @classmethod
    def build(cls, engine: Engine) -> Self:
        return cls._checked(engine, prompt_lookup_num_tokens=_LOOKUP_TOKENS)

    @override
    def describe(self) -> str:
        return (
            f"prompt lookup in {super().describe()}, {_LOOKUP_TOKENS} tokens, n-grams of 2 at most"
        )


def _config(settings: Settings, limits: Limits) -> GenerationConfig:
    """Return the config that asks `generate` for what the settings ask of nfox."""
    stop_ids = sorted(limits.stop_ids)
    sampling = settings.sampling
    options: dict[str, Any] = {"do_sample": not sampling.greedy}
    if not sampling.greedy:
        names = ("temperature", "top_k", "top_p")
        options |= {name: getattr(sampling, name) for name in names}
        options["min_p"] = sampling.min_p or None
    return GenerationConfig(
        max_new_tokens=limits.max_tokens,
        eos_token_id=stop_ids or None,
        pad_token_id=stop_ids[0] if stop_ids else 0,
        repetition_penalty=sampling.repetition_penalty,
        use_cache=True,
        **options,
    )


class _Streamer(BaseStreamer):  # type: ignore[misc]
    """Hands new tokens on; the first call of `generate` hands over the prompt."""

    def __init__(self, on_tokens: OnTokens) -> None:
        self._on_tokens = on_tokens
        self._after_prompt = False

    def put(self, value: Tensor) -> None:
        """Hand tokens on, but for the prompt."""
        if self._after_prompt:
            self._on_tokens(value.flatten().tolist())
        self._after_prompt = True

    def end(self) -> None:
        """Do nothing: no token is held back."""
