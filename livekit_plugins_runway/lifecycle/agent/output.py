"""The agent session's chain of audio outputs: taken for the time of a call, and given back."""

from __future__ import annotations

from typing import Any

from livekit.agents import AgentSession
from livekit.agents.voice.io import AudioOutput

from ...log import logger
from ...playout.output import AvatarAudioOutput


class OutputSlot:
    """The end of an agent session's chain of audio outputs, taken for the time of a call."""

    def __init__(self, agent_session: AgentSession[Any]) -> None:
        self._agent_session = agent_session
        self._former = _tail(agent_session.output.audio)
        """What was there before; None: nothing was."""

    def install(self, output: AvatarAudioOutput) -> None:
        if self._former is None and _is_running(self._agent_session):
            logger.warning(
                "the agent session was started without an audio output: transcripts are not "
                "synchronised with speech and nothing is recorded. Call avatar.start() before "
                "session.start(), or do not pass audio_output=False"
            )
        self._agent_session.output.replace_audio_tail(output)

    def restore(self, output: AvatarAudioOutput) -> None:
        """Does not raise: what stands there is somebody else's."""
        try:
            self._restore(output)
        except Exception:  # noqa: BLE001  of an output that is somebody else's
            logger.exception("the agent's former audio output was not restored")

    def _restore(self, output: AvatarAudioOutput) -> None:
        outputs = self._agent_session.output
        if _tail(outputs.audio) is not output:
            return  # the framework has taken it off already, or somebody else has replaced it
        if outputs.audio is output:
            outputs.audio = self._former
        elif self._former is not None:
            outputs.replace_audio_tail(self._former)
        else:
            logger.warning(
                "the avatar is closed while the agent session goes on, which has no audio output "
                "of its own: the agent is silent from now on"
            )


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
