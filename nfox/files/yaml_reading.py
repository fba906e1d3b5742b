"""What a YAML file says, read within limits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from nfox.files.reading import MAX_DEPTH, refusing

if TYPE_CHECKING:
    from yaml import Node

_MAX_CHARACTERS = 1 << 18  # reading is slow
_MAX_VALUES = 100_000  # aliases that name one another say 10^9 in ten lines
_READ_AS_TEXT = ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:value")
_TYPES = {
    f"tag:yaml.org,2002:{name}"
    for name in ("null", "bool", "int", "float", "str", "seq", "map", "merge")
}


def parse_yaml(text: str, where: str | Path, expected: str = "") -> Any:
    """Return the value of a YAML text, of the types that JSON has; a date stays text.

    Args:
        text: the text.
        where: the file, for the error.
        expected: what should stand in it, for the hint of the error.

    Raises:
        UsageError: if the text is not YAML within the limits.
    """
    import yaml

    with refusing(where, expected):
        if len(text) > _MAX_CHARACTERS:
            raise ValueError(f"more than {_MAX_CHARACTERS:,} characters")
        loader = yaml.SafeLoader(text)
        loader.yaml_implicit_resolvers = {
            first: [resolver for resolver in resolvers if resolver[0] not in _READ_AS_TEXT]
            for first, resolvers in loader.yaml_implicit_resolvers.items()
        }
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _check(node)
            return loader.construct_document(node)
        except yaml.MarkedYAMLError as error:  # whose text has several lines
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise ValueError(f"not YAML: line {line}: {error.problem}") from error
        finally:
            loader.dispose()


def _check(root: Node) -> None:
    """Refuse what is too large with its aliases written out, too deep, or of a foreign type.

    Raises:
        ValueError: with the line.
    """
    rest, count = [(root, 1)], 0
    while rest:
        node, depth = rest.pop()
        line, count = node.start_mark.line + 1, count + 1
        if depth > MAX_DEPTH or count > _MAX_VALUES:
            raise ValueError(f"line {line}: too many values, or nested too deep")
        if node.tag not in _TYPES:
            raise ValueError(f"line {line}: values of the type {node.tag} are not read")
        if isinstance(node.value, str):
            node.value.encode()  # half of a surrogate pair is no character
        else:
            for item in node.value:
                children = item if isinstance(item, tuple) else (item,)
                rest.extend((child, depth + 1) for child in children)
