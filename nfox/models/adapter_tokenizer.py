"""The tokenizer and the chat template that lie beside an adapter: it was trained with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nfox.errors import ModelError
from nfox.files.hub import file_of, read_json
from nfox.files.reading import read_text, refusing
from nfox.files.tensors import name_some
from nfox.models.adapter_embeddings import embedding_paths
from nfox.models.adapter_files import AdapterFiles
from nfox.models.draft_pairs import common_tokens, nearly_agree

# A config of a tokenizer alone holds no tokens.
_VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


def choose_tokenizer(
    base_tokenizer: Any, files: AdapterFiles, model: Any, load: Callable[[str], Any]
) -> Any:
    """Return the tokenizer of a model with an adapter: the adapter's own where one lies beside it,
    else the base's, with the adapter's chat template where one lies there.

    Args:
        base_tokenizer: the base's; None if it has none.
        files: of the adapter.
        model: the model of transformers, with the adapter.
        load: loads the tokenizer of a folder or hub id.

    Raises:
        ModelError: if the adapter's tokenizer is that of another model, or its template or its end
            of a reply is a token that was added and that the adapter brings no embedding for.
    """
    if not any(file_of(files.location, name, files.hub) for name in _VOCABULARIES):
        template = _template(files)
        if template and base_tokenizer is not None:
            base_tokenizer.chat_template = template
        return base_tokenizer
    tokenizer = load(files.location)
    if base_tokenizer is not None:
        brings_embeddings = files.rows_of(embedding_paths(model)[0]) is not None
        if not brings_embeddings and not nearly_agree(base_tokenizer, tokenizer):
            equal, smaller = common_tokens(base_tokenizer, tokenizer)
            raise ModelError(
                f"{files.title}: the tokenizer beside it is another than the base's: {equal} of "
                f"{smaller} tokens are the same",
                "check that the base is the one that the adapter was trained on",
            )
        tokenizer.chat_template = tokenizer.chat_template or base_tokenizer.chat_template
    _check_added_tokens(tokenizer, files, len(model.get_input_embeddings().weight))
    return tokenizer


def _template(files: AdapterFiles) -> str | dict[str, str] | None:
    """Return the chat template beside an adapter, or those by their names; None without one."""
    path = file_of(files.location, "chat_template.jinja", files.hub)
    if path:
        return read_text(path, "a chat template", ModelError)
    path = file_of(files.location, "tokenizer_config.json", files.hub)
    template = read_json(path).get("chat_template") if path else None
    if not isinstance(template, list):
        return template if isinstance(template, str) else None
    with refusing(f"{path}: chat_template", "a name and a template each", ModelError):
        return {str(entry["name"]): str(entry["template"]) for entry in template}


def _check_added_tokens(tokenizer: Any, files: AdapterFiles, size: int) -> None:
    """Refuse tokens without an embedding that every prompt or reply needs. Others, such as one for
    padding that was added before training, do no harm.
    """
    beyond = {token for token, number in tokenizer.get_vocab().items() if number >= size}
    template = str(tokenizer.chat_template or "")
    needed = [token for token in beyond if token in template or token == tokenizer.eos_token]
    if needed:
        raise ModelError(
            f"{files.title}: its tokenizer has added tokens ({name_some(needed)}), and it holds no "
            f"embedding for them; the base has {size} tokens",
            "save it again with save_embedding_layers=True, where it was trained",
        )
