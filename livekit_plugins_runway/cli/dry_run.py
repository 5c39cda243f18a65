"""The requests of `RunwayClient`, shown instead of sent."""

from __future__ import annotations

import json
import random

from ..runway.account.calls import AccountCalls
from ..runway.http import ApiCall, ConnectOptions, HttpCaller
from .calls import Request, preview
from .output import HIDDEN
from .settings import Settings


class ShownCalls(AccountCalls):
    """The first request ends the command. Needs no key and no network."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(HIDDEN, _Shown(settings))


class _Shown(HttpCaller):
    def __init__(self, settings: Settings) -> None:
        super().__init__(settings.base_url, None, ConnectOptions(), 1.0, random.random)
        self._settings = settings

    async def perform(self, call: ApiCall) -> object:
        body = None if call.content is None else json.loads(call.content)
        preview(self._settings, Request(call.method, call.path, body=body))
        raise RuntimeError("a dry run went on after its first request")
