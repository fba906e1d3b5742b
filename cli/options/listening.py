"""Options of the commands that listen: `nfox serve` and `nfox worker`."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Annotated

from nfox.drafters import method_names
from nfox.errors import UsageError
from nfox.serve.origins import as_sent

from .dataclass_options import option, split_variable

_server, _limit = partial(option, "Server"), partial(option, "Limits")
Text = str | None


@dataclass(frozen=True)
class AddressArguments:
    """The address that the server listens on, and the name that requests give the model."""

    host: Annotated[str, _server("Address to listen on; 0.0.0.0: for all.", "--host")] = "127.0.0.1"
    port: Annotated[
        int | None,
        _server(
            "0: any that is free. [default: 5000; of a worker 21002]", "--port", min=0, max=65535
        ),
    ] = None
    served_model_name: Annotated[
        Text, _server("What requests call the model. [default: its own]", "--served-model-name")
    ] = None
    verbose: Annotated[bool, _server("Log every request.", "--verbose", "-v", envvar=None)] = False

    def __post_init__(self) -> None:
        name = self.served_model_name
        if name is not None and (not name or name.rpartition(":")[2] in method_names()):
            raise UsageError(
                f"--served-model-name {name!r} is no name for a model",
                "NAME:METHOD is what requests choose a method by",
            )

    def port_or(self, default: int) -> int:
        """Return the port to listen on, with a default that depends on the command."""
        return default if self.port is None else self.port


@dataclass(frozen=True)
class AccessArguments:
    """Which requests are let in: with which key, from which origins, for which methods."""

    api_key: Annotated[Text, _server("That requests must bring.", "--api-key")] = None
    cors: Annotated[
        list[str],
        _server("A web origin that may ask, or *; repeatable.", "--cors", callback=split_variable),
    ] = field(default_factory=list)
    allow_host: Annotated[
        list[str],
        _server(
            "On loopback without a key: one more name of this server; repeatable.",
            "--allow-host",
            callback=split_variable,
        ),
    ] = field(default_factory=list)
    allow_method: Annotated[
        list[str],
        _server(
            "A method that requests may name; repeatable. [default: all that are ready]",
            "--allow-method",
            callback=split_variable,
        ),
    ] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.api_key == "":
            raise UsageError("--api-key is empty", "leave it out, or give one")
        for origin in self.cors:
            try:
                as_sent(origin)
            except UsageError as error:
                raise UsageError(f"--cors {error.message}", error.hint) from error


@dataclass(frozen=True)
class LimitArguments:
    """How many requests may wait, how long and how large each may be, and memory for caches."""

    max_queue: Annotated[int, _limit("Requests that may wait.", "--max-queue", min=1)] = 256
    request_timeout: Annotated[
        float, _limit("Seconds; a reply is cut there.", "--request-timeout", min=0.1)
    ] = 600.0
    max_request_size: Annotated[
        str, _limit("Of a request's body.", "--max-request-size", metavar="BYTES")
    ] = "4MiB"
    cache_memory: Annotated[
        str,
        _limit("Of KV caches of recent conversations.", "--cache-memory", metavar="BYTES"),
    ] = "2GiB"

    def __post_init__(self) -> None:
        parse_bytes("--max-request-size", self.max_request_size)
        parse_bytes("--cache-memory", self.cache_memory)


@dataclass(frozen=True)
class ServerArguments:
    """On which address a server listens, whom it lets in, and how much it takes."""

    address: AddressArguments
    access: AccessArguments
    limits: LimitArguments


def parse_bytes(option: str, text: str) -> int:
    """Return the number of bytes that a text like 4MiB stands for.

    Args:
        option: the name of the option, for errors.
        text: a number with or without a unit.

    Raises:
        UsageError: if the text is no size.
    """
    from pydantic import ByteSize, TypeAdapter, ValidationError

    try:
        return int(TypeAdapter(ByteSize).validate_python(text))
    except ValidationError as error:
        raise UsageError(
            f"{option} {text!r} is no size", "a number, or 512KiB, 4MiB, 2GiB"
        ) from error
