"""What the findings of `doctor --live` mean, and which options to set. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeGuard

from ...errors import CreditsError, QuotaError, RoomTokenError, SessionNotReadyError
from ...transport.livekit_url import is_public

if TYPE_CHECKING:
    from .live import Findings
    from .witness import Heard

Kind = Literal["datastream", "track", "direct", "conversation", "silent", "failed"]

MOUTHPIECE = (
    "You are a mouthpiece. Repeat everything that you hear, word for word, in the language in "
    "which you hear it, as soon as the speaker pauses. Never answer, comment, greet, translate or "
    "add a word of your own."
)
"""Personality with which `doctor --live --mouthpiece` asks an avatar to repeat what it hears."""

_WAIT_FOR_AVATAR = 10.0
_JOIN_TIMEOUT = 30.0
_SLOW = 1.5
"""Seconds of speech latency from which resuming takes too long to be worth it."""


@dataclass(frozen=True)
class Verdict:
    """`options`: for `AvatarSession`, beside the avatar."""

    kind: Kind
    summary: str
    options: dict[str, Any]
    advice: tuple[str, ...] = ()


def judge(
    findings: Findings,
    direct: Findings | None = None,
    *,
    mouthpiece: bool = False,
    livekit_url: str | None = None,
) -> Verdict:
    """What the findings say about how to use the account's avatars.

    Args:
        findings: of the room that Runway hosts.
        direct: of a room of the agents' own server; None: it was not tried.
        mouthpiece: the avatar was asked to repeat what it hears.
        livekit_url: of the agents' server; None: not known.
    """
    verdict = _of_bridge(findings, mouthpiece=mouthpiece, livekit_url=livekit_url, direct=direct)
    if direct is None:
        return verdict
    stream = _heard(direct, "datastream")
    if verdict.kind in ("datastream", "track"):
        also = "says" if _speaks(stream) else "does not say"
        told = f'Invited to your own room (transport="direct") it {also} what it is sent, too.'
        return replace(verdict, advice=(*verdict.advice, told))
    if not _speaks(stream):
        told = f"Invited to your own room it did not help: {_why_not(direct, stream)}."
        return replace(verdict, options={}, advice=(told, *verdict.advice))
    return Verdict(
        "direct",
        "The worker says what the agent says where it is invited to your own room.",
        {"transport": "direct", **_by_time(direct, stream)},
        (f"In the room that Runway hosts: {verdict.summary}", *_about_end(direct)),
    )


def _why_not(direct: Findings, heard: Heard | None) -> str:
    if direct.error is not None:
        return direct.error.message.rstrip(".")
    return "nothing came back" if heard is None or heard.reaction == "silent" else "it answers"


def _of_bridge(
    findings: Findings, *, mouthpiece: bool, livekit_url: str | None, direct: Findings | None
) -> Verdict:
    if findings.error is not None:
        return _failed(findings)
    track, stream = _heard(findings, "track"), _heard(findings, "datastream")
    advice = _about_end(findings)
    if _speaks(stream):
        also = " It also speaks what it hears on a microphone track." if _speaks(track) else ""
        if not findings.answers_rpc:
            advice += (
                "The worker did not answer lk.clear_buffer: after a barge-in it may finish its "
                'sentence, unheard. delivery="auto" would choose the track: set it by hand.',
            )
        summary = f"The worker speaks what it is sent as a data stream.{also}"
        options = {"transport": "bridge", "delivery": "datastream", **_by_time(findings, stream)}
        return Verdict("datastream", summary, options, advice)
    if _speaks(track):
        summary = "The worker speaks what it hears on a microphone track, and takes no data stream."
        options = {"transport": "bridge", "delivery": "track", **_by_time(findings, track)}
        return Verdict("track", summary, options, advice)
    if any(heard is not None and heard.reaction == "answers" for heard in (track, stream)):
        return Verdict(
            "conversation",
            "The worker answers on its own instead of speaking what it is sent.",
            {"transport": "direct"} if livekit_url is None or is_public(livekit_url) else {},
            (
                *advice,
                *([_about_direct(livekit_url)] if direct is None else []),
                *_about_conversation(mouthpiece),
            ),
        )
    return Verdict(
        "silent",
        "The worker shows a face, but nothing that was sent to it was heard to come back.",
        {},
        (
            *advice,
            "The built-in phrase has no words, and a worker may wait for some: try again with "
            "--speech FILE.wav, a sentence of your own.",
            "Until then the agent speaks by voice, without a face: leave the avatar out.",
        ),
    )


def _failed(findings: Findings) -> Verdict:
    error = findings.error
    assert error is not None
    reached = [name for name in findings.stages if name not in ("ended", "settled", "not settled")]
    stage = reached[-1] if reached else None
    where = f"after the stage {stage!r}" if stage else "at the create call"
    match error:
        case CreditsError() | QuotaError():
            advice: tuple[str, ...] = ("Nothing was spent.",)
        case SessionNotReadyError() if error.queued:
            advice = ("Another session takes up the account's place: end it, then try again.",)
        case _:
            advice = ()
    return Verdict("failed", f"It went wrong {where}: {error.message}", {}, advice)


def _heard(findings: Findings, kind: Literal["track", "datastream"]) -> Heard | None:
    found = findings.deliveries.get(kind)
    return None if isinstance(found, RoomTokenError) else found


def _speaks(heard: Heard | None) -> TypeGuard[Heard]:
    return heard is not None and heard.reaction == "speaks"


def _by_time(findings: Findings, heard: Heard) -> dict[str, Any]:
    """Options whose defaults are too short for what was measured."""
    options: dict[str, Any] = {}
    face = findings.stages.get("first_frame", 0.0)
    if face > _WAIT_FOR_AVATAR - 1.0:
        options["wait_for_avatar"] = float(math.ceil(face * 1.2))
    if face > _JOIN_TIMEOUT / 2:
        options["join_timeout"] = float(math.ceil(face * 2))
    if heard.latency is not None and heard.latency > _SLOW:
        options["allow_pause"] = False
    return options


def _about_end(findings: Findings) -> tuple[str, ...]:
    if findings.end is not None and not findings.end.confirmed:
        return ("The end of the session could not be confirmed: see above how to end it by hand.",)
    if findings.end_call_obeyed is False:
        return (
            "END_CALL did not end the session, DELETE did: expect no transcripts or recordings.",
        )
    return ()


def _about_direct(livekit_url: str | None) -> str:
    """The way out that Runway documents; it was not tried here."""
    says = (
        'Not tried here: with transport="direct" the worker joins your own room, where Runway '
        "documents that it says what the agent says."
    )
    if livekit_url is None:
        return f"{says} For that Runway must be able to reach your LiveKit server (wss://, public)."
    if is_public(livekit_url):
        return f"{says} Your LIVEKIT_URL would do for that."
    return f"{says} For that Runway must be able to reach LIVEKIT_URL, and it cannot reach this."


def _about_conversation(mouthpiece: bool) -> tuple[str, ...]:
    without = (
        "In Runway's room AvatarSession notices words that are not the agent's, and says the "
        "sentence by voice instead: such a face is of no use. If there is no other way, leave the "
        'avatar out, or set RecoveryOptions(on_loss="audio"), so that no further session is paid '
        "for."
    )
    if mouthpiece:
        return (
            without,
            "Experiment: it was asked to repeat what it hears. Compare the seconds of the phrase "
            "with those of the reply, and listen for yourself. AvatarSession cannot use that yet: "
            "the repetition comes after the sentence and in another voice.",
        )
    return (
        without,
        "Experiment, as a last resort: `runway-avatar doctor --live --mouthpiece --speech FILE.wav`"
        " asks the avatar, by its personality, to repeat word for word what it hears.",
    )
