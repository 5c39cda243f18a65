"""`make demo`: an avatar on this machine alone, in a page to talk to it and to break it.

A LiveKit server, a simulated Runway, and `examples/offline_agent.py` as a worker, dispatched as
LiveKit Cloud does it. In a terminal it serves the page until Ctrl-C. Without a terminal, in CI, or
with `HEADLESS=1` nobody looks at a page: a simulated user talks to the agent, interrupts it once,
and hangs up; that ends with a report and an MP4.

Environment: `HEADLESS` is 1 for the report, 0 for the page; `DEMO_PORT` is the page's port, by
default a free one; `DEMO_OUT` is the folder for results and logs, by default `demo-out` (one that
another run is using gets a folder within it). The report's exit code is 1 if anything was not heard
or a Runway session was left running, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import os
import signal
import sys
import time
import uuid
from collections.abc import Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any

import offline_agent
from livekit.agents.types import ATTRIBUTE_PUBLISH_ON_BEHALF as ON_BEHALF
from rich.console import Console
from rich.live import Live
from rich.table import Table

from demo import page
from demo.call import PageCall
from demo.report import Report, compare, last_sound_before
from demo.stage import LOGS, ROOT, setting_up
from demo.worker import Worker
from livekit_plugins_runway.testing import Speech
from livekit_plugins_runway.testing.livekit_server import LiveKitServerError
from livekit_plugins_runway.testing.recording import SAMPLE_RATE
from livekit_plugins_runway.testing.tones import first_sound
from livekit_plugins_runway.testing.user import SimulatedUser

RESULTS = ("demo.mp4", "report.json", *LOGS, "demo.log")
ANSWER_MARGIN = 0.15  # seconds by which the beginning of an answer may be misjudged
STORY_SECONDS = 3.0  # seconds of the long answer that are heard before the user interrupts


class Progress:
    """What the demo shows while it runs: a table that refreshes, or plain lines."""

    def __init__(self, console: Console, live: bool) -> None:
        self._console = console
        self._start = time.monotonic()
        self._rows: list[tuple[float, str]] = []
        self._live = Live(console=console, auto_refresh=False) if live else None

    def __enter__(self) -> Progress:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def note(self, text: str) -> None:
        """Something has happened."""
        at = time.monotonic() - self._start
        self._rows.append((at, text))
        if not self._live:
            self._console.print(
                f"{at:6.1f} s  {text}", markup=False, highlight=False, soft_wrap=True
            )
            return
        self.refresh(None)

    def refresh(self, user: SimulatedUser | None) -> None:
        """Draw anew, with what the user hears and sees now."""
        if not self._live:
            return
        table = Table.grid(padding=(0, 2))
        for at, text in self._rows:
            table.add_row(f"{at:6.1f} s", text)
        if user is not None:
            now = time.monotonic()
            bar = "\u2588" * min(40, round(user.level(now) * 160))
            table.add_row(f"{now - self._start:6.1f} s", f"{user.fps(now - 1, now):2.0f} fps {bar}")
        self._live.update(table, refresh=True)


class Conversation:
    """The call, from dispatch to hanging up."""

    def __init__(
        self, user: SimulatedUser, worker: Worker, progress: Progress, report: Report
    ) -> None:
        self._user, self._worker, self._progress, self._report = user, worker, progress, report

    async def hold(self, dispatched_at: float) -> None:
        user = self._user
        await self._said(1, 60)
        frames = user.frames
        if frames:
            self._report.first_frame = frames[0].at - dispatched_at
        await self._hear(offline_agent.GREETING, dispatched_at)

        asked_at = await self._say("Who are you?")
        await self._said(2, 30)
        await self._hear(offline_agent.REPLIES["who are you"], asked_at)

        asked_at = await self._say("Please tell me a story.")
        await user.wait_for_audio(15)
        await asyncio.sleep(STORY_SECONDS)
        interrupted_at = await self._say("Wait, may I interrupt you?")
        await self._said(4, 30)
        await user.wait_for_silence(0.8, 15)
        answer = compare(
            offline_agent.REPLIES["wait"], "", False, user.heard(interrupted_at)
        ).sentences[0]
        # Whatever sounds before the answer begins is the tail of the story.
        silence = last_sound_before(user.heard(interrupted_at), answer.at - ANSWER_MARGIN)
        self._report.barge_in_silence = silence if answer.heard else None
        cut_at = interrupted_at + silence
        await self._hear(offline_agent.REPLIES["tell me"], asked_at, until=cut_at, item=2)
        await self._hear(offline_agent.REPLIES["wait"], cut_at)

        asked_at = await self._say("Thank you, goodbye!")
        await self._said(5, 30)
        await self._hear(offline_agent.REPLIES["goodbye"], asked_at)
        self._look_around()

    async def _say(self, text: str) -> float:
        self._progress.note(f"user: {text}")
        now = time.monotonic()
        await self._user.say(text)
        return now

    async def _said(self, count: int, timeout: float) -> None:
        """Wait until the agent has finished its `count`-th utterance."""
        await self._worker.wait_for(lambda w: len(w.said("assistant")) >= count, timeout)

    async def _hear(
        self, text: str, since: float, *, until: float | None = None, item: int = -1
    ) -> None:
        """Compare what was heard in between with `text`, and with the history's entry `item`."""
        if until is None:
            await self._user.wait_for_silence(0.8, 15)
        heard = self._user.heard(since, until)
        entry = self._worker.said("assistant")[item]
        if self._report.first_word is None:
            self._report.first_word = first_sound(heard, SAMPLE_RATE)
        utterance = await asyncio.to_thread(
            compare, text, entry["text"] or "", entry["interrupted"], heard
        )
        self._report.utterances.append(utterance)

    def _look_around(self) -> None:
        avatars = {p.identity for p in self._user.participants if ON_BEHALF in p.attributes}
        tracks = {track.sid for track in self._user.tracks if track.identity in avatars}
        self._report.avatar_tracks = len(tracks)
        own = self._user.room.local_participant.identity
        self._report.captions = [c.text for c in self._user.captions if c.identity != own]
        frames = self._user.frames
        if frames:
            last = frames[-1]
            self._report.picture = f"{last.width}x{last.height}"
            self._report.fps = self._user.fps(frames[0].at, last.at)


