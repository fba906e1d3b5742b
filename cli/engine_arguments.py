"""From options to an `Engine`: what can be checked is checked before torch is imported."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import typer

from nfox.counting import counted
from nfox.drafters import check_method_name, plain_method
from nfox.errors import ModelError, UsageError

from .display.progress import loading_display
from .large_imports import import_engine
from .loading_options import model_options, parse_pairs
from .options.engine import GenerationArguments, MethodArguments, ModelArguments
from .printing import say, tell

if TYPE_CHECKING:
    from nfox.decoding.sampling import Sampling
    from nfox.engine import Engine
    from nfox.reply import Settings


@dataclass(frozen=True)
class EngineArguments:
    """The options that say which engine answers.

    Args:
        model: which model is loaded, and how.
        method: which method drafts, and which rule accepts.
        generation: how tokens are sampled, and when a reply ends.
    """

    model: ModelArguments
    method: MethodArguments = field(default_factory=MethodArguments)
    generation: GenerationArguments = field(default_factory=GenerationArguments)

    @classmethod
    def without_drafter(cls, model: ModelArguments) -> EngineArguments:
        """Return the options of an engine whose model decodes token by token."""
        return cls(model, MethodArguments(plain_method()))

    def check(self) -> None:
        """Check the options as far as that needs neither a model nor torch.

        Raises:
            NfoxError: for the first mistake.
        """
        method = self.method
        if method.method is not None:
            check_method_name(method.method)
        for name in ("model", "base_model", "heads", "draft_model", "adapter"):
            if getattr(self.model, name) == "":  # of a shell's variable that is not set
                option = name.replace("_", "-")
                raise UsageError(f"--{option} is empty", f"leave --{option} out, or name one")
        _method_options(method)
        model_options(self.model)
        if self.model.reproducible and method.accept != "exact":
            raise UsageError(
                f"--reproducible: the rule `{method.accept}` gives each method a text of its own",
                "leave --accept out: one seed then gives one text",
            )
        _check_rule_options(method, "rejection", "lenience")
        _check_rule_options(method, "typical", "epsilon", "delta")
        if self.model.conv_template is not None:
            _check_template(self.model.conv_template)

    @staticmethod
    def check_names(methods: str | None) -> None:
        """Check the methods of a list as far as that needs no torch: `none,spec:gamma=4`.

        Raises:
            UsageError: for the first name that no method has.
        """
        for name in (methods or "").split(","):
            if name.strip() and name != "all":
                check_method_name(name.strip().partition(":")[0])

    def load(self, *, quiet: bool = False, bars: bool = True) -> Engine:
        """Load the target, the drafter and the template that the options name.

        Args:
            quiet: say nothing on stderr.
            bars: show there how loading goes, if it is a terminal.

        Raises:
            NfoxError: if anything is missing or does not fit.
        """
        if not quiet:
            _warn_of_threads(self.model.threads or 1)
        with loading_display(sys.stderr.isatty() and bars and not quiet) as progress:
            progress.stage("starting")
            import_engine()
            from nfox import load

            model, method = self.model, self.method
            _use_threads(model.threads)  # for loading too
            loading, draft_loading = model_options(model)
            engine = load(
                model.model,
                method=method.method,
                options=_method_options(method),
                draft_model=model.draft_model,
                heads=model.heads,
                base_model=model.base_model,
                loading=loading,
                draft_loading=draft_loading,
                template=model.conv_template,
                system=model.system,
                settings=self._settings(),
                max_context=model.max_context,
                progress=progress,
            )
        if self.generation.sampling == "model":
            engine.use_settings(replace(engine.settings, sampling=self._models_sampling(engine)))
        return engine

    def _settings(self) -> Settings:
        """Return the settings that the options ask for: sampling, acceptance and a reply's end."""
        from nfox.decoding.sampling import Sampling
        from nfox.reply import Settings

        return Settings(
            sampling=self._sampling(Sampling()),
            accept=self.method.accept,
            max_new_tokens=self.generation.max_new_tokens,
            stop=tuple(self.generation.stop),
            **_options_set(self.generation, "think"),
            **_options_set(self.method, "lenience", "epsilon", "delta"),
        )

    def _models_sampling(self, engine: Engine) -> Sampling:
        """Return the sampling of the model's generation_config.json, but for the options that the
        person has set.
        """
        from nfox.models.generation_config import sampling_of

        return self._sampling(sampling_of(engine.model.target.model.generation_config))

    def _sampling(self, default: Sampling) -> Sampling:
        """Return a sampling, changed by the options that the person has set."""
        from nfox.reply import SAMPLING_FIELDS

        return replace(default, **_options_set(self.generation, *SAMPLING_FIELDS))


def _warn_of_threads(wanted: int) -> None:
    """Say that there are fewer cores than threads, which then wait for each other in turns."""
    cores = os.cpu_count() or 1
    if wanted > cores:
        tell(f"nfox: --threads {wanted} on {counted(cores, 'core')}: {cores} would be faster")


def _use_threads(count: int | None) -> None:
    """Let torch use so many threads; None leaves it as it is."""
    import torch

    if count is not None:
        torch.set_num_threads(count)


def _check_template(name: str) -> None:
    """Check that there is a conversation template of that name; `list` prints all and exits."""
    from nfox.text.resolve import FALLBACKS, available

    if name == "list":
        say(*available(), "tokenizer")
        raise typer.Exit
    if name.endswith(".json") or name.startswith("tokenizer:"):  # it is read once it is needed
        return
    if name not in (*available(), "tokenizer", *FALLBACKS):
        raise ModelError(f"no conversation template {name!r}", "--conv-template list shows them")


def _options_set(group: object, *fields: str) -> dict[str, Any]:
    """Return those of the named options that the person has set."""
    values = {name: getattr(group, name) for name in fields}
    return {name: value for name, value in values.items() if value is not None}


def _method_options(method: MethodArguments) -> dict[str, str]:
    """Return the options of the method by name: those of -o, and --gamma and --tree."""
    shorthands = _options_set(method, "gamma", "tree")
    options = parse_pairs(method.options, "-o")
    for name, value in shorthands.items():
        if options.setdefault(name, str(value)) != str(value):
            raise UsageError(
                f"--{name} {value} and -o {name}={options[name]}", "give one of the two"
            )
    return options


def _check_rule_options(method: MethodArguments, rule: str, *fields: str) -> None:
    """Check that options of one acceptance rule are not given with another rule."""
    for name in _options_set(method, *fields):
        if method.accept != rule:
            raise UsageError(f"--{name} is of the rule `{rule}`", f"add --accept {rule}")
