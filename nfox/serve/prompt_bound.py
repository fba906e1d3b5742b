"""What a prompt takes at least, told before anything is rendered or tokenised."""

from __future__ import annotations

from typing import Any

from nfox.decoding.generate import Prompt
from nfox.engine import Engine
from nfox.errors import ContextError
from nfox.serve.pending_reply import Question

# A tokenizer may join spaces, drop what it does not know, or make one token of a word of any
# length: where it does so with one of these, the length of a text says nothing.
_PROBES = (" ", "\n", "\t", "a", "1", "-", "ä", "e\u0301", "語", "😀", "\ue000", "\u00a0", "\u3000")


class PromptBound:
    """Refuses prompts that are too long whatever their tokens are: no token has more characters
    than the longest one of the vocabulary.

    Args:
        engine: has the tokenizer and the context.
    """

    def __init__(self, engine: Engine) -> None:
        self._max_context = engine.max_context
        self._vocabulary_size = engine.model.target.vocabulary_size
        self._longest = None  # of an encoder's input the template shows one message
        if not engine.model.target.is_encoder_decoder:
            self._longest = longest_token(engine.model.tokenizer)

    def least_tokens(self, question: Question) -> int:
        """Return a number of tokens that a question's prompt has at least.

        Only what users and tools say counts: templates may leave out system messages and parts of
        earlier replies, and spaces around a text.
        """
        if question.ids or self._longest is None:
            return len(question.ids)
        said = (
            message.content for message in question.messages if message.role in ("user", "tool")
        )
        characters = sum(len(text.strip()) for text in (question.text, *said))
        return -(-characters // self._longest)

    def check(self, question: Question) -> None:
        """Refuse a question that cannot fit into the context, without reading it.

        Raises:
            ContextError: if it does not fit.
            UsageError: if it has ids that are no tokens of the model.
        """
        least = self.least_tokens(question)
        if question.ids:
            Prompt(question.ids).check(self._max_context, self._vocabulary_size)
        elif least > self._max_context:
            raise ContextError(
                f"the prompt has {least} tokens at the least, the context holds "
                f"{self._max_context}",
                "shorten it, or start a new conversation",
            )


def longest_token(tokenizer: Any) -> int | None:
    """Return the most characters of a text that one token stands for; None if there is no most."""
    longest = max(map(len, tokenizer.get_vocab()), default=0)
    for probe in _PROBES:
        text = f"a{probe * 4 * longest}a"
        ids = tokenizer(text, add_special_tokens=False, verbose=False).input_ids
        if len(ids) * longest < len(text):
            return None
    return longest or None
