"""Front ends that nobody here wrote, in a real Chromium, as they are before and after a change.

`make test-page`; skipped where there is no Chromium, no Playwright or no npm, never run in CI.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from livekit import api, rtc
from livekit.agents.types import ATTRIBUTE_PUBLISH_ON_BEHALF

from livekit_plugins_runway import AvatarState, RecoveryOptions
from livekit_plugins_runway.testing import SimulatorOptions, Speech, WorkerManners
from livekit_plugins_runway.testing.livekit_server import LiveKitServer, ParticipantKind
from livekit_plugins_runway.testing.tones import ToneScript
from tests.support.call import DIRECT, QUICK, RATE, WORKERS, Call, calling
from tests.support.chromium import missing
from tests.support.front_ends import FrontEnd, bundled, opened, page_server
from tests.support.serving import FRONT_END, served

pytestmark = [
    pytest.mark.real_clients,
    pytest.mark.browser,
    pytest.mark.timeout(180),
    pytest.mark.skipif(missing() is not None, reason=missing() or ""),
]

BRIDGE: dict[str, Any] = {"transport": "bridge"}
FACE = WORKERS[0]
Samples = list[dict[str, Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundled(Path(__file__).parent / "page", tmp_path_factory.mktemp("npm"))


@pytest.mark.parametrize(
    ("client", "shape"),
    [
        pytest.param("call", "?response=credentials", id="avatars-react, credentials"),
        pytest.param("call", "", id="avatars-react, default"),
        pytest.param("core", "", id="avatars, default"),  # it takes a session key alone
    ],
)
async def test_runways_own_sdks_show_and_sound_the_avatar_that_serve_gives(
    livekit_server: LiveKitServer, folder: Path, client: str, shape: str
) -> None:
    greeting = WorkerManners(greeting=ToneScript(12).pcm(RATE).tobytes())
    options = SimulatorOptions(**QUICK, speech=Speech.CONVERSATION, hosted=greeting)
    async with (
        page_server(folder) as origin,
        served(options, livekit=livekit_server, allowed_origins=(origin,)) as server,
        opened(
            origin,
            mode=client,
            url=f"{server.rest}{FRONT_END}{shape}",
            base=server.runway.url,
        ) as page,
    ):
        await page.until_seen_and_heard()


@asynccontextmanager
async def watched(
    server: LiveKitServer, folder: Path, simulated: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[tuple[Call, FrontEnd]]:
    """A call that LiveKit's hooks show in a page, from before the avatar came."""
    async with (
        page_server(folder) as origin,
        calling(server, simulated=simulated, **options) as call,
    ):
        token = server.token(call.room.name, "viewer")
        async with opened(origin, mode="hooks", server=server.url, token=token) as page:
            await call.start()
            await page.until("s.video && s.frames > 5")
            await call.until(AvatarState.LIVE)
            yield call, page


def longest(samples: Samples, wrong: Callable[[dict[str, Any]], bool]) -> float:
    """The longest time in seconds for which this was so."""
    most = 0.0
    since: float | None = None
    for sample in samples:
        if not wrong(sample):
            since = None
            continue
        since = since if since is not None else sample["at"]
        most = max(most, sample["at"] - since)
    return most / 1000


def unseen(sample: dict[str, Any]) -> bool:
    return sample["video"] is None or bool(sample["muted"])


def silent(sample: dict[str, Any]) -> bool:
    return bool(sample["level"] < 0.005)


def heard_elsewhere(sample: dict[str, Any]) -> bool:
    """What is heard is not in the track that the hook gives: a visualizer shows silence."""
    return bool(sample["level"] > 0.01 and sample["hookLevel"] < 0.003)


async def after(page: FrontEnd, began: int) -> Samples:
    return (await page.samples())[began:]


async def so_far(page: FrontEnd) -> int:
    return len(await page.samples())


async def test_with_the_bridge_a_crash_mutes_the_camera_and_changes_nothing_else(
    livekit_server: LiveKitServer, folder: Path
) -> None:
    recovery = RecoveryOptions(session_cap=None, backoff=0.2)
    async with watched(livekit_server, folder, recovery=recovery, **BRIDGE) as (call, page):
        said = call.say(ToneScript(28))
        await page.until("s.level > 0.01")
        began = await so_far(page)
        call.runway.crash()
        await page.until("s.muted")
        await said
        samples = await after(page, began)
        await page.until("s.muted === false && s.frames > 5")
        assert {(s["video"], s["videoSid"], s["audioSid"]) for s in samples} == {
            (FACE, samples[0]["videoSid"], samples[0]["audioSid"])
        }
        assert longest(samples, heard_elsewhere) < 0.3
        assert longest(samples, silent) < 1.0


