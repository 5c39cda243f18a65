"""`make bench`: avatar plugins side by side, on one machine, in one run.

The official plugin, ours with both transports and both deliveries, and the room that Runway hosts
itself as the floor, against the simulated Runway on a real LiveKit server. Server, Runway and agent
run in processes of their own, on one machine and one monotonic clock; candidates take turns. See
`docs/bench.md` for what is measured, and for how to bring another plugin.

Writes `bench-out/bench.json`, `bench.md`, `bench-*.png` and the programs' warnings, `bench.log`
(`BENCH_OUT` names another folder). It measures and asserts nothing: the exit code is 1 if a run
gave no figures, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import trustme

from bench.background import MOST_LOAD, background
from bench.candidates import BRIDGES, CANDIDATES, USUAL, Candidate, parse
from bench.lines import Child, keep_for_good
from bench.pages import ROOT, Results, publish, report, to_json
from bench.plots import draw
from bench.report import machine
from bench.run import Run, Stage, run, scale, voice_first
from livekit_plugins_runway.testing import SimulatorOptions
from livekit_plugins_runway.testing.livekit_server import LiveKitServer, LiveKitServerError
from livekit_plugins_runway.testing.options import Picture

RUNS, SCALE_RUNS = 8, 2
PICTURES: tuple[Picture, ...] = get_args(Picture)
COUNTS = (1, 2, 4)
SCALED = ("official", "direct", *BRIDGES)
SMALL = SimulatorOptions().start_size
"""The picture where several sessions share the machine: two cores do not hold four large ones."""


@contextlib.asynccontextmanager
async def staged(
    server: LiveKitServer, picture: Picture, size: tuple[int, int], log: Path
) -> AsyncIterator[Stage]:
    """Simulated Runways whose pictures have this size in pixels, behind TLS as Runway is."""
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        authority, certificate = trustme.CA(), folder / "certificate.pem"
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(certificate)
        authority.cert_pem.write_to_path(folder / "authority.pem")
        environment = {
            "LIVEKIT_URL": server.url,
            "LIVEKIT_API_KEY": server.api_key,
            "LIVEKIT_API_SECRET": server.api_secret,
            "SSL_CERT_FILE": str(folder / "authority.pem"),
        }
        stage = Stage(server, picture, {}, {}, environment, log)
        for speech in ("datastream", "track"):
            own = {
                "BENCH_DELIVERY": speech,
                "BENCH_PICTURE": picture,
                "BENCH_SIZE": "{}x{}".format(*size),
                "BENCH_CERTIFICATE": str(certificate),
            }
            child = Child.running("bench.runway", environment | own, log)
            stage.runways[speech] = await stack.enter_async_context(child)
            stage.addresses[speech] = await stage.runways[speech].told("ready")
        yield stage


class Bench:
    """Runs what was asked for, and keeps the results after each step: a run that is cut off has
    them."""

    def __init__(self, results: Results, save: Callable[[], object], log: Path) -> None:
        self._results = results
        self._save = save
        self._log = log

    async def compare(
        self,
        server: LiveKitServer,
        turns: int,
        *,
        pictures: Sequence[Picture],
        load: float,
        start: bool,
    ) -> None:
        """The candidates take turns, so that what the machine does meanwhile strikes all alike.

        Args:
            load: if it is not 0, each turn is taken once more while other programs take this share
                of the machine.
            start: measure voice first as well.
        """
        size = SimulatorOptions().full_size
        async with contextlib.AsyncExitStack() as stack:
            stages = [
                await stack.enter_async_context(staged(server, picture, size, self._log))
                for picture in pictures
            ]
            for turn in range(1, turns + 1):
                for stage in stages:
                    await self._short_calls(stage, turn, len(stages))
                    await self._calls(stage, turn)
                if start:
                    async with self._step(f"turn {turn}, voice first"):
                        self._results.voice_first.append(await voice_first(stages[0]))
                if load:
                    async with background(load) as others:
                        for stage in stages:
                            await self._calls(replace(stage, others=others), turn, load)

    async def _short_calls(self, stage: Stage, turn: int, pictures: int) -> None:
        """Each picture has its part of them."""
        candidates = [self._results.candidates[name] for name in self._results.runs]
        most = max(candidate.short_calls for candidate in candidates) if candidates else 0
        for n in range(-(-most // pictures)):
            for candidate in candidates:
                if n < -(-candidate.short_calls // pictures):
                    await self._call(stage, candidate, Run(turn, stage.picture, short=True))

    async def _calls(self, stage: Stage, turn: int, load: float = 0.0) -> None:
        for name in self._results.runs:
            await self._call(stage, self._results.candidates[name], Run(turn, stage.picture, load))

    async def _call(self, stage: Stage, candidate: Candidate, result: Run) -> None:
        words = [f"turn {result.turn}", candidate.name, result.picture]
        words += ["short"] if result.short else []
        words += [f"load {result.load:g}"] if result.load else []
        async with self._step(", ".join(words)):
            await run(stage, candidate, result)
            self._results.runs[candidate.name].append(result)

    async def grow(self, server: LiveKitServer, runs: int) -> None:
        async with staged(server, "drawn", SMALL, self._log) as stage:
            for n in range(1, runs + 1):
                for count in COUNTS:
                    for name, done in self._results.scales.items():
                        async with self._step(f"run {n}, {count} sessions of {name}"):
                            candidate = self._results.candidates[name]
                            done.append(await scale(stage, candidate, count))

    @contextlib.asynccontextmanager
    async def _step(self, name: str) -> AsyncIterator[None]:
        """What times out, or whose program ends, is noted, and the rest goes on."""
        began = time.monotonic()
        try:
            yield
        except (TimeoutError, RuntimeError) as error:
            self._results.failures.append(f"{name}: {error or 'timeout'}")
        self._save()
        print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument(
        "--runs", type=int, default=RUNS, help=f"of each candidate with each picture ({RUNS})"
    )
    parser.add_argument(
        "--picture",
        nargs="+",
        choices=PICTURES,
        default=PICTURES,
        help="what the avatar shows: a drawn face, a camera's picture (both)",
    )
    parser.add_argument(
        "--load",
        type=share,
        default=0.0,
        metavar="SHARE",
        help="measure once more while other programs take this share of the machine, 0.5 say",
    )
    parser.add_argument(
        "--scale-runs", type=int, help=f"with several sessions in a process ({SCALE_RUNS})"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=[*CANDIDATES, "voice-first", "scaling"],
        help="these candidates and measurements; without names of candidates scaling takes all "
        "that are judged",
    )
    parser.add_argument(
        "--avatar",
        action="append",
        default=[],
        type=parse,
        metavar="NAME=MODULE:FACTORY",
        help="another plugin: a callable without arguments that returns an object with "
        "start(session, room) and aclose()",
    )
    parser.add_argument("--publish", action="store_true", help="into docs/ as well")
    return parser.parse_args()


def share(text: str) -> float:
    """Of the machine.

    Raises:
        argparse.ArgumentTypeError: it is no number from 0 to `MOST_LOAD`.
    """
    with contextlib.suppress(ValueError):
        if 0 <= (value := float(text)) <= MOST_LOAD:
            return value
    raise argparse.ArgumentTypeError(f"{text!r} is no share from 0 to {MOST_LOAD:g}")


def prepared(given: argparse.Namespace) -> tuple[Results, bool]:
    """What is to be measured, still empty, and whether voice first is."""
    names = given.only or [*USUAL, "voice-first", "scaling"]
    extra: dict[str, Candidate] = {candidate.name: candidate for candidate in given.avatar}
    chosen = [name for name in CANDIDATES if name in names] + list(extra)
    results = Results(machine(), CANDIDATES | extra, runs={name: [] for name in chosen})
    if "scaling" in names:
        scaled = [name for name in chosen if name in SCALED or name in extra] or list(SCALED)
        results.scales = {name: [] for name in scaled}
    return results, "voice-first" in names


async def measure(
    given: argparse.Namespace, results: Results, start: bool, save: Callable[[], object], log: Path
) -> None:
    bench = Bench(results, save, log)
    async with LiveKitServer() as server:
        if results.runs or start:
            await bench.compare(
                server, given.runs, pictures=given.picture, load=given.load, start=start
            )
        if results.scales:
            few = min(given.runs, SCALE_RUNS) if given.scale_runs is None else given.scale_runs
            await bench.grow(server, few)


def main() -> int:
    given = arguments()
    folder = Path(os.environ.get("BENCH_OUT", "bench-out"))
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "bench.log"
    log.unlink(missing_ok=True)
    logging.basicConfig(filename=log)
    results, start = prepared(given)
    results.about["runs"] = given.runs

    def save() -> None:
        (folder / "bench.json").write_text(to_json(results))
        (folder / "bench.md").write_text(report(results))

    began = time.monotonic()
    try:
        asyncio.run(measure(given, results, start, save, log))
    except KeyboardInterrupt:
        return 130
    except LiveKitServerError as error:
        print(error, file=sys.stderr)
        return 1
    results.about["minutes"] = round((time.monotonic() - began) / 60, 1)
    save()
    if not draw(results, folder):
        print('no plots: pip install ".[bench]"', file=sys.stderr)
    if given.publish:
        publish(results, draw(results, ROOT / "docs"))
    print(report(results))
    return int(bool(results.failures))


if __name__ == "__main__":
    keep_for_good()
    sys.exit(main())
