"""The model we serve, as the loop sees it: it reads tokens and scores trees.

It knows nothing about drafters. What kinds of proposals it takes is found by trying, not by name.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from nfox.decoding.cache import KVCache
from nfox.decoding.tree import TokenTree, ancestors
from nfox.errors import ModelError

log = logging.getLogger(__name__)

Score = Callable[[TokenTree, KVCache], tuple[Tensor, Tensor]]
"""What `Target.score` is; others may go another way."""

Proposals = Literal["trees", "chains", "nothing"]
"""What a target can score in one forward: any tree, a chain, or the root alone."""

CACHES = ("cache", "past_key_values", "cache_params")
"""What models call their cache: since transformers 5.24, before it, and Mamba before it."""

CHUNK = 512
"""Tokens read in one forward, so that reading a long prompt can be interrupted."""


class Target:
    """A causal or an encoder-decoder language model of transformers.

    Args:
        model: in evaluation mode, on its device or devices.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.config = model.config.get_text_config(decoder=True)
        self.vocabulary = int(model.get_output_embeddings().weight.shape[0])
        self.takes = frozenset(inspect.signature(model.forward).parameters)
        self.encodes = bool(model.config.is_encoder_decoder)
        self._captured: list[Tensor] = []
        # The input of the output embeddings is the last hidden state of every architecture; taking
        # it there spares the collection of all layers' states.
        model.get_output_embeddings().register_forward_pre_hook(self._capture)

    def _capture(self, module: torch.nn.Module, arguments: tuple[Any, ...]) -> None:
        self._captured = [arguments[0].to(self.last_device)]  # tied weights lie in front

    @cached_property
    def device(self) -> torch.device:
        """Where token ids go in."""
        return _place(self.model.get_input_embeddings())

    @cached_property
    def dtype(self) -> torch.dtype:
        """The dtype of activations."""
        dtype: torch.dtype = self.model.dtype
        return dtype

    @cached_property
    def last_device(self) -> torch.device:
        """Where last hidden states and logits come out."""
        return _place(self.model.get_output_embeddings())

    @property
    def devices(self) -> tuple[str, ...]:
        """Where its weights are, from the first to the last layer; of one that is split perhaps
        also on the "disk".
        """
        found = getattr(self.model, "hf_device_map", {"": self.device}).values()
        named = (place if place == "disk" else str(torch.device(place)) for place in found)
        return tuple(dict.fromkeys(named))

    @property
    def hidden_size(self) -> int:
        """The width of the last hidden states."""
        return int(self.model.get_output_embeddings().in_features)

    @property
    def max_context(self) -> int:
        """The number of positions the model was made for (a very large one if it does not say)."""
        named = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
        found = [getattr(self.config, name, None) for name in named]
        relative = self.encodes and not getattr(self.config, "max_position_embeddings", None)
        return next((int(n) for n in found if n and not relative), 1 << 20)

    @property
    def first_token(self) -> int:
        """What an encoder-decoder model's decoder starts from."""
        start = self.model.generation_config.decoder_start_token_id
        return int(start if start is not None else self.model.config.decoder_start_token_id)

    def hidden(
        self,
        ids: Tensor,
        *,
        gradient: bool = False,
        seen: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Return the last hidden states [B, T, D] of whole texts, for training.

        Args:
            ids: [B, T] tokens, padded on the right: what comes after a token does not change its
                state, so no mask is needed (and with a sliding window one makes NaN of padding).
            gradient: keep what the model itself needs to learn.
            seen: [B, T, T] bool, which tokens each one sees where these are not all before it; for
                a target that takes trees.
            positions: [B, T] of the tokens, where `seen` is given.
        """
        model, shape = self.model.base_model, dict[str, Any]()
        if seen is not None and positions is not None:
            least = torch.finfo(self.dtype).min
            mask = torch.zeros(seen.shape, dtype=self.dtype, device=seen.device)
            shape = self._shaped(mask.masked_fill(~seen, least), positions, positions)
        with torch.set_grad_enabled(gradient and torch.is_grad_enabled()):
            ids = ids.to(self.device)
            states: Tensor = model(ids, use_cache=False, **shape).last_hidden_state
        return states.to(self.last_device)

    def embed(self, ids: Tensor) -> Tensor:
        """Return the input embeddings [..., D] of token ids [...]."""
        vectors: Tensor = self.model.get_input_embeddings()(ids)
        return vectors

    def unembed(self, hidden: Tensor) -> Tensor:
        """Return the logits [..., V] of last hidden states [..., D], as the model computes them.

        The output embeddings are not all of it: Gemma 2 caps the logits, Cohere and Granite scale
        them.
        """
        logits: Tensor = self.model.get_output_embeddings()(hidden)
        self._captured.clear()
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        scale, divisor, cap = (
            getattr(self.config, name, None)
            for name in ("logit_scale", "logits_scaling", "final_logit_softcapping")
        )
        logits = logits * scale if scale else logits  # a pass over [n, V] is not free
        logits = logits / divisor if divisor else logits
        return torch.tanh(logits / cap) * cap if cap else logits

    @cached_property
    def unembeds(self) -> bool:
        """Whether `unembed` gives this model's logits, found by a probe on a few tokens."""
        cache = self.new_cache()
        cache.reuse([0], (0,) if self.encodes else None)
        logits, hidden = self.score(TokenTree.chain(0), cache)
        with torch.inference_mode():
            return torch.allclose(self.unembed(hidden), logits, rtol=1e-2, atol=1e-2)

    @cached_property
    def proposals(self) -> Proposals:
        """What this model scores rightly in one forward, found by a probe on a few tokens."""
        if not self._agrees(_chain_probe):
            return "nothing"
        return "trees" if not self.encodes and self._agrees(_tree_probe) else "chains"

    def new_cache(self) -> KVCache:
        """Return an empty cache for one conversation."""
        return KVCache(self.model.config, rollback=self.proposals != "nothing")

    def read(
        self, tokens: Sequence[int], cache: KVCache, stop: Callable[[], bool] | None = None
    ) -> bool:
        """Read tokens into the cache, chunk by chunk.

        Args:
            tokens: any number of them.
            cache: what has been read before; longer by `tokens` afterwards.
            stop: asked before every chunk.

        Returns:
            False if `stop` said to.
        """
        # A recurrent state takes a whole text from the start, or one token more: transformers
        # scans several tokens as if nothing had been before them.
        chunk = CHUNK if cache.rollback else 1 if cache.tokens else max(len(tokens), 1)
        for start in range(0, len(tokens), chunk):
            if stop and stop():
                return False
            self._read_chunk(tokens[start : start + chunk], cache)
        self._wait()
        return True

    @torch.inference_mode()
    def _read_chunk(self, tokens: Sequence[int], cache: KVCache) -> None:
        ids = torch.tensor([list(tokens)], device=self.device)
        cache.begin()
        if self.encodes:
            self._forward(ids, cache)
            hidden = self._captured.pop()
        else:  # no logits are needed
            model = self.model.base_model
            hidden = model(ids, use_cache=True, **self._past(cache)).last_hidden_state
        cache.extend(tokens, hidden[0].to(self.last_device))

    def _wait(self) -> None:
        """Let all that was begun on a GPU come to its end, so that time is counted where it is
        spent; whoever looks at the logits would wait for it all the same.
        """
        if self.last_device.type == "cuda":
            torch.cuda.synchronize(self.last_device)

    @torch.inference_mode()
    def score(self, tree: TokenTree, cache: KVCache) -> tuple[Tensor, Tensor]:
        """Run the target once over all nodes of a tree. The cache is not longer afterwards.

        Args:
            tree: of a kind that `proposals` allows.
            cache: what has been read before.

        Returns:
            [N, V] logits, float32 or wider, and [N, D] last hidden states, after every node.
        """
        ids = torch.tensor([tree.tokens], device=self.device)
        shape: dict[str, Any] = {}
        if len(tree) > 1 and self.proposals == "trees":
            shape = self._tree_inputs(tree, len(cache.tokens))
        cache.begin()
        logits = self._forward(ids, cache, **shape)
        self._wait()
        return logits, self._captured.pop()[0]

    def _forward(self, ids: Tensor, cache: KVCache, **inputs: Any) -> Tensor:
        """Return [N, V] logits of one whole forward."""
        if self.encodes:
            inputs |= {"decoder_input_ids": ids, "encoder_outputs": self._encode(cache)}
        else:
            inputs["input_ids"] = ids
        logits: Tensor = self.model(use_cache=True, **inputs, **self._past(cache)).logits[0]
        wide = torch.promote_types(logits.dtype, torch.float32)
        return logits.to(self.last_device, wide)  # a model that is split gives them where ids came

    def _past(self, cache: KVCache) -> dict[str, Any]:
        name = next((name for name in CACHES if name in self.takes), None)
        if name is None:  # most models ignore what they do not know, and would forget everything
            raise ModelError(
                f"{type(self.model).__name__} takes no cache: expected one of {', '.join(CACHES)}",
                "nfox decodes models that remember what they have read",
            )
        return {name: cache.past}

    def _encode(self, cache: KVCache) -> BaseModelOutput:
        """Run the encoder over the cache's source, once: its states stay with the cache."""
        if cache.encoded is None:
            ids = torch.tensor([list(cache.source or ())], device=self.device)
            cache.encoded = self.model.get_encoder()(ids).last_hidden_state
        return BaseModelOutput(last_hidden_state=cache.encoded)

    def _tree_inputs(self, tree: TokenTree, base: int) -> dict[str, Any]:
        """Return the position ids [1, N] and additive masks [1, 1, N, base + N] of a tree."""
        positions = base + torch.tensor(tree.depths)
        full = torch.zeros(len(tree), base + len(tree), dtype=self.dtype)
        full[:, base:] = _unseen(tree.parents, self.dtype)
        keys = torch.cat([torch.arange(base), positions])
        return self._shaped(full[None], positions[None], keys[None])

    def _shaped(self, full: Tensor, positions: Tensor, keys: Tensor) -> dict[str, Any]:
        """Return additive masks [B, 1, N, K] and position ids [B, N] as the model takes them.

        Args:
            full: [B, N, K] masks without a sliding window.
            positions: [B, N] of the tokens.
            keys: [B, K] of what they may see.
        """
        masks: Any = self._placed(full)
        window = getattr(self.config, "sliding_window", None)
        kinds = set(getattr(self.config, "layer_types", None) or ())
        if window and kinds != {"full_attention"}:
            far = positions[:, :, None] - keys[:, None, :] >= window
            near = full.masked_fill(far, torch.finfo(self.dtype).min)
            both = {"full_attention": full, "sliding_attention": near}
            # Such models take one mask per kind of layer, those without kinds the narrow one.
            masks = {kind: self._placed(both[kind]) for kind in kinds} or self._placed(near)
        inputs: dict[str, Any] = {"attention_mask": masks}
        if "position_ids" in self.takes:
            inputs["position_ids"] = positions.to(self.device)
        return inputs

    def _placed(self, mask: Tensor) -> Tensor:
        return mask[:, None].to(self.device)

    @torch.inference_mode()
    def _agrees(self, probe: _Probe) -> bool:
        """Whether a tree scored at once gives what its paths give one token at a time."""
        parents, check = probe
        tokens = [(7 * i + 3) % self.vocabulary for i in range(len(parents) + 4)]
        tree = TokenTree(tuple(tokens[4:]), parents)
        cache = KVCache(self.model.config)
        cache.source = tuple(tokens[:4])
        try:
            self.read(tokens[:4], cache)
            # The probe runs before `proposals` is known, so it says itself what to send.
            shape = {} if tree.is_chain else self._tree_inputs(tree, 4)
            at_once = self._forward(torch.tensor([tree.tokens], device=self.device), cache, **shape)
            expected = self._one_by_one([tree.tokens[node] for node in tree.path(check)], cache)
        except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
            # Whatever a model raises here, it does not take such proposals.
            log.debug("probe of %d nodes: %s", len(tree), error)
            return False
        finally:
            self._captured.clear()
        coarse = self.dtype in (torch.float16, torch.bfloat16) or hasattr(
            self.config, "quantization_config"
        )
        difference = (at_once[check] - expected).abs().max() / expected.std().clamp_min(1e-9)
        return bool(difference < (0.25 if coarse else 1e-3))

    def _one_by_one(self, tokens: Sequence[int], cache: KVCache) -> Tensor:
        """Return [V] logits after the last of `tokens`, each scored by itself."""
        logits = torch.empty(0)
        for token in tokens:
            ids = torch.tensor([[token]], device=self.device)
            logits = self._forward(ids, cache)
            cache.extend([token], self._captured.pop()[0])
        return logits[-1]


def _place(layer: Any) -> torch.device:
    """Return where a layer computes. Of a model that is split, a layer's weights may lie on the
    disk, or in the memory of the CPU beside a GPU; accelerate's hook brings them when it is run.
    """
    hook = getattr(layer, "_hf_hook", None)
    at = getattr(hook, "execution_device", None)
    return torch.device(layer.weight.device if at is None else at)


@lru_cache(maxsize=1024)
def _unseen(parents: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return [N, N]: 0 where a node sees another, the dtype's least number where it does not."""
    least = torch.finfo(dtype).min
    return torch.zeros(len(parents), len(parents), dtype=dtype).masked_fill(
        ~ancestors(parents), least
    )


_Probe = tuple[tuple[int, ...], int]

# A chain, compared at its end; and a long branch with a short one after it, whose last node stands
# 13 places further than its position says: what ignores mask or positions is far off there.
_chain_probe: _Probe = (tuple(range(-1, 5)), 5)
_tree_probe: _Probe = ((*range(-1, 13), 0, 14), 15)