async def call(speech: Speech, report: Report, folder: Path, progress: Progress) -> None:
    """Start everything, hold the conversation, hang up, and wait until Runway has ended it."""
    async with setting_up(speech, folder, progress.note) as stage:
        server, worker = stage.server, stage.worker
        room = f"demo-{uuid.uuid4().hex[:8]}"
        user = SimulatedUser(
            server.url,
            room,
            api_key=server.api_key,
            api_secret=server.api_secret,
            record_video=True,
        )
        async with user:
            dispatched_at = time.monotonic()
            await stage.dispatch(room)
            progress.note("agent is dispatched, user is in the room")
            drawing = asyncio.create_task(draw(user, progress), name="progress")
            try:
                await Conversation(user, worker, progress, report).hold(dispatched_at)
            finally:
                drawing.cancel()
                await asyncio.gather(drawing, return_exceptions=True)
        progress.note("user has hung up")
        report.sessions = await stage.runway.settle()
        with contextlib.suppress(TimeoutError):
            await worker.wait_for(lambda w: any(e["event"] == "ended" for e in w.events), 5)
        for event in worker.events:
            report.stages = event.get("timings", report.stages)
            report.delivery = event.get("delivery") or report.delivery
            if event["event"] == "error":
                report.failures.append(event["text"])
        await user.write_mp4(folder / "demo.mp4")


