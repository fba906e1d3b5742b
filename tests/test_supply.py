"""What the package says of itself to those who install it."""

from __future__ import annotations

import tomllib
from pathlib import Path

from packaging.licenses import canonicalize_license_expression
from packaging.requirements import Requirement

_PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]


def test_both_licences_are_in_the_metadata() -> None:
    """The code's, and that of the embedded weights, as their card says it."""
    said = canonicalize_license_expression(_PROJECT["license"]).split(" AND ")
    card = (Path(__file__).parents[1] / "nfox" / "demo" / "README.md").read_text()
    weights = next(line for line in card.splitlines() if line.startswith("license: "))
    assert [name.lower() for name in said] == ["apache-2.0", weights.removeprefix("license: ")]


def test_every_dependency_has_a_lower_bound() -> None:
    """`.ci/lowest` installs them, and runs the quick tests with them."""
    for text in _PROJECT["dependencies"]:
        requirement = Requirement(text)
        assert any(bound.operator == ">=" for bound in requirement.specifier), text


def test_jinja_is_recent_enough_for_the_chat_templates_of_transformers() -> None:
    [jinja] = [r for r in map(Requirement, _PROJECT["dependencies"]) if r.name == "jinja2"]
    assert not jinja.specifier.contains("3.1.5")
