"""CTC-drafter: a small attention module says several slots at once, tokens or blanks.

NeurIPS 2024 (arXiv 2412.00061). It knows the root. All its slots speak at the same time; what they
say is collapsed (repeats merged, then blanks dropped), so a token may come a slot earlier or later,
and the tree is made of what is left: the likeliest beginnings over all alignments. A loss of
sequences trains it: connectionist temporal classification.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ctypes import c_int32
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from nfox.counting import counted
from nfox.decoding.costs import Costs
from nfox.decoding.drafter import Context
from nfox.decoding.target import Target, Vocabulary
from nfox.decoding.tree import TokenTree
from nfox.decoding.tree_shapes import Accuracy
from nfox.drafters.common.attending_heads import AttendingHeadsDrafter
from nfox.drafters.common.calibration import Calibration
from nfox.drafters.common.guesses import Guesses
from nfox.drafters.common.heads_options import HeadsOptions
from nfox.drafters.common.method import option
from nfox.drafters.common.native_guesses import NativeGuesses, rows_of
from nfox.heads.attention import DecoderLayer, Norm, draft_attention
from nfox.heads.base import (
    IGNORE,
    Heads,
    HeadsConfig,
    Size,
    TextBatch,
    hidden_state_scale,
    select_positions,
)
from nfox.heads.ctc_alignment import (
    MIN_PROBABILITY,
    Prefix,
    collapse,
    ctc_loss,
    longest_prefix,
    prefixes_of,
    rank_tokens,
)
from nfox.heads.native_layer import NativeLayer
from nfox.heads.state_cache import MOST_STATES
from nfox.known_models import without_package
from nfox.models.native.program import Program
from nfox.models.native.top import top_tokens
from nfox.models.packed_layers import native_product
from nfox.models.unsupported import UnsupportedError

_ALIGNMENTS = 20  # of one prefix, that count
_COLUMNS = 9  # of a slot that are looked at, mostly with the blank


class CTCConfig(HeadsConfig):
    """The sizes of the attention draft module.

    Args:
        slots: the slots that speak at once; 0 for 2 * num_heads - 1, in which any text can be said:
            equal neighbours need a blank between them.
        head_size: of the attention; it has as many heads as fit into the hidden size.
        intermediate_size: of the MLP; 0 for twice the hidden size.
        places: the positions of a batch that are learned from, drawn anew each time if there are
            more. They take places * slots * vocabulary * 4 bytes, a few times over.
    """

    slots: Size = Field(0, ge=0)
    head_size: Size = Field(64, ge=2, multiple_of=2)
    intermediate_size: Size = Field(0, ge=0)
    places: Size = Field(512, ge=1)

    @property
    @override
    def layer_count(self) -> int:
        """How many layers are made of these sizes; all slots go through the same ones."""
        return self.num_layers

    @field_validator("slots")
    @classmethod
    def _enough(cls, slots: int, info: ValidationInfo) -> int:
        """Refuse fewer slots than tokens to draft, which would not fit into them."""
        least = info.data.get("num_heads", 0)
        if 0 < slots < least:
            raise PydanticCustomError(
                "slots",
                "{slots} slots cannot say {least} tokens (num_heads); 0 chooses",
                {"slots": slots, "least": least},
            )
        return slots


class CTCHeads(Heads):
    """The attention draft module: slots over the vocabulary, and a blank that is none of it."""

    Config = CTCConfig
    learns_target_labels = True
    config: CTCConfig

    def __init__(self, config: CTCConfig) -> None:
        super().__init__(config)
        size, slots = config.hidden_size, config.slots or 2 * config.num_heads - 1
        self.state_norm = Norm(size)
        self.root_norm = Norm(size)
        self.start_from = nn.Linear(2 * size, size, bias=False)
        self.slots = nn.Parameter(0.5 * torch.randn(slots, size))
        num_heads = max(size // config.head_size, 1)
        intermediate_size = config.intermediate_size or 2 * size
        self.layers: Iterable[DecoderLayer] = nn.ModuleList(  # type: ignore[assignment]
            DecoderLayer(size, num_heads, config.head_size, intermediate_size)
            for _ in range(config.num_layers)
        )
        self.norm = Norm(size)
        self.blank = nn.Linear(size, 1)

    @override
    def prepare_training(self, target: Target) -> None:
        """Let the slots leave the module in the scale of the target's hidden states."""
        self.norm.weight.data.copy_(hidden_state_scale(target))

    def project_past(self, hidden: Tensor) -> list[Sequence[Tensor]]:
        """Return the keys and values [B, heads, T, head_size] of whole texts, for every layer.

        Args:
            hidden: [B, T, D] the target's hidden states.
        """
        length, layers = hidden.shape[1], self.layers
        return [layer.project_qkv(hidden, layer.rotary(length)[:, :length])[1:] for layer in layers]

    def logits(
        self,
        hidden: Tensor,
        root: Tensor,
        positions: Tensor,
        past: Sequence[Sequence[Tensor]],
        target: Vocabulary,
    ) -> Tensor:
        """Return [B, P, S, V + 1] the logits of all slots at P positions, those of the blank last.

        Args:
            hidden: [B, P, D] the target's hidden states at the positions.
            root: [B, P] the tokens after them.
            positions: [B, P] in the texts.
            past: keys and values of the whole texts, from `project_past`; the slots of a position
                see those up to it.
            target: the model whose embeddings and LM head are used.
        """
        slots = self.slot_inputs(hidden, root, target)
        sizes, slots = slots.shape[1:3], slots.flatten(1, 2)
        steps = torch.arange(1, 1 + sizes[1], device=positions.device)
        slot_positions = (positions[..., None] + steps).flatten(1)[:, None]
        positions = positions.repeat_interleave(sizes[1], dim=1)[:, None]
        end = past[0][0].shape[2] + sizes[1]
        for layer, keys_values in zip(self.layers, past, strict=True):
            projected = layer.project_qkv(slots, layer.rotary(end)[:, slot_positions])
            queries, *draft = (torch.unflatten(part, 2, sizes) for part in projected)
            attended = draft_attention(queries, positions, keys_values, draft)
            slots = layer.after_attention(slots, attended)
        return self.slot_logits(self.norm(torch.unflatten(slots, 1, sizes)), target)

    def slot_inputs(self, hidden: Tensor, root: Tensor, target: Vocabulary) -> Tensor:
        """Return the states [..., S, D] of all slots as they enter the first layer.

        Args:
            hidden: [..., D] the target's hidden states.
            root: [...] the tokens after them.
            target: the model whose embeddings are used, without a gradient.
        """
        embedded = target.embed(root.to(target.device)).detach().to(hidden.device)
        known = torch.cat([self.state_norm(hidden), self.root_norm(embedded)], dim=-1)
        slots: Tensor = self.start_from(known)[..., None, :] + self.slots
        return slots

    def slot_logits(self, slots: Tensor, target: Vocabulary) -> Tensor:
        """Return the logits [..., V + 1] of slots, those of the blank last.

        Args:
            slots: [..., D] their states as they leave the last layer, normed.
            target: the model whose LM head is used.
        """
        tokens = target.unembed(slots)
        return torch.cat([tokens, self.blank(slots).to(tokens.dtype)], dim=-1)

    @override
    def loss(self, text: TextBatch, target: Vocabulary) -> tuple[Tensor, dict[str, float]]:
        """Return the CTC loss, a mean over positions, each with as many labels in a row as are
        known. Figures with `_base` in their name compare with the target's own tokens, the others
        with the data.
        """
        max_length = self.config.num_heads
        labels = torch.stack([text.labels_ahead(k + 2) for k in range(max_length)], dim=-1)
        lengths = (labels != IGNORE).cumprod(-1).sum(-1)
        positions, learned = select_positions(lengths > 0, self.config.places)
        rows = torch.arange(len(positions), device=positions.device)[:, None]
        root = text.ids[rows, (positions + 1).clamp_max(text.ids.shape[1] - 1)]
        past = self.project_past(text.hidden)
        logits = self.logits(text.hidden[rows, positions], root, positions, past, target)[learned]
        lengths, labels = lengths[rows, positions][learned], labels[rows, positions][learned]
        labels = labels.clamp_min(0)
        blank = logits.shape[-1] - 1
        # Of each slot only the labels and the blank are needed, not the whole vocabulary.
        needed = functional.pad(labels, (0, 1), value=blank)[:, None]
        needed = needed.expand(-1, logits.shape[1], -1)
        slots = logits.gather(-1, needed) - logits.logsumexp(-1, keepdim=True)
        loss = ctc_loss(slots, labels, lengths).sum() / max(len(labels), 1)
        figures = {"ctc_loss": float(loss.detach())}
        collapsed = collapse(logits.detach().max(-1).indices, blank, max_length)
        for ending, reference in text.references().items():
            for k in range(max_length):
                right = reference.labels_ahead(k + 2)[rows, positions][learned]
                hits = (collapsed[:, k] == right)[lengths > k]
                figures[f"head{k + 1}{ending}_top1"] = float(hits.sum()) / max(len(hits), 1)
        return loss, figures

    @override
    @torch.no_grad()
    def top_tokens(self, text: TextBatch, target: Target, width: int) -> Tensor:
        """Return the likeliest tokens of each depth by itself, whatever comes before them."""
        past, depth = self.project_past(text.hidden), self.config.num_heads
        batch, length = text.ids.shape
        positions = torch.arange(length, device=text.hidden.device).expand(batch, -1)
        by_position: list[Tensor] = []
        for part in torch.split(positions, max(self.config.places // batch, 1), dim=1):
            root = text.ids[:, (part[0] + 1).clamp_max(length - 1)]
            logits = self.logits(text.hidden[:, part[0]], root, part, past, target)
            log_probabilities = logits.log_softmax(-1).cpu()
            tokens = [
                [rank_tokens(slots, depth, width)[0] for slots in row] for row in log_probabilities
            ]
            by_position.append(torch.tensor(tokens))
        return torch.cat(by_position, dim=1).to(text.ids.device)


@dataclass(frozen=True)
class CTCOptions(HeadsOptions):
    """What a person can set for the CTC-drafter."""

    tree: str = option(
        "auto",
        "auto (the guesses of each step that pay here), largest or measured; of any other tree "
        "only the number of nodes is taken, unless collapse=false",
    )
    collapse: bool = option(
        True, "merge what slots repeat and drop blanks; false takes slots as they are"
    )


class NativeSlots(NativeGuesses):
    """The likeliest tokens of all slots, in one call of the native library; errors are those of
    `NativeGuesses`.

    Args:
        drafter: whose slots speak.
    """

    def __init__(self, drafter: CTC) -> None:
        heads, layers = drafter.heads, drafter.state_cache.layers
        self._layers = [layer for layer in layers if isinstance(layer, NativeLayer)]
        self._count, size = heads.slots.shape
        super().__init__(drafter, self._count, native_product(heads.blank))
        if len(self._layers) < len(layers):
            raise UnsupportedError("layers that are not the native library's")
        self._program, self._root = Program(), (c_int32 * 1)()
        self._hidden, embedded, known, start = (rows_of(1, n) for n in (size, size, 2 * size, size))
        self._program.embed(self.embedding, self._root, embedded, rows=1)
        for norm, given, part in (
            (heads.state_norm, self._hidden, known[:, :size]),
            (heads.root_norm, embedded, known[:, size:]),
        ):
            self._program.norm(norm.weight.detach().float(), norm.eps, given, part, rows=1)
        self._program.linear(native_product(heads.start_from), known, start, rows=1)
        # Behind the target's states are the slots, as they enter a layer.
        self._table = rows_of(MOST_STATES + self._count, size)
        self._left, self._row_bytes = torch.zeros_like(self._table), self._hidden.nbytes
        entering, leaving = (rows[MOST_STATES:] for rows in (self._table, self._left))
        self._program.add(start, heads.slots.detach(), entering)
        for layer in self._layers:
            self._program.forward(layer.decoder, layer.batch)
            self._program.add(leaving, None, entering)
        self.add_top(self._program, leaving)

    def likeliest(
        self, states: Tensor, root: int, start: int, width: int
    ) -> tuple[list[list[int]], list[list[float]]]:
        """Return the likeliest columns [S][width] of every slot, and their probabilities.

        Args:
            states: [R, D] the target's that the layers have not read.
            root: the token after them.
            start: the position of the first of them.
            width: how many columns, the blank among them.
        """
        count = len(states)
        self._table[:count], self._root[0] = states, root
        self._hidden.copy_(states[-1:])
        chosen = [*range(count), *range(MOST_STATES, len(self._table))]
        # So that what leaves a layer for the slots is always in the same rows.
        left = self._left.data_ptr() + (MOST_STATES - count) * self._row_bytes
        for layer in self._layers:
            layer.fill(self._table, chosen, left, start, num_joint=self._count)
        self._program.run(self._count)
        return self.columns(self._count, width)


class CTC(AttendingHeadsDrafter):
    """Propose the likeliest beginnings of what the slots say.

    The probabilities of whole paths are known here, and need not be guessed from ranks: of a fixed
    tree only the number of nodes is taken. A target that takes chains gets the one path that is
    likely to keep the most tokens.
    """

    summary = "one attention module guesses slots at once, with blanks between (CTC-drafter)"
    needs = "trained heads: --heads, or <model>/nfox/ctc/"
    rank = 40
    options = CTCOptions
    heads_class = CTCHeads
    native_class = NativeSlots
    # No accuracies were published; a guess that knows the root is right more often than Medusa's.
    prior_accuracy = tuple(
        (top, *(0.2 / 2**rank for rank in range(1, 10))) for top in (0.6, 0.4, 0.3, 0.2)
    )

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.collapse = True

    @property
    @override
    def attending_layers(self) -> Iterable[DecoderLayer]:
        layers: Iterable[DecoderLayer] = self.heads.layers
        return layers

    @override
    def choose_tree(self, options: HeadsOptions, accuracy: Accuracy, costs: Costs | None) -> None:
        self.collapse = not isinstance(options, CTCOptions) or options.collapse
        super().choose_tree(options, accuracy, costs)  # which times drafting as it will be

    @override
    def guess(self, context: Context, width: int) -> Guesses:
        """Return the likeliest tokens of each depth by itself, whatever comes before them."""
        slots, depth = self._slots(context), self.heads.config.num_heads
        if self.collapse:
            columns, probabilities = rank_tokens(slots, depth, width)
        else:
            tokens = slots[:depth].softmax(-1)[:, :-1]
            top = tokens.topk(min(width, tokens.shape[1]))
            columns, probabilities = top.indices.tolist(), top.values.tolist()
        return Guesses([self.vocabulary.token_ids(row) for row in columns], probabilities)

    @override
    def propose(self, context: Context) -> TokenTree:
        if not self.collapse or not context.tokens or not self.shape or context.max_depth < 1:
            return super().propose(context)
        self.calibration = self._calibration_for(context)
        max_length = min(self.heads.config.num_heads, context.max_depth)
        # Several alignments say a prefix; each of them may add less than what makes a guess pay.
        least = self.budget.min_chance / _ALIGNMENTS if self.budget else 0.0
        likeliest, blank = self._likeliest(context)
        prefixes = prefixes_of(*likeliest, blank, max_length, max(least, MIN_PROBABILITY))
        if self.target.proposals != "trees":
            path = longest_prefix(prefixes, len(prefixes))
            prefixes = {path[:end]: prefixes[path[:end]] for end in range(1, 1 + len(path))}
        if self.budget:
            columns = self.budget.select(calibrated_prefixes(prefixes, self.calibration).items())
        else:
            columns = list(prefixes)[: len(self.shape)]
        paths = [tuple(self.vocabulary.token_ids(path)) for path in columns]
        tree = TokenTree.from_paths(context.root, paths)
        self.calibration.expect(tree, [1.0, *(prefixes[path] for path in columns)])
        return tree

    @torch.inference_mode()
    def _likeliest(self, context: Context) -> tuple[tuple[list[list[int]], list[list[float]]], int]:
        """Return the likeliest columns of every slot after the root, with their probabilities; and
        the column of the blank.
        """
        native: NativeSlots | None = self.native
        if native is None:
            slots = self._slots(context)
            return top_tokens(slots, min(_COLUMNS, slots.shape[1])), slots.shape[1] - 1
        cache = self.state_cache
        with cache.catching_up(context.cache) as states:
            found = native.likeliest(states, context.root, len(cache.tokens), _COLUMNS)
        return found, native.size - 1

    @torch.inference_mode()
    def _slots(self, context: Context) -> Tensor:
        """Return [S, V + 1] the logits of all slots after the root."""
        heads, cache = self.heads, self.state_cache
        root = torch.tensor([context.root], device=self.target.device)
        with cache.catching_up(context.cache) as states:
            queries = heads.slot_inputs(states[-1:], root, self.vocabulary)[0]
            slots = cache.attend(states, queries, len(cache.tokens), is_joint=True)
        logits: Tensor = heads.slot_logits(slots, self.vocabulary)
        return logits

    @override
    def describe(self) -> str:
        depth = self.heads.config.num_heads if self.shape else 0
        about = "about " if self.budget else ""
        size = f"{about}{counted(len(self.shape), 'node')}, up to {depth} deep"
        return self._with_idle(f"{without_package(self.name)}, {size}")


def calibrated_prefixes(
    prefixes: dict[Prefix, float], calibration: Calibration
) -> dict[Prefix, float]:
    """Return how probable prefixes are by what became of such guesses so far.

    Args:
        prefixes: with how probable they are said to be, each after the one that it continues.
        calibration: of guesses by their depth.

    Returns:
        The likeliest first, and each after the one that it continues.
    """
    found: dict[Prefix, float] = {(): 1.0}
    for prefix, probability in prefixes.items():
        before = prefix[:-1]
        share = probability / max(prefixes.get(before, 1.0), probability)
        found[prefix] = found[before] * min(share * calibration.factor(len(prefix)), 1.0)
    del found[()]
    return dict(sorted(found.items(), key=lambda item: -item[1]))


METHOD = CTC
