"""CTC-drafter: a small attention module says several slots at once, tokens or blanks.

NeurIPS 2024 (arXiv 2412.00061). It knows the root. All its slots speak at the same time; what they
say is collapsed (repeats merged, then blanks dropped), so a token may come a slot earlier or later,
and the tree is made of what is left: the likeliest beginnings over all alignments. A loss of
sequences trains it: connectionist temporal classification.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from nfox.decoding.costs import Costs, idle_reason
from nfox.decoding.drafter import Context
from nfox.decoding.target import Target
from nfox.decoding.tree import TokenTree
from nfox.decoding.tree_shapes import Accuracy
from nfox.drafters.common.heads import Guesses, HeadsDrafter, HeadsOptions
from nfox.drafters.common.method import option
from nfox.heads.attention import Layer, Memory, Norm, attend
from nfox.heads.base import IGNORE, Heads, HeadsConfig, Text, labelled, state_scale
from nfox.heads.ctc_alignment import collapse, longest, prefixes, ranks, surprise


class CTCConfig(HeadsConfig):
    """See `HeadsConfig`.

    Args:
        slots: spoken at once; 0 for 2 * num_heads - 1, in which any text can be said: equal
            neighbours need a blank between them.
        head_size: of attention; as many heads as fit into the hidden size.
        intermediate_size: of the MLP; 0 for twice the hidden size.
        places: of a batch that are learned from, drawn anew each time if there are more. They
            take places * slots * vocabulary * 4 bytes, a few times over.
    """

    slots: int = Field(0, ge=0)
    head_size: int = Field(64, ge=2, multiple_of=2)
    intermediate_size: int = Field(0, ge=0)
    places: int = Field(512, ge=1)

    @field_validator("slots")
    @classmethod
    def _enough(cls, slots: int, info: ValidationInfo) -> int:
        """Refuse fewer slots than tokens: what has to be said would not fit into them."""
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
    learns_choices = True
    config: CTCConfig

    def __init__(self, config: CTCConfig) -> None:
        super().__init__(config)
        size, slots = config.hidden_size, config.slots or 2 * config.num_heads - 1
        self.state_norm = Norm(size)
        self.root_norm = Norm(size)
        self.start_from = nn.Linear(2 * size, size, bias=False)
        self.slots = nn.Parameter(0.5 * torch.randn(slots, size))
        heads, wide = max(size // config.head_size, 1), config.intermediate_size or 2 * size
        self.layers: Iterable[Layer] = nn.ModuleList(  # type: ignore[assignment]
            Layer(size, heads, config.head_size, wide) for _ in range(config.num_layers)
        )
        self.norm = Norm(size)
        self.blank = nn.Linear(size, 1)

    @override
    def start(self, target: Target) -> None:
        """Speak as loud as the target."""
        self.norm.weight.data.copy_(state_scale(target))

    def remember(self, hidden: Tensor) -> list[Sequence[Tensor]]:
        """Return keys and values [B, heads, T, size], for every layer, of texts.

        Args:
            hidden: [B, T, D] of the target.
        """
        length, layers = hidden.shape[1], self.layers
        return [layer.project(hidden, layer.turns(length)[:, :length])[1:] for layer in layers]

    def logits(
        self,
        state: Tensor,
        root: Tensor,
        at: Tensor,
        past: Sequence[Sequence[Tensor]],
        target: Target,
    ) -> Tensor:
        """Return [B, P, S, V + 1] logits of P places, those of the blank last.

        Args:
            state: [B, P, D] the target's hidden states there.
            root: [B, P] the tokens after them.
            at: [B, P] their positions.
            past: of the whole texts, from `remember`; each place sees what is not behind it.
            target: see `asking` and `say`.
        """
        slots = self.asking(state, root, target)
        places, slots = slots.shape[1:3], slots.flatten(1, 2)
        steps = torch.arange(1, 1 + places[1], device=at.device)
        positions = (at[..., None] + steps).flatten(1)[:, None]
        at = at.repeat_interleave(places[1], dim=1)[:, None]
        end = past[0][0].shape[2] + places[1]
        for layer, states in zip(self.layers, past, strict=True):
            made = layer.project(slots, layer.turns(end)[:, positions])
            query, *own = (torch.unflatten(vectors, 2, places) for vectors in made)
            slots = layer.finish(slots, attend(query, at, states, own))
        return self.say(torch.unflatten(slots, 1, places), target)

    def asking(self, state: Tensor, root: Tensor, target: Target) -> Tensor:
        """Return [..., S, D] slots as they go into the layers.

        Args:
            state: [..., D] the target's hidden states.
            root: [...] the tokens after them.
            target: whose embeddings are used, without a gradient.
        """
        embedded = target.embed(root.to(target.device)).detach().to(state.device)
        known = torch.cat([self.state_norm(state), self.root_norm(embedded)], dim=-1)
        slots: Tensor = self.start_from(known)[..., None, :] + self.slots
        return slots

    def say(self, slots: Tensor, target: Target) -> Tensor:
        """Return [..., V + 1] logits, those of the blank last, of what came out of the layers.

        Args:
            slots: [..., D].
            target: whose LM head is used.
        """
        said = self.norm(slots)
        words = target.unembed(said)
        return torch.cat([words, self.blank(said).to(words.dtype)], dim=-1)

    @override
    def loss(self, text: Text, target: Target) -> tuple[Tensor, dict[str, float]]:
        """CTC with as many labels in a row as there are, the mean of places."""
        wanted = torch.stack([text.ahead(k + 2) for k in range(self.config.num_heads)], dim=-1)
        lengths = (wanted != IGNORE).cumprod(-1).sum(-1)
        places, real = labelled(lengths > 0, self.config.places)
        rows = torch.arange(len(places), device=places.device)[:, None]
        root = text.ids[rows, (places + 1).clamp_max(text.ids.shape[1] - 1)]
        past = self.remember(text.hidden)
        logits = self.logits(text.hidden[rows, places], root, places, past, target)[real]
        lengths, wanted = lengths[rows, places][real], wanted[rows, places][real]
        labels = wanted.clamp_min(0)
        blank = logits.shape[-1] - 1
        heard = functional.pad(labels, (0, 1), value=blank)[:, None].expand(-1, logits.shape[1], -1)
        slots = logits.gather(-1, heard) - logits.logsumexp(-1, keepdim=True)
        total = surprise(slots, labels, lengths).sum() / max(len(labels), 1)
        numbers = {"ctc_loss": float(total.detach())}
        said = collapse(logits.detach().argmax(-1), blank, self.config.num_heads)
        for end, other in text.compared().items():
            for k in range(self.config.num_heads):
                right = other.ahead(k + 2)[rows, places][real]
                hits = (said[:, k] == right)[lengths > k]
                numbers[f"head{k + 1}{end}_top1"] = float(hits.sum()) / max(len(hits), 1)
        return total, numbers

    @override
    @torch.no_grad()
    def guesses(self, text: Text, target: Target, width: int) -> Tensor:
        """Each depth by itself, whatever came before."""
        past, depth, found = self.remember(text.hidden), self.config.num_heads, []
        batch, length = text.ids.shape
        places = torch.arange(length, device=text.hidden.device).expand(batch, -1)
        for at in torch.split(places, max(self.config.places // batch, 1), dim=1):
            root = text.ids[:, (at[0] + 1).clamp_max(length - 1)]
            logits = self.logits(text.hidden[:, at[0]], root, at, past, target)
            spoken = logits.log_softmax(-1).cpu()
            guesses = [[ranks(slots, depth, width)[0] for slots in row] for row in spoken]
            found.append(torch.tensor(guesses))
        return torch.cat(found, dim=1).to(text.ids.device)


@dataclass(frozen=True)
class CTCOptions(HeadsOptions):
    """See `HeadsOptions`."""

    tree: str = option(
        "auto",
        "auto (the guesses of each step that pay here), or measured; of any other tree only the "
        "number of nodes is taken, unless collapse=false",
    )
    collapse: bool = option(
        True, "merge what slots repeat and drop blanks; false takes slots as they are"
    )


class CTC(HeadsDrafter):
    """Propose the likeliest beginnings of what the slots say.

    What goes well together is known here, and need not be guessed from ranks: of a fixed tree only
    the number of nodes is taken. Where no branches are allowed, the path that keeps most.
    """

    summary = "one attention module guesses slots at once, with blanks between (CTC-drafter)"
    needs = "trained heads: --heads, or <model>/nfox/ctc/"
    rank = 40
    options = CTCOptions
    heads_class = CTCHeads
    # No accuracies were published; a guess that knows the root is right more often than Medusa's.
    prior_accuracy = tuple(
        (top, *(0.2 / 2**rank for rank in range(1, 10))) for top in (0.6, 0.4, 0.3, 0.2)
    )

    def __init__(self, *parts: Any, **more: Any) -> None:
        super().__init__(*parts, **more)
        self.memory = Memory()
        self.collapse = True

    @override
    def choose_tree(self, options: HeadsOptions, accuracy: Accuracy, costs: Costs | None) -> None:
        super().choose_tree(options, accuracy, costs)
        self.collapse = not isinstance(options, CTCOptions) or options.collapse

    @override
    def guess(self, context: Context, width: int) -> Guesses:
        """Each depth by itself, whatever came before."""
        slots, depth = self._slots(context), self.heads.config.num_heads
        if self.collapse:
            return Guesses(*ranks(slots, depth, width))
        found = slots[:depth, :-1].topk(width)
        return Guesses(found.indices.tolist(), found.values.exp().tolist())

    @override
    def propose(self, context: Context) -> TokenTree:
        if not self.collapse or not context.tokens or not self.shape or context.max_depth < 1:
            return super().propose(context)
        depth = min(self.heads.config.num_heads, context.max_depth)
        found = prefixes(self._slots(context), depth)
        if self.target.proposals != "trees":
            path = longest(found, len(found))
            found = {path[:end]: found[path[:end]] for end in range(1, 1 + len(path))}
        fixed = list(found)[: len(self.shape)]
        paths = self.budget.select(found.items()) if self.budget else fixed
        return TokenTree.from_paths(context.root, paths)

    @torch.inference_mode()
    def _slots(self, context: Context) -> Tensor:
        """Return [S, V + 1] log-probabilities of what follows the root."""
        heads, memory = self.heads, self.memory
        rows = memory.catch_up(heads.layers, context.cache)
        root = torch.tensor([context.root], device=self.target.device)
        asking = heads.asking(rows[-1:], root, self.target)[0]
        start = len(memory.tokens)
        slots = memory.ask(heads.layers, rows, asking, start)
        memory.tokens += context.tokens[start:]
        spoken: Tensor = heads.say(slots, self.target).log_softmax(-1)
        return spoken

    @override
    def rewind(self, length: int) -> None:
        """The next proposal compares all of the past, since other methods
        may have changed it meanwhile.
        """
        self.memory.truncate(length)

    @override
    def describe(self) -> str:
        deep = self.heads.config.num_heads if self.shape else 0
        about = "about " if self.budget else ""
        size = f"{self.name}, {about}{len(self.shape)} nodes, up to {deep} deep"
        return size + idle_reason(len(self.shape), is_explicit=self.drafting_disabled)


METHOD = CTC
