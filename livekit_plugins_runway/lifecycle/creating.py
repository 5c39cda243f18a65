"""Makes a Runway session: which tries are repeated, and what becomes of sessions whose response was
lost.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass

from livekit.agents import APIConnectOptions

from .._common.tasks import BackgroundTasks
from ..errors import LostAnswerError, RunwayException, ServerError, TimedOutError
from ..events import Stage
from ..log import logger
from ..playout.ports import AvatarListener
from ..runway.answers import asked_to_wait
from ..runway.client import RunwayClient
from ..runway.http import TRANSIENT
from ..runway.models import CreateRealtimeSession
from ..runway.session import RealtimeSession
from ..transport.base import AvatarConnection, Transport
from .ending import Endings
from .instance import AvatarInstance, InstanceOptions
from .recovery import Spending

_LONGEST_BACKOFF = 8.0


@dataclass(frozen=True)
class CreateOptions:
    """How often, and for how long, the create of one session is tried."""

    connect: APIConnectOptions
    """Number of retries, and the first wait between them."""
    timeout: float = 45.0
    """Seconds for all tries together."""


@dataclass
class _Try:
    """One create call."""

    connection: AvatarConnection
    instance: AvatarInstance
    sent: bool = False
    """The request was sent: it may create a session."""


class SessionMaker:
    """Makes the sessions of a call. `endings` owns each from its creation on."""

    def __init__(
        self,
        client: RunwayClient,
        transport: Transport,
        listener: AvatarListener,
        endings: Endings,
        spending: Spending,
        instance_options: InstanceOptions,
        options: CreateOptions,
        on_stage: Callable[[Stage], None],
        background: BackgroundTasks,
    ) -> None:
        self._client = client
        self._transport = transport
        self._listener = listener
        self._endings = endings
        self._spending = spending
        self._instance_options = instance_options
        self._options = options
        self._on_stage = on_stage
        self._background = background

    async def make(
        self, request: CreateRealtimeSession, on_sent: Callable[[], None] | None = None
    ) -> AvatarInstance:
        """Make one more session, not opened yet. If it is cancelled, no session is left.

        A try is repeated if its outcome is unknown: no response, or a 502, 503 or 504. Each try is
        another session with a connection of its own, so with "direct" it has another identity and
        token. The orphaned session is never consumed: with "bridge" it expires unbilled about 21 s
        after READY, with "direct" its worker is evicted.

        Args:
            on_sent: called when the request leaves, in each attempt.

        Raises:
            CallLimitError: the call has reached a limit; nothing was sent.
            TimedOutError: all tries together took too long.
            RunwayException: as Runway says.
        """
        limit = asyncio.timeout(self._options.timeout)
        try:
            async with limit:
                instance = await self._repeated(request, on_sent)
        except TimeoutError:
            if not limit.expired():
                raise
            raise TimedOutError(
                f"Runway has made no session in {self._options.timeout:g} s, with all tries."
            ) from None
        self._on_stage("created")
        return instance

    async def _repeated(
        self, request: CreateRealtimeSession, on_sent: Callable[[], None] | None
    ) -> AvatarInstance:
        tries = 0
        while True:
            try:
                return await self._once(request, on_sent)
            except (LostAnswerError, ServerError) as error:
                if tries >= self._options.connect.max_retry or not _may_pass(error):
                    raise
                wait = self._wait(tries, error)
                logger.warning(
                    "a Runway create has no known outcome; creating another session",
                    extra={"error": type(error).__name__, "wait": round(wait, 2)},
                )
            tries += 1
            await asyncio.sleep(wait)

    async def _once(
        self, request: CreateRealtimeSession, on_sent: Callable[[], None] | None
    ) -> AvatarInstance:
        self._spending.check(self._endings.billed)
        this = self._try(request)

        def note_sent() -> None:
            this.sent = True
            if on_sent is not None:
                on_sent()

        try:
            await this.instance.session.create(note_sent, repeat_5xx=False)
        except BaseException as error:
            if this.sent and _may_exist(error):
                self._spending.sessions += 1
                this.connection.reject()
            raise
        self._spending.sessions += 1
        self._endings.hold(this.instance)
        return this.instance

    def _try(self, request: CreateRealtimeSession) -> _Try:
        connection = self._transport.connection(self._listener)
        session = RealtimeSession(self._client, connection.body(request))
        instance = AvatarInstance(
            session, connection, self._instance_options, self._on_stage, self._background
        )
        return _Try(connection, instance)

    def _wait(self, tries: int, error: RunwayException) -> float:
        """Seconds before the next try. 0 after a lost response: waiting for it took long enough."""
        if not isinstance(error, ServerError):
            return 0.0
        base = min(self._options.connect.retry_interval * 2.0**tries, _LONGEST_BACKOFF)
        return max(base * random.uniform(1.0, 1.5), asked_to_wait(error, random.random))


def _may_pass(error: LostAnswerError | ServerError) -> bool:
    """True if another try may succeed. Each try may leave a session whose id is not known."""
    if isinstance(error, LostAnswerError):
        return not error.answered
    return error.status_code in TRANSIENT


def _may_exist(error: BaseException) -> bool:
    """True if a create with this outcome may still make a session. The session of a cancelled
    create is ended as soon as its id is known, but its worker may join before that.
    """
    return not isinstance(error, RunwayException) or isinstance(
        error, LostAnswerError | ServerError
    )
