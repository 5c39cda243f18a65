"""Journal, sweep and guardian in one object, for one client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from ..._common.tasks import cancel_and_wait
from ...log import logger
from ..http import request_headers
from .guardian import Guardian
from .records import same_address
from .sweep import Sweep, Swept
from .writer import Journal, journal_folder

SWEEP_SECONDS = 60.0
"""Seconds for the sweep that runs beside a start; the rest is left to the next one."""
_AFTER = 0.02
"""Seconds that a sweep waits, so that the start beside it comes first."""
_SESSIONS = "/v1/realtime_sessions/"


class Keeper:
    """One per client. Never raises.

    Args:
        api_secret: that of the client, as is `base_url`.
        folder: of the journals; None: neither journal nor sweep nor guardian.
        guardian: start one as soon as a session is in the journal, before it can bill.
    """

    def __init__(
        self, api_secret: str, base_url: str, folder: Path | None, *, guardian: bool = False
    ) -> None:
        on_first = self._guard if guardian else lambda _: None
        self.journal = Journal(api_secret, base_url, folder, on_first)
        """The journal that the client writes."""
        self._api_secret = api_secret
        self._base_url = base_url
        self._folder = folder
        self._guardian: Guardian | None = None
        """The guardian of the journal's present file."""
        self._sweeping: asyncio.Task[None] | None = None
        """The task of the first `sweep()`."""
        self._closed = False

    @staticmethod
    def on_this_machine(api_secret: str, base_url: str, *, guardian: bool = False) -> Keeper:
        """One with the folder from the environment."""
        return Keeper(api_secret, base_url, journal_folder(), guardian=guardian)

    def sweep(
        self,
        delete: Callable[[str], Awaitable[None]],
        on_swept: Callable[[Swept], None] = lambda _: None,
    ) -> None:
        """End the sessions that dead processes have left, in the background; once. Arguments as
        `Sweep`.
        """
        if self._sweeping is None and self._folder is not None:
            sweep = Sweep(self._api_secret, self._base_url, delete, on_swept)
            self._sweeping = asyncio.create_task(
                self._sweep(sweep, self._folder), name="runway_sweep"
            )

    async def _sweep(self, sweep: Sweep, folder: Path) -> None:
        try:
            async with asyncio.timeout(SWEEP_SECONDS):
                await asyncio.sleep(_AFTER)
                await sweep.run(folder)
        except TimeoutError:
            logger.debug("the sweep has run out of time")
        except Exception:  # noqa: BLE001  these are another process's sessions; this call goes on
            logger.exception("the sessions that killed processes have left could not be swept")

    def _guard(self, journal: Path) -> None:
        if self._closed:
            return  # nothing would release it
        url = same_address(self._base_url) + _SESSIONS
        self._guardian = Guardian(journal, url, request_headers(self._api_secret))
        self._guardian.start()

    async def aclose(self) -> None:
        """Call it after the client's last call: sessions that are in the journal now are left to
        other processes. Idempotent.
        """
        self._closed = True
        await cancel_and_wait(self._sweeping)
        clean = self.journal.close()
        if self._guardian is not None:
            await self._guardian.aclose(wait=clean)
