"""`make chaos`: a long conversation in which everything goes wrong, and what must hold then.

The LiveKit server, the simulated Runway and the agent run in processes of their own; the user
listens in this one. A seeded sequence of utterances, barge-ins and faults of every kind that the
simulator knows. After each step it checks what the user heard; at the end, that nothing is left.
The report is printed and written to `chaos-out/chaos.json` (`CHAOS_OUT` names another folder), the
programs' warnings to `chaos.log` beside it. The exit code is 1 if a promise was broken.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import statistics
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.lines import Child, keep_for_good
from livekit_plugins_runway.testing.livekit_server import LiveKitServer, LiveKitServerError
from livekit_plugins_runway.testing.recording import SAMPLE_RATE
from livekit_plugins_runway.testing.tones import (
    HeardTone,
    ToneScript,
    foreign,
    hear,
    missing,
    words_to_tones,
)
from livekit_plugins_runway.testing.user import SimulatedUser

ROOM = "chaos"
STRIKES = (
    "crash",
    "kill",
    "freeze",
    "stall_video",
    "stall_audio",
    "unpublish",
    "hit_cap",
    "cancel",
)
"""Faults of the session that is the face."""
UPCOMING: dict[str, dict[str, Any]] = {
    "create fails twice": {"create": [500, 503]},
    "create is cut": {"create": [{"cut": "after_effect"}]},
    "rate limited": {"create": [{"status": 429, "retry_after": "1"}]},
    "status fails": {"get": [500, 502, 503]},
    "consume is refused": {"consume": [404]},
    "end fails twice": {"delete": [500, {"cut": "before_effect"}]},
    "provisioning fails": {"fail_while_provisioning": "INTERNAL.BAD_OUTPUT.CODE01"},
    "worker never joins": {"worker_never_joins": True},
    "clear_buffer ignored": {"rpc_ignore": True},
    "calls late": {"rpc_delay": 1.0},
    "playback_finished lost": {"lost_playback_finished": 5},
    "playback_finished twice": {"duplicate_playback_finished": 5},
}
"""Faults of the session that comes next."""
MAX_RSS_SLOPE = 1.0  # MB/min
JUDGED_MINUTES = 8.0
"""A shorter run says nothing about how memory grows."""
WARM_UP = 0.4
"""Share of the run that the slope leaves out: caches and pools fill."""


SILENCE = 0.8
"""Seconds without a sound after which an utterance is over. More than a receiver on a machine that
stood still was seen to be late by in mid-word (0.4 s)."""
LATE = 3.0
"""Seconds for which what was said is waited for once the user hears nothing."""


def claimed_in_vain(script: ToneScript, tones: list[HeardTone], said: dict[str, Any]) -> list[int]:
    """Slots of the script that are in the history, and were not heard. The word at a cut may be in
    the history or not."""
    claimed = words_to_tones(said["text"])
    lost = [n for n in missing(script, tones) if script.indices[n] in claimed]
    return [n for n in lost if n != len(claimed) - 1] if said["interrupted"] else lost


@dataclass
class Report:
    seed: int
    minutes: float = 0.0
    steps: int = 0
    did: dict[str, int] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    utterances: list[dict[str, Any]] = field(default_factory=list)
    """Of each step what was said, claimed and heard, which explains a promise that was broken."""
    rss_mb: list[tuple[float, float]] = field(default_factory=list)
    tasks: list[tuple[float, int]] = field(default_factory=list)
    totals: dict[str, Any] = field(default_factory=dict)

    def count(self, name: str) -> None:
        self.did[name] = self.did.get(name, 0) + 1

    def slope(self, series: list[tuple[float, float]]) -> float:
        """Per minute, after the warm-up."""
        start = series[0][0] + (series[-1][0] - series[0][0]) * WARM_UP
        rest = [(at / 60, value) for at, value in series if at >= start]
        if len(rest) < 3:
            return 0.0
        return statistics.linear_regression(*zip(*rest, strict=True)).slope


class Conversation:
    def __init__(self, report: Report, user: SimulatedUser, agent: Child, runway: Child) -> None:
        self.report = report
        self._random = random.Random(report.seed)
        self._user = user
        self._agent = agent
        self._runway = runway
        self._number = 0
        self._offset = 0

    async def step(self) -> None:
        self.report.steps += 1
        kind = self._random.choices(
            ("speak", "interrupt", "strike while speaking", "strike in silence", "pause"),
            (3, 3, 4, 2, 1),
        )[0]
        if self._random.random() < 0.4:
            name = self._random.choice(sorted(UPCOMING))
            self.report.count(name)
            self._runway.do("faults", faults=UPCOMING[name])
        strike = self._random.choice(STRIKES) if "strike" in kind else None
        self.report.count(strike or kind)
        if kind == "strike in silence":
            await self._strike(strike)
        await self._utter(kind, strike if kind == "strike while speaking" else None)
        if self._random.random() < 0.5:
            # Until the face is there again, or for a while without.
            with contextlib.suppress(TimeoutError):
                await self._agent.told("live", timeout=self._random.uniform(0.5, 6.0))

    async def _strike(self, name: str | None) -> None:
        self._runway.do("strike", name=name)
        await self._runway.told("struck")

    async def _utter(self, kind: str, strike: str | None) -> None:
        slots = self._random.randint(4, 16)
        if self._offset + slots > 90:
            self._offset = 0
        script = ToneScript(slots, offset=self._offset)
        self._offset += slots
        self._number += 1
        began = time.monotonic()
        self._agent.do("say", number=self._number, script=asdict(script))
        what = f"step {self.report.steps} ({kind}{f', {strike}' if strike else ''})"
        try:
            if kind != "speak" and kind != "strike in silence":
                await self._user.wait_for_audio(20.0, since=began)
                await asyncio.sleep(self._random.uniform(0.1, 0.25 * slots))
            if strike is not None:
                await self._strike(strike)
            if kind == "interrupt":
                self._agent.do("interrupt")
            if kind == "pause":
                self._agent.do("pause")
                await asyncio.sleep(self._random.uniform(0.2, 3.0))
                self._agent.do("resume")
            said = await self._agent.told("said", number=self._number, timeout=60.0)
        except TimeoutError as error:
            self.report.broken.append(f"{what}: {error or 'nothing heard'}")
            return
        tones = await self._heard(script, began, said)
        self.report.utterances.append(
            {
                "step": what,
                "began": began,
                "slots": [script.offset, script.offset + script.slots],
                "claimed": words_to_tones(said["text"]),
                "heard": [
                    (tone.index, round(tone.start_s, 2), round(tone.end_s, 2)) for tone in tones
                ],
            }
        )
        self._check(what, script, tones, said)

    async def _heard(
        self, script: ToneScript, began: float, said: dict[str, Any]
    ) -> list[HeardTone]:
        """What the user hears since then. If that is less than the agent claims, the rest is waited
        for: on a machine that stood still, a receiver is late for some seconds."""
        await self._silence()
        tones = await asyncio.to_thread(hear, self._user.heard(began), SAMPLE_RATE)
        if claimed_in_vain(script, tones, said):
            with contextlib.suppress(TimeoutError):
                await self._user.wait_for_audio(LATE)
            await self._silence()
            tones = await asyncio.to_thread(hear, self._user.heard(began), SAMPLE_RATE)
        return tones

    async def _silence(self) -> None:
        with contextlib.suppress(TimeoutError):
            await self._user.wait_for_silence(SILENCE, 5.0)

    def _check(
        self, what: str, script: ToneScript, tones: list[HeardTone], said: dict[str, Any]
    ) -> None:
        if stale := foreign(script, tones):
            self.report.broken.append(f"{what}: heard words of another utterance: {stale}")
        claimed = words_to_tones(said["text"])
        lost = claimed_in_vain(script, tones, said)
        if said["interrupted"]:
            heard = {tone.index for tone in tones if tone.duration_s > 0.1}
            unclaimed = heard - set(claimed)
            if len(unclaimed) > 1:
                self.report.broken.append(f"{what}: heard but not in the history: {unclaimed}")
        elif len(claimed) != script.slots:
            self.report.broken.append(f"{what}: the history lacks words: {said['text']!r}")
        if lost:
            heard_s = "; ".join(
                f"{tone.index - script.offset} at {tone.start_s:.2f}, {tone.duration_s:.2f} s"
                for tone in tones
            )
            self.report.broken.append(
                f"{what}: in the history but not heard: slots {lost}. Heard: {heard_s}"
            )

    async def sample(self) -> None:
        """How the agent's process grows."""
        began = time.monotonic()
        while True:
            self._agent.do("measure")
            told = await self._agent.told("measured", timeout=60.0)
            at = time.monotonic() - began
            self.report.rss_mb.append((at, told["rss_mb"]))
            self.report.tasks.append((at, told["tasks"]))
            await asyncio.sleep(2.0)


