"""`nfox serve`: the model behind an OpenAI-compatible API."""

from __future__ import annotations

from ..load import check
from ..options.groups import GenerationArguments, MethodArguments, ModelArguments
from ..options.listening import AccessArguments, AddressArguments, LimitArguments


def serve(
    address: AddressArguments,
    access: AccessArguments,
    limits: LimitArguments,
    model: ModelArguments,
    method: MethodArguments,
    generation: GenerationArguments,
) -> None:
    """Serve the model: OpenAI's /v1/chat/completions, /v1/completions and /v1/models.

    Also /health, /metrics for Prometheus, and /predict. Where a request is silent, the options of
    sampling count. A request chooses a method by the model's name, NAME:METHOD, or by `method`.
    """
    check(model, method)
    from nfox.serve.server import bind

    # The address is taken before the minutes that loading may take.
    with bind(address.host, address.port_or(5000)) as listener:
        from .server import announce, load_served, serve_app

        served = load_served(address, access, limits, model, method, generation)
        from nfox.serve.app import make_app

        warning = "other machines can ask without a key; --api-key KEY sets one"
        announce(served, listener, "/v1", "" if access.api_key else warning)
        serve_app(make_app(served), served, listener, address, access, limits)
