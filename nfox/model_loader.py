"""The models of one engine: how its target and its draft models are loaded."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from weakref import WeakValueDictionary

from nfox.files.model_names import short_name
from nfox.models.decoding_model import decoding_options, load_to_decode
from nfox.models.memory import check_memory
from nfox.models.options import LoadedModel, LoadProgress, ModelOptions


@dataclass(frozen=True)
class ModelLoader:
    """Loads the target and the draft models of one engine, and says so.

    Args:
        name: folder or hub id of the target.
        loading: how it is loaded.
        draft_loading: how draft models are.
        weights: folders and hub ids of the methods' weights, for which memory is needed as well.
        context: tokens of the cache for which memory is needed.
        progress: told how loading goes.
    """

    name: str
    loading: ModelOptions
    draft_loading: ModelOptions
    weights: tuple[str, ...]
    context: int
    progress: LoadProgress
    # Those that a drafter still has, so that another one has the same weights.
    _drafts: WeakValueDictionary[str, LoadedModel] = field(default_factory=WeakValueDictionary)

    def target(self, adapter: str | None) -> LoadedModel:
        """Load the target, with an adapter or as it is.

        Raises:
            NfoxError: if it cannot be loaded, or does not fit into memory with all weights.
        """
        self.progress.stage(f"checking that {short_name(self.name)} fits into memory")
        loading = replace(self.loading, adapter=adapter)
        needed = [(self.name, loading), *((one, self.draft_loading) for one in self.weights)]
        stage = self.progress.stage
        models = [(name, decoding_options(name, how, stage)) for name, how in needed]
        check_memory(models, self.context)
        self.progress.stage(f"loading {short_name(self.name)}")
        return self._load(self.name, loading)

    def draft(self, location: str) -> LoadedModel:
        """Return a draft model: the one that a drafter has already, or a newly loaded one.

        Raises:
            NfoxError: if it cannot be loaded.
        """
        loaded = self._drafts.get(location)
        if loaded is None:
            self.progress.stage(f"loading {short_name(location)}")
            loaded = self._drafts[location] = self._load(location, self.draft_loading)
        return loaded

    def _load(self, location: str, options: ModelOptions) -> LoadedModel:
        return load_to_decode(location, options, self.progress)

    def beside(self, loaded: LoadedModel) -> ModelLoader:
        """Return a loader whose draft models go where a target that is split gives its logits: what
        they draft is compared with these.
        """
        if not self.loading.device_map:
            return self
        if self.draft_loading.device or self.draft_loading.device_map:
            return self
        device = str(loaded.target.output_device)
        options = replace(self.draft_loading, device=device)
        return replace(self, draft_loading=options, _drafts=WeakValueDictionary())
