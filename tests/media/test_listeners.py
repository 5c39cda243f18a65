"""Who counts as somebody who could hear the agent."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from livekit import rtc

from livekit_plugins_runway.media.listeners import Listeners, is_listener, is_user

KIND = rtc.ParticipantKind


def somebody(
    kind: Any = KIND.PARTICIPANT_KIND_STANDARD, identity: str = "user", **attributes: str
) -> rtc.RemoteParticipant:
    told = SimpleNamespace(kind=kind, identity=identity, attributes=attributes)
    return cast(rtc.RemoteParticipant, told)


@pytest.mark.parametrize(
    ("participant", "user", "listener"),
    [
        (somebody(), True, True),
        (somebody(KIND.PARTICIPANT_KIND_CONNECTOR), True, True),
        (somebody(KIND.PARTICIPANT_KIND_SIP), True, True),
        (somebody(KIND.PARTICIPANT_KIND_SIP, **{"sip.callStatus": "dialing"}), True, False),
        (somebody(KIND.PARTICIPANT_KIND_SIP, **{"sip.callStatus": "ringing"}), True, False),
        (somebody(KIND.PARTICIPANT_KIND_SIP, **{"sip.callStatus": "active"}), True, True),
        (somebody(KIND.PARTICIPANT_KIND_SIP, **{"sip.callStatus": "hangup"}), True, False),
        (somebody(KIND.PARTICIPANT_KIND_AGENT), False, False),
        (somebody(KIND.PARTICIPANT_KIND_EGRESS), False, False),
        (somebody(KIND.PARTICIPANT_KIND_INGRESS), False, False),
        (somebody(**{"lk.publish_on_behalf": "agent"}), False, False),
    ],
)
def test_people_listen_and_callers_once_they_have_picked_up(
    participant: rtc.RemoteParticipant, user: bool, listener: bool
) -> None:
    assert is_user(participant) is user
    assert is_listener(participant) is listener


class Room(rtc.EventEmitter[Any]):
    def __init__(self) -> None:
        super().__init__()
        self.remote_participants: dict[str, rtc.RemoteParticipant] = {}


def test_it_tells_each_change_once_whichever_event_shows_it() -> None:
    room, told = Room(), list[bool]()
    listeners = Listeners(cast(rtc.Room, room), told.append)
    listeners.look()
    assert told == []
    phone = somebody(KIND.PARTICIPANT_KIND_SIP, "phone", **{"sip.callStatus": "ringing"})
    room.remote_participants["phone"] = phone
    room.emit("participant_connected", phone)
    assert told == []
    phone.attributes["sip.callStatus"] = "active"
    room.emit("participant_attributes_changed", {"sip.callStatus": "active"}, phone)
    room.emit("connected")
    assert told == [True]
    room.remote_participants["user"] = somebody()
    room.emit("reconnected")
    assert told == [True]
    room.remote_participants.clear()
    room.emit("participant_disconnected", phone)
    assert told == [True, False]
    listeners.close()
    room.remote_participants["user"] = somebody()
    room.emit("participant_connected", somebody())
    assert told == [True, False]
