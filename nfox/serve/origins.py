"""Web origins: by scheme, host and port a browser tells whose page it is that asks."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from nfox.errors import UsageError

ANY, OPAQUE = "*", "null"
"""What stands for all origins, and what browsers call one that has no address, as of a file."""

_DEFAULT_PORTS = {"http": 80, "https": 443}


class Origin(NamedTuple):
    """An origin with an address; the port is None where its scheme has no default one."""

    scheme: str
    host: str
    port: int | None


def parse_origin(url: str) -> Origin | None:
    """Return the origin of a URL, with the port that its scheme implies; None if it has none."""
    parts = _split(url)
    if parts is None or not parts.hostname:
        return None
    port = parts.port if parts.port is not None else _DEFAULT_PORTS.get(parts.scheme)
    return Origin(parts.scheme, normalised_host(parts.hostname), port)


def requested_origin(scheme: str, host_header: str) -> Origin | None:
    """Return the origin that a request calls its server by.

    Args:
        scheme: of the connection, "http" or "https".
        host_header: what stands in the request's `Host`.
    """
    return parse_origin(f"{scheme}://{host_header}")


def normalised_host(host: str) -> str:
    """Return a host name as it is compared: in lower case, without the root's dot."""
    return host.lower().rstrip(".")


def as_sent(text: str) -> str:
    """Return an origin as browsers send it, from what a person writes; "*" and "null" stay.

    Raises:
        UsageError: if it is no origin.
    """
    text = text.strip()
    if text in (ANY, OPAQUE):
        return text
    parts = _split(text)
    if parts is None or not _is_origin(parts):
        raise UsageError(f"{text!r} is no web origin", "one is https://page.example, or *")
    default_port = f":{_DEFAULT_PORTS.get(parts.scheme)}"
    return f"{parts.scheme}://{parts.netloc.lower().removesuffix(default_port)}"


def _is_origin(parts: SplitResult) -> bool:
    """Whether a URL has a scheme and a host, and nothing but a port beside them."""
    beside = parts.path.removeprefix("/") or parts.query or parts.fragment or "@" in parts.netloc
    return bool(parts.scheme and parts.netloc and parts.hostname and not beside)


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.port  # which is read only now, and refused if it is no number
    except ValueError:
        return None
    return parts