async def show_page(speech: Speech, folder: Path, console: Console) -> None:
    """Serve the page until this is cancelled."""
    show = Progress(console, live=False)
    port = int(os.environ.get("DEMO_PORT") or 0)
    if not page.LIBRARY.exists():
        show.note("fetching livekit-client for the page, once")
    if missing := await asyncio.to_thread(page.install_library):
        show.note(f"{missing}: the page loads it from {page.CDN}")
    up = asyncio.Event()
    async with (
        setting_up(speech, folder, lambda text: None if up.is_set() else show.note(text)) as stage,
        PageCall.on(stage) as call,
        page.serving(call, port) as url,
    ):
        up.set()  # from now on the page tells what happens
        console.print(f"\nOpen {url} in a browser on this machine. Ctrl-C ends it.", soft_wrap=True)
        await call.until_broken()


async def draw(user: SimulatedUser, progress: Progress) -> None:
    while True:
        progress.refresh(user)
        await asyncio.sleep(0.2)


@contextlib.contextmanager
def stderr_to(path: Path) -> Iterator[None]:
    """Send what libraries, native ones too, write to stderr to a file instead."""
    sys.stderr.flush()
    terminal = os.dup(2)
    with path.open("wb") as log:
        os.dup2(log.fileno(), 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(terminal, 2)
        os.close(terminal)


@contextlib.contextmanager
def results_folder() -> Iterator[Path]:
    """The folder for the results, of this run alone while it lasts."""
    folder = Path(os.environ.get("DEMO_OUT") or ROOT / "demo-out")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            folder = folder / f"run-{os.getpid()}"
            folder.mkdir()
        for name in RESULTS:
            (folder / name).unlink(missing_ok=True)
        yield folder


async def until_interrupted(calling: Coroutine[Any, Any, None]) -> None:
    """The call, until it is over or SIGINT or SIGTERM comes: that stops everything in order."""
    task = asyncio.create_task(calling, name="call")
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    stopping = asyncio.create_task(stop.wait(), name="interrupted")
    await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    task.cancel()
    await task


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--speech",
        type=Speech,
        choices=list(Speech),
        default=Speech.DATASTREAM,
        help="how the simulated Runway takes speech",
    )
    speech = parser.parse_args().speech
    console = Console()
    if not console.is_terminal:
        console.width = 110
    if wants_page(os.environ, console.is_terminal):
        return run_page(speech, console)
    return run_report(speech, console)


def wants_page(environment: Mapping[str, str], is_terminal: bool) -> bool:
    """Whether somebody is there to look at a page, and to end it."""
    if asked := environment.get("HEADLESS"):
        return asked == "0"
    return is_terminal and not environment.get("CI")


def run_page(speech: Speech, console: Console) -> int:
    with results_folder() as folder:
        try:
            with stderr_to(folder / "demo.log"):
                asyncio.run(until_interrupted(show_page(speech, folder, console)))
        except asyncio.CancelledError:
            console.print("Everything is stopped.")
        except (LiveKitServerError, EOFError, RuntimeError, OSError) as error:
            console.print(str(error) or "a part of the demo did not start", markup=False)
            return 1
    return 0


def run_report(speech: Speech, console: Console) -> int:
    report = Report()
    with results_folder() as folder:
        try:
            with (
                stderr_to(folder / "demo.log"),
                Progress(console, console.is_terminal) as progress,
            ):
                asyncio.run(until_interrupted(call(speech, report, folder, progress)))
        except asyncio.CancelledError:
            console.print("Interrupted; everything is stopped.")
            return 130
        except LiveKitServerError as error:
            console.print(str(error), markup=False)
            return 1
        except TimeoutError:
            report.failures.append("the call came to a standstill: see worker.log")
        finish(report, folder, console)
    return 1 if report.failures else 0


def finish(report: Report, folder: Path, console: Console) -> None:
    report.judge()
    report.print(console)
    report.write(folder / "report.json")
    for name in RESULTS:
        if (folder / name).exists():
            console.print(f"{folder / name}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
