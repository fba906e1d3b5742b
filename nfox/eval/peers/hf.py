"""`generate` of transformers: plain, with a draft model (assisted generation), with prompt lookup.

The model is the very one that nfox runs, attention and dtype included.
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
_LOOKUP = 10  # tokens, the value in transformers' documentation; it has no default


class Generate(Peer):
    """Plain decoding.

    Args:
        model: the target's.
        more: arguments of `generate`.
    """

    name: ClassVar[str] = "hf"

    def __init__(self, model: Any, **more: Any) -> None:
        self.model = model
        self.more = more

    @override
    @classmethod
    def build(cls, engine: Engine) -> Self:
        return cls._tried(engine)

    @classmethod
    def _tried(cls, engine: Engine, **more: Any) -> Self:
        """Make one, and see whether it gives a token."""
        made = cls(engine.model.target.model, **more)
        prompt = Prompt((0,))
        if engine.model.target.is_encoder_decoder:
            prompt = Prompt((engine.model.target.decoder_start_token,), (0,))
        try:
            made.answer(prompt, engine.settings, Limits(1), lambda tokens: None)
        except (ValueError, TypeError, RuntimeError) as error:
            said = (str(error) or type(error).__name__).splitlines()[0]
            raise ModelError(f"transformers does not generate so: {said}") from error
        return made

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
        own = self.model.generation_config
        # What a config leaves open is taken from the model's own: penalties, beams and the like.
        self.model.generation_config = GenerationConfig(
            decoder_start_token_id=own.decoder_start_token_id
        )
        devices = [self.model.device] if self.model.device.type == "cuda" else []
        try:
            with torch.random.fork_rng(devices):
                torch.manual_seed(settings.sampling.seed)
                self.model.generate(
                    **inputs, generation_config=config, streamer=_Streamer(on_tokens), **self.more
                )
        finally:
            self.model.generation_config = own

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
        """Without a draft model it says what `spec` would say."""
        drafter = engine.make(Speculative.__module__.rpartition(".")[2])  # named as its file
        assert isinstance(drafter, Speculative)
        return cls._tried(engine, assistant_model=drafter.draft.model)

    @override
    def describe(self) -> str:
        # What a model's own config leaves open, `generate` fills in from these.
        usual = GenerationConfig._get_default_generation_params()
        own = self.more["assistant_model"].generation_config
        names = ("num_assistant_tokens", "num_assistant_tokens_schedule", _CONFIDENCE)
        most, schedule, confidence = (
            usual[name] if getattr(own, name) is None else getattr(own, name) for name in names
        )
        return (
            f"assisted {super().describe()}, {most} tokens at most ({schedule}), "
            f"while it is sure by {confidence}"
        )


class Lookup(Generate):
    """Prompt lookup decoding."""

    name = "hf-lookup"

    @override
    @classmethod
    def build(cls, engine: Engine) -> Self:
        return cls._tried(engine, prompt_lookup_num_tokens=_LOOKUP)

    @override
    def describe(self) -> str:
        return f"prompt lookup in {super().describe()}, {_LOOKUP} tokens, n-grams of 2 at most"


def _config(settings: Settings, limits: Limits) -> GenerationConfig:
    ends = sorted(limits.stop_ids)
    drawn = settings.sampling
    chosen: dict[str, Any] = {"do_sample": not drawn.greedy}
    if not drawn.greedy:
        names = ("temperature", "top_k", "top_p")
        chosen |= {name: getattr(drawn, name) for name in names}
        chosen["min_p"] = drawn.min_p or None
    return GenerationConfig(
        max_new_tokens=limits.max_tokens,
        eos_token_id=ends or None,
        pad_token_id=ends[0] if ends else 0,
        repetition_penalty=drawn.repetition_penalty,
        use_cache=True,
        **chosen,
    )


class _Streamer(BaseStreamer):  # type: ignore[misc]
    """Passes new tokens on; what comes first is the prompt."""

    def __init__(self, on_tokens: OnTokens) -> None:
        self._tell = on_tokens
        self._begun = False

    def put(self, value: Tensor) -> None:
        """Take tokens."""
        if self._begun:
            self._tell(value.flatten().tolist())
        self._begun = True

    def end(self) -> None:
        """Nothing is kept."""
