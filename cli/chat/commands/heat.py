"""The command that draws the last reply as a heat map."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from nfox.errors import UsageError
from nfox.files.model_names import short_name

from ...display.heat_map import HeatMap, bands_of, print_heat_map
from ...heat import check_heat_file, write_heat
from ...paths import typed_path
from .inspect import last_part
from .registry import command

if TYPE_CHECKING:
    from ..app import ChatApp


@command("/heat", usage="[FILE]", paths=(".html", ".svg"))
def heat(app: ChatApp, argument: str) -> None:
    """Draw how many tokens each step gave; .html, .svg."""
    part = last_part(app)
    last = part.exchange
    stats, adapter = last.reply.stats, last.adapter
    model = short_name(app.engine.model.name) + (f" + {short_name(adapter)}" if adapter else "")
    bands = bands_of(part.pieces, stats.lengths)
    map = HeatMap(bands, stats.lengths, model, last.reply.method, stats.tokens_per_second)
    if not argument:
        print_heat_map(map, app.screen)
        return
    path = typed_path(argument, "/heat reply.html")
    if os.path.lexists(path):
        raise UsageError(f"{path} exists", "choose another name, or remove it first")
    check_heat_file(path)
    write_heat(map, path, "the chat still has the reply")
    app.say(f"the heat map is in {path}")
