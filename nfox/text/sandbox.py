"""Chat templates are programs of strangers: here they run as transformers runs them, within limits.

The one idea: every value that a template makes is weighed, and every step of a loop is counted, so
that a template that never ends, or fills the memory, ends with one line. What makes a large value
out of small ones at once, such as `'a' * 10**9`, is weighed before it is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from functools import cache, lru_cache, wraps
from typing import Any

from jinja2 import Template, meta, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer
from transformers.utils.chat_template_utils import _compile_jinja_template
from typing_extensions import override

from nfox.text.meter import LimitExceeded, Meter, formatted_size, made_size, product_size

_MOST_SOURCE = 1 << 18  # characters; those of published templates are 30,000 at most

_meter: ContextVar[Meter] = ContextVar("_meter")


def render(source: str, variables: Mapping[str, Any], size: int) -> str:
    """Return what a chat template writes.

    Args:
        source: the template, in Jinja.
        variables: what it is given.
        size: the characters of the messages among them.

    Raises:
        LimitExceeded: if it takes too long, or makes too much.
        Exception: whatever else the template raises.
    """
    token = _meter.set(Meter(size))
    try:
        return _compiled(source).render(variables)
    finally:
        _meter.reset(token)


@lru_cache(maxsize=64)
def outer_variables(source: str) -> frozenset[str]:
    """Return the names that a chat template reads and does not itself define; none where it cannot
    be parsed, which rendering it will tell.
    """
    try:
        _check_length(source)
        return frozenset(meta.find_undeclared_variables(_environment().parse(source)))
    except Exception:  # a template is a program, and not ours
        return frozenset()


def _check_length(source: str) -> None:
    if len(source) > _MOST_SOURCE:
        raise LimitExceeded(f"it is {len(source):,} characters long, {_MOST_SOURCE:,} may be")


@lru_cache(maxsize=64)
def _compiled(source: str) -> Template:
    _check_length(source)
    environment = _environment()
    tree = _Weighing().visit(environment.parse(source))
    tree.set_environment(environment)
    return Template.from_code(
        environment, environment.compile(tree), environment.make_globals(None)
    )


@cache
def _environment() -> _LimitedEnvironment:
    """Return transformers' own environment of chat templates, with limits."""
    theirs = _compile_jinja_template("").environment
    ours = _LimitedEnvironment(
        trim_blocks=theirs.trim_blocks,
        lstrip_blocks=theirs.lstrip_blocks,
        extensions=[type(extension) for extension in theirs.extensions.values()],
        finalize=lambda value: _meter.get().keep(value),
    )
    ours.globals = {name: value for name, value in theirs.globals.items() if name != "lipsum"}
    ours.filters = {name: _limited_filter(name, f) for name, f in theirs.filters.items()}
    ours.filters |= {"_counted": _counted, "_weighed": lambda value: _meter.get().keep(value)}
    return ours


def _counted(values: Iterable[Any]) -> Iterator[Any]:
    """Yield what a loop goes over."""
    meter = _meter.get()
    for value in values:
        meter.step()
        yield value


class _Weighing(NodeTransformer):
    """Has the steps of loops counted, and the lists that a template writes weighed."""

    @override
    def generic_visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> nodes.Node:
        node = super().generic_visit(node, *args, **kwargs)
        if isinstance(node, nodes.For):
            node.iter = _filtered(node.iter, "_counted")
        made = isinstance(node, nodes.List | nodes.Dict | nodes.Concat) or (
            isinstance(node, nodes.Tuple) and node.ctx == "load"
        )
        return _filtered(node, "_weighed") if made else node


def _filtered(node: nodes.Node, name: str) -> nodes.Node:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


class _LimitedEnvironment(ImmutableSandboxedEnvironment):
    """A sandbox that weighs what operators, calls and output make."""

    intercepted_binops = frozenset(ImmutableSandboxedEnvironment.default_binop_table)

    @staticmethod
    @override
    def concat(pieces: Iterable[str]) -> str:
        """Return pieces of text, joined."""
        meter, taken, size = _meter.get(), list[str](), 0
        for piece in pieces:
            taken.append(piece)
            size += len(piece)
            meter.allow(size)
        return meter.keep("".join(taken))

    @override
    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        meter = _meter.get()
        meter.step()
        if operator == "*":
            meter.allow(product_size(left, right))
        elif operator == "**" and isinstance(left, int) and isinstance(right, int):
            meter.allow(abs(left).bit_length() * abs(right))
        elif operator == "%" and isinstance(left, str | bytes):
            meter.allow(formatted_size(str(left), "%", (right,), meter))
        return meter.keep(super().call_binop(context, operator, left, right))

    @override
    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        meter = _meter.get()
        meter.step()
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, str | bytes | int | list | tuple | dict):
            if __obj.__name__ == "join":
                args = tuple([*_counted(values)] for values in args)
            meter.allow(made_size(__obj.__name__, (owner, *args), kwargs, meter))
        return meter.keep(super().call(__context, __obj, *args, **kwargs))

    @override
    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None
        text = str(value.__self__)

        def limited(*args: Any, **kwargs: Any) -> str:
            meter = _meter.get()
            meter.allow(formatted_size(text, "{", (*args, *kwargs.values()), meter))
            return wrapped(*args, **kwargs)

        return limited


def _limited_filter(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a filter that is weighed before and after."""
    first = int(hasattr(function, "jinja_pass_arg"))  # before the value comes what Jinja passes

    @wraps(function)
    def limited(*args: Any, **kwargs: Any) -> Any:
        meter = _meter.get()
        meter.step()
        values = args[first:]
        if name == "join" and values and not isinstance(values[0], str | list | tuple):
            values = ([*_counted(values[0])], *values[1:])
        meter.allow(made_size(name, values, kwargs, meter))
        return meter.keep(function(*args[:first], *values, **kwargs))

    return limited
