"""How many calls a machine holds, and what a call takes: `python -m bench.capacity`.

A worker of the framework's, as in production: each call in a process of its own, forked from one
that has imported everything. Calls are added one by one; all agents speak without a pause. With
each number of them: pictures and voice at the users, CPU and memory of the agents' processes by
themselves, and what the stage takes beside them on the same machine: LiveKit server, simulated
Runway (1088x704, 25 pictures a second, which it paints and encodes) and users. The users' pictures
and voice are counted by the SDK (`Track.get_stats()`), which decodes them; nothing looks at them
in Python, and they carry no numbers.

At last the worker is stopped (SIGTERM) while all of them speak. Prints a table, writes
`bench-out/capacity.json` (`BENCH_OUT` names another folder). The exit code is 1 if a call did not
begin, or was cut by the stop.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import secrets
import sys
import time
from collections.abc import AsyncIterator, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from livekit import api, rtc

from bench.call import Results, run_short
from bench.capacity_worker import AGENT_NAME
from bench.lines import Child, keep_for_good
from bench.traffic import Capture
from demo.worker import Worker
from livekit_plugins_runway.testing import SimulatorOptions
from livekit_plugins_runway.testing.livekit_server import LiveKitServer

ROOT = Path(__file__).resolve().parent.parent
CALLS = 8
WATCHED = 6.0
SETTLED = SimulatorOptions().upscale_after + 4.0
"""Seconds from a call's first picture: the picture has its full size, its bit rate has grown."""
ENOUGH, FEW = 24.0, 20.0
"""Pictures a second, of 25. No call is added to those of which one has fewer than `FEW`."""
_START_TIMEOUT, _END_TIMEOUT = 25.0, 30.0
OPTIONS: dict[str, dict[str, Any]] = {
    "direct": {"transport": "direct", "allow_private_livekit_url": True},
    "bridge": {"transport": "bridge", "delivery": "datastream"},
}


class User:
    """Subscribes to everything; the SDK decodes it, and its counters say how it was."""

    def __init__(self) -> None:
        self.room = rtc.Room()
        self._tracks: dict[rtc.TrackKind.ValueType, rtc.Track] = {}
        self._there = asyncio.Event()
        self.room.on("track_subscribed", self._on_track)

    def _on_track(
        self, track: rtc.Track, _: rtc.RemoteTrackPublication, participant: rtc.RemoteParticipant
    ) -> None:
        self._tracks[track.kind] = track
        if track.kind == rtc.TrackKind.KIND_VIDEO:
            self._there.set()

    async def wait_for_picture(self) -> None:
        async with asyncio.timeout(_START_TIMEOUT):
            await self._there.wait()
            while not (await self.counters())["pictures"]:  # noqa: ASYNC110  there is no event
                await asyncio.sleep(0.1)

    async def counters(self) -> dict[str, float]:
        """Since the beginning; samples of 48 kHz, and bytes of media."""
        found = {"pictures": 0.0, "picture_bytes": 0.0, "samples": 0.0, "holes": 0.0,
                 "voice_bytes": 0.0}  # fmt: skip
        for kind, track in self._tracks.items():
            for stats in await track.get_stats():
                if stats.WhichOneof("stats") != "inbound_rtp":
                    continue
                seen = stats.inbound_rtp.inbound
                size = seen.bytes_received + seen.header_bytes_received
                if kind == rtc.TrackKind.KIND_VIDEO:
                    found["pictures"] += seen.frames_decoded
                    found["picture_bytes"] += size
                else:
                    found["samples"] += seen.total_samples_received
                    found["holes"] += seen.concealed_samples - seen.silent_concealed_samples
                    found["voice_bytes"] += size
        return found


class Usage:
    """CPU seconds of groups of processes."""

    def __init__(self, groups: dict[str, list[psutil.Process]]) -> None:
        self._groups = groups
        self._began = time.monotonic()
        self._used = {name: seconds(group) for name, group in groups.items()}
        psutil.cpu_percent()

    def cores(self) -> dict[str, float]:
        """Since it was made; "busy" is a share of all cores."""
        lasted = time.monotonic() - self._began
        found = {
            name: (seconds(group) - self._used[name]) / lasted
            for name, group in self._groups.items()
        }
        return found | {"busy": psutil.cpu_percent() / 100}


