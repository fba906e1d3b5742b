"""A target that runs a model of transformers, whatever its architecture.

What kinds of proposals a model takes is found by trying, not by its name; what a few tokens cannot
show is read in its config.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput
from typing_extensions import override

from nfox.decoding.cache import KVCache
from nfox.decoding.target import CHUNK, Proposals, Target, Vocabulary, are_numbers, check_tokens
from nfox.decoding.tree import TokenTree
from nfox.decoding.tree_mask import Mask, tree_mask, within_window
from nfox.errors import ModelError
from nfox.files.tensors import is_finite
from nfox.models.attention_windows import has_other_windows
from nfox.models.checkpoint_files import CONTEXT_NAMES
from nfox.models.fused_decoder import FusedDecoder
from nfox.models.logits_error import logits_error
from nfox.models.native.decoder import NativeDecoder
from nfox.models.native.library import NativeLibraryError
from nfox.models.native.product import NativeProduct
from nfox.models.packed_layers import is_tied, packed_layers
from nfox.models.quantised_vocabulary import QuantisedVocabulary, matrix_to_quantise
from nfox.models.transformers_cache import TransformersCache, as_transformers_cache, past_of

log = logging.getLogger(__name__)

CACHE_NAMES = ("cache", "past_key_values", "cache_params")
"""The names of a forward's cache: since transformers 5.24, before it, and of Mamba before it."""


