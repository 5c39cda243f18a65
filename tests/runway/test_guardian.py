"""The guardian: a killed process's sessions are ended at once, by a process that costs little."""

from __future__ import annotations

import ast
import asyncio
import json
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web

from livekit_plugins_runway.runway.journal import guardian_process
from livekit_plugins_runway.runway.journal.keeper import Keeper
from livekit_plugins_runway.testing import RunwaySimulator, SessionStatus, SimulatorOptions
from tests.support.journals import KEY, contents, files, leave, until
from tests.support.mortal import Mortal, mortal
from tests.support.scripted_runway import Reply, ScriptedRunway

pytestmark = pytest.mark.slow

PROGRAM = Path(guardian_process.__file__)
MOMENT = 20.0
"""Seconds within which a thing must happen; usually it takes a fraction of one."""
linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@asynccontextmanager
async def living(journals: Path, **options: Any) -> AsyncIterator[tuple[Mortal, RunwaySimulator]]:
    quick = SimulatorOptions(queue_delay=0.0, provisioning_delay=0.0, consumed_running_delay=0.0)
    async with (
        RunwaySimulator(options=quick) as simulator,
        mortal(simulator.api_secret, simulator.url, journals, **options) as it,
    ):
        yield it, simulator


async def all_ended(simulator: RunwaySimulator, it: Mortal) -> None:
    sessions = [simulator.sessions[session_id] for session_id in it.sessions]
    await simulator.wait_until(
        lambda: all(session.status is SessionStatus.CANCELLED for session in sessions), MOMENT
    )


async def gone(pids: list[int]) -> None:
    await until(lambda: not any(map(_runs, pids)))


def _runs(pid: int) -> bool:
    try:  # a zombie waits for whoever has taken it in
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _told(pid: int, what: str) -> bytes:
    return Path(f"/proc/{pid}/{what}").read_bytes()


# -- a process that is killed --


async def test_a_killed_process_s_sessions_are_ended_without_anybody_s_doing(
    journals: Path,
) -> None:
    async with living(journals, sessions=2) as (it, simulator):
        await it.kill()
        await all_ended(simulator, it)


async def test_what_it_has_ended_is_still_to_be_told_by_the_next_start(journals: Path) -> None:
    async with living(journals) as (it, simulator):
        await it.kill()
        await all_ended(simulator, it)
        await until(lambda: contents(journals).untold)
        ((entry, _),) = contents(journals).untold
        assert [entry.session_id] == it.sessions
        assert contents(journals).alive == {}


async def test_it_ends_nothing_and_goes_when_its_owner_ends_in_good_order(journals: Path) -> None:
    async with living(journals) as (it, simulator):
        pids = it.guardians() if sys.platform == "linux" else []
        await it.close()
        await gone(pids)
        deletes = [request for request in simulator.requests if request.method == "DELETE"]
        assert len(deletes) == 1
        assert files(journals) == []


async def test_what_its_owner_could_not_end_is_ended_by_it_after_the_close(journals: Path) -> None:
    async with ScriptedRunway().running() as runway:
        keeper = Keeper(KEY, runway.url, journals, guardian=True)
        keeper.journal.made("unconfirmed", None)
        await keeper.aclose()
        await until(lambda: runway.deleted)
        assert runway.deleted == ["unconfirmed"]


@linux
async def test_no_signal_to_all_processes_keeps_it_from_its_work(journals: Path) -> None:
    async with living(journals) as (it, simulator):
        (pid,) = it.guardians()
        assert os.getpgid(pid) != os.getpgid(it.process.pid), "it is in the owner's group"
        os.killpg(it.process.pid, signal.SIGINT)
        for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(pid, name)
        os.killpg(it.process.pid, signal.SIGKILL)
        await it.process.wait()
        await all_ended(simulator, it)
        await gone([pid])


@linux
async def test_the_key_is_neither_in_its_arguments_nor_in_its_environment(journals: Path) -> None:
    quick = SimulatorOptions(queue_delay=0.0, provisioning_delay=0.0)
    async with RunwaySimulator(options=quick) as simulator:
        environment = {"RUNWAYML_API_SECRET": simulator.api_secret, "HTTPS_PROXY": "http://p:1"}
        async with mortal(
            simulator.api_secret, simulator.url, journals, environment=environment
        ) as it:
            (pid,) = it.guardians()
            arguments, variables = (_told(pid, what) for what in ("cmdline", "environ"))
            assert simulator.api_secret.encode() not in arguments + variables
            assert b"HTTPS_PROXY=http://p:1" in variables
            await it.close()


async def test_a_forked_child_that_outlives_the_owner_does_not_hold_it_up(journals: Path) -> None:
    async with living(journals, fork=True) as (it, simulator):
        await it.kill()
        os.kill(it.child, 0)  # still there
        await all_ended(simulator, it)


def test_it_loads_nothing_but_the_standard_library() -> None:
    for path in (PROGRAM, *map(PROGRAM.with_name, ("guardian_work.py", "records.py"))):
        for node in ast.walk(ast.parse(path.read_text())):
            names = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom) and not node.level
                else []
            )
            assert not isinstance(node, ast.ImportFrom) or not node.level, ast.unparse(node)
            for name in names:
                assert name.partition(".")[0] in sys.stdlib_module_names, name


# -- its way to Runway --