@pytest.mark.parametrize("change", ["renewal", "swap"])
async def test_with_the_bridge_another_session_is_not_seen_by_the_hooks(
    livekit_server: LiveKitServer, folder: Path, change: str
) -> None:
    async with watched(livekit_server, folder, recovery=recovery_for(change), **BRIDGE) as (
        call,
        page,
    ):
        began = await so_far(page)
        await another(call, change)
        await asyncio.sleep(1.0)  # what comes after the change is looked at, too
        samples = await after(page, began)
        assert len({(s["video"], s["videoSid"], s["audioSid"]) for s in samples}) == 1
        assert longest(samples, unseen) < 0.5


@pytest.mark.parametrize("change", ["renewal", "swap"])
async def test_with_direct_the_hooks_go_over_to_the_new_worker_at_once(
    livekit_server: LiveKitServer, folder: Path, change: str
) -> None:
    async with watched(livekit_server, folder, recovery=recovery_for(change), **DIRECT) as (
        call,
        page,
    ):
        old = call.runway
        if change == "swap":
            old.freeze()  # it leaves when it is put out, 2 s after END_CALL
        began = await so_far(page)
        await another(call, change)
        await page.until(f"s.video === '{WORKERS[1]}' && s.audio === '{WORKERS[1]}'", 1.0)
        samples = await after(page, began)
        assert longest(samples, unseen) < 0.5


async def test_with_direct_a_crash_is_spoken_over_outside_of_the_hooks_track(
    livekit_server: LiveKitServer, folder: Path
) -> None:
    recovery = RecoveryOptions(session_cap=None, backoff=0.2)
    async with watched(livekit_server, folder, recovery=recovery, **DIRECT) as (call, page):
        said = call.say(ToneScript(28))
        await page.until("s.level > 0.01")
        began = await so_far(page)
        call.runway.crash()
        await page.until(f"s.video === '{WORKERS[1]}' && s.audio === '{WORKERS[1]}'")
        await said
        samples = await after(page, began)
        assert longest(samples, silent) < 1.0
        assert longest(samples, heard_elsewhere) > 1.0  # docs/front-ends.md says so
        began = await so_far(page)
        await call.say(ToneScript(6))
        assert longest(await after(page, began), heard_elsewhere) < 0.3


async def test_with_auto_the_hooks_follow_to_the_other_transport(
    livekit_server: LiveKitServer, folder: Path
) -> None:
    simulated = {"hosted": WorkerManners(speech=Speech.CONVERSATION)}
    auto: dict[str, Any] = {"transport": "auto", "allow_private_livekit_url": True}
    recovery = RecoveryOptions(session_cap=None)
    async with watched(livekit_server, folder, simulated, recovery=recovery, **auto) as (
        call,
        page,
    ):
        said = call.say(ToneScript(28))
        await page.until(f"s.video === '{FACE}-direct' && s.audio === '{FACE}-direct'")
        await said
        began = await so_far(page)
        await call.say(ToneScript(6))
        assert longest(await after(page, began), heard_elsewhere) < 0.3


@pytest.mark.parametrize("kind", ["agent", "standard"])
async def test_the_hooks_take_nobody_for_the_avatar_who_is_not_of_kind_agent(
    livekit_server: LiveKitServer, folder: Path, kind: ParticipantKind
) -> None:
    """Why the token that Runway is given is of this kind: docs/security.md."""
    name, agent, worker = f"kind-{kind}", rtc.Room(), rtc.Room()
    await agent.connect(livekit_server.url, livekit_server.token(name, "agent", kind="agent"))
    keys = livekit_server.api_key, livekit_server.api_secret
    token = api.AccessToken(*keys).with_identity("worker").with_kind(kind)
    token = token.with_attributes({ATTRIBUTE_PUBLISH_ON_BEHALF: "agent"})
    grants = api.VideoGrants(room_join=True, room=name)
    await worker.connect(livekit_server.url, token.with_grants(grants).to_jwt())
    voice = rtc.AudioSource(RATE, 1)
    track = rtc.LocalAudioTrack.create_audio_track("voice", voice)
    microphone = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
    await worker.local_participant.publish_track(track, microphone)
    speaking = asyncio.create_task(speak(voice))
    viewer = livekit_server.token(name, "viewer")
    try:
        async with (
            page_server(folder) as origin,
            opened(origin, mode="hooks", server=livekit_server.url, token=viewer) as page,
        ):
            await page.until("s.agent && s.level > 0.01")
            audio = "worker" if kind == "agent" else None
            assert (await page.samples())[-1]["audio"] == audio
    finally:
        speaking.cancel()
        await asyncio.wait({speaking})
        await asyncio.gather(voice.aclose(), worker.disconnect(), agent.disconnect())


async def speak(voice: rtc.AudioSource) -> None:
    while True:
        for frame in ToneScript(12).frames(RATE, 20):
            await voice.capture_frame(frame)


def recovery_for(change: str) -> RecoveryOptions:
    if change == "renewal":
        return RecoveryOptions(session_cap=12.0, renew_before=5.0)
    return RecoveryOptions(session_cap=None)


async def another(call: Call, change: str) -> None:
    if change == "renewal":
        await call.until_told("replaced", lambda: bool(call.replaced), 30.0)
    else:
        await call.avatar.swap_avatar(preset_id="tennis-coach")
