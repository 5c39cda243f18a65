"""A real livekit-server on loopback, for tests, the demo and your own CI.

``python -m livekit_plugins_runway.testing.livekit_server --provision`` finds or builds the
program ahead of time and prints its path.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import IO, Literal, Self

from livekit import api

from .livekit_binary import LiveKitServerError, ServerProgram, provision

__all__ = ["LiveKitServer", "LiveKitServerError", "main"]

_STOP_ATTEMPTS = 8
_STOP_PACE = 0.25  # seconds between them
_TAIL_BYTES = 4000
ParticipantKind = Literal["standard", "agent"]


class LiveKitServer:
    """One livekit-server process on 127.0.0.1, with ports and keys of its own.

    A context manager, plain or ``async``; ``start()`` and ``stop()`` are what it calls. The process
    ends with the block, and also when this process dies, however it dies. Nothing listens or
    sends beyond loopback, and nothing is left on the disk.

    Methods block (``start`` for less than a second as a rule): call them from a coroutine with
    ``asyncio.to_thread``.

    Args:
        start_timeout: seconds until a started server must answer. A first build
            (see ``livekit_binary.provision``) is not counted, and cannot be cancelled half-way:
            provision ahead of time where that matters.
    """

    def __init__(self, *, start_timeout: float = 30.0) -> None:
        self.api_key = f"API{secrets.token_hex(6)}"
        self.api_secret = secrets.token_urlsafe(32)
        self._start_timeout = start_timeout
        self._program: ServerProgram | None = None
        self._ports: _Ports | None = None
        self._process: _GuardedProcess | None = None

    @property
    def url(self) -> str:
        """``ws://127.0.0.1:PORT``; known from the first start on, the same after a restart."""
        return f"ws://127.0.0.1:{self._known_ports.http}"

    @property
    def http_url(self) -> str:
        """``http://127.0.0.1:PORT``, for the server's API."""
        return f"http://127.0.0.1:{self._known_ports.http}"

    def token(self, room: str, identity: str, *, kind: ParticipantKind = "standard") -> str:
        """A token to join a room with, valid for six hours; `kind` is "agent" for an agent."""
        token = api.AccessToken(self.api_key, self.api_secret).with_kind(kind)
        grants = api.VideoGrants(room_join=True, room=room)
        return token.with_identity(identity).with_grants(grants).to_jwt()

    @property
    def pid(self) -> int:
        """Process id of the running server (with docker: of its command-line client)."""
        return self._running.pid

    def log_tail(self) -> str:
        """The last lines of the running server's log."""
        return self._running.log_tail()

    def start(self) -> None:
        """Start and wait until the server answers.

        Raises:
            LiveKitServerError: no server program, or it ended or kept silent; with its log's tail.
        """
        if self._process is not None:
            raise LiveKitServerError("this livekit-server is already running")
        self._program = provision()
        for last_try in (False, False, True):
            self._ports = _Ports.free()
            try:
                self._launch()
            except LiveKitServerError as error:
                # Another process may take a free port before the server does.
                if last_try or "address already in use" not in str(error):
                    raise
            else:
                return

    def stop(self) -> None:
        """End the server and wait for its end; does nothing if it is not running."""
        process, self._process = self._process, None
        if process is not None:
            process.end()

    def restart(self) -> None:
        """End the server and start it anew at the same URL with the same keys; rooms are gone."""
        _ = self._running
        self.stop()
        self._launch()

    def pause(self) -> None:
        """Stop the server's process in its tracks: connections stay open, nothing answers."""
        self._running.pause()

    def resume(self) -> None:
        """Let a paused server go on."""
        self._running.resume()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        starting = asyncio.create_task(asyncio.to_thread(self.start), name="livekit-server start")
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:
            # A thread cannot be cancelled: let it come to its end, then undo it.
            await asyncio.wait([starting])
            if starting.exception() is None:
                await asyncio.to_thread(self.stop)
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await asyncio.to_thread(self.stop)

    @property
    def _known_ports(self) -> _Ports:
        if self._ports is None:
            raise LiveKitServerError("this livekit-server has not been started")
        return self._ports

    @property
    def _running(self) -> _GuardedProcess:
        if self._process is None:
            raise LiveKitServerError("this livekit-server is not running")
        return self._process

    def _launch(self) -> None:
        assert self._program is not None
        self._process = _GuardedProcess(self._program, self._config(), self._known_ports)
        try:
            self._wait_until_it_answers(self._process)
        except BaseException:  # Ctrl-C as well
            self.stop()
            raise

    def _config(self) -> dict[str, object]:
        ports = self._known_ports
        rtc: dict[str, object] = {
            "tcp_port": 0,  # a TCP port would listen on every interface
            "udp_port": ports.udp,
            "node_ip": "127.0.0.1",
            "use_external_ip": False,
            "enable_loopback_candidate": True,
            "interfaces": {"includes": ["lo", "lo0"]},
            # Without an entry every client is told to ask public STUN servers.
            "stun_servers": [f"127.0.0.1:{ports.unused}"],
        }
        bind = "127.0.0.1"
        if self._program and self._program.docker_image and not _DOCKER_SHARES_NETWORK:
            # Inside a container of its own; docker publishes its ports on loopback.
            bind = "0.0.0.0"
            del rtc["interfaces"]
        return {
            "port": ports.http,
            "bind_addresses": [bind],
            "rtc": rtc,
            "room": {"sync_streams": True},  # receivers lip-sync a participant's tracks
            "keys": {self.api_key: self.api_secret},
        }

    def _wait_until_it_answers(self, process: _GuardedProcess) -> None:
        deadline = time.monotonic() + self._start_timeout
        while not self._answers():
            # Waits for the process's end and paces the polling at the same time.
            if process.ended_within(0.05):
                problem = "ended while starting"
            elif time.monotonic() >= deadline:
                problem = f"did not answer within {self._start_timeout:g} s"
            else:
                continue
            raise LiveKitServerError(f"livekit-server {problem}. Its log:\n{process.log_tail()}")

    def _answers(self) -> bool:
        """Whether a room service is there that takes this server's keys, not another's."""
        token = api.AccessToken(self.api_key, self.api_secret)
        token.with_grants(api.VideoGrants(room_list=True))
        headers = {
            "Authorization": f"Bearer {token.to_jwt()}",
            "Content-Type": "application/json",
        }
        connection = http.client.HTTPConnection("127.0.0.1", self._known_ports.http, timeout=1)
        try:
            connection.request("POST", "/twirp/livekit.RoomService/ListRooms", "{}", headers)
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