def seconds(processes: Iterable[psutil.Process]) -> float:
    times = [process.cpu_times() for process in processes]
    return float(sum(t.user + t.system for t in times))


class Stage:
    def __init__(self, server: LiveKitServer, runway: Child, worker: Worker) -> None:
        self._server = server
        self._runway = runway
        self._worker = worker
        self.users: list[User] = []

    @classmethod
    @contextlib.asynccontextmanager
    async def of(cls, picture: str, log: Path) -> AsyncIterator[Stage]:
        async with LiveKitServer() as server:
            environment = {
                "LIVEKIT_URL": server.url,
                "LIVEKIT_API_KEY": server.api_key,
                "LIVEKIT_API_SECRET": server.api_secret,
            }
            own = {
                "BENCH_DELIVERY": "datastream",
                "BENCH_SIZE": "{}x{}".format(*SimulatorOptions().full_size),
                "BENCH_PICTURE": picture,
                "BENCH_PLAIN": "1",
            }
            async with Child.running("bench.runway", environment | own, log) as runway:
                at = await runway.told("ready")
                environment |= {
                    "RUNWAYML_BASE_URL": at["url"],
                    "RUNWAYML_API_SECRET": at["api_secret"],
                    "PYTHONPATH": str(ROOT),
                }
                program = ROOT / "bench" / "capacity_worker.py"
                said = log.with_suffix(".worker.log")
                async with Worker.running(program, environment, said, lambda _: None) as worker:
                    await worker.wait_for(lambda w: w.registered, 40)
                    stage = cls(server, runway, worker)
                    try:
                        yield stage
                    finally:
                        for user in stage.users:
                            await user.room.disconnect()

    async def add_call(self, options: dict[str, Any]) -> None:
        room, user = f"capacity-{secrets.token_hex(4)}", User()
        await user.room.connect(self._server.url, self._server.token(room, "user"))
        self.users.append(user)
        keys = (self._server.http_url, self._server.api_key, self._server.api_secret)
        async with api.LiveKitAPI(*keys) as livekit:
            await livekit.agent_dispatch.create_dispatch(
                api.CreateAgentDispatchRequest(
                    agent_name=AGENT_NAME, room=room, metadata=json.dumps(options)
                )
            )
        await user.wait_for_picture()

    def processes(self) -> dict[str, list[psutil.Process]]:
        """The jobs' are children of the framework's fork server; each has a guardian beside it."""
        worker = psutil.Process(self._worker.pid)
        below = worker.children(recursive=True)
        servers = [p for p in worker.children() if p.children()]
        jobs = [job for server in servers for job in server.children()]
        guardians = [child for job in jobs for child in job.children(recursive=True)]
        rest = [p for p in [worker, *below] if p not in jobs and p not in guardians]
        return {
            "agents": jobs,
            "guardians": guardians,
            "worker": rest,
            "server": [psutil.Process(self._server.pid)],
            "runway": [psutil.Process(self._runway.pid)],
            "users": [psutil.Process()],
        }

    async def drain(self) -> dict[str, Any]:
        """SIGTERM while all of them speak; a while later the users leave."""
        self._worker.terminate()
        await asyncio.sleep(1.0)
        before = [await user.counters() for user in self.users]
        await asyncio.sleep(WATCHED)
        after = [await user.counters() for user in self.users]
        going_on = [
            late["pictures"] > early["pictures"] and late["voice_bytes"] > early["voice_bytes"]
            for early, late in zip(before, after, strict=True)
        ]
        for user in self.users:
            await user.room.disconnect()
        code = await asyncio.wait_for(self._worker.wait(), _END_TIMEOUT)
        return {"stopped_under": len(self.users), "cut": going_on.count(False), "exit": code}

    async def watch(self, capture: Capture | None) -> dict[str, Any]:
        groups = self.processes()
        before = [await user.counters() for user in self.users]
        if capture is not None:
            capture.forget()
        usage, began = Usage(groups), time.monotonic()
        await asyncio.sleep(WATCHED)
        cores = usage.cores()
        after = [await user.counters() for user in self.users]
        lasted = time.monotonic() - began
        found = [
            {name: late[name] - early[name] for name in late}
            for early, late in zip(before, after, strict=True)
        ]
        calls = len(self.users)
        result: dict[str, Any] = {
            "calls": calls,
            "fps": [call["pictures"] / lasted for call in found],
            "holes": [call["holes"] / max(1.0, call["samples"]) for call in found],
            "cores": cores,
            "agents_mb": memory(groups["agents"]),
            "guardians_mb": memory(groups["guardians"]),
            "worker_mb": memory(groups["worker"]),
            "picture_kbit": sum(c["picture_bytes"] for c in found) * 8e-3 / lasted / calls,
            "voice_kbit": sum(c["voice_bytes"] for c in found) * 8e-3 / lasted / calls,
        }
        if capture is not None:
            received, sent = capture.of([process.pid for process in groups["agents"]])
            result["in_kbit"] = received * 8e-3 / lasted / calls
            result["out_kbit"] = sent * 8e-3 / lasted / calls
        return result


