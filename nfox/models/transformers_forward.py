"""Forwards of a model of transformers over a few tokens, whatever its architecture."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from nfox.decoding.cache import KVCache
from nfox.decoding.tree import TokenTree
from nfox.decoding.tree_mask import Mask, tree_mask, within_window
from nfox.errors import ModelError
from nfox.models.language_model_head import LanguageModelHead
from nfox.models.transformers_cache import as_transformers_cache, past_of

CACHE_NAMES = ("cache", "past_key_values", "cache_params")
"""The names of a forward's cache: since transformers 5.24, before it, and of Mamba before it."""


class TransformersForward:
    """A causal or an encoder-decoder language model of transformers, as it computes by itself.

    Args:
        model: the model of transformers, in evaluation mode, on its device or devices.

    Attributes:
        model: the model of transformers.
        config: the config of the model, or of its text decoder where it has several parts.
        parameters: the names of the parameters of the model's forward.
        head: the LM head.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.config = model.config.get_text_config(decoder=True)
        self.parameters = frozenset(inspect.signature(model.forward).parameters)
        self.head = LanguageModelHead(model)
        self._captured: list[Tensor] = []
        # The input of the output embeddings is the last hidden state of every architecture; taking
        # it there spares the collection of all layers' states. The hook stays: an interrupt could
        # leave one behind that came and went with every forward.
        self.head.layer.register_forward_pre_hook(self._capture)

    def _capture(self, module: torch.nn.Module, arguments: tuple[Any, ...]) -> None:
        self._captured = [arguments[0].to(self.output_device)]  # tied weights lie in front

    @cached_property
    def _body(self) -> Any:
        """The model without its output embeddings. Llama 4 names another part by its prefix, so
        that its `base_model` would be the whole.
        """
        base: Any = self.model.base_model
        return getattr(base, "model", base) if base is self.model else base

    @cached_property
    def vocabulary_size(self) -> int:
        """The number of logits after every token."""
        return int(self.head.layer.out_features)

    @cached_property
    def is_encoder_decoder(self) -> bool:
        """Whether an encoder reads the question, and the decoder only the reply."""
        return bool(self.model.config.is_encoder_decoder)

    @cached_property
    def device(self) -> torch.device:
        """The device where token ids go in."""
        return _execution_device(self.model.get_input_embeddings())

    @cached_property
    def output_device(self) -> torch.device:
        """The device where last hidden states and logits come out."""
        return _execution_device(self.head.layer)

    def unembed(self, hidden: Tensor) -> Tensor:
        """Return the logits [..., V], float32 or wider, of last hidden states [..., D]."""
        logits = self.head.logits(hidden)
        self.forget()
        return logits

    def forget(self) -> None:
        """Let go of the hidden states of the last forward."""
        self._captured.clear()

    def hidden_states(
        self, ids: Tensor, visible: Tensor | None = None, positions: Tensor | None = None
    ) -> Tensor:
        """Return the last hidden states [B, T, D] of whole texts; see `Target.hidden_states`."""
        inputs: dict[str, Any] = {}
        if visible is not None and positions is not None:
            dtype = self.model.dtype
            additive = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
            additive = additive.masked_fill(~visible, torch.finfo(dtype).min)
            inputs = self._mask_inputs(Mask(additive, positions, positions))
        ids = ids.to(self.device)
        states: Tensor = self._body(ids, use_cache=False, **inputs).last_hidden_state
        return states.to(self.output_device)

    @torch.inference_mode()
    def read(self, tokens: Sequence[int], cache: KVCache) -> None:
        """Read tokens into the cache in one forward, without logits where the model can do so."""
        ids = torch.tensor([list(tokens)], device=self.device)
        cache.begin()
        if self.is_encoder_decoder:
            self._logits(ids, cache)
            hidden = self._captured.pop()
        else:
            inputs = self._cache_input(cache)
            hidden = self._body(ids, use_cache=True, **inputs).last_hidden_state
        cache.extend(tokens, hidden[0].to(self.output_device))

    @torch.inference_mode()
    def encode(self, cache: KVCache) -> BaseModelOutput:
        """Return the encoder's states of the cache's encoder ids; the cache keeps them."""
        transformers_cache, encoder_ids = as_transformers_cache(cache), cache.encoder_ids or ()
        if transformers_cache.encoded is None or transformers_cache.encoded[0] != encoder_ids:
            ids = torch.tensor([list(encoder_ids)], device=self.device)
            transformers_cache.encoded = (
                encoder_ids,
                self.model.get_encoder()(ids).last_hidden_state,
            )
        return BaseModelOutput(last_hidden_state=transformers_cache.encoded[1])

    @torch.inference_mode()
    def score(self, tree: TokenTree, cache: KVCache, *, masked: bool) -> tuple[Tensor, Tensor]:
        """Return the logits [N, V], float32 or wider, and the last hidden states [N, D] after every
        node of a tree. The cache is not longer afterwards.

        Args:
            tree: N nodes.
            cache: what has been read before.
            masked: give the model the tree's mask and positions; without them it takes the nodes
                for a chain.

        Raises:
            ModelError: if the model's forward takes no cache.
        """
        ids = torch.tensor([tree.tokens], device=self.device)
        inputs: dict[str, Any] = {}
        if masked:
            inputs = self._mask_inputs(tree_mask(tree, len(cache.tokens), self.model.dtype))
        cache.begin()
        logits = self._logits(ids, cache, **inputs)
        return logits, self._captured.pop()[0]

    def _logits(self, ids: Tensor, cache: KVCache, **inputs: Any) -> Tensor:
        """Return [N, V] logits of one whole forward over ids [1, N]."""
        if self.is_encoder_decoder:
            inputs |= {"decoder_input_ids": ids, "encoder_outputs": self.encode(cache)}
        else:
            inputs["input_ids"] = ids
        logits: Tensor = self.model(use_cache=True, **inputs, **self._cache_input(cache)).logits[0]
        wide = torch.promote_types(logits.dtype, torch.float32)
        return logits.to(self.output_device, wide)  # a split model gives them where ids came in

    def _cache_input(self, cache: KVCache) -> dict[str, Any]:
        """Return the cache by the name that the model's forward has for it.

        Raises:
            ModelError: if the forward takes no cache.
        """
        name = next((name for name in CACHE_NAMES if name in self.parameters), None)
        if name is None:  # most models ignore what they do not know, and would forget everything
            raise ModelError(
                f"{type(self.model).__name__} takes no cache: expected one of "
                f"{', '.join(CACHE_NAMES)}",
                "nfox decodes models that remember what they have read",
            )
        return {name: past_of(cache)}

    def _mask_inputs(self, mask: Mask) -> dict[str, Any]:
        """Return the attention mask [B, 1, N, K] and the position ids as the model takes them."""
        masks: Any = self._as_input(mask.additive)
        window = getattr(self.config, "sliding_window", None)
        kinds = set(getattr(self.config, "layer_types", None) or ())
        if window and kinds != {"full_attention"}:
            near = within_window(mask, window)
            by_kind = {"full_attention": mask.additive, "sliding_attention": near}
            # Such models take one mask per kind of layer, those without kinds the narrow one.
            masks = {kind: self._as_input(by_kind[kind]) for kind in kinds} or self._as_input(near)
        inputs: dict[str, Any] = {"attention_mask": masks}
        if "position_ids" in self.parameters:
            inputs["position_ids"] = mask.positions.to(self.device)
        return inputs

    def _as_input(self, additive: Tensor) -> Tensor:
        return additive[:, None].to(self.device)


def _execution_device(layer: Any) -> torch.device:
    """Return the device on which a layer computes.

    The weights of a layer of a split model may lie on the disk, or in the CPU's memory for a layer
    that computes on a GPU; accelerate's hook brings them when the layer is run.
    """
    hook = getattr(layer, "_hf_hook", None)
    device = getattr(hook, "execution_device", None)
    return torch.device(layer.weight.device if device is None else device)