async def hold(report: Report, minutes: float, log: Path) -> None:
    """Fills the report as it goes, so that a run that is cut off leaves what it has seen."""
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(LiveKitServer())
        environment = {
            "LIVEKIT_URL": server.url,
            "LIVEKIT_API_KEY": server.api_key,
            "LIVEKIT_API_SECRET": server.api_secret,
        }
        runway = await stack.enter_async_context(
            Child.running("bench.chaos_runway", environment, log)
        )
        at = await runway.told("ready")
        user = await stack.enter_async_context(
            SimulatedUser(
                server.url,
                ROOM,
                api_key=server.api_key,
                api_secret=server.api_secret,
                max_seconds=90,
            )
        )
        began = time.monotonic()
        async with Child.running("bench.chaos_agent", environment, log) as agent:
            agent.do("call", runway=at, room=ROOM)
            await agent.told("live")
            conversation = Conversation(report, user, agent, runway)
            sampling = asyncio.create_task(conversation.sample(), name="chaos samples")
            try:
                while time.monotonic() - began < minutes * 60:
                    await conversation.step()
            finally:
                sampling.cancel()
                await asyncio.gather(sampling, return_exceptions=True)
            sdk = await control(agent) if minutes >= JUDGED_MINUTES else 0.0
            agent.do("hang_up")
            ended = await agent.told("hung_up", timeout=30.0)
        runway.do("count")
        counted = await runway.told("counted")
        report.minutes = round((time.monotonic() - began) / 60, 2)
        report.totals = {key: ended[key] for key in ("usage", "playout", "tasks_left", "segments")}
        report.totals |= {name: counted[name] for name in ("sessions", "joined", "leaked")}
        judge(report, sdk)


