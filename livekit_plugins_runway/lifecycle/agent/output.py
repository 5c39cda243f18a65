"""Puts the sink at the end of the agent session's chain of audio outputs, and restores the former
output.
"""

from __future__ import annotations

from typing import Any

from livekit import rtc
from livekit.agents import AgentSession
from livekit.agents.voice.io import AudioOutput

from ..._common.tasks import BackgroundTasks
from ...errors import UnavailableError
from ...log import logger
from ...media.fallback_track import FallbackTrack
from ...playout.output import AvatarAudioOutput


class AgentVoice(AvatarAudioOutput):
    """An audio output on the agent's own participant, without an avatar. Installed when an avatar
    is closed in a session that has no output of its own. Its track is published with the first
    words. Closed with the agent session, or by the next avatar that has started.
    """

    def __init__(
        self, agent_session: AgentSession[Any], room: rtc.Room, background: BackgroundTasks
    ) -> None:
        self._track = FallbackTrack(room)
        super().__init__(self._track, report=lambda _: None)
        self.detach_avatar()
        self._agent_session = agent_session
        self._background = background
        self._is_published = False
        """True once closing has begun."""
        agent_session.on("close", self.close_soon)

    async def capture_frame(self, frame: rtc.AudioFrame) -> None:
        if not self._is_published:
            self._is_published = True
            self._background.start(self._publish(), "runway_publish_voice")
        await super().capture_frame(frame)

    async def _publish(self) -> None:
        try:
            await self._track.publish()
        except UnavailableError as error:
            logger.error("the agent is silent: %s", error)

    def close_soon(self, _: object = None) -> None:
        """Idempotent."""
        self._agent_session.off("close", self.close_soon)
        self._background.start(self.aclose(), "runway_close_voice")

    async def aclose(self) -> None:
        await super().aclose()
        await self._track.aclose()


class OutputSlot:
    """The place at the end of an agent session's chain of audio outputs.

    Args:
        room: the agent's. Its own participant speaks in it once the avatar is closed, if the
            session goes on and had no output before.
        background: owns what is closed later.
    """

    def __init__(
        self, agent_session: AgentSession[Any], room: rtc.Room, background: BackgroundTasks
    ) -> None:
        self._agent_session = agent_session
        self._room = room
        self._background = background
        self._former = _tail(agent_session.output.audio)
        """The former output; None: there was none, except perhaps an `AgentVoice` of a former
        avatar.
        """
        self._spare: AgentVoice | None = None
        """That `AgentVoice`, muted; restored if the avatar does not start."""
        self._is_over = False
        """The agent session was closed meanwhile."""

    def install(self, output: AvatarAudioOutput) -> None:
        if self._former is None and _is_running(self._agent_session):
            logger.warning(
                "the agent session was started without an audio output: transcripts are not "
                "synchronised with speech and nothing is recorded. Call avatar.start() before "
                "session.start(), or do not pass audio_output=False"
            )
        self._agent_session.on("close", self._on_close)
        self._agent_session.output.replace_audio_tail(output)
        if isinstance(self._former, AgentVoice):
            self._spare, self._former = self._former, None
            self._spare.clear_buffer()

    def keep(self) -> None:
        """Close the `AgentVoice` of a former avatar: this avatar has started."""
        if self._spare is not None:
            self._spare.close_soon()
            self._spare = None

    def restore(self, output: AvatarAudioOutput) -> None:
        """Does not raise, because the output may be another library's."""
        self._agent_session.off("close", self._on_close)
        try:
            self._restore(output)
        except Exception:  # noqa: BLE001  the output may be another library's
            logger.exception("the agent's former audio output could not be restored")
        self.keep()

    def _restore(self, output: AvatarAudioOutput) -> None:
        outputs = self._agent_session.output
        if _tail(outputs.audio) is not output:
            return  # the framework has removed it already, or other code has replaced it
        if self._former is not None:
            outputs.replace_audio_tail(self._former)
        elif self._is_over or not _is_running(self._agent_session):
            if outputs.audio is output:
                outputs.audio = None
        else:
            logger.info("the agent goes on by its own participant: it had no other audio output")
            voice, self._spare = self._spare, None
            outputs.replace_audio_tail(
                voice or AgentVoice(self._agent_session, self._room, self._background)
            )

    def _on_close(self, _: object) -> None:
        self._is_over = True


def _tail(output: AudioOutput | None) -> AudioOutput | None:
    """The sink at the end of a chain of audio outputs."""
    while output is not None and output.next_in_chain is not None:
        output = output.next_in_chain
    return output


def _is_running(agent_session: AgentSession[Any]) -> bool:
    try:
        agent_session.current_agent  # noqa: B018  raises unless the session was started
    except RuntimeError:
        return False
    return True
