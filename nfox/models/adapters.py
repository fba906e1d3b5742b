"""LoRAs that lie beside a model and go by a name: `<model>/nfox/adapters/<name>/`.

An adapter makes another target of a model. Every method runs on it, and its speed is compared with
its own plain decoding.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from nfox.errors import ModelError, NfoxError
from nfox.files.model_names import adapters_beside, local_folder
from nfox.files.reading import describe
from nfox.models import adapter_files
from nfox.models.adapter_embeddings import embedding_paths, resize_embeddings, untie_adapted
from nfox.models.adapter_files import CONFIG_FILE, AdapterFiles
from nfox.models.checkpoint_keys import check_keys, is_computed
from nfox.models.options import ModelOptions
from nfox.models.training_folders import adapter_in, describe_folder, option_for

log = logging.getLogger(__name__)


def available(model: str) -> list[str]:
    """Return the names of the adapters that lie beside a model, given its folder or hub id."""
    return sorted(adapters_beside(model))


def location(model: str, adapter: str) -> str:
    """Return the folder or hub id of an adapter.

    Args:
        model: folder or hub id of the base model.
        adapter: the name of an adapter that lies beside the model, a folder, or a hub id.

    Raises:
        ModelError: if there is no such adapter.
    """
    if (place := adapters_beside(model).get(adapter)) is not None:
        return str(place)
    folder = local_folder(adapter)
    if folder is not None:
        if (found := adapter_in(adapter)) is not None:
            return str(found)
        if not (folder / CONFIG_FILE).is_file():
            raise ModelError(
                f"adapter {adapter}: there is no {CONFIG_FILE} in this folder",
                option_for(adapter) or describe_folder(adapter),
            )
        return str(folder)
    if adapter.count("/") != 1 or adapter.startswith((".", "/", "~")):
        known = ", ".join(available(model))
        raise ModelError(
            f"adapter {adapter}: no such folder, and none of this name beside {model}",
            f"there is {known}" if known else "pass the folder of a LoRA, or its hub id",
        )
    return adapter


def find(base: str, options: ModelOptions) -> AdapterFiles | None:
    """Return the files of the adapter that the options name; None where they name none.

    Args:
        base: folder or hub id of the base model.
        options: the adapter, and how its files are fetched.

    Raises:
        ModelError: if there is no such adapter, or its files are not whole.
    """
    if not options.adapter:
        return None
    return adapter_files.find(location(base, options.adapter), options.adapter, options.hub)


def apply(model: Any, base: str, files: AdapterFiles) -> Any:
    """Return a model of transformers with an adapter.

    The adapter is merged into the weights: unmerged, a LoRA costs two small products per layer and
    forward. On quantised weights it stays unmerged, because most of it would be rounded away.

    Args:
        model: the base model, which is changed. Its embeddings get as many rows as the adapter
            brings for them.
        base: folder or hub id of the base model.
        files: of the adapter.

    Raises:
        ModelError: if the adapter is not whole, is that of another model, or cannot be merged.
    """
    if any(weight.is_meta for weight in model.parameters()):
        raise ModelError(
            f"the {files.title} cannot be merged: parts of {base} found no room in memory",
            "a higher --max-memory, or a merged model",
        )
    # What libraries say here is that the base is not whole, or nothing that helps.
    with warnings.catch_warnings(), _blaming(files.title):
        warnings.simplefilter("ignore")
        adapted = _adapt(model, files)
        if getattr(model, "is_quantized", False):
            return adapted.get_base_model()
        untie_adapted(model)
        return adapted.merge_and_unload(safe_merge=True)


@contextmanager
def _blaming(title: str) -> Iterator[None]:
    """Raise whatever an adapter causes within this context as one line that names it."""
    try:
        yield
    except (NfoxError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # nobody knows all that a wrong config causes
        hint = "check that it was saved by peft's save_pretrained, for this model"
        raise ModelError(f"{title}: {describe(error)}", hint) from error


def _adapt(model: Any, files: AdapterFiles) -> Any:
    """Return peft's wrapper of a model with all weights of an adapter in their places.

    Raises:
        ModelError: if the weights are not those that the adapter's config asks for.
    """
    from peft import PeftModel

    config = files.config()
    resize_embeddings(model, files)
    # On the meta device nothing is filled that the file does not hold. Where the first values are
    # made from those of the base, they change it as well, and must be made; and bitsandbytes keeps
    # its weights nowhere else (DoRA on 8 bits).
    is_plain = (
        config.peft_type == "LORA"
        and not isinstance(config.init_lora_weights, str)
        and not getattr(model, "is_quantized", False)
    )
    adapted = PeftModel(model, config, low_cpu_mem_usage=is_plain)
    trained_on = config.base_model_name_or_path or "a model that its config does not name"
    hint = f"it was trained on {trained_on}: check that this is that model, and copy it again"
    found = _load(adapted, files, is_plain, hint)
    check_keys(
        files.title,
        missing=[_saved_name(key) for key in found.missing_keys if "vblora_vector_bank" not in key],
        unexpected=_used_keys(map(_saved_name, found.unexpected_keys), model, files),
        hint=hint,
    )
    if files.changes_nothing:
        log.warning("%s changes nothing: lora_B, or lora_alpha, is zero", files.title)
    return adapted


def _load(adapted: Any, files: AdapterFiles, is_plain: bool, hint: str) -> Any:
    """Load the weights of an adapter and return what peft says of their names.

    Args:
        adapted: peft's wrapper of the model.
        files: of the adapter.
        is_plain: whether the wrapper's layers are on the meta device.
        hint: what to do about weights that are not the layers'.

    Raises:
        ModelError: if weights have other shapes, or copies of whole layers are missing.
    """
    try:
        return adapted.load_adapter(
            str(files.folder),
            adapted.active_adapter,
            torch_device="cpu",
            low_cpu_mem_usage=is_plain,
            key_mapping=getattr(adapted.get_base_model(), "_checkpoint_conversion_mapping", None),
        )
    except KeyError as error:  # a copy of a whole layer that the config speaks of
        check_keys(files.title, missing=[str(error.args[0])], hint=hint)
        raise
    except RuntimeError as error:
        shapes = [
            (_saved_name(key), _sizes(stored), _sizes(made))
            for key, stored, made in _SHAPES(str(error))
        ]
        check_keys(files.title, mismatched=shapes, hint=hint)
        raise


def _used_keys(unexpected: Iterable[str], model: Any, files: AdapterFiles) -> list[str]:
    """Return the names of those unexpected tensors that say more than others in the file: peft
    writes whole layers twice, and what was trained for two tied embeddings under both names.
    """
    first, last = embedding_paths(model)
    return [
        key
        for key in unexpected
        if not is_computed(key)
        and key.replace(".modules_to_save.", ".") not in files.weights.keys() - {key}
        and key.replace(f".{last}.", f".{first}.") not in files.weights.keys() - {key}
    ]


_SHAPES = re.compile(
    r"size mismatch for (\S+): copying a param with shape torch\.Size\(\[(.*?)\]\) from "
    r"checkpoint, the shape in current model is torch\.Size\(\[(.*?)\]\)"
).findall


def _sizes(text: str) -> list[int]:
    return [int(size) for size in text.split(",") if size.strip()]


def _saved_name(key: str) -> str:
    """Return the name that a tensor has in a file, where that of the adapter is left out."""
    return key.replace(".default.", ".").removesuffix(".default")