def memory(processes: list[psutil.Process]) -> dict[str, float]:
    """MB (10**6 bytes) of each, on average: resident, its share of what is shared, its own."""
    infos = [process.memory_full_info() for process in processes]
    return {
        kind: sum(getattr(info, kind) for info in infos) / max(1, len(infos)) / 1e6
        for kind in ("rss", "pss", "uss")
    }


def capturing() -> Capture | None:
    try:
        return Capture()
    except (OSError, AttributeError) as error:
        print(f"no figures of the network: {error}", file=sys.stderr)
        return None


async def measure(given: argparse.Namespace, results: Results, log: Path) -> int:
    failures = 0
    capture = capturing()
    for transport in given.transport:
        async with Stage.of(given.picture, log) as stage:
            try:
                for _ in range(given.calls):
                    await stage.add_call(OPTIONS[transport])
                    await asyncio.sleep(SETTLED)
                    found = await stage.watch(capture)
                    results.append({"transport": transport, "picture": given.picture} | found)
                    print(row(results[-1]), file=sys.stderr, flush=True)
                    if min(found["fps"]) < FEW:
                        break
                results[-1] |= await stage.drain()
            except TimeoutError as error:
                failures += 1
                calls = len(stage.users)
                print(f"{transport}, call {calls}: {error or 'timeout'}", file=sys.stderr)
    if capture is not None:
        capture.close()
    return failures


def row(r: dict[str, Any]) -> str:
    agents, own = r["cores"]["agents"], r["agents_mb"]
    stage = sum(r["cores"][name] for name in ("server", "runway", "users"))
    network = [f"{r[name]:.0f}" if name in r else "" for name in ("in_kbit", "out_kbit")]
    return (
        f"| {r['transport']} | {r['calls']} | {min(r['fps']):.1f} | {max(r['holes']):.1%} "
        f"| {agents:.2f} | {agents / r['calls']:.2f} | {stage:.2f} | {r['cores']['busy']:.0%} "
        f"| {own['rss']:.0f} / {own['pss']:.0f} / {own['uss']:.0f} MB | {' / '.join(network)} |"
    )


def report(results: Results) -> str:
    rows = [
        "| | calls | pictures a second, worst call | holes in the voice, worst call "
        "| agents, cores | each | stage, cores | machine busy | each agent, RSS / PSS / USS "
        "| kbit/s of an agent, in / out |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
        *map(row, results),
    ]
    for transport in dict.fromkeys(r["transport"] for r in results):
        held = [
            r["calls"] for r in results
            if r["transport"] == transport and min(r["fps"]) >= ENOUGH
        ]  # fmt: skip
        rows.append(
            f"\n{transport}: {max(held, default=0)} calls with {ENOUGH:g} pictures a second"
        )
    rows += [
        f"\n{r['transport']}: SIGTERM under {r['stopped_under']} calls: {r['cut']} cut, exit code "
        f"{r['exit']}"
        for r in results
        if "cut" in r
    ]
    return "\n".join(rows)


def is_whole(result: dict[str, Any]) -> bool:
    return not result.get("cut") and not result.get("exit")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--calls", type=int, default=CALLS, help=f"at most ({CALLS})")
    parser.add_argument("--transport", nargs="+", choices=list(OPTIONS), default=list(OPTIONS))
    parser.add_argument("--picture", choices=("drawn", "camera"), default="camera")
    return run_short("capacity", partial(measure, parser.parse_args()), report, is_whole)


if __name__ == "__main__":
    keep_for_good()
    sys.exit(main())
