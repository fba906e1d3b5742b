"""The pages that people read: a chat at `/`, and what answers at `/docs`.

Each is one document without anything from elsewhere, and a browser is told to take nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib import resources
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment

from nfox.known_models import questions_to_try
from nfox.serve.errors import Json

_NONE = "'none'"
_METHODS = ["GET", "HEAD"]
_HEADERS = {
    "Cache-Control": "no-cache",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def page_routes(app: FastAPI, model: str) -> APIRouter:
    """Return the routes of the pages.

    Args:
        app: the application, whose routes one of them shows.
        model: the name of the model that answers, which questions to try suit.
    """
    router = APIRouter(include_in_schema=False)

    @router.api_route("/", methods=_METHODS)
    async def chat_page() -> HTMLResponse:
        return _response(_rendered("page.html.jinja", questions=questions_to_try(model)))

    @router.api_route("/docs", methods=_METHODS)
    async def api_page(request: Request) -> HTMLResponse:
        return _response(_api_page(app, str(request.base_url)))

    return router


@cache
def _source(name: str) -> str:
    return resources.files("nfox.serve").joinpath(name).read_text(encoding="utf-8")


def _rendered(name: str, **values: object) -> str:
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_source(name)).render(values)


def _response(document: str) -> HTMLResponse:
    """Return a document, with a policy that allows its own style and script alone."""
    hashes = {
        kind: " ".join(map(_digest, re.findall(rf"<{kind}>(.*?)</{kind}>", document, re.DOTALL)))
        for kind in ("style", "script")
    }
    policy = (
        f"default-src 'none'; style-src {hashes['style']}; script-src {hashes['script'] or _NONE}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    return HTMLResponse(document, headers=_HEADERS | {"Content-Security-Policy": policy})


def _digest(text: str) -> str:
    """Return how a policy names a text that may stand in the document."""
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _api_page(app: FastAPI, url: str) -> str:
    """Return the page that shows the routes of an application, from its own schema.

    Args:
        app: the application.
        url: where it is, as the request calls it.
    """
    schema = app.openapi()
    routes = [
        {"path": path, "method": method.upper(), "summary": operation.get("summary", "")}
        | {"fields": _fields(schema, operation)}
        for path, operations in schema["paths"].items()
        for method, operation in operations.items()
    ]
    return _rendered("api.html.jinja", routes=routes, url=url)


def _fields(schema: Json, operation: Json) -> list[dict[str, Any]]:
    """Return the fields of the body that an operation takes: name, type, whether it must be there,
    and what is said of it.
    """
    content = operation.get("requestBody", {}).get("content", {})
    if not content:
        return []
    body = _resolved(schema, content["application/json"]["schema"])
    return [
        {
            "name": name,
            "type": _type(schema, field),
            "required": name in body.get("required", ()),
            "description": field.get("description", ""),
        }
        for name, field in body["properties"].items()
    ]


def _resolved(schema: Json, part: Json) -> Json:
    """Return a part of a schema, or the one that it refers to."""
    reference = part.get("$ref", "").rpartition("/")[2]
    return schema["components"]["schemas"][reference] if reference else part


def _type(schema: Json, field: Json) -> str:
    """Return the type of a field in words. Null, which is as if it were not sent, is left out."""
    field = _resolved(schema, field)
    kind = field.get("type")
    if branches := field.get("anyOf", field.get("oneOf")):
        types = [_type(schema, branch) for branch in branches if branch.get("type") != "null"]
        return " or ".join(dict.fromkeys(types))
    if values := field.get("enum", [field["const"]] if "const" in field else None):
        return " or ".join(f'"{value}"' for value in values)
    if kind == "array":
        return f"list of {_type(schema, field['items'])}"
    if kind == "object":
        return f"{{{', '.join(field.get('properties', ()))}}}"
    return {None: "anything", "string": "text"}.get(kind, str(kind))