class TransformersTarget(Target):
    """A causal or an encoder-decoder language model of transformers.

    Args:
        model: the model of transformers, in evaluation mode, on its device or devices.
        stored_in: the GGUF file whose weights it has as they are stored there; None for none.

    Attributes:
        model: the model of transformers.
        stored_in: the GGUF file whose weights it has as they are stored there; None for none.
        config: the config of the model, or of its text decoder where it has several parts.
        forward_parameters: the names of the parameters of the model's forward.
        fused: runs forwards over trees in less time; None where the model does it.
        why_not_native: why the native library does not run them, in a few words; "" where it does,
            or where `fuse` has not tried.
    """

    def __init__(self, model: PreTrainedModel, stored_in: Path | None = None) -> None:
        self.model, self.stored_in = model, stored_in
        self.config = model.config.get_text_config(decoder=True)
        self.forward_parameters = frozenset(inspect.signature(model.forward).parameters)
        self.fused: FusedDecoder | NativeDecoder | None = None
        self.why_not_native, self._lacks_library = "", False
        self._captured: list[Tensor] = []
        # The input of the output embeddings is the last hidden state of every architecture; taking
        # it there spares the collection of all layers' states. The hook stays: an interrupt could
        # leave one behind that came and went with every forward.
        model.get_output_embeddings().register_forward_pre_hook(self._capture)

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
    @override
    def vocabulary_size(self) -> int:
        return int(self.model.get_output_embeddings().out_features)

    @cached_property
    @override
    def is_encoder_decoder(self) -> bool:
        return bool(self.model.config.is_encoder_decoder)

    @cached_property
    @override
    def device(self) -> torch.device:
        return _execution_device(self.model.get_input_embeddings())

    @cached_property
    @override
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.model.dtype
        return dtype

    @cached_property
    @override
    def output_device(self) -> torch.device:
        return _execution_device(self.model.get_output_embeddings())

    @property
    def devices(self) -> tuple[str, ...]:
        """The names of the devices of the weights, from the first layer to the last; "disk" is one
        where a model that is split finds no room in memory.
        """
        devices = getattr(self.model, "hf_device_map", {"": self.device}).values()
        names = (device if device == "disk" else str(torch.device(device)) for device in devices)
        return tuple(dict.fromkeys(names))

    @property
    def forward(self) -> str:
        """What runs a forward over a tree, in a few words."""
        name = self.fused.description if self.fused else "transformers"
        return f"{name} ({self.why_not_native})" if self._lacks_library else name

    @property
    def copied_bytes(self) -> int:
        """The size of the copies of weights, in another layout or dtype, that forwards over a tree
        multiply with; 0 where they take the model's own.
        """
        return self.fused.copied_bytes if self.fused else 0

    @property
    def is_native(self) -> bool:
        """Whether forwards run by the native library: logits of a token are then the same to the
        last bit whatever stands beside it, so that every method gives the same text, and
        `score_batch` runs one for several conversations.
        """
        return isinstance(self.fused, NativeDecoder)

    @property
    def chain_drafter(self) -> NativeDecoder | None:
        """What drafts chains of this model's likeliest tokens in one call; None where the native
        library does not run its forwards, or where its logits are scaled or capped after them.
        """
        native = self.fused if isinstance(self.fused, NativeDecoder) else None
        return None if any(self._logit_factors) else native

    @cached_property
    def num_parameters(self) -> int:
        """How many weights the model has, however they are packed."""
        # The weights of a packed head may be those of the input embeddings.
        tied = self.model.get_output_embeddings() if is_tied(self.config) else None
        packed = (
            (layer.in_features + (layer.product.bias is not None)) * layer.out_features
            for layer in packed_layers(self.model)
            if layer is not tied
        )
        return int(self.model.num_parameters()) + sum(packed)

    @cached_property
    def numbers(self) -> str:
        """The dtype in which the model computes, and the formats of weights that have another one,
        in words.
        """
        dtype = str(self.dtype).removeprefix("torch.")
        formats = sorted({layer.format for layer in packed_layers(self.model)} - {dtype})
        return f"{dtype}, weights in {' and '.join(formats)}" if formats else dtype

    @property
    @override
    def hidden_size(self) -> int:
        return int(self.model.get_output_embeddings().in_features)

    @property
    @override
    def max_context(self) -> int:
        lengths = [getattr(self.config, name, None) for name in CONTEXT_NAMES]
        # An encoder-decoder model without this field has relative positions: they do not end.
        relative = self.is_encoder_decoder and not getattr(
            self.config, "max_position_embeddings", None
        )
        return next((int(n) for n in lengths if n and n > 0 and not relative), 1 << 20)

    @property
    @override
    def decoder_start_token(self) -> int:
        start = self.model.generation_config.decoder_start_token_id
        return int(start if start is not None else self.model.config.decoder_start_token_id)

    @override
    def hidden_states(
        self,
        ids: Tensor,
        *,
        gradient: bool = False,
        visible: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        check_tokens(map(int, ids.aminmax() if ids.numel() else ()), self.vocabulary_size)
        if self.is_native and not gradient and visible is None:
            return torch.stack([self._states_of(row) for row in ids.tolist()])
        model, inputs = self._body, dict[str, Any]()
        if visible is not None and positions is not None:
            additive = torch.zeros(visible.shape, dtype=self.dtype, device=visible.device)
            additive = additive.masked_fill(~visible, torch.finfo(self.dtype).min)
            inputs = self._mask_inputs(Mask(additive, positions, positions))
        with torch.set_grad_enabled(gradient and torch.is_grad_enabled()):
            ids = ids.to(self.device)
            states: Tensor = model(ids, use_cache=False, **inputs).last_hidden_state
        return states.to(self.output_device)

    def _states_of(self, tokens: Sequence[int]) -> Tensor:
        """Return the last hidden states [T, D] of a text, as the forwards of decoding give them."""
        cache = self.new_cache()
        self.read(tokens, cache)
        return cache.hidden

    @override
    def embed(self, ids: Tensor) -> Tensor:
        vectors: Tensor = self.model.get_input_embeddings()(ids)
        return vectors

    @override
    def unembed(self, hidden: Tensor) -> Tensor:
        if self.fused:
            rows = hidden.reshape(-1, hidden.shape[-1]).to(self.dtype)
            logits = self.fused.unembedding(rows).view(*hidden.shape[:-1], -1)
        else:
            logits = self.model.get_output_embeddings()(hidden)
            self._captured.clear()
        return self._scaled(logits)

    def unembed_some(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """Return the logits [..., n] of some tokens alone, as `unembed` gives those of all.

        Args:
            hidden: [..., D] last hidden states.
            tokens: [n] token ids.

        Raises:
            ModelError: if the LM head is no plain matrix, of which rows could be taken.
        """
        head = self.model.get_output_embeddings()
        if type(head) is not nn.Linear or not head.weight.is_floating_point():
            raise ModelError(
                f"the LM head is a {type(head).__name__}, of which no rows can be taken",
                "leave --vocabulary_sample out",
            )
        bias = None if head.bias is None else head.bias[tokens]
        weight = head.weight[tokens]
        return self._scaled(nn.functional.linear(hidden.to(weight.dtype), weight, bias))

    @property
    @override
    def native_parts(self) -> tuple[Tensor, NativeProduct] | None:
        embeddings, native = self.model.get_input_embeddings(), self.chain_drafter
        if native is None or type(embeddings) is not nn.Embedding:
            return None
        return embeddings.weight.detach(), native.unembedding

    @override
    def guessing_vocabulary(self, frequent_tokens: Sequence[int] = ()) -> Vocabulary:
        matrix = matrix_to_quantise(self.model) if self.is_native else None
        if matrix is None:
            return self
        bias = getattr(self.model.get_output_embeddings(), "bias", None)
        return QuantisedVocabulary(self, matrix, bias, self._scaled, frequent_tokens)

    def _scaled(self, logits: Tensor) -> Tensor:
        """Return logits [..., n] as the model leaves them, float32 or wider."""
        if logits.dtype == torch.float32 and not any(self._logit_factors):
            return logits
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        scale, divisor, cap = self._logit_factors
        logits = logits * scale if scale else logits  # a pass over [n, V] is not free
        logits = logits / divisor if divisor else logits
        return torch.tanh(logits / cap) * cap if cap else logits

    @cached_property
    def _logit_factors(self) -> tuple[float | None, ...]:
        """What logits are multiplied with, divided by and capped at: the output embeddings are not
        all of it. Cohere and Granite scale the logits, Gemma 2 caps them.
        """
        names = ("logit_scale", "logits_scaling", "final_logit_softcapping")
        return tuple(getattr(self.config, name, None) for name in names)

    @cached_property
    @override
    def can_unembed(self) -> bool:
        """Whether `unembed` gives the logits that the model itself gives, found on one token."""
        cache = self.new_cache()
        cache.reuse([0], (0,) if self.is_encoder_decoder else None)
        logits, hidden = self.score(TokenTree.chain(0), cache)
        with torch.inference_mode():
            return torch.allclose(self.unembed(hidden), logits, rtol=1e-2, atol=1e-2)

    @cached_property
    @override
    def proposals(self) -> Proposals:
        """The proposals that the model scores correctly in one forward, found on a few tokens. A
        chain needs no mask but the model's own; trees are not tried where this has windows that
        `_mask_inputs` does not know, and that may be longer than the few tokens.
        """
        if not self._scores_correctly(_CHAIN_PROBE):
            self._check_numbers()
            return "nothing"
        chains_only = self.is_encoder_decoder or has_other_windows(self.config)
        return "chains" if chains_only or not self._scores_correctly(_TREE_PROBE) else "trees"

    @override
    def numbers_error(self) -> ModelError:
        return logits_error(self.model)

    @override
    def freeze(self) -> None:
        self.model.requires_grad_(False)

    @override
    def new_cache(self) -> TransformersCache:
        return TransformersCache(self.model.config, can_roll_back=self.proposals != "nothing")

    @override
    def read(
        self, tokens: Sequence[int], cache: KVCache, cancelled: Callable[[], bool] | None = None
    ) -> bool:
        # A recurrent state takes a whole text from the start, or one token more: transformers
        # scans several tokens as if nothing had been before them.
        chunk = CHUNK if cache.can_roll_back else 1 if cache.tokens else max(len(tokens), 1)
        for start in range(0, len(tokens), chunk):
            if cancelled and cancelled():
                return False
            self._read_chunk(tokens[start : start + chunk], cache)
        self._wait()
        return True

    @torch.inference_mode()
    def _read_chunk(self, tokens: Sequence[int], cache: KVCache) -> None:
        ids = torch.tensor([list(tokens)], device=self.device)
        cache.begin()
        if isinstance(self.fused, NativeDecoder):
            hidden = self.fused.hidden_states(TokenTree.chain(tokens[0], tokens[1:]), cache)[None]
        elif self.is_encoder_decoder:
            self._forward(ids, cache)
            hidden = self._captured.pop()
        else:  # no logits are needed
            inputs = self._cache_input(cache)
            hidden = self._body(ids, use_cache=True, **inputs).last_hidden_state
        cache.extend(tokens, hidden[0].to(self.output_device))

    def _wait(self) -> None:
        """Wait for the kernels of a GPU, so that their time is counted where it is spent. Reading
        the logits would wait for them all the same.
        """
        if self.output_device.type == "cuda":
            torch.cuda.synchronize(self.output_device)

    def fuse(self, *, native: bool = True) -> None:
        """Read and score from now on by a `NativeDecoder`, or score by a `FusedDecoder`, where the
        model has a shape that they know and both agree on a few tokens; otherwise nothing changes.

        Weights that are used together are moved together in memory; the model keeps working on
        them.

        Args:
            native: whether a `NativeDecoder` is tried.
        """
        self.why_not_native = "its layers are of another kind"
        if self.is_encoder_decoder or self.proposals == "nothing":
            return
        if native and self._try(NativeDecoder):
            self.why_not_native = ""
        else:
            self._try(FusedDecoder)

    def _try(self, kind: type[NativeDecoder] | type[FusedDecoder]) -> bool:
        """Run forwards by a kind of decoder if it can; return whether it does."""
        try:
            fused = kind(self.model, self.config)
        except NativeLibraryError as error:
            self.why_not_native, self._lacks_library = str(error), True
            return False
        except (AttributeError, TypeError, StopIteration) as error:  # some other shape
            log.debug("no %s: %s", kind.__name__, error)
            if kind is NativeDecoder and isinstance(error, TypeError):
                self.why_not_native = str(error)
            return False
        if self._agrees_with(fused):
            self.fused = fused
        return self.fused is not None

    def _agrees_with(self, fused: FusedDecoder | NativeDecoder) -> bool:
        """Return whether the logits of a fused decoder are those of the model, for a few tokens; if
        they are others, and it is the native one, that is why it does not run.
        """
        parents, _ = _TREE_PROBE if self.proposals == "trees" else _CHAIN_PROBE
        tokens = _probe_tokens(len(parents) + 4, self.vocabulary_size)
        tree, cache = TokenTree(tuple(tokens[4:]), parents), self.new_cache()
        self.read(tokens[:4], cache)
        expected, _ = self.score(tree, cache)
        self.fused = fused
        try:
            logits, _ = self.score(tree, cache)
        except RuntimeError:  # sizes that do not fit together as expected
            return False
        finally:
            self.fused = None
        agrees = _close(logits, expected, self._is_coarse)
        if not agrees and isinstance(fused, NativeDecoder):
            self.why_not_native = f"its logits of {len(tokens)} tokens are not the model's own"
        return agrees

    @override
    @torch.inference_mode()
    def score(self, tree: TokenTree, cache: KVCache) -> tuple[Tensor, Tensor]:
        if self.fused:
            cache.begin()
            products, hidden = self.fused.score(tree, cache)
            logits = self._scaled(products)
            self._wait()
            return logits, hidden
        ids = torch.tensor([tree.tokens], device=self.device)
        inputs: dict[str, Any] = {}
        if len(tree) > 1 and self.proposals == "trees":
            inputs = self._mask_inputs(tree_mask(tree, len(cache.tokens), self.dtype))
        cache.begin()
        logits = self._forward(ids, cache, **inputs)
        self._wait()
        return logits, self._captured.pop()[0]

    @torch.inference_mode()
    def score_batch(self, batch: Sequence[tuple[TokenTree, KVCache]]) -> tuple[Tensor, Tensor]:
        """Run the model once over the trees of several conversations; see `score`.

        Args:
            batch: trees, each with the cache of its conversation; not empty.

        Returns:
            The logits [nodes of all trees, V] and the last hidden states [nodes of all trees, D],
            to the last bit those of each tree alone.

        Raises:
            TypeError: if this model does not (`is_native`).
        """
        if not isinstance(self.fused, NativeDecoder):
            raise TypeError(f"one conversation at a time by {self.forward}")
        products, hidden = self.fused.score_batch(batch)
        return self._scaled(products), hidden

    def _forward(self, ids: Tensor, cache: KVCache, **inputs: Any) -> Tensor:
        """Return [N, V] logits of one whole forward over ids [1, N]."""
        if self.is_encoder_decoder:
            inputs |= {"decoder_input_ids": ids, "encoder_outputs": self._encode(cache)}
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
        name = next((name for name in CACHE_NAMES if name in self.forward_parameters), None)
        if name is None:  # most models ignore what they do not know, and would forget everything
            raise ModelError(
                f"{type(self.model).__name__} takes no cache: expected one of "
                f"{', '.join(CACHE_NAMES)}",
                "nfox decodes models that remember what they have read",
            )
        return {name: past_of(cache)}

    def _encode(self, cache: KVCache) -> BaseModelOutput:
        """Return the encoder's states of the cache's encoder ids; the cache keeps them."""
        transformers_cache, encoder_ids = as_transformers_cache(cache), cache.encoder_ids or ()
        if transformers_cache.encoded is None or transformers_cache.encoded[0] != encoder_ids:
            ids = torch.tensor([list(encoder_ids)], device=self.device)
            transformers_cache.encoded = (
                encoder_ids,
                self.model.get_encoder()(ids).last_hidden_state,
            )
        return BaseModelOutput(last_hidden_state=transformers_cache.encoded[1])

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
        if "position_ids" in self.forward_parameters:
            inputs["position_ids"] = mask.positions.to(self.device)
        return inputs

    def _as_input(self, additive: Tensor) -> Tensor:
        return additive[:, None].to(self.device)

    @torch.inference_mode()
    def _scores_correctly(self, probe: _Probe) -> bool:
        """Return whether a tree that is scored in one forward gives the same logits at the end of a
        path as the tokens of this path, scored one by one.
        """
        parents, last_node = probe
        tokens = _probe_tokens(len(parents) + 4, self.vocabulary_size)
        tree = TokenTree(tuple(tokens[4:]), parents)
        cache = TransformersCache(self.model.config)
        cache.encoder_ids = tuple(tokens[:4])
        try:
            self.read(tokens[:4], cache)
            # The probe runs before `proposals` is known, so it says itself what to send.
            inputs = {} if tree.is_chain else self._mask_inputs(tree_mask(tree, 4, self.dtype))
            ids = torch.tensor([tree.tokens], device=self.device)
            at_once = self._forward(ids, cache, **inputs)
            path = [tree.tokens[node] for node in tree.path_to(last_node)]
            expected = self._score_one_by_one(path, cache)
            if not expected.isfinite().all():
                self._check_numbers()
        except _PROBE_FAILURES as error:
            log.debug("probe of %d nodes: %s", len(tree), error)
            return False
        finally:
            self._captured.clear()
        return _close(at_once[last_node], expected, self._is_coarse)

    @property
    def _is_coarse(self) -> bool:
        """Whether logits that are computed in two ways differ visibly by rounding."""
        is_16_bit = self.dtype in (torch.float16, torch.bfloat16)
        return is_16_bit or hasattr(self.config, "quantization_config")

    @torch.inference_mode()
    def _check_numbers(self) -> None:
        """Refuse a model whose logits are no numbers even where nothing is asked of its cache.

        Raises:
            ModelError: if they are none after a few tokens, read from the start, or if some are
                -inf because of infinite weights, and not because the model rules tokens out.
        """
        tokens = _probe_tokens(9, self.vocabulary_size)
        cache = TransformersCache(self.model.config, can_roll_back=False)
        cache.encoder_ids = tuple(tokens)
        try:
            self.read(tokens[:-1], cache)
            logits = self._forward(torch.tensor([tokens[-1:]], device=self.device), cache)
        except _PROBE_FAILURES as error:
            log.debug("probe of numbers: %s", error)
            return
        finally:
            self._captured.clear()
        if not (are_numbers(logits) and is_finite(self.model.get_output_embeddings().weight)):
            raise self.numbers_error()

    def _score_one_by_one(self, tokens: Sequence[int], cache: KVCache) -> Tensor:
        """Return the logits [V] after the last of the tokens, with one forward for each token."""
        logits = torch.empty(0)
        for token in tokens:
            ids = torch.tensor([[token]], device=self.device)
            logits = self._forward(ids, cache)
            cache.extend([token], self._captured.pop()[0])
        return logits[-1]


def _execution_device(layer: Any) -> torch.device:
    """Return the device on which a layer computes.

    The weights of a layer of a split model may lie on the disk, or in the CPU's memory for a layer
    that computes on a GPU; accelerate's hook brings them when the layer is run.
    """
    hook = getattr(layer, "_hf_hook", None)
    device = getattr(hook, "execution_device", None)
    return torch.device(layer.weight.device if device is None else device)


def _close(logits: Tensor, expected: Tensor, is_coarse: bool) -> bool:
    """Return whether logits are the expected ones but for rounding: by the root mean square of
    their differences, in standard deviations of the expected ones. A token that is ruled out by
    -inf is left out.
    """
    possible = expected.isfinite()
    logits, expected = logits[possible], expected[possible]
    difference = (logits - expected).square().mean().sqrt() / expected.std().clamp_min(1e-9)
    return bool(difference < (0.1 if is_coarse else 1e-3))


def _probe_tokens(count: int, vocabulary_size: int) -> list[int]:
    """Return different tokens for a probe."""
    return [(7 * i + 3) % vocabulary_size for i in range(count)]


# Whatever a model raises in a probe, it does not take what it was asked.
_PROBE_FAILURES = (RuntimeError, ValueError, TypeError, LookupError, AttributeError)

_Probe = tuple[tuple[int, ...], int]

# A chain, compared at its end; and a long branch with a short one after it, whose last node stands
# 13 places further than its position says: what ignores mask or positions is far off there.
_CHAIN_PROBE: _Probe = (tuple(range(-1, 5)), 5)
_TREE_PROBE: _Probe = ((*range(-1, 13), 0, 14), 15)
