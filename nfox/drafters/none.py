"""Plain autoregressive decoding: no guess. The baseline, and the reference of every test."""

from __future__ import annotations

from nfox.decoding.tree import TokenTree
from nfox.drafters.common.method import Context, Drafter, Options, Parts


class Autoregressive(Drafter):
    """Propose nothing: the tree is the root alone, and every step emits one token."""

    summary = "plain decoding, one token a step: the baseline"
    rank = -1
    drafts = False

    @classmethod
    def build(cls, parts: Parts, options: Options) -> Autoregressive:
        """See `Drafter.build`."""
        return cls()

    def propose(self, context: Context) -> TokenTree:
        """See `Drafter.propose`."""
        return TokenTree.chain(context.root)

    def describe(self) -> str:
        """See `Drafter.describe`."""
        return "plain decoding"


METHOD = Autoregressive
