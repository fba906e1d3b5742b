"""Tree shapes with a name: the published ones, and those in the files that people write."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter

from nfox.decoding.tree_shapes import MAX_NODES, TreeShape
from nfox.errors import UsageError
from nfox.files.reading import read_json, refusing

log = logging.getLogger(__name__)

# "path:children" for every inner node; the paths of one shape share their first ranks.
_PUBLISHED = {
    "mc_sim_7b_63": "r:10 0:10 1:7 2:3 3:2 4:1 5:1 6:1 7:1 8:1 9:1 00:10 01:3 02:2 03:1 04:1 05:1 "
    "06:1 07:1 10:2 20:1 000:2",
    "vicuna_7b_stage2": "r:10 0:10 1:5 2:2 3:2 4:1 5:1 6:1 7:1 00:9 01:4 02:2 03:1 04:1 05:1 10:3 "
    "11:1 20:1 000:4 001:1 002:1 010:1",
    "vicuna_13b_stage2": "r:10 0:10 1:4 2:2 3:1 4:1 5:1 00:10 01:4 02:2 03:1 04:1 05:1 10:3 11:1 "
    "20:1 30:1 000:4 001:2 002:1 010:1 100:1",
    "vicuna_33b_stage2": "r:10 0:10 1:5 2:3 3:2 4:1 5:1 6:1 7:1 00:10 01:4 02:2 03:1 04:1 05:1 "
    "10:3 11:1 20:1 000:3 001:1 010:1",
    "vicuna_7b_stage1_ablation": "r:10 0:10 1:4 2:2 3:2 4:1 5:1 6:1 00:10 01:4 02:2 03:1 04:1 05:1 "
    "10:3 11:1 20:1 30:1 000:4 001:1 002:1 010:1",
    "vicuna_13b_stage1": "r:10 0:10 1:7 2:4 3:2 4:2 5:1 6:1 7:1 8:1 00:10 01:4 02:2 03:1 04:1 05:1 "
    "10:2 11:1 20:1 000:1",
    "vicuna_33b_stage1": "r:10 0:10 1:8 2:5 3:3 4:2 5:2 6:1 7:1 8:1 9:1 00:9 01:3 02:2 03:1 04:1 "
    "10:2 20:1",
    "zephyr_stage2": "r:10 0:10 1:6 2:4 3:2 4:2 5:1 6:1 7:1 00:10 01:4 02:2 03:1 04:1 05:1 10:2 "
    "11:1 20:1 000:2 001:1",
    "vicuna_7b_stage1": "r:10 0:10 1:7 2:4 3:3 4:2 5:2 6:1 7:1 8:1 9:1 00:9 01:3 02:2 03:1 04:1 "
    "05:1 10:2 20:1 000:1",
    "eagle_25": "r:4 0:3 1:2 2:2 3:1 00:3 01:2 02:2 10:1 000:3 0000:2",
}

_LAYOUT = 'a JSON list of paths [[0], [0, 0], [1]], or an object that has one as its "tree"'
_PATHS = TypeAdapter(list[list[Annotated[int, Field(strict=True, ge=0, lt=1 << 20)]]])
_MAX_PATHS = MAX_NODES - 1  # every one is scored in every step, beside the root


def published_shape(name: str) -> TreeShape:
    """Return a published shape by its name."""
    paths: list[tuple[int, ...]] = []
    for item in _PUBLISHED[name].split():
        parent, children = item.split(":")
        ranks = () if parent == "r" else tuple(map(int, parent))
        paths += [(*ranks, rank) for rank in range(int(children))]
    return TreeShape(tuple(sorted(paths, key=lambda path: (len(path), path))))


def names() -> list[str]:
    """Return the names of the published shapes."""
    return sorted(_PUBLISHED)


def find_shape(name: str, max_width: int = 10) -> TreeShape:
    """Return a published shape, or the one in a JSON file: a list of paths [[0], [0, 0], [1], ...],
    or an object that has such a list as its "tree", as `nfox eval heads` writes it.

    Args:
        name: the name of a published shape, or the path of a file.
        max_width: how many guesses there are for each depth; a file may not ask for more.

    Raises:
        UsageError: if there is neither, or if the file's tree cannot be drafted.
    """
    if name in _PUBLISHED:
        return published_shape(name)
    path = Path(name).expanduser()
    if not path.is_file():
        raise UsageError(
            f"there is no tree {name!r}, and no such file",
            f"trees: auto, {', '.join(names())}, or a JSON file of paths [[0], [0, 0], [1]]",
        )
    with refusing(name, _LAYOUT):
        content = read_json(path)
        if isinstance(content, dict):
            if "tree" not in content:
                raise ValueError('no JSON list of paths, nor an object with a "tree"')
            content = content["tree"]
        paths = {tuple(item) for item in _PATHS.validate_python(content) if item}
        if len(paths) > _MAX_PATHS:
            raise ValueError(f"{len(paths):,} paths; there may be {_MAX_PATHS} at most")
    return _checked_shape(name, paths, max_width)


def cut_shape(name: str, shape: TreeShape, depth: int, max_width: int) -> TreeShape:
    """Return a shape without what heads cannot draft. A warning says where a published one is cut.

    Args:
        name: of the shape.
        shape: as it was found.
        depth: how many tokens ahead the heads draft.
        max_width: how many guesses there may be for each depth.

    Raises:
        UsageError: if it is too deep and that of a file, whose author had other heads in mind.
    """
    cut = shape.limited_to(depth, max_width)
    if shape.depth > depth:
        if name not in names():
            raise UsageError(
                f"the tree {name} is {shape.depth} deep, the heads draft {cut.depth} ahead",
                "choose a tree that is not deeper, or --tree auto",
            )
        log.warning(
            "the tree %s is %d deep, the heads draft %d ahead: %d of its %d nodes are used",
            *(name, shape.depth, cut.depth, len(cut), len(shape)),
        )
    return cut


def _checked_shape(name: str, paths: set[tuple[int, ...]], max_width: int) -> TreeShape:
    """Return the shape of a file's paths; say what is wrong with one that cannot be drafted."""
    if not paths:
        raise UsageError(f"{name}: the tree is empty", "take --tree auto, or --method none")
    try:
        shape = TreeShape(tuple(sorted(paths, key=lambda path: (len(path), path))))
    except UsageError as error:
        raise UsageError(f"{name}: {error.message}") from None
    if shape.width > max_width:
        raise UsageError(
            f"{name}: the rank {shape.width - 1} was asked for; there are {max_width} guesses for "
            f"a place, ranks 0 to {max_width - 1}"
        )
    return shape
