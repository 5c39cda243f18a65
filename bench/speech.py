"""`make bench-speech`: how long the user waits for the agent's voice, and how it is interrupted,
carried on after a loss, and paused.

The LiveKit server, the simulated Runway, the agent and the user's ear run in processes of their
own, on one machine and one monotonic clock. It measures and asserts nothing: the figures are
printed next to the goals, and written to `bench-out/speech.json` and `bench-out/speech.md`, the
programs' warnings to `bench-out/speech.log` (`BENCH_OUT` names another folder). The exit code is 1
if a repetition gave no figures or was heard too loud, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

from bench.call import HOLD, Bench, Line
from bench.hearing import heard, longest_hole, repeated, wrong_level
from bench.lines import Child, keep_for_good
from bench.report import Figures, machine, write
from bench.runway import RENDER_LATENCY
from livekit_plugins_runway.testing.livekit_server import LiveKitServer, LiveKitServerError
from livekit_plugins_runway.testing.recording import SAMPLE_RATE
from livekit_plugins_runway.testing.tones import (
    HeardTone,
    Pcm,
    ToneScript,
    first_sound,
    missing,
    silence_after,
)

REPETITIONS, QUICK_REPETITIONS = 30, 5
LANES = 2
"""Calls at once where each repetition needs a call of its own."""
PAUSE = 1.0
RENEWAL_CAP = 16.0
"""Seconds after which the session of that measurement must have been renewed."""
RENEWALS = 10
DELIVERIES = ("datastream", "track")


async def measure_latency(bench: Bench, repetitions: int) -> None:
    """Say something, and let it be heard to its end."""
    note = bench.figures.note

    async def once(n: int) -> None:
        script = ToneScript(4, offset=n % 8 * 10)
        said = await line.say(script)
        relayed = await line.told("relayed", number=line.number)
        returned = await line.over()
        pcm = line.user.heard(said)
        tones = await asyncio.to_thread(heard, pcm)
        note_level(bench.figures, f"latency {n}", script, pcm)
        first = first_sound(pcm, SAMPLE_RATE)
        last = silence_after(pcm, SAMPLE_RATE, first or 0.0, hold_s=HOLD)
        note("latency: tones missing", len(missing(script, tones)))
        if first is None or last is None:
            return
        note("latency: say to heard", first)
        note("latency: say to heard, less the avatar's rendering", first - RENDER_LATENCY)
        note("latency: say to relayed", relayed - said)
        note("latency: relayed to heard", said + first - relayed)
        note("end: last tone heard to say() returned", returned - said - first - last)

    async with bench.call(bench.agents[0]) as line:
        await bench.repeat("latency", iter(range(repetitions)), once)


async def measure_barge_in(bench: Bench, repetitions: int) -> None:
    """Interrupt in mid-speech. The tones have no gaps: one at the right moment would flatter."""

    async def once(n: int) -> None:
        said = await line.say(ToneScript(40, offset=n % 2 * 40, gap_s=0.0))
        await line.speak_for(0.3 + n % 10 * 0.05, said)
        line.do("interrupt")
        cut = await line.told("interrupting", number=line.number)
        returned = await line.over()
        silent = silence_after(line.user.heard(cut), SAMPLE_RATE, 0.0, hold_s=HOLD)
        bench.figures.note("barge-in: to silence", silent)
        bench.figures.note("barge-in: to say() returned", returned - cut)

    async with bench.call(bench.agents[0]) as line:
        await bench.repeat("barge-in", iter(range(repetitions)), once)


async def measure_pause(bench: Bench, repetitions: int) -> None:
    """Pause in mid-speech, and resume a second later."""
    note = bench.figures.note

    async def once(n: int) -> None:
        script = ToneScript(6, offset=n % 8 * 10, gap_s=0.0)
        said = await line.say(script)
        await line.speak_for(0.3 + n % 10 * 0.05, said)
        line.do("pause")
        paused = await line.told("pausing", number=line.number)
        await asyncio.sleep(paused + PAUSE - time.monotonic())
        line.do("resume")
        resumed = await line.told("resuming", number=line.number)
        await line.over()
        user = line.user
        note("pause: to silence", silence_after(user.heard(paused), SAMPLE_RATE, 0.0, hold_s=HOLD))
        again = user.heard(resumed)
        first = first_sound(again, SAMPLE_RATE)
        note("pause: resume to heard", first)
        if first is not None:
            start, end = longest_hole(again, script, first)
            note("pause: longest hole after resuming", end - start)
        pcm = user.heard(said)
        note_level(bench.figures, f"pause {n}", script, pcm)
        note_tones(bench.figures, "pause", script, await asyncio.to_thread(heard, pcm))

    async with bench.call(bench.agents[0], allow_pause=True) as line:
        await bench.repeat("pause", iter(range(repetitions)), once)


async def measure_loss(bench: Bench, repetitions: int, *, fault: str) -> None:
    """Lose the avatar in mid-speech, in a call of its own each time."""

    async def once(agent: Child, n: int) -> None:
        async with bench.call(agent) as line:
            script = ToneScript(8)
            said = await line.say(script)
            await line.speak_for(0.3 + n % 10 * 0.05, said)
            bench.runway.do(fault, session=line.session)
            told = await bench.runway.told("struck", session=line.session)
            noticed = await line.told("voice_only")
            await line.over()
            pcm = line.user.heard(said)
        struck = float(told["at"])
        tones = await asyncio.to_thread(heard, pcm)
        note_level(bench.figures, f"{fault} {n}", script, pcm)
        note_tones(bench.figures, fault, script, tones)
        bench.figures.note(f"{fault}: detection", noticed - struck)
        # It ends after the fault; what was on its way is heard before it begins.
        start, end = longest_hole(pcm, script, struck - said)
        bench.figures.note(f"{fault}: gap", end - start)
        after = end - max(start, noticed - said)
        bench.figures.note(f"{fault}: gap after detection", max(0.0, after))

    # Shared, so that the quicker lane takes more of them.
    numbers = iter(range(repetitions))
    async with asyncio.TaskGroup() as lanes:
        for agent in bench.agents:
            lanes.create_task(bench.repeat(fault, numbers, partial(once, agent)))


async def measure_renewal(bench: Bench, repetitions: int, *, places: int) -> None:
    """Renew the session under speech that goes on, utterance after utterance.

    Args:
        places: how many sessions the account may have at once.
    """
    kind = ", one session at a time" if places == 1 else ""
    recovery = {"session_cap": RENEWAL_CAP, "renew_before": RENEWAL_CAP / 2}
    environment = bench.environment | {"BENCH_PLACES": str(places)}
    pauses: list[tuple[float, float]] = []
    replaced: list[dict[str, Any]] = []

    async def whole(line: Line, script: ToneScript, said: float) -> None:
        """Not before the next utterance: a receiver that starves is late with the last tone."""
        tones = await asyncio.to_thread(heard, line.user.heard(said))
        own = [tone for tone in tones if tone.index in script.indices]
        bench.figures.note(f"renewal: tones missing{kind}", len(missing(script, own)))

    last: tuple[ToneScript, float] | None = None
    async with Child.running("bench.runway", environment, bench.log) as runway:
        at = await runway.told("ready")
        async with bench.call(bench.agents[0], at, recovery=recovery) as line:
            before: float | None = None
            while len(replaced) < repetitions:
                script = ToneScript(8, offset=line.number % 8 * 10)
                said = await line.say(script)
                await line.told("said", number=line.number)
                await line.user.wait_for_silence(0.1, 5.0)
                pcm = line.user.heard(said)
                tones = await asyncio.to_thread(heard, pcm)
                own = [tone for tone in tones if tone.index in script.indices]
                if last is not None:
                    await whole(line, *last)
                last = (script, said)
                if before is not None and own:
                    pauses.append((said, said + own[0].start_s - before))
                before = said + own[-1].end_s if own else None
                with contextlib.suppress(TimeoutError):
                    told = line.agent.told("replaced", timeout=0.001, room=line.room)
                    replaced.append(await told)
            await line.user.wait_for_silence(HOLD, 5.0)
            if last is not None:
                await whole(line, *last)
    usual = statistics.median(length for _, length in pauses)
    for change in replaced:
        after = {began - change["at"]: length - usual for began, length in pauses}
        at_change = [length for when, length in after.items() if 0.0 <= when < 1.5]
        at_start = [length for when, length in after.items() if -4.0 < when < 0.0]
        bench.figures.note(f"renewal: pause beyond the usual{kind}", max(at_change, default=None))
        bench.figures.note(
            f"renewal: the same, while the next session starts{kind}", max(at_start, default=None)
        )
        name = "without a face" if places == 1 else "face frozen"
        bench.figures.note(f"renewal: {name}{kind}", change["freeze"])


def note_level(figures: Figures, name: str, script: ToneScript, pcm: Pcm) -> None:
    """What is too loud or clipped is a failure of that repetition, whatever its figures are."""
    if (wrong := wrong_level(pcm, script)) is not None:
        figures.failures.append(f"{name}: {wrong}")


def note_tones(figures: Figures, name: str, script: ToneScript, tones: list[HeardTone]) -> None:
    again, cut = repeated(script, tones)
    figures.note(f"{name}: tones missing", len(missing(script, tones)))
    figures.note(f"{name}: repeated", again)
    figures.note(f"{name}: repeated, with the tone that was cut", again + cut)


MEASURES: dict[str, Callable[[Bench, int], Awaitable[None]]] = {
    "latency": measure_latency,
    "barge-in": measure_barge_in,
    "pause": measure_pause,
    "crash": partial(measure_loss, fault="crash"),
    "freeze": partial(measure_loss, fault="freeze"),
    "renewal": partial(measure_renewal, places=2),
    "renewal-one": partial(measure_renewal, places=1),
}


async def measure(
    server: LiveKitServer,
    delivery: str,
    names: list[str],
    repetitions: int,
    log: Path,
    figures: Figures,
    save: Callable[[], object],
) -> None:
    """Figures of one delivery, saved after each measurement: a run that is cut off keeps them."""
    environment = {
        "LIVEKIT_URL": server.url,
        "LIVEKIT_API_KEY": server.api_key,
        "LIVEKIT_API_SECRET": server.api_secret,
        "BENCH_DELIVERY": delivery,
    }
    async with contextlib.AsyncExitStack() as stack:
        runway = await stack.enter_async_context(Child.running("bench.runway", environment, log))
        runway_at = await runway.told("ready")
        agents = [
            await stack.enter_async_context(Child.running("bench.agent", environment, log))
            for _ in range(LANES)
        ]
        bench = Bench(server, runway, runway_at, agents, delivery, figures, environment, log)
        for name in names:
            began = time.monotonic()
            few = min(repetitions, RENEWALS) if name.startswith("renewal") else repetitions
            await MEASURES[name](bench, few)
            save()
            print(f"{delivery}: {name}, {time.monotonic() - began:.0f} s", file=sys.stderr)


async def run(
    arguments: argparse.Namespace,
    repetitions: int,
    log: Path,
    results: dict[str, Figures],
    save: Callable[[], object],
) -> None:
    async with LiveKitServer() as server:
        for delivery in arguments.delivery:
            figures = results[delivery] = Figures()
            await measure(server, delivery, arguments.only, repetitions, log, figures, save)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument(
        "--repetitions", type=int, default=REPETITIONS, help=f"of each figure ({REPETITIONS})"
    )
    parser.add_argument(
        "--quick", action="store_true", help=f"{QUICK_REPETITIONS} repetitions: a first look"
    )
    parser.add_argument("--delivery", nargs="+", choices=DELIVERIES, default=list(DELIVERIES))
    parser.add_argument("--only", nargs="+", choices=list(MEASURES), default=list(MEASURES))
    arguments = parser.parse_args()
    repetitions = QUICK_REPETITIONS if arguments.quick else arguments.repetitions
    if repetitions < 1:
        parser.error("--repetitions must be at least 1")
    folder = Path(os.environ.get("BENCH_OUT", "bench-out"))
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "speech.log"
    log.unlink(missing_ok=True)
    logging.basicConfig(filename=log)
    about = machine() | {"repetitions": repetitions}
    results: dict[str, Figures] = {}
    save = partial(write, folder, about, results)
    began = time.monotonic()
    try:
        asyncio.run(run(arguments, repetitions, log, results, save))
    except KeyboardInterrupt:
        return 130
    except LiveKitServerError as error:
        print(error, file=sys.stderr)
        return 1
    about["minutes"] = round((time.monotonic() - began) / 60, 1)
    print(save())
    return int(any(figures.failures for figures in results.values()))


if __name__ == "__main__":
    keep_for_good()
    sys.exit(main())
