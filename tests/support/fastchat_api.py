"""FastChat's API server, with the one call of pydantic 1 that its streams still make."""

from __future__ import annotations

import runpy
from typing import Any

from pydantic import BaseModel

own = BaseModel.model_dump_json


def as_json(self: BaseModel, *, ensure_ascii: bool = False, **more: Any) -> str:
    return own(self, **more)


BaseModel.json = as_json  # type: ignore[assignment]
runpy.run_module("fastchat.serve.openai_api_server", run_name="__main__")