_DOCKER_SHARES_NETWORK = sys.platform == "linux"


@dataclass(frozen=True)
class _Ports:
    http: int
    udp: int
    unused: int

    @classmethod
    def free(cls) -> _Ports:
        with contextlib.ExitStack() as stack:
            found = []
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_DGRAM):
                probe = stack.enter_context(socket.socket(socket.AF_INET, kind))
                probe.bind(("127.0.0.1", 0))
                found.append(probe.getsockname()[1])
            return cls(*found)


class _GuardedProcess:
    """The server's process and its guard: a shell that kills it when this process is gone.

    The guard reads a pipe whose other end only this process holds, so it notices every kind of
    death, on every platform and from every thread. Both are in sessions of their own: Ctrl-C in a
    terminal reaches this process alone, which then ends them in order.
    """

    def __init__(self, program: ServerProgram, config: dict[str, object], ports: _Ports) -> None:
        self._docker = program.path if program.docker_image else None
        self._container = f"livekit-server-{secrets.token_hex(6)}"
        # JSON is YAML. In the environment it is not seen in the list of processes, and nothing
        # of the caller's own (LIVEKIT_KEYS, NODE_IP, ...) may change the configuration.
        env = {"LIVEKIT_CONFIG": json.dumps(config)}
        command = [program.path]
        if program.docker_image:
            env = os.environ | env
            command = self._docker_run(program.docker_image, ports)
        # It has no name, so it is never left behind.
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )
        try:
            self._guard = self._start_guard()
        except BaseException:
            self._kill()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def ended_within(self, seconds: float) -> bool:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return self._process.returncode is not None

    def log_tail(self) -> str:
        size = os.fstat(self._log.fileno()).st_size
        # pread: the server writes at this file's own position.
        tail = os.pread(self._log.fileno(), _TAIL_BYTES, max(0, size - _TAIL_BYTES))
        return tail.decode(errors="replace").strip()

    def pause(self) -> None:
        if self._docker:
            subprocess.run([self._docker, "pause", self._container], check=True, timeout=30)
        else:
            self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        if self._docker:
            subprocess.run([self._docker, "unpause", self._container], check=True, timeout=30)
        else:
            self._process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        try:
            # The first signal is ignored while the server starts, and waits for participants to
            # leave; the second does not wait.
            for _ in range(_STOP_ATTEMPTS):
                self._process.terminate()
                self._process.send_signal(signal.SIGCONT)  # a paused process would not hear it
                if self.ended_within(_STOP_PACE):
                    break
        finally:
            self._kill()
            self._guard.kill()
            self._guard.communicate()
            self._log.close()

    def _kill(self) -> None:
        self._process.kill()
        self._process.wait()
        if self._docker:  # the client's end is not the container's
            subprocess.run(self._kill_command(), check=False, capture_output=True, timeout=30)

    def _kill_command(self) -> list[str]:
        if self._docker:
            return [self._docker, "rm", "--force", self._container]
        return ["kill", "-KILL", str(self._process.pid)]

    def _start_guard(self) -> subprocess.Popen[bytes]:
        # Without exec: `kill` is then the shell's own, which bare images have no program for.
        script = 'trap "" INT TERM HUP; read -r _; "$@"'
        return subprocess.Popen(
            ["sh", "-c", script, "livekit-server-guard", *self._kill_command()],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _docker_run(self, image: str, ports: _Ports) -> list[str]:
        network = ["--network", "host"]
        if not _DOCKER_SHARES_NETWORK:
            http_port, udp_port = (f"127.0.0.1:{n}:{n}" for n in (ports.http, ports.udp))
            network = ["--publish", http_port, "--publish", f"{udp_port}/udp"]
        assert self._docker is not None
        options = ["--rm", "--name", self._container, "--env", "LIVEKIT_CONFIG", *network]
        return [self._docker, "run", *options, image]


def main(argv: list[str] | None = None) -> int:
    """Find or build livekit-server and print what will be run; the exit code is 1 if none."""
    parser = argparse.ArgumentParser(prog="python -m livekit_plugins_runway.testing.livekit_server")
    parser.add_argument(
        "--provision",
        action="store_true",
        required=True,
        help="find livekit-server or build it (minutes, once), and print its path",
    )
    parser.parse_args(argv)
    try:
        program = provision()
    except LiveKitServerError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(program.docker_image or program.path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
