"""From messages to the token ids that a model goes on from, and those that end its reply."""

from __future__ import annotations

from collections.abc import Sequence

from nfox.decoding.generate import Prompt
from nfox.errors import UsageError
from nfox.models.options import LoadedModel
from nfox.text.messages import Message
from nfox.text.template import Template


def encode_prompt(model: LoadedModel, template: Template, messages: Sequence[Message]) -> Prompt:
    """Return the token ids that answering a conversation begins with.

    Args:
        model: the target and its tokenizer.
        template: renders the messages; for an encoder-decoder model it is not used.
        messages: the conversation; one that ends with an assistant's message is continued there.

    Raises:
        UsageError: if there is nothing to answer, or the template refuses the conversation.
    """
    continued = messages[-1].role == "assistant"
    if not model.target.is_encoder_decoder:
        return Prompt(tuple(template.encode(model.tokenizer, messages)), continued=continued)
    # An encoder reads the last question alone, as the model was trained.
    if continued and len(messages) == 1:
        raise UsageError("there is no question before the reply", "ask one")
    tokenize, question = model.tokenizer, messages[-2 if continued else -1]
    begun: tuple[int, ...] = ()
    if continued:
        reply = messages[-1]
        begun = reply.ids or tuple(tokenize(reply.content, add_special_tokens=False).input_ids)
    encoder_ids = tuple(tokenize(question.content).input_ids)
    return Prompt((model.target.decoder_start_token, *begun), encoder_ids, continued)


def stop_ids_of(model: LoadedModel, template: Template) -> frozenset[int]:
    """Return all tokens that end a reply: of the generation config, the tokenizer, the template."""
    configured = model.target.model.generation_config.eos_token_id
    listed = configured if isinstance(configured, list) else [configured]
    own = getattr(model.tokenizer, "eos_token_id", None)
    return frozenset(token for token in (*listed, own, *template.stop_ids) if token is not None)
