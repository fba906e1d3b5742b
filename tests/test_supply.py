"""What the package says of itself to those who install it."""

from __future__ import annotations

import tomllib
from pathlib import Path

from packaging.licenses import canonicalize_license_expression
from packaging.requirements import Requirement

_ROOT = Path(__file__).parents[1]
_FILE = tomllib.loads((_ROOT / "pyproject.toml").read_text())
_PROJECT = _FILE["project"]


def test_both_licences_are_in_the_metadata() -> None:
    """The code's, and that of the embedded weights, as their card says it."""
    said = canonicalize_license_expression(_PROJECT["license"]).split(" AND ")
    card = (_ROOT / "nfox" / "demo" / "README.md").read_text()
    weights = next(line for line in card.splitlines() if line.startswith("license: "))
    assert [name.lower() for name in said] == ["apache-2.0", weights.removeprefix("license: ")]


def test_every_dependency_has_a_lower_bound() -> None:
    """`.ci/lowest` installs them, and runs the quick tests with them."""
    for text in _PROJECT["dependencies"]:
        requirement = Requirement(text)
        assert any(bound.operator == ">=" for bound in requirement.specifier), text


def test_no_dependency_stands_twice() -> None:
    names = [Requirement(text).name for text in _PROJECT["dependencies"]]
    assert sorted(names) == sorted(set(names))


def test_every_package_goes_into_the_wheel() -> None:
    """One that is not listed is there in the sources, and missing where nfox is installed."""
    setup = _FILE["tool"]["setuptools"]
    folders = {**setup["package-dir"], "nfox": "nfox"}
    there = {
        ".".join([package, *init.parent.relative_to(_ROOT / folder).parts])
        for package, folder in folders.items()
        for init in (_ROOT / folder).rglob("*.py")
    }
    assert there <= set(setup["packages"])


def test_jinja_is_recent_enough_for_the_chat_templates_of_transformers() -> None:
    [jinja] = [r for r in map(Requirement, _PROJECT["dependencies"]) if r.name == "jinja2"]
    assert not jinja.specifier.contains("3.1.5")
