"""`generate` of transformers: plain, with a draft model (assisted generation), with prompt lookup.

It loads the checkpoint that nfox runs, with the same attention and dtype.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
import transformers
from torch import Tensor
from transformers import GenerationConfig
from transformers.generation.streamers import BaseStreamer
from typing_extensions import override

from nfox.decoding.generate import Limits, Prompt
from nfox.engine import Engine
from nfox.errors import ModelError
from nfox.eval.peers.base import OnTokens, Peer, draft_of
from nfox.models.draft_pairs import check_pair
from nfox.models.loading import load_model
from nfox.models.memory import memory_in_use
from nfox.models.options import LoadedModel, ModelOptions
from nfox.reply import Settings

_CONFIDENCE = "assistant_confidence_threshold"
_LOOKUP_TOKENS = 10  # the value in transformers' documentation; it has no default


class Generate(Peer):
    """Plain decoding.

    Args:
        model: the folder or hub id of the target.
        loading: how it is loaded.
        settings: of a first token, which shows whether transformers generates so.
        threads: that torch computes with.

    Raises:
        ModelError: if the model does not load, or transformers does not generate with it.
    """

    name: ClassVar[str] = "hf"

    def __init__(self, model: str, loading: ModelOptions, settings: Settings, threads: int) -> None:
        torch.set_num_threads(threads)
        loaded = load_model(model, loading)
        self.model = loaded.target.model
        self.arguments = self._more_arguments(loaded)
        prompt = Prompt((0,))
        if loaded.target.is_encoder_decoder:
            prompt = Prompt((loaded.target.decoder_start_token,), (0,))
        try:
            self.answer(prompt, settings, Limits(1), lambda tokens: None)
        except (ValueError, TypeError, RuntimeError) as error:
            line = (str(error) or type(error).__name__).splitlines()[0]
            raise ModelError(f"transformers does not generate so: {line}") from error

    @override
    @classmethod
    def recipe(cls, engine: Engine, folder: Path) -> dict[str, Any]:
        if engine.loader is None:
            raise ModelError("transformers loads models by name, and this one was made otherwise")
        return {
            "model": engine.model.name,
            "loading": replace(engine.loader.loading, adapter=engine.model.adapter),
            "settings": engine.settings,
            "threads": torch.get_num_threads(),
        }

    def _more_arguments(self, loaded: LoadedModel) -> dict[str, Any]:
        """Return more arguments of `generate`."""
        return {}

    @override
    def begin(self) -> None:
        if self.model.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.model.device)

    @override
    def memory(self) -> int:
        return memory_in_use(self.model.device)

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
        dtype = str(self.model.dtype).removeprefix("torch.")
        version = transformers.__version__
        return f"generate of transformers {version}, {dtype}, {attention}, DynamicCache"


class Assisted(Generate):
    """Assisted generation, with the draft model of method `spec` and transformers' own settings.

    Args:
        draft: the folder or hub id of the draft model.
        draft_loading: how it is loaded.
        recipe: of plain decoding.
    """

    name = "hf-assisted"

    def __init__(self, draft: str, draft_loading: ModelOptions, **recipe: Any) -> None:
        self._draft = draft, draft_loading
        super().__init__(**recipe)

    @override
    @classmethod
    def recipe(cls, engine: Engine, folder: Path) -> dict[str, Any]:
        draft, loading = draft_of(engine)
        return super().recipe(engine, folder) | {"draft": draft, "draft_loading": loading}

    @override
    def _more_arguments(self, loaded: LoadedModel) -> dict[str, Any]:
        draft = load_model(*self._draft)
        check_pair(loaded, draft)
        return {"assistant_model": draft.target.model}

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
    def _more_arguments(self, loaded: LoadedModel) -> dict[str, Any]:
        return {"prompt_lookup_num_tokens": _LOOKUP_TOKENS}

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
