"""The rules that keep the code small, read from its syntax trees."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib.util import resolve_name
from pathlib import Path

import pytest

import nfox
from nfox import drafters

ROOT = Path(__file__).parent.parent
PACKAGES = {"nfox": ROOT / "nfox", "nfox.cli": ROOT / "cli"}

# From low to high. A package imports from lower rows only, also inside functions and for types.
ROWS = [
    ["errors", "version", "demo", "counting"],
    ["characters", "controls", "secrets", "known_models"],
    ["decoding"],
    ["files"],
    ["text"],
    ["models"],
    ["heads", "export"],
    ["drafters"],
    ["reply", "engine_summary", "model_loader"],
    ["reply_stream", "reply_text"],
    ["engine"],
    ["loader", "conversation", "plain_reply", "batch"],
    ["race"],
    ["train", "serve"],
    ["eval"],
    ["cli"],
]
HEIGHTS = {package: height for height, packages in enumerate(ROWS) for package in packages}


def modules() -> Iterator[tuple[str, Path]]:
    """Yield the name and file of every module but the package's own front."""
    for package, folder in PACKAGES.items():
        for file in sorted(folder.rglob("*.py")):
            inner = file.relative_to(folder).with_suffix("").parts
            name = ".".join([package, *inner]).removesuffix(".__init__")
            if name != "nfox":
                yield name, file


MODULES = dict(modules())


@cache
def tree(name: str) -> ast.Module:
    """Return the syntax tree of a module."""
    return ast.parse(MODULES[name].read_text(encoding="utf-8"))


def package_of(name: str) -> str:
    """Return the package, or the module that stands alone, in which a module is."""
    return name.split(".")[1]


def imports(name: str) -> Iterator[str]:
    """Yield the nfox modules that a module imports from anywhere in it."""
    file = MODULES[name]
    inside = name if file.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom):
            relative = f"{'.' * node.level}{node.module or ''}"
            source = resolve_name(relative, inside) if node.level else relative
            for alias in node.names:
                submodule = f"{source}.{alias.name}"
                if submodule in MODULES:
                    yield submodule
                elif source in MODULES:
                    yield source
                elif source == "nfox":  # a public name, which the front takes from its module
                    yield from {getattr(getattr(nfox, alias.name), "__module__", "")} & {*MODULES}


def test_a_package_imports_from_lower_rows_only() -> None:
    wrong = []
    for name in MODULES:
        own = package_of(name)
        assert own in HEIGHTS, f"{name} stands in no row: add {own} to ROWS"
        for imported in imports(name):
            other = package_of(imported)
            if other != own and HEIGHTS[other] >= HEIGHTS[own]:
                wrong.append(f"{name} must not import {imported}: {other} is not below {own}")
    assert not wrong


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = TopologicalSorter({name: set(imports(name)) for name in MODULES})
    try:
        graph.prepare()
    except CycleError as error:
        circle = reversed(error.args[1])  # which names every module before the one that imports it
        pytest.fail(f"a circle: {' imports '.join(circle)}")


def test_every_row_is_of_packages_that_there_are() -> None:
    assert set(HEIGHTS) == set(map(package_of, MODULES))


def roots(name: str) -> set[str]:
    """Return the packages, ours and others, from which a module imports."""
    found: set[str] = set()
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add((node.module or "").partition(".")[0])
    return found


def test_the_papers_need_torch_and_numpy_and_nothing_else_that_is_installed() -> None:
    allowed = {*sys.stdlib_module_names, "nfox", "torch", "numpy", "typing_extensions"}
    papers = [name for name in MODULES if package_of(name) == "decoding"]
    foreign = {name: roots(name) - allowed for name in papers if roots(name) - allowed}
    assert not foreign


LONGEST_FILE, LONGEST_FUNCTION = 230, 40  # lines

LONG = {
    "nfox/decoding/generate.py:generate": "the loop: its steps and their order are to be seen at "
    "once, and a third of it says what it takes",
    "nfox/decoding/rules.py": "all acceptance rules, each of which is read beside the others",
    "nfox/drafters/auto.py": "a method is one file",
    "nfox/drafters/chimera.py": "a method is one file",
    "nfox/drafters/ctc.py": "a method is one file",
    "nfox/drafters/jacobi.py": "a method is one file",
    "nfox/drafters/medusa.py": "a method is one file",
    "nfox/drafters/spec.py": "a method is one file",
    "nfox/engine.py": "one class: a reply from its request to its last step",
    "nfox/files/progress.py:reporting": "a class of bars around its callback",
    "nfox/loader.py:load": "most of it says what its keywords mean: it is the front door",
    "nfox/models/transformers_target.py": "one class with one subject: what a target is asked",
}
"""Files and functions that are longer than others may be, each with the reason."""


