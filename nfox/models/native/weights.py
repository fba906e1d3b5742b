"""What a decoder computes with, as the native library takes it."""

from __future__ import annotations

from torch import Tensor, nn
from transformers.activations import GELUActivation, GELUTanh, SiLUActivation

from nfox.models.decoder_weights import DecoderWeights, scale_of_embeddings
from nfox.models.fused_products import Norm, Product
from nfox.models.native import structures
from nfox.models.native.product import NativeProduct, as_native, halves
from nfox.models.unsupported import UnsupportedError

_ACTIVATIONS = {nn.SiLU: 0, SiLUActivation: 0, GELUTanh: 1, GELUActivation: 2, nn.ReLU: 3}
"""The number of an activation in the library, by its class."""


class NativeWeights:
    """The weights of a decoder, of which there is a copy where they are not packed already.

    Args:
        weights: the weights.

    Attributes:
        decoder: the structure that the library reads; this object keeps its memory.
        kinds: the kinds of layers, in the order of their numbers.
        unembedding: the product for the logits.
        formats: of the packed weights of layers.
        copied_bytes: the size of the copies.

    Raises:
        NativeLibraryError: if there is no native library.
        UnsupportedError: for sizes, an activation or embeddings that the library does not compute
            with.
    """

    def __init__(self, weights: DecoderWeights) -> None:
        activations = {type(layer.activation) for layer in weights.layers}
        if len(activations) > 1 or not activations <= set(_ACTIVATIONS):
            names = ", ".join(sorted(activation.__name__ for activation in activations))
            raise UnsupportedError(f"the activation {names}")
        self._weights = weights
        self.kinds = tuple(dict.fromkeys(weights.kinds))
        self.copied_bytes = 0
        self._products: list[NativeProduct] = []  # whose memory the library reads
        self._norm_weights: list[Tensor] = []  # likewise
        count = len(weights.layers)
        layers = (structures.Layer * count)(*map(self._layer, range(count)))
        self.formats = {product.packed.format for product in self._products}
        self.unembedding = self._native(weights.unembedding)
        embedding: Tensor = weights.embed.weight  # type: ignore[assignment]
        self.decoder = structures.Decoder(
            layers=layers,
            num_layers=count,
            hidden_size=embedding.shape[1],
            num_heads=weights.num_heads,
            num_key_heads=weights.num_key_heads,
            head_dim=weights.head_dim,
            activation=_ACTIVATIONS[type(weights.layers[0].activation)],
            embedding=embedding.data_ptr(),
            embedding_scale=weights.embedding_scale * scale_of_embeddings(weights.embed),
            norm=self._norm(weights.norm),
            unembedding=self.unembedding.matrix,
        )

    def _layer(self, index: int) -> structures.Layer:
        layer = self._weights.layers[index]
        gate, up = halves(layer.gate_up)
        down = self._native(layer.down).matrix
        structures.check_sizes(down.outputs, down.inputs, self._weights.head_dim)
        return structures.Layer(
            attention=self._norm(layer.attention_norm),
            attended=self._norm(layer.attended_norm),
            mlp=self._norm(layer.mlp_norm),
            mlp_out=self._norm(layer.mlp_out_norm),
            query=self._norm(layer.query_norm),
            key=self._norm(layer.key_norm),
            qkv=self._native(layer.qkv).matrix,
            out=self._native(layer.out).matrix,
            gate=self._native(gate).matrix,
            up=self._native(up).matrix,
            down=down,
            residual_scale=layer.residual_scale,
            scale=layer.scale,
            cap=layer.cap or 0.0,
            rotates=layer.rotates,
            kind=self.kinds.index(self._weights.kinds[index]),
        )

    def _native(self, product: Product) -> NativeProduct:
        native = as_native(product)
        self.copied_bytes += native.packed.weights.nbytes if native is not product else 0
        self._products.append(native)
        return native

    def _norm(self, norm: Norm | None) -> structures.Norm:
        if norm is None:
            return structures.Norm()
        weight = norm.weight.float().contiguous()
        self._norm_weights.append(weight)
        return structures.Norm(weight=weight.data_ptr(), eps=norm.eps, width=len(weight))
