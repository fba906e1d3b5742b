"""The token ids of a prompt for a model, and those that end its reply."""

from __future__ import annotations

from collections.abc import Sequence

from nfox.decoding.generate import Prompt
from nfox.errors import UsageError
from nfox.models.options import LoadedModel
from nfox.text.messages import Message
from nfox.text.template import Template


def encode_prompt(model: LoadedModel, template: Template, messages: Sequence[Message]) -> Prompt:
    """Return the prompt from which the reply to a conversation is decoded.

    Args:
        model: the target and its tokenizer.
        template: the template of the conversation; an encoder-decoder model does not use it.
        messages: the conversation; if its last message is a reply, this reply is continued.

    Raises:
        UsageError: if an encoder-decoder model is given a reply without its question.
        NfoxError: if the template refuses the conversation.
    """
    if not messages:
        raise UsageError("there is no message to answer")
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
    """Return the ids of the tokens that end a reply: those that the model's generation config, its
    tokenizer and the template name.
    """
    configured = model.target.model.generation_config.eos_token_id
    of_model = configured if isinstance(configured, list) else [configured]
    of_tokenizer = getattr(model.tokenizer, "eos_token_id", None)
    ids = (*of_model, of_tokenizer, *template.stop_ids)
    return frozenset(token for token in ids if token is not None)