def sizes() -> Iterator[tuple[str, int, int]]:
    """Yield every file and function with its lines, and the lines it may have."""
    for name, file in MODULES.items():
        path = file.relative_to(ROOT).as_posix()
        yield path, len(file.read_text(encoding="utf-8").splitlines()), LONGEST_FILE
        for node in ast.walk(tree(name)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                yield f"{path}:{node.name}", lines, LONGEST_FUNCTION


def test_what_is_long_is_listed_with_a_reason() -> None:
    long = {name: lines for name, lines, allowed in sizes() if lines > allowed}
    unlisted = {name: lines for name, lines in long.items() if name not in LONG}
    assert not unlisted, f"too long: shorten it, or list it in LONG with a reason: {unlisted}"
    needless = LONG.keys() - long.keys()
    assert not needless, f"short enough: take it from LONG: {needless}"


def literals(module: str, names: set[str]) -> set[str]:
    """Return which of `names` stand in a module as whole strings, but not as a record's field."""
    nodes = list(ast.walk(tree(module)))
    fields: set[int] = set()
    for node in nodes:
        if isinstance(node, ast.Dict):
            keys = [key for key in node.keys if isinstance(key, ast.Constant)]
            if any(key.value not in names for key in keys):  # no table of methods
                fields |= set(map(id, keys))
        elif isinstance(node, ast.Subscript):  # a table would be found where it is made
            fields.add(id(node.slice))
    strings = [n for n in nodes if isinstance(n, ast.Constant) and id(n) not in fields]
    return names & {n.value for n in strings if isinstance(n.value, str)}


def test_a_methods_name_stands_in_its_own_file_only() -> None:
    """No list of methods, no if over them: a new file is all that a new method takes."""
    # These are ordinary words.
    names = set(drafters.method_names()) - {"none", "auto"}
    for module, file in MODULES.items():
        own = module.removeprefix("nfox.drafters.")
        found = literals(module, names - {own})
        assert not found, f"{file.relative_to(ROOT)} names {found}"


def test_nothing_below_the_command_line_prints_or_parses_arguments() -> None:
    below = [name for name in MODULES if not name.startswith("nfox.cli")]
    tops = {"rich", "typer", "click", "argparse", "prompt_toolkit"}
    wrong = {name: roots(name) & tops for name in below if roots(name) & tops}
    assert not wrong, "they import what is of a terminal"
    printing = [name for name in below if any(map(prints, ast.walk(tree(name))))]
    assert not printing


def prints(node: ast.AST) -> bool:
    """Whether a node is a call of `print`."""
    return (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    )


def test_what_is_printed_or_drawn_is_cleaned() -> None:
    """Nothing goes around the module that prints and the console that leaves controls out."""
    printing = {name for name in MODULES if any(map(prints, ast.walk(tree(name))))}
    assert printing == {"nfox.cli.printing"}
    made = {
        (name, node.func.id)
        for name in MODULES
        for node in ast.walk(tree(name))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert {called for _, called in made if called.endswith("Console")} == {"CleanConsole"}


def test_every_module_says_what_it_is_for() -> None:
    assert not [name for name in MODULES if not ast.get_docstring(tree(name))]


@pytest.mark.parametrize(
    "code",
    [
        "import nfox",
        "import nfox.errors, nfox.decoding.tree",
        "import nfox.drafters as d; d.method_names()",
    ],
)
def test_importing_takes_no_torch(code: str) -> None:
    code += "; import sys; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names_are_there_and_hide_no_module() -> None:
    for name in nfox.__all__:
        assert getattr(nfox, name) is not None
        assert f"nfox.{name}" not in MODULES, "it would be the one or the other, by chance"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        nfox.nothing  # noqa: B018


@pytest.mark.parametrize(("former", "now"), [("Chat", "Engine"), ("Session", "Conversation")])
def test_former_names_of_public_classes_still_work_and_warn(former: str, now: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"nfox.{former} is nfox.{now} now"):
        assert getattr(nfox, former) is getattr(nfox, now)