async def control(agent: Child) -> float:
    """MB that the LiveKit SDK alone keeps of each room, in the same process."""
    agent.do("control", room=ROOM)
    return float((await agent.told("controlled", timeout=120.0))["mb_per_room"])


def judge(report: Report, sdk_mb_per_room: float) -> None:
    """The promises that concern the whole run. Each session is a room of its own to the SDK, which
    keeps some memory of it (livekit 1.1.21); that much is not this package's."""
    totals = report.totals
    if totals["leaked"]:
        report.broken.append(f"sessions left running: {totals['leaked']}")
    if totals["tasks_left"]:
        report.broken.append(f"tasks left: {totals['tasks_left']}")
    if totals["segments"]["captured"] != totals["segments"]["finished"]:
        report.broken.append(f"segments: {totals['segments']}")
    totals["task_slope_per_min"] = round(report.slope([(a, float(n)) for a, n in report.tasks]), 2)
    slope = report.slope(report.rss_mb)
    per_minute = totals["joined"] / report.minutes
    own = slope - per_minute * sdk_mb_per_room
    totals["rss_slope_mb_per_min"] = round(slope, 2)
    if report.minutes < JUDGED_MINUTES:
        return
    totals["rss_slope_of_the_sdk_mb_per_min"] = round(per_minute * sdk_mb_per_room, 2)
    totals["rss_slope_of_the_package_mb_per_min"] = round(own, 2)
    if own > MAX_RSS_SLOPE:
        report.broken.append(f"memory grows by {own:.2f} MB/min beside the SDK's share")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    folder = Path(os.environ.get("CHAOS_OUT", "chaos-out"))
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "chaos.log"
    log.unlink(missing_ok=True)
    report = Report(arguments.seed)
    try:
        asyncio.run(hold(report, arguments.minutes, log))
    except LiveKitServerError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        (folder / "chaos.json").write_text(json.dumps(asdict(report), indent=1) + "\n")
    print(f"{report.steps} steps in {report.minutes:g} min, seed {report.seed}")
    for name, count in sorted(report.did.items()):
        print(f"  {count:3d} {name}")
    for name, value in report.totals.items():
        print(f"{name}: {value}")
    for utterance in report.utterances if report.broken else ():
        print(utterance)
    for line in report.broken:
        print(f"BROKEN: {line}")
    return 1 if report.broken else 0


if __name__ == "__main__":
    keep_for_good()
    sys.exit(main())
