"""Read the stream of a track that has gone, while another track comes: whose sound is in it?

Two participants, each with a tone of its own. The first unpublishes; the second publishes; the
stream that was opened on the first one's track is read on.
Against `livekit-server --dev`; LIVEKIT_URL, LIVEKIT_API_KEY and LIVEKIT_API_SECRET say otherwise.
"""

import asyncio
import os
import secrets

import numpy as np
from livekit import api, rtc

URL = os.environ.get("LIVEKIT_URL", "ws://127.0.0.1:7880")
KEYS = os.environ.get("LIVEKIT_API_KEY", "devkey"), os.environ.get("LIVEKIT_API_SECRET", "secret")
RATE = 48_000
TRIES = 5


async def joined(room: str, identity: str) -> rtc.Room:
    grants = api.VideoGrants(room_join=True, room=room)
    token = api.AccessToken(*KEYS).with_identity(identity).with_grants(grants).to_jwt()
    made = rtc.Room()
    await made.connect(URL, token)
    return made


class Tone:
    """A track with a sine of `hertz`."""

    def __init__(self, hertz: int) -> None:
        self.source = rtc.AudioSource(RATE, 1)
        self.track = rtc.LocalAudioTrack.create_audio_track(f"{hertz} Hz", self.source)
        wave = 9000 * np.sin(2 * np.pi * hertz * np.arange(RATE // 10) / RATE)
        self._frame = rtc.AudioFrame(wave.astype(np.int16).tobytes(), RATE, 1, RATE // 10)
        self._task = asyncio.create_task(self._play())

    async def _play(self) -> None:
        while True:
            await self.source.capture_frame(self._frame)

    async def end(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self.source.aclose()


def pitch(samples: bytes) -> int:
    """The loudest frequency in Hz; 0 in silence."""
    wave = np.frombuffer(samples, np.int16).astype(float)
    if len(wave) < RATE // 5 or np.abs(wave).max() < 500:
        return 0
    return round(float(np.abs(np.fft.rfft(wave)).argmax()) * RATE / len(wave))


async def attempt() -> str:
    name = f"room-{secrets.token_hex(4)}"
    listener = await joined(name, "listener")
    tracks: asyncio.Queue[rtc.Track] = asyncio.Queue()
    listener.on("track_subscribed", lambda track, *_: tracks.put_nowait(track))
    first, second = await joined(name, "first"), await joined(name, "second")
    low, high = Tone(400), Tone(1000)
    publication = await first.local_participant.publish_track(low.track)
    stream = rtc.AudioStream(await tracks.get(), sample_rate=RATE, num_channels=1)
    heard = bytearray()

    async def listen() -> None:
        async for event in stream:
            heard.extend(event.frame.data)

    listening = asyncio.create_task(listen())
    await asyncio.sleep(1.5)
    before = pitch(bytes(heard[-RATE:]))
    gone = asyncio.Event()
    listener.on("track_unsubscribed", lambda *_: gone.set())
    await first.local_participant.unpublish_track(publication.sid)
    await gone.wait()
    await asyncio.sleep(1)
    heard.clear()
    await second.local_participant.publish_track(high.track)
    await tracks.get()
    await asyncio.sleep(2)
    after = pitch(bytes(heard[-RATE:]))
    over = listening.done()
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    await stream.aclose()
    for one in (low, high):
        await one.end()
    for room in (first, second, listener):
        await room.disconnect()
    return f"first {before} Hz; after it has gone: {after} Hz, {'ended' if over else 'not ended'}"


async def main() -> None:
    for _ in range(TRIES):
        print(await attempt(), flush=True)


asyncio.run(main())