@contextmanager
def guarding(
    journal: Path, url: str, environment: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """The program alone, whose owner is gone already."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", str(PROGRAM)], stdin=subprocess.PIPE, env=environment
    )
    assert process.stdin is not None
    headers = {"Authorization": f"Bearer {KEY}", "X-Runway-Version": "2024-11-06"}
    task = {"journal": str(journal), "url": f"{url}/v1/realtime_sessions/", "headers": headers}
    process.stdin.write(os.fsencode(journal) + b"\n" + json.dumps(task).encode())
    process.stdin.close()
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def its_end(process: subprocess.Popen[bytes]) -> int:
    await until(lambda: process.poll() is not None)
    assert process.returncode is not None
    return process.returncode


async def test_it_calls_as_the_client_does_and_takes_404_for_an_end(journals: Path) -> None:
    async with ScriptedRunway().running() as runway:
        path = leave(journals, "an id/with a slash", url=runway.url)
        runway.delete_script = [Reply(status=404, payload={"error": "none"})]
        with guarding(path, runway.url, {}) as process:
            assert await its_end(process) == 0
        (seen,) = runway.seen
        assert (seen.method, seen.path) == (
            "DELETE",
            "/v1/realtime_sessions/an id/with a slash",
        )
        assert seen.headers["Authorization"] == f"Bearer {KEY}"
        assert seen.headers["X-Runway-Version"] == "2024-11-06"
        assert contents(journals).alive == {}


async def test_what_may_pass_is_tried_again_and_what_may_not_is_left(journals: Path) -> None:
    async with ScriptedRunway().running() as runway:
        path = leave(journals, "one", url=runway.url)
        runway.delete_script = [
            Reply(status=503, payload={"error": "later"}),
            Reply(status=429, payload={"error": "later"}),
            Reply(cut="request read"),
        ]
        with guarding(path, runway.url, {}) as process:
            assert await its_end(process) == 0
        assert len(runway.seen) == 4
        assert contents(journals).alive == {}

        path = leave(journals, "two", url=runway.url)
        runway.delete_script = [Reply(status=401, payload={"error": "no"})]
        with guarding(path, runway.url, {}) as process:
            assert await its_end(process) == 0
        assert len(runway.seen) == 5
        assert list(contents(journals).alive) == ["two"]


async def test_a_redirect_does_not_get_the_key(journals: Path) -> None:
    async with ScriptedRunway().running() as runway, ScriptedRunway().running() as elsewhere:
        path = leave(journals, "one", url=runway.url)
        where = f"{elsewhere.url}/v1/realtime_sessions/one"
        runway.delete_script = [Reply(status=307, headers={"Location": where})]
        with guarding(path, runway.url, {}) as process:
            assert await its_end(process) == 0
        assert (len(runway.seen), elsewhere.seen) == (1, [])
        assert list(contents(journals).alive) == ["one"]


async def test_it_goes_through_the_proxy_that_the_environment_names(journals: Path) -> None:
    async with ScriptedRunway().running() as proxy:
        path = leave(journals, "one", url="http://runway.invalid")
        with guarding(path, "http://runway.invalid", {"HTTP_PROXY": proxy.url}) as process:
            assert await its_end(process) == 0
        (seen,) = proxy.seen
        assert seen.headers["Host"] == "runway.invalid"
        assert contents(journals).alive == {}


async def test_it_trusts_the_authority_that_the_environment_names(
    journals: Path, tmp_path: Path
) -> None:
    deleted: list[str] = []

    async def delete(request: web.Request) -> web.Response:
        deleted.append(request.path)
        return web.Response(status=204)

    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    app = web.Application()
    app.router.add_delete("/{path:.*}", delete)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "localhost", 0, ssl_context=context)
    await site.start()
    url = f"https://localhost:{runner.addresses[0][1]}"
    try:
        path = leave(journals, "one", url=url)
        environment = {"SSL_CERT_FILE": str(tmp_path / "ca.pem")}
        with guarding(path, url, environment) as process:
            assert await its_end(process) == 0
    finally:
        await runner.cleanup()
    assert deleted == ["/v1/realtime_sessions/one"]


async def test_it_touches_no_file_of_a_living_process(journals: Path) -> None:
    async with ScriptedRunway().running() as runway:
        keeper = Keeper(KEY, runway.url, journals)
        keeper.journal.made("alive", None)
        assert keeper.journal.path is not None
        with guarding(keeper.journal.path, runway.url, {}) as process:
            await asyncio.sleep(1.0)
            assert process.poll() is None, "it waits for its turn"
            assert runway.seen == []
        keeper.journal.ended("alive")
        await keeper.aclose()


# -- where there can be none --


@pytest.mark.parametrize("executable", ["", None, "/usr/bin/uwsgi", "/nowhere/python3"])
async def test_without_a_python_to_start_there_is_a_warning_and_no_guardian(
    journals: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    executable: str | None,
) -> None:
    monkeypatch.setattr(sys, "executable", executable)
    keeper = Keeper(KEY, "https://runway.test", journals, guardian=True)
    keeper.journal.made("one", None)
    assert list(contents(journals).alive) == ["one"]
    keeper.journal.ended("one")
    await keeper.aclose()
    assert any("guardian" in record.getMessage() for record in caplog.records)
    assert files(journals) == []


async def test_without_a_journal_there_is_no_guardian(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("started")

    monkeypatch.setattr(subprocess, "Popen", never)
    keeper = Keeper(KEY, "https://runway.test", None, guardian=True)
    keeper.journal.made("one", None)
    await keeper.aclose()
