"""Translation of the settings of published training commands and configs to the current names.

They are those of the scripts of Medusa, Chimera, CTC-drafter and Consistency LLM, of the configs of
Medusa-2 (axolotl's keys), and of other versions of transformers. A setting without a counterpart is
refused, or, where the result is the same without it, reported as not used: none is dropped in
silence.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from nfox.errors import UsageError
from nfox.files.reading import parse_json

from .joint import METHOD_PREFIX

Setting = tuple[str, list[str]]
"""A name with underscores, and the values after it."""

RENAMED = {
    # transformers
    "evaluation_strategy": "eval_strategy",
    "warmup_ratio": "warmup_steps",  # transformers 5 reads less than 1 as a share of the steps
    "no_cuda": "use_cpu",
    "gradient_checkpointing": "activation_checkpointing",
    "gradient_checkpointing_kwargs": "activation_checkpointing_kwargs",
    "per_gpu_train_batch_size": "per_device_train_batch_size",
    "per_gpu_eval_batch_size": "per_device_eval_batch_size",
    "push_to_hub_model_id": "hub_model_id",
    "push_to_hub_token": "hub_token",
    # CTC-drafter
    "tmpdir": "data_path",
    "cpdir": "output_dir",
    "basepath": "model_name_or_path",
    "bs": "per_device_train_batch_size",
    "lr": "learning_rate",
    "fixlen": "METHOD_num_heads",  # the labels of its CTC loss
    # Consistency LLM; and our own words
    "target_model_path": "model_name_or_path",
    "target": "model_name_or_path",
    "model": "model_name_or_path",
    # axolotl
    "base_model": "model_name_or_path",
    "sequence_len": "model_max_length",
    "micro_batch_size": "per_device_train_batch_size",
    "eval_batch_size": "per_device_eval_batch_size",
    "num_epochs": "num_train_epochs",
    "optimizer": "optim",
    "lr_scheduler": "lr_scheduler_type",
    # Medusa's heads
    "METHOD_decay_coefficient": "METHOD_decay",
}
"""Names whose current counterpart takes the same values."""

FORMATTED = {"recover": "resume_from_checkpoint=state_{}"}
"""Names whose value stands in the current setting; `nfox.train.checkpoints` knows such a state."""

IMPLIED = {"cpdir": ("save_strategy=epoch", "save_total_limit=1000")}
"""What published programs do without being told, by a name of theirs; what is typed wins."""

_OFF = ("", "false", "none", "null", "0", "0.0")
_ALL_LINEAR = "down_proj gate_proj k_proj lm_head o_proj q_proj up_proj v_proj"

VALUES = {
    "recover": {"-1": "resume_from_checkpoint=false"},
    "group_by_length": {"true": "train_sampling_strategy=group_by_length", "false": ""},
    "bf16": {"auto": ""},
    "adapter": {"none": "", "null": "", "": ""},
    "save_safetensors": {"true": ""},
    "overwrite_output_dir": {"true": "", "false": ""},  # checkpoints stay, other files are replaced
    "do_train": {"true": ""},
    "METHOD_logging": {"true": ""},
    "lora_target_linear": {"true": "", "false": ""},
    "lora_target_modules": {_ALL_LINEAR: ""},
}
"""Names with the values that are understood: the current setting, or "" for what is done anyway."""

REFUSED = {
    "fsdp_transformer_layer_cls_to_wrap": "FSDP is for heads, which have no such layers; models "
    "are trained by --deepspeed with ZeRO-2",
    "train_on_inputs": "only replies are learned",
    "lora_target_modules": "adapters are on all linear layers and the LM head",
    "lora_modules_to_save": "--full_weights True trains what is not a linear layer too",
    "lora_model_dir": "adapters begin anew; --heads FOLDER goes on with trained heads",
    "early_stopping_patience": "Ctrl-C stops and saves; --load_best_model_at_end keeps the best",
    "METHOD_num_unfreeze_layers": "leave it out; --adapter lora or --full_weights True train all "
    "layers of the base",
    "METHOD_distillation_regularization": "it made heads learn from themselves; leave it out, "
    "self_distillation keeps the base what it is",
    "label_smoothing_factor": "the losses are those of the papers",
    "neftune_noise_alpha": "the losses are those of the papers",
    "use_liger_kernel": "the base's own layers are used; leave it out",
    "logging_dir": "set the environment variable TENSORBOARD_LOGGING_DIR",
    "save_safetensors": "weights are always written as safetensors",
}
"""Settings that would change the result, with what to do instead."""

_UNUSED = {
    "the base's own files say it": "base_model_config tokenizer_config model_type tokenizer_type "
    "is_llama_derived_model is_mistral_derived_model is_falcon_derived_model special_tokens strict "
    "lora_fan_in_fan_out",
    "a row is one conversation, padded; attention is the base's": "sample_packing "
    "eval_sample_packing pad_to_sequence_len flash_attention xformers_attention sdp_attention",
    "nothing is prepared or held out; --eval_data_path names data to measure on": "val_set_size "
    "dataset_prepared_path",
    "--report_to wandb logs there, by WANDB_PROJECT and its other variables": "wandb_project "
    "wandb_entity wandb_watch wandb_run_id wandb_log_model",
    "heads and checkpoints go to --output_dir": "outdir",
    "the CTC loss has no other beside it": "cw",
    "it describes a model; sizes of heads are the base's, or typed": "configpath heads_config",
    "torch chooses it": "fp16_opt_level fp16_backend half_precision_backend use_reentrant",
    "losses and accuracies are always logged": "METHOD_logging",
    "nfox trains and measures by itself": "do_train do_eval do_predict prediction_loss_only "
    "eval_accumulation_steps eval_do_concat_batches eval_use_gather_object batch_eval_metrics "
    "include_for_metrics bf16_full_eval fp16_full_eval label_names remove_unused_columns "
    "average_tokens_across_devices include_num_input_tokens_seen use_cache length_column_name",
}
UNUSED = {name: reason for reason, names in _UNUSED.items() for name in names.split()}
"""Settings without which the result is the same, with the reason."""


def split(words: Sequence[str]) -> Iterator[Setting]:
    """Yield the settings of a command line; words before the first name have the name ""."""
    name, values = "", list[str]()
    for word in words:
        if not word.startswith("--"):
            values.append(word)
            continue
        if name or values:
            yield name, values
        name, equals, value = word[2:].partition("=")
        name, values = name.replace("-", "_"), [value] if equals else []
    if name or values:
        yield name, values


def join(settings: Iterable[Setting]) -> list[str]:
    """Return the words of a command line with some settings."""
    words: list[str] = []
    for name, values in settings:
        if not name:
            words += values
        elif len(values) == 1:
            words.append(f"--{name}={values[0]}")
        else:
            words += [f"--{name}", *values]
    return words


def translate(
    method: str, settings: Iterable[Setting]
) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Return settings by their current names.

    Args:
        method: the name after `nfox train`, with which some settings begin.
        settings: the settings, of which later ones win.

    Returns:
        The values of each setting, and the reasons why others are not used, by name.

    Raises:
        UsageError: for a setting that has no counterpart and would change the result.
    """
    settings = list(settings)
    implied = [f"--{words}" for name, _ in settings for words in IMPLIED.get(name, ())]
    translated, unused = dict(split(implied)), dict[str, str]()
    for typed, values in settings:
        prefixed = typed.startswith(f"{method}_")
        name = METHOD_PREFIX + typed.removeprefix(f"{method}_") if prefixed else typed
        value = " ".join(sorted(values)).lower() or ("" if values else "true")
        if name in VALUES and value in VALUES[name]:
            current = dict(split([f"--{VALUES[name][value]}"])) if VALUES[name][value] else {}
        elif name not in VALUES and name in REFUSED | UNUSED and value in _OFF:
            current = {}
        elif name in REFUSED:
            raise UsageError(f"--{typed} {value[:100]} is not offered", REFUSED[name])
        elif name in UNUSED:
            current, unused[typed] = {}, UNUSED[name]
        elif name in FORMATTED and values:
            current = dict(split([f"--{FORMATTED[name].format(values[0])}"]))
        elif name == "datasets":
            current = dict(_dataset_settings(values))
        else:
            current = {RENAMED.get(name, name).replace(METHOD_PREFIX, f"{method}_"): values}
        translated |= current
    return translated, unused


def _dataset_settings(values: Sequence[str]) -> Iterator[Setting]:
    """Yield the settings that correspond to an entry of axolotl's `datasets`.

    Raises:
        UsageError: if there are several entries, or one cannot be read here.
    """
    if len(values) != 1:
        raise UsageError(
            f"datasets: one is learned from, not {len(values)}", "put them into one JSON file"
        )
    try:
        entry = parse_json(values[0], "datasets")
    except UsageError:  # the path alone
        entry = values[0]
    entry = dict(entry) if isinstance(entry, dict) else {"path": entry}
    path, template = entry.pop("path", None), entry.pop("conversation", None)
    kind = str(entry.pop("type", "sharegpt"))
    if entry or not path or kind.partition(":")[0] not in ("sharegpt", "chat_template"):
        key = next(iter(entry), "type" if path else "path")
        raise UsageError(
            f"datasets: {key} cannot be used as given",
            "expected path, type sharegpt, and perhaps conversation; or --data_path",
        )
    yield "data_path", [str(path)]
    if template:
        yield "conv_template", [str(template)]
