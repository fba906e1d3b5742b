"""Plain autoregressive decoding: nothing is drafted. The baseline, and the reference of tests."""

from __future__ import annotations

from typing_extensions import override

from nfox.decoding.drafter import Context
from nfox.decoding.tree import TokenTree
from nfox.drafters.common.method import DrafterInputs, Method, Options


class Autoregressive(Method):
    """Propose nothing: the tree is the root alone, and every step emits one token."""

    summary = "plain decoding, one token a step: the baseline"
    rank = -1
    drafts = False

    @override
    @classmethod
    def build(cls, inputs: DrafterInputs, options: Options) -> Autoregressive:
        return cls()

    @override
    def propose(self, context: Context) -> TokenTree:
        return TokenTree.chain(context.root)

    @override
    def describe(self) -> str:
        return "plain decoding"


METHOD = Autoregressive
