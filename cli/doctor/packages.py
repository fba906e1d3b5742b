"""What is installed: versions, against the bounds that nfox itself gives."""

from __future__ import annotations

import platform
import shlex
import tomllib
from collections.abc import Iterable, Iterator
from importlib import import_module, metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import nfox
from nfox.files.reading import refusing
from nfox.version import __version__

from .findings import Advice, Finding

_SECTION = "packages"
_DEVELOPMENT = "dev"  # the extra for those who work on nfox


def of_packages() -> Iterator[Finding]:
    """Yield findings about Python, nfox itself, and the packages that it needs."""
    python, requirements, extras = _declared()
    version = platform.python_version()
    if python.contains(version, prereleases=True):
        yield Finding(_SECTION, "python", version, facts={"version": version})
    else:
        advice = Advice("another Python", f"install Python {python}")
        yield Finding(_SECTION, "python", f"{version}; nfox needs {python}", "wrong", advice)
    yield _nfox()
    for name in ("torch", "transformers"):
        found = _version(name)
        yield Finding(_SECTION, name, found or "missing", "ok" if found else "wrong")
    yield _compared(requirements, [one for some in extras.values() for one in some])
    there = [one.name for some in extras.values() for one in some if _version(one.name)]
    absent = [
        f"{one.name} (pip install 'nfox[{extra}]')"
        for extra, some in extras.items()
        for one in some
        if not _version(one.name)
    ]
    told = [", ".join(there), f"not here: {', '.join(absent)}" if absent else ""]
    words = "; ".join(filter(None, told))
    yield Finding(_SECTION, "optional", words, facts={"installed": there})


def starts(name: str) -> Finding | None:
    """Import a package; return what is wrong with it, or None."""
    try:
        import_module(name)
    except Exception as error:  # nobody knows all that a broken installation raises
        text = " ".join(str(error).split()) or type(error).__name__
        advice = Advice(f"{name} anew", f"pip install --force-reinstall {name}")
        return Finding(_SECTION, name, f"it does not start: {text}", "wrong", advice)
    return None


def of_bitsandbytes() -> Finding:
    """Return whether bitsandbytes, for --load-in-4bit and --load-in-8bit, has what it runs by."""
    import torch

    if wrong := starts("bitsandbytes"):
        return wrong
    from bitsandbytes.cextension import ErrorHandlerMockBNBNativeLibrary, lib

    version, gpu = metadata.version("bitsandbytes"), torch.cuda.is_available()
    if isinstance(lib, ErrorHandlerMockBNBNativeLibrary):
        words = f"{version} has no library for this {'GPU' if gpu else 'CPU'}"
        advice = Advice("bitsandbytes anew", "pip install -U bitsandbytes")
        return Finding(_SECTION, "bitsandbytes", words, "wrong" if gpu else "warn", advice)
    if gpu:
        return Finding(_SECTION, "bitsandbytes", f"{version}, on the GPU")
    words = f"{version}, without a GPU: --load-in-4bit is slower here than --quantize int4"
    return Finding(_SECTION, "bitsandbytes", words)


def _nfox() -> Finding:
    """Return the version of nfox, and whether it is the one that was installed."""
    installed, place = _version("nfox"), Path(nfox.__file__).parent
    facts = {"version": __version__, "installed": installed}
    if installed in (None, __version__):
        return Finding(_SECTION, "nfox", f"{__version__} in {place}", facts=facts)
    words = f"{__version__} in {place}, but {installed} is what was installed"
    command = shlex.join(["pip", "install", "-e", str(place.parent)])
    return Finding(_SECTION, "nfox", words, "warn", Advice("nfox anew", command), facts)


def _compared(requirements: list[Requirement], optional: list[Requirement]) -> Finding:
    """Return which packages are missing, or of a version that nfox does not take."""
    wrong = {one.name: one for one in requirements if not _fits(one)}
    wrong |= {one.name: one for one in optional if _version(one.name) and not _fits(one)}
    if not wrong:
        words = f"{len(requirements)} of {len(requirements)} are as nfox needs them"
        return Finding(_SECTION, "needed", words)
    told = [
        f"{name} {_version(name) or 'is missing'} (needs {one.specifier})"
        for name, one in wrong.items()
    ]
    command = shlex.join(["pip", "install", "-U", *map(str, wrong.values())])
    advice = Advice("the packages that nfox needs", command)
    facts = {name: _version(name) for name in wrong}
    return Finding(_SECTION, "needed", ", ".join(told), "wrong", advice, facts)


def _fits(requirement: Requirement) -> bool:
    found = _version(requirement.name)
    return found is not None and requirement.specifier.contains(found, prereleases=True)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _declared() -> tuple[SpecifierSet, list[Requirement], dict[str, list[Requirement]]]:
    """Return which Python nfox needs, the packages, and those of its extras: as the source tree
    says that it runs from, or else as the installed package does.
    """
    path = Path(nfox.__file__).parents[1] / "pyproject.toml"
    project = {}
    if path.is_file():
        with refusing(path):
            project = tomllib.loads(path.read_text(encoding="utf-8")).get("project", {})
    if project.get("name") == "nfox":
        extras = project.get("optional-dependencies", {})
        extras = {name: [*map(Requirement, some)] for name, some in extras.items()}
        extras.pop(_DEVELOPMENT, None)
        python = SpecifierSet(project.get("requires-python", ""))
        return python, _here(map(Requirement, project["dependencies"])), extras
    try:
        installed = metadata.metadata("nfox")
    except metadata.PackageNotFoundError:
        return SpecifierSet(), [], {}
    declared = [Requirement(text) for text in installed.get_all("Requires-Dist") or ()]
    names = [name for name in installed.get_all("Provides-Extra") or () if name != _DEVELOPMENT]
    needed = _here(declared)
    return (
        SpecifierSet(installed["Requires-Python"] or ""),
        needed,
        {name: [one for one in _here(declared, name) if one not in needed] for name in names},
    )


def _here(requirements: Iterable[Requirement], extra: str = "") -> list[Requirement]:
    """Return the requirements whose markers are met here."""
    met = {"extra": extra}
    return [one for one in requirements if not one.marker or one.marker.evaluate(met)]
