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
    [
        "nfox.decoding",
        "nfox.text",
        "nfox.files",
        "nfox.models",
        "nfox.heads",
        "nfox.drafters.common",
        "nfox.train.data",
        "nfox.train.heads",
        "nfox.train.cllm",
        "nfox.train.draft",
        "nfox.eval.answers",
        "nfox.eval.bench",
        "nfox.eval.report",
    ],
    ["nfox.errors", "nfox.demo", "nfox.heads.ctc_alignment", "nfox.eval.answers.extract"],
    [
        "nfox.models.adapters",
        "nfox.models.devices",
        "nfox.files.jsonl",
        "nfox.files.progress",
        "nfox.decoding.tree",
        "nfox.drafters.common.ngram_pool",
        "nfox.decoding.sampling",
        "nfox.text.template",
        "nfox.export.formats",
    ],
    [
        "nfox.decoding.verify",
        "nfox.decoding.cache",
        "nfox.text.stream",
        "nfox.text.resolve",
        "nfox.models.generation_config",
    ],
    ["nfox.decoding.target", "nfox.decoding.rules"],
    [
        "nfox.decoding.costs",
        "nfox.models.fused_llama",
        "nfox.models.loading",
        "nfox.heads.attention",
        "nfox.heads.trigrams",
        "nfox.heads.base",
    ],
    ["nfox.models.memory", "nfox.heads.checkpoint", "nfox.decoding.tree_shapes"],
    [
        "nfox.heads.compatibility",
        "nfox.decoding.published_trees",
        "nfox.drafters.common.method",
        "nfox.export.*",
    ],
    ["nfox.drafters.common.heads"],
    ["nfox.drafters.*", "nfox.decoding.generate"],
    ["nfox.drafters", "nfox.export", "nfox.decoding.stats", "nfox.train.cllm.blocks"],
    ["nfox.reply"],
    ["nfox.engine"],
    ["nfox.conversation", "nfox.loader", "nfox.batch"],
    ["nfox.files.records"],
    [
        "nfox.train.data.conversations",
        "nfox.train.data.rows",
        "nfox.train.callbacks",
        "nfox.train.heads.joint_options",
    ],
    ["nfox.train.data.local_answers", "nfox.files.provenance"],
    ["nfox.train.data.tasks", "nfox.train.cllm.trajectories"],
    ["nfox.train.metrics", "nfox.train.heads.base_model", "nfox.train.cllm.branch_attention"],
    ["nfox.train.learner", "nfox.train.cllm.rows"],
    ["nfox.train.heads.learner", "nfox.train.cllm.learner", "nfox.train.draft.learner"],
    ["nfox.train.dry_run", "nfox.train.checkpoints", "nfox.train.heads.joint_learner"],
    ["nfox.train.trainer"],
    ["nfox.train.job", "nfox.train.sharding"],
    ["nfox.train.loading"],
    ["nfox.train.heads.job", "nfox.train.cllm.job", "nfox.train.draft.job"],
    [
        "nfox.eval.bench.simulated_drafter",
        "nfox.eval.peers.base",
        "nfox.eval.peers.gguf",
    ],
    ["nfox.eval.bench.result"],
    ["nfox.eval.peers.*"],
    ["nfox.eval.peers"],
    ["nfox.eval.bench.entrants"],
    ["nfox.eval.bench.runner"],
    ["nfox.eval.bench.metrics", "nfox.eval.bench.tasks", "nfox.eval.answers.files"],
    ["nfox.eval.bench.simulation"],
    ["nfox.eval.report.plot_style", "nfox.eval.bench.noise"],
    ["nfox.eval.report.sweep_plots", "nfox.eval.bench.compare"],
    ["nfox.eval.report.plots", "nfox.eval.bench.baseline"],
    ["nfox.serve.errors", "nfox.serve.logprobs", "nfox.serve.cache_pool"],
    ["nfox.serve.fair_queue", "nfox.serve.middleware", "nfox.serve.jobs"],
    ["nfox.serve.worker"],
    ["nfox.serve.metrics", "nfox.serve.responses", "nfox.serve.schemas", "nfox.serve.server"],
    ["nfox.serve.requests"],
    ["nfox.serve.app", "nfox.serve.fastchat_controller"],
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
    planned = {"nfox.heads.checkpoint", "nfox.serve*", "nfox.train*", "nfox.eval*"}
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
    "code",
    [
        "import nfox",
        "import nfox.errors, nfox.decoding.tree",
        "import nfox.drafters as d; d.names()",
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
