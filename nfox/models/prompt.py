"""The token ids of a prompt for a model, and those that end its reply."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nfox.decoding.generate import Prompt
from nfox.errors import ModelError, UsageError
from nfox.models.options import LoadedModel
from nfox.text.messages import Message
from nfox.text.template import Template, say
from nfox.text.thinking import begins_thought, is_thought_at_end


class UnknownTokenError(UsageError):
    """A prompt with a token of the tokenizer's that the model has no embedding for."""


def encode_prompt(model: LoadedModel, template: Template, messages: Sequence[Message]) -> Prompt:
    """Return the prompt from which the reply to a conversation is decoded.

    Args:
        model: the target and its tokenizer.
        template: the template of the conversation; an encoder-decoder model does not use it.
        messages: the conversation; if its last message is a reply, this reply is continued.

    Raises:
        UsageError: if an encoder-decoder model is given a reply without its question, or the prompt
            has a token that the model does not know.
        NfoxError: if the template refuses the conversation.
    """
    if not messages:
        raise UsageError("there is no message to answer")
    encode = _encode_question if model.target.is_encoder_decoder else _encode_conversation
    prompt = encode(model, template, messages)
    size = model.target.vocabulary_size
    for token in (*prompt.ids, *(prompt.encoder_ids or ())):
        if token >= size:
            text = model.tokenizer.convert_ids_to_tokens(token)
            raise UnknownTokenError(
                f"the prompt has the token {text!r} ({token}), the model knows {size} tokens only",
                "leave it out; or the tokenizer is not the model's, or was extended without "
                "resizing the model (resize_token_embeddings)",
            )
    return prompt


def _encode_conversation(
    model: LoadedModel, template: Template, messages: Sequence[Message]
) -> Prompt:
    ids, before = template.encode(model.tokenizer, messages), messages[:-1]
    if messages[-1].role != "assistant":
        return Prompt(tuple(ids), thinking=begins_thought(model.tokenizer, ids))
    thinking = is_thought_at_end(messages[-1].content)
    if thinking is None and before:
        asked = template.encode(model.tokenizer, before)
        thinking = begins_thought(model.tokenizer, asked)
    return Prompt(tuple(ids), continued=True, thinking=bool(thinking))


def _encode_question(model: LoadedModel, template: Template, messages: Sequence[Message]) -> Prompt:
    """Return the prompt of an encoder-decoder model: its encoder reads the last question alone, as
    the model was trained.
    """
    continued = messages[-1].role == "assistant"
    if any(message.role == "tool" or message.tool_fields for message in messages):
        raise UsageError(f"{model.name} reads the last question alone, not what tools answered")
    if template.system or any(message.role == "system" for message in messages):
        say(f"{model.name} reads the last question alone: the system message is left out")
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

    Raises:
        ModelError: if the config names something else.
    """
    configured = model.target.model.generation_config.eos_token_id
    of_model = configured if isinstance(configured, list) else [configured]
    of_tokenizer = getattr(model.tokenizer, "eos_token_id", None)
    ids = (*of_model, of_tokenizer, *template.stop_ids)
    if not all(token is None or type(token) is int for token in ids):
        raise ModelError(
            f"{model.name}: eos_token_id is {configured!r}, where a token id or several should be",
            "mend generation_config.json, or config.json where there is none",
        )
    return frozenset(token for token in ids if token is not None)


def stop_tokens(tokenizer: Any, stop: Sequence[str]) -> frozenset[int]:
    """Return the ids of the added tokens that are one of the stop strings: in the text of a reply a
    special one has no letters, where its string could be found.

    Args:
        tokenizer: of the model.
        stop: strings that end a reply.
    """
    added: dict[str, int] = tokenizer.get_added_vocab() if stop else {}
    return frozenset(added[string] for string in stop if string in added)
