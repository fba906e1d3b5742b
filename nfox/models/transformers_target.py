"""A target that runs a model of transformers, whatever its architecture: by transformers, or by a
forward of nfox's own, where this gives the same logits in less time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from typing_extensions import override

from nfox.decoding.cache import KVCache
from nfox.decoding.target import CHUNK, Proposals, Target, Vocabulary, check_tokens
from nfox.decoding.tree import TokenTree
from nfox.errors import ModelError
from nfox.models.checkpoint_files import CONTEXT_NAMES
from nfox.models.fused_decoder import FusedDecoder
from nfox.models.fused_positions import rotation_limits
from nfox.models.logits_error import logits_error
from nfox.models.native.decoder import NativeDecoder
from nfox.models.native.library import NativeLibraryError
from nfox.models.native.product import NativeProduct
from nfox.models.packed_layers import is_tied, packed_layers
from nfox.models.probes import agrees, find_proposals
from nfox.models.quantised_vocabulary import QuantisedVocabulary, matrix_to_quantise
from nfox.models.transformers_cache import TransformersCache
from nfox.models.transformers_forward import TransformersForward
from nfox.models.unsupported import UnsupportedError

log = logging.getLogger(__name__)

_NATIVE_CHUNK = 128
"""Tokens that the native library reads at once: as fast as more, and soon interrupted."""


class TransformersTarget(Target):
    """A causal or an encoder-decoder language model of transformers.

    Args:
        model: the model of transformers, in evaluation mode, on its device or devices.
        stored_in: the GGUF file whose weights it has as they are stored there; None for none.

    Attributes:
        model: the model of transformers.
        stored_in: the GGUF file whose weights it has as they are stored there; None for none.
        config: the config of the model, or of its text decoder where it has several parts.
        head: its LM head.
        fused: runs forwards over trees in less time; None where the model does it.
        why_not_native: why the native library does not run them, in a few words; "" where it does,
            or where `fuse` has not tried.
    """

    def __init__(self, model: PreTrainedModel, stored_in: Path | None = None) -> None:
        self.model, self.stored_in = model, stored_in
        self._transformers = TransformersForward(model)
        self.config = self._transformers.config
        self.head = self._transformers.head
        self.fused: FusedDecoder | NativeDecoder | None = None
        self.why_not_native, self._lacks_library = "", False
        # Those that a drafter still has, by their tokens: others guess with the same.
        self._guessing_vocabularies = WeakValueDictionary[tuple[int, ...], QuantisedVocabulary]()

    @property
    @override
    def vocabulary_size(self) -> int:
        return self._transformers.vocabulary_size

    @property
    @override
    def is_encoder_decoder(self) -> bool:
        return self._transformers.is_encoder_decoder

    @property
    @override
    def device(self) -> torch.device:
        return self._transformers.device

    @cached_property
    @override
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.model.dtype
        return dtype

    @property
    @override
    def output_device(self) -> torch.device:
        return self._transformers.output_device

    @property
    def devices(self) -> tuple[str, ...]:
        """The names of the devices of the weights, from the first layer to the last; "disk" is one
        where a model that is split finds no room in memory.
        """
        devices = getattr(self.model, "hf_device_map", {"": self.device}).values()
        names = (device if device == "disk" else str(torch.device(device)) for device in devices)
        return tuple(dict.fromkeys(names))

    @property
    def forward_description(self) -> str:
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
        return None if self.head.is_scaled else native

    @cached_property
    def num_parameters(self) -> int:
        """How many weights the model has, however they are packed."""
        # The weights of a packed head may be those of the input embeddings.
        tied = self.head.layer if is_tied(self.config) else None
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
        return int(self.head.layer.in_features)

    @property
    @override
    def max_context(self) -> int:
        lengths = [getattr(self.config, name, None) for name in CONTEXT_NAMES]
        # An encoder-decoder model without this field has relative positions: they do not end.
        relative = self.is_encoder_decoder and not getattr(
            self.config, "max_position_embeddings", None
        )
        longest = next((int(n) for n in lengths if n and n > 0 and not relative), 1 << 20)
        return min([longest, *rotation_limits(self.config)])

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
        with torch.set_grad_enabled(gradient and torch.is_grad_enabled()):
            return self._transformers.hidden_states(ids, visible, positions)

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
            products = self.fused.unembedding(rows).view(*hidden.shape[:-1], -1)
            return self.head.scaled(products)
        return self._transformers.unembed(hidden)

    @property
    def native_parts(self) -> tuple[Tensor, NativeProduct] | None:
        """The embeddings and the product for the logits, as `NativeVocabulary` has them."""
        embeddings, native = self.model.get_input_embeddings(), self.chain_drafter
        if native is None or type(embeddings) is not nn.Embedding:
            return None
        return embeddings.weight.detach(), native.unembedding

    @override
    def guessing_vocabulary(self, frequent_tokens: Sequence[int] = ()) -> Vocabulary:
        matrix = matrix_to_quantise(self.model) if self.is_native else None
        if matrix is None:
            return self
        shared = self._guessing_vocabularies.get(tuple(frequent_tokens))
        if shared is None:
            bias = getattr(self.head.layer, "bias", None)
            shared = QuantisedVocabulary(self, matrix, bias, self.head.scaled, frequent_tokens)
            self._guessing_vocabularies[tuple(frequent_tokens)] = shared
        return shared

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
        """The proposals that the model scores correctly in one forward, found on a few tokens."""
        return find_proposals(self._transformers)

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
        if self.is_encoder_decoder:
            if cancelled and cancelled():
                return False
            self._transformers.encode(cache)
        # A recurrent state takes a whole text from the start, or one token more: transformers
        # scans several tokens as if nothing had been before them.
        chunk = CHUNK if cache.can_roll_back else 1 if cache.tokens else max(len(tokens), 1)
        if self.is_native:
            chunk = _NATIVE_CHUNK
        for start in range(0, len(tokens), chunk):
            if cancelled and cancelled():
                return False
            self._read_chunk(tokens[start : start + chunk], cache)
        self._wait()
        return True

    @torch.inference_mode()
    def _read_chunk(self, tokens: Sequence[int], cache: KVCache) -> None:
        if isinstance(self.fused, NativeDecoder):
            cache.begin()
            hidden = self.fused.hidden_states(TokenTree.chain(tokens[0], tokens[1:]), cache)
            cache.extend(tokens, hidden)
        else:
            self._transformers.read(tokens, cache)

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
        except (AttributeError, UnsupportedError, StopIteration) as error:  # some other shape
            log.debug("no %s: %s", kind.__name__, error)
            if kind is NativeDecoder and isinstance(error, UnsupportedError):
                self.why_not_native = str(error)
            return False
        if agrees(fused, self._transformers, self.proposals):
            self.fused = fused
        elif kind is NativeDecoder:
            self.why_not_native = "its logits of a few tokens are not the model's own"
        return self.fused is not None

    @override
    @torch.inference_mode()
    def score(self, tree: TokenTree, cache: KVCache) -> tuple[Tensor, Tensor]:
        if self.fused:
            cache.begin()
            products, hidden = self.fused.score(tree, cache)
            logits = self.head.scaled(products)
        else:
            masked = len(tree) > 1 and self.proposals == "trees"
            logits, hidden = self._transformers.score(tree, cache, masked=masked)
        self._wait()
        return logits, hidden

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
            raise TypeError(f"one conversation at a time by {self.forward_description}")
        products, hidden = self.fused.score_batch(batch)
        return self.head.scaled(products), hidden
