"""The rules that keep the code small, read from its syntax trees."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

import nfox
from nfox import drafters

ROOT = Path(__file__).parent.parent
PACKAGES = {"nfox": ROOT / "nfox", "nfox.cli": ROOT / "cli"}

# From low to high. A module imports from lower floors only, also inside functions and for types.
FLOORS = [
    ["nfox.errors", "nfox.demo", "nfox.alignments", "nfox.quality"],
    [
        "nfox.adapters",
        "nfox.devices",
        "nfox.lines",
        "nfox.progress",
        "nfox.tree",
        "nfox.pool",
        "nfox.sampling",
        "nfox.conversation",
        "nfox.engines.base",
    ],
    ["nfox.verify", "nfox.cache", "nfox.stream", "nfox.templates", "nfox.defaults"],
    ["nfox.target", "nfox.rules"],
    ["nfox.costs", "nfox.lean", "nfox.loading", "nfox.layers", "nfox.grams", "nfox.heads"],
    ["nfox.memory", "nfox.checkpoint", "nfox.trees"],
    ["nfox.fingerprint", "nfox.named_trees", "nfox.drafters.base", "nfox.engines.*"],
    ["nfox.heads_drafter"],
    ["nfox.drafters.*", "nfox.generate"],
    ["nfox.drafters", "nfox.engines", "nfox.stats", "nfox.jacobi_blocks"],
    ["nfox.reply"],
    ["nfox.chat"],
    ["nfox.session", "nfox.compose", "nfox.batch"],
    ["nfox.train.records"],
    ["nfox.train.data", "nfox.train.rows", "nfox.train.callbacks", "nfox.train.joint"],
    ["nfox.train.answers", "nfox.train.provenance"],
    ["nfox.train.task_data", "nfox.train.trajectories"],
    ["nfox.train.measure", "nfox.train.base", "nfox.train.branches"],
    ["nfox.train.learner", "nfox.train.states"],
    ["nfox.train.heads_learner", "nfox.train.consistency", "nfox.train.distil"],
    ["nfox.train.rehearsal", "nfox.train.resume", "nfox.train.joint_learner"],
    ["nfox.train.trainer"],
    ["nfox.train.record", "nfox.train.spread"],
    ["nfox.train.start"],
    ["nfox.train.heads_job", "nfox.train.consistency_job", "nfox.train.draft_job"],
    ["nfox.eval.oracle", "nfox.eval.peers.base", "nfox.eval.peers.gguf", "nfox.eval.judge_prompts"],
    ["nfox.eval.result"],
    ["nfox.eval.peers.*"],
    ["nfox.eval.peers"],
    ["nfox.eval.entrants"],
    ["nfox.eval.trials"],
    ["nfox.eval.figures", "nfox.eval.tasks", "nfox.eval.answers"],
    ["nfox.eval.simulation", "nfox.eval.mt_bench", "nfox.eval.answer_speed"],
    ["nfox.eval.drawing", "nfox.eval.noise"],
    ["nfox.eval.sweep_plots", "nfox.eval.compare"],
    ["nfox.eval.plots", "nfox.eval.baseline"],
    ["nfox.serve.errors", "nfox.serve.scores", "nfox.serve.past"],
    ["nfox.serve.queue", "nfox.serve.guard", "nfox.serve.jobs"],
    ["nfox.serve.engine"],
    ["nfox.serve.metrics", "nfox.serve.openai", "nfox.serve.schemas", "nfox.serve.server"],
    ["nfox.serve.served"],
    ["nfox.serve.app", "nfox.serve.controller"],
    ["nfox.serve*", "nfox.train*", "nfox.eval*"],
    ["nfox.cli*"],
]


def modules() -> Iterator[tuple[str, Path]]:
    """Yield the name and file of every module but the package's own front."""
    for package, folder in PACKAGES.items():
        for file in sorted(folder.rglob("*.py")):
            inner = file.relative_to(folder).with_suffix("").parts
            name = ".".join([package, *inner]).removesuffix(".__init__")
            if name != "nfox":
                yield name, file


MODULES = dict(modules())


def floor(name: str) -> int:
    """Return how high a module stands; exact names first, then patterns."""
    for match in (str.__eq__, fnmatch):
        for height, names in enumerate(FLOORS):
            if any(match(name, pattern) for pattern in names):
                return height
    pytest.fail(f"{name} stands on no floor: add it to FLOORS in {Path(__file__).name}")


def imports(file: Path) -> Iterator[str]:
    """Yield the nfox modules that a file imports from anywhere in it."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("nfox."))
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                if whole in MODULES:
                    yield whole
                elif node.module in MODULES:
                    yield node.module


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_downwards_only(name: str) -> None:
    here = floor(name)
    for other in imports(MODULES[name]):
        same_package = name.startswith("nfox.cli") and other.startswith("nfox.cli")
        assert same_package or floor(other) < here, f"{name} must not import {other}"


def test_there_is_no_floor_for_what_does_not_exist_any_more() -> None:
    planned = {"nfox.checkpoint", "nfox.serve*", "nfox.train*", "nfox.eval*"}
    for pattern in {p for names in FLOORS for p in names} - planned:
        assert any(fnmatch(name, pattern) for name in MODULES), pattern


def literals(file: Path, names: set[str]) -> set[str]:
    """Return which of `names` stand in a file as whole strings, but not as a record's field."""
    nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
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
    # "none" is an ordinary word.
    names = set(drafters.names()) - {"none"}
    for module, file in MODULES.items():
        own = module.removeprefix("nfox.drafters.")
        found = literals(file, names - {own})
        assert not found, f"{file.relative_to(ROOT)} names {found}"


@pytest.mark.parametrize("name", [name for name in MODULES if not name.startswith("nfox.cli")])
def test_nothing_below_the_command_line_prints_or_parses_arguments(name: str) -> None:
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "print", f"{name} prints"
        elif isinstance(node, ast.Import | ast.ImportFrom):
            first = node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
            tops = {"rich", "typer", "click", "argparse", "prompt_toolkit"}
            assert (first or "").split(".")[0] not in tops, f"{name} imports {first}"


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_what_it_is_for(name: str) -> None:
    assert ast.get_docstring(ast.parse(MODULES[name].read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "code", ["import nfox", "import nfox.errors, nfox.tree", "import nfox.drafters as d; d.names()"]
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
