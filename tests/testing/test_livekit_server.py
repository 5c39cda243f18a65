import asyncio
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from livekit import api, rtc

from livekit_plugins_runway.testing import livekit_binary
from livekit_plugins_runway.testing.livekit_binary import provision
from livekit_plugins_runway.testing.livekit_server import LiveKitServer, LiveKitServerError, main

LIMIT = 20.0  # seconds; for what takes a fraction of one


def program(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n" + textwrap.dedent(script))
    path.chmod(0o755)
    return path


def running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def rooms(server: LiveKitServer, *, timeout: float = LIMIT) -> list[str]:
    async with api.LiveKitAPI(server.http_url, server.api_key, server.api_secret) as lkapi:
        call = lkapi.room.list_rooms(api.ListRoomsRequest())
        return [room.name for room in (await asyncio.wait_for(call, timeout)).rooms]


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine with a shell, a cache folder and no more; returns its folder for programs."""
    for name in ("LIVEKIT_SERVER_BIN", "LIVEKIT_SERVER_BUILD", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("sh", "sleep"):
        (tools / name).symlink_to(f"/bin/{name}")
    monkeypatch.setenv("PATH", str(tools))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")  # no Go is to be had from a registry
    return tools


@pytest.fixture
def go(bare: Path, tmp_path: Path) -> Path:
    """A `go` that builds in no time; returns the list of its builds."""
    builds = tmp_path / "builds"
    program(
        bare / "go",
        f"""\
        case $1 in version) echo "go version go1.25.4 linux/amd64"; exit;; esac
        echo build >> {builds}
        sleep 0.3
        while [ "$1" != -o ]; do shift; done
        echo "#!/bin/sh" > "$2"
        while read -r line; do echo "$line"; done < go.mod > {builds}.mod
        chmod +x "$2"
        """,
    )
    (bare / "chmod").symlink_to("/bin/chmod")
    return builds


class TestFindingTheProgram:
    def test_a_named_program_comes_first(
        self, bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        program(bare / "livekit-server", "exit 0")
        named = program(tmp_path / "elsewhere/my-server", "exit 0")
        monkeypatch.setenv("LIVEKIT_SERVER_BIN", str(named))
        assert provision().path == str(named)

    def test_a_named_program_that_is_not_there_is_an_error_that_names_the_variable(
        self, bare: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        program(bare / "livekit-server", "exit 0")
        monkeypatch.setenv("LIVEKIT_SERVER_BIN", "/nowhere/livekit-server")
        with pytest.raises(LiveKitServerError, match="LIVEKIT_SERVER_BIN is '/nowhere"):
            provision()

    def test_one_on_path_is_used_without_a_build(self, bare: Path, go: Path) -> None:
        on_path = program(bare / "livekit-server", "exit 0")
        assert provision().path == str(on_path)
        assert not go.exists()

    def test_where_there_is_none_it_is_built_once_from_the_locked_source(
        self, go: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        first, second = provision(), provision()
        assert first == second
        assert Path(first.path).is_relative_to(tmp_path / "cache/livekit-plugins-runway-bridge")
        assert os.access(first.path, os.X_OK)
        assert go.read_text() == "build\n"
        assert "tool github.com/livekit/livekit-server" in Path(f"{go}.mod").read_text()
        assert "building" in capsys.readouterr().err

    def test_builds_at_the_same_time_become_one(self, go: Path, tmp_path: Path) -> None:
        found: list[str] = []
        threads = [
            threading.Thread(target=lambda: found.append(provision().path)) for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT)
        assert len(found) == 3
        assert len(set(found)) == 1
        assert go.read_text() == "build\n"

    def test_what_a_killed_build_left_is_removed_by_the_next(
        self, go: Path, tmp_path: Path
    ) -> None:
        folder = tmp_path / "cache/livekit-plugins-runway-bridge"
        (folder / "build-killed").mkdir(parents=True)
        built = provision().path
        assert {path.name for path in folder.iterdir()} == {
            Path(built).name,
            "livekit-server.lock",
        }

    def test_a_failed_build_is_told_with_its_output_and_nothing_is_kept(
        self, bare: Path, tmp_path: Path
    ) -> None:
        program(
            bare / "go",
            """\
            case $1 in version) echo "go version go1.26.0 linux/amd64"; exit;; esac
            echo "no space left on device" >&2
            exit 1
            """,
        )
        with pytest.raises(LiveKitServerError, match="no space left on device"):
            provision()
        left = list((tmp_path / "cache/livekit-plugins-runway-bridge").iterdir())
        assert [path.name for path in left] == ["livekit-server.lock"]

    def test_a_go_that_is_too_old_is_not_used(self, bare: Path) -> None:
        program(bare / "go", 'echo "go version go1.24.9 linux/amd64"')
        with pytest.raises(LiveKitServerError, match="fetching Go failed"):
            provision()

    def test_building_can_be_switched_off(self, go: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LIVEKIT_SERVER_BUILD", "0")
        with pytest.raises(LiveKitServerError, match="switched off"):
            provision()
        assert not go.exists()

    def test_docker_is_the_last_way(self, bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LIVEKIT_SERVER_BUILD", "0")
        docker = program(bare / "docker", "exit 0")
        found = provision()
        assert found.path == str(docker)
        assert found.docker_image == f"livekit/livekit-server:v{livekit_binary.SERVER_VERSION}"

    def test_where_no_way_is_open_the_error_names_three(
        self, bare: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("LIVEKIT_SERVER_BUILD", "0")
        program(bare / "docker", 'echo "Is the docker daemon running?"; exit 1')
        assert main(["--provision"]) == 1
        told = capsys.readouterr().err
        for way in ("LIVEKIT_SERVER_BIN", "Install Go", "Start docker", "daemon running?"):
            assert way in told


class TestAServerThatDoesNotStart:
    def test_its_log_is_in_the_error(self, bare: Path) -> None:
        program(bare / "livekit-server", 'echo "config is wrong" >&2; exit 1')
        with pytest.raises(LiveKitServerError, match=r"ended while starting(.|\n)*config is wrong"):
            LiveKitServer().start()

    def test_one_that_keeps_silent_is_ended(self, bare: Path, tmp_path: Path) -> None:
        pid_file = tmp_path / "pid"
        program(bare / "livekit-server", f"echo $$ > {pid_file}; exec sleep 600")
        with pytest.raises(LiveKitServerError, match="did not answer within"):
            LiveKitServer(start_timeout=0.5).start()
        assert not running(int(pid_file.read_text()))

    @pytest.mark.slow
    async def test_cancelled_while_starting_it_is_ended(self, bare: Path, tmp_path: Path) -> None:
        pid_file = tmp_path / "pid"
        program(bare / "livekit-server", f"echo $$ > {pid_file}; exec sleep 600")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5), LiveKitServer(start_timeout=1.5):
                pytest.fail("it cannot have started")
        assert not running(int(pid_file.read_text()))


@pytest.mark.server
class TestARunningServer:
    async def test_it_takes_its_own_keys_and_is_gone_after_the_block(self) -> None:
        async with LiveKitServer() as server:
            assert server.url.startswith("ws://127.0.0.1:")
            assert await rooms(server) == []
            pid = server.pid
            assert running(pid)
        assert not running(pid)
        with pytest.raises(LiveKitServerError, match="not running"):
            _ = server.pid

    async def test_two_run_side_by_side(self) -> None:
        async with LiveKitServer() as one, LiveKitServer() as other:
            assert one.url != other.url
            assert one.api_secret != other.api_secret
            assert await rooms(one) == await rooms(other) == []

    async def test_participants_meet_in_a_room(self, livekit_server: LiveKitServer) -> None:
        name = "test_participants_meet_in_a_room"
        heard: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        speaker, listener = rtc.Room(), rtc.Room()
        listener.on("data_received", lambda packet: heard.set_result(packet.data))
        try:
            for room, identity in ((listener, "listener"), (speaker, "speaker")):
                token = api.AccessToken(livekit_server.api_key, livekit_server.api_secret)
                token.with_identity(identity)
                token.with_grants(api.VideoGrants(room_join=True, room=name))
                await room.connect(livekit_server.url, token.to_jwt())
            await speaker.local_participant.publish_data(b"hello")
            assert await asyncio.wait_for(heard, LIMIT) == b"hello"
        finally:
            await speaker.disconnect()
            await listener.disconnect()

    async def test_the_environment_does_not_change_its_configuration(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("LIVEKIT_KEYS", "devkey: secret")
        monkeypatch.setenv("LIVEKIT_CONFIG", "port: 1")
        monkeypatch.setenv("UDP_PORT", "1")
        async with LiveKitServer() as server:
            assert await rooms(server) == []

    async def test_paused_it_answers_no_one_and_resumed_everyone(self) -> None:
        async with LiveKitServer() as server:
            server.pause()
            with pytest.raises(TimeoutError):
                await rooms(server, timeout=0.5)
            server.resume()
            assert await rooms(server) == []

    def test_paused_it_can_be_stopped(self) -> None:
        with LiveKitServer() as server:
            pid = server.pid
            server.pause()
        assert not running(pid)

    async def test_restarted_it_is_a_new_process_at_the_same_url(self) -> None:
        async with LiveKitServer() as server:
            url, pid = server.url, server.pid
            await asyncio.to_thread(server.restart)
            assert server.url == url
            assert server.pid != pid
            assert not running(pid)
            assert await rooms(server) == []

    def test_it_outlives_the_thread_that_started_it(self) -> None:
        server = LiveKitServer()
        thread = threading.Thread(target=server.start)
        thread.start()
        thread.join(LIMIT)
        try:
            assert asyncio.run(rooms(server)) == []
        finally:
            server.stop()

    def test_a_second_start_is_refused(self, livekit_server: LiveKitServer) -> None:
        with pytest.raises(LiveKitServerError, match="already running"):
            livekit_server.start()

    @pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
    def test_it_does_not_outlive_its_parent(
        self,
        end: signal.Signals,
        livekit_binary_path: str,
        bare: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("LIVEKIT_SERVER_BIN", livekit_binary_path)
        script = """
        import sys
        from livekit_plugins_runway.testing.livekit_server import LiveKitServer
        with LiveKitServer() as server:
            print(server.url.rpartition(":")[2], flush=True)
            sys.stdin.read()
        """
        parent = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert parent.stdin is not None
        assert parent.stdout is not None
        with parent.stdin, parent.stdout:
            port = int(parent.stdout.readline())
            assert listening(port)
            os.killpg(parent.pid, end)  # as a terminal's Ctrl-C does, to the whole group
            parent.wait(LIMIT)
            deadline = time.monotonic() + LIMIT
            while listening(port):
                assert time.monotonic() < deadline, "the server is still there"
                time.sleep(0.02)

    async def test_docker_runs_it_with_the_same_configuration(
        self, bare: Path, monkeypatch: pytest.MonkeyPatch, livekit_binary_path: str
    ) -> None:
        """A stand-in for docker that runs the binary: what is checked is how docker is called."""
        monkeypatch.setenv("LIVEKIT_SERVER_BUILD", "0")
        calls = bare.parent / "calls"
        program(
            bare / "docker",
            f"""\
            echo "$@" >> {calls}
            case $1 in run) exec {livekit_binary_path};; esac
            """,
        )
        async with LiveKitServer() as server:
            assert await rooms(server) == []
            pid = server.pid
        assert not running(pid)
        called = calls.read_text()
        image = f"livekit/livekit-server:v{livekit_binary.SERVER_VERSION}"
        name = called.split("--name ")[1].split()[0]
        assert "--env LIVEKIT_CONFIG " in called
        assert f" {image}\n" in called
        assert f"rm --force {name}\n" in called


@pytest.fixture(scope="session")
def livekit_binary_path() -> str:
    """The real program, found before a test narrows `PATH`."""
    return provision().path
