"""`python -m livekit_plugins_runway.testing`: runs the simulator, and commands a running one."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NoReturn

from ..options import SimulatorOptions, Speech
from ..simulator.service import RunwaySimulator
from ..simulator.session import SessionStatus
from . import client
from .control import ACTIONS, PATH, ControlApi
from .orders import WrongOrder, option_of

_PROGRAM = "python -m livekit_plugins_runway.testing"
_TOKEN_VARIABLE = "RUNWAY_SIMULATOR_TOKEN"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """On one line: the usage before it would be longer than what is wrong."""
        self.exit(2, f"{self.prog}: {message} (--help lists what there is)\n")


def main(argv: Sequence[str] | None = None) -> None:
    """Run it; leaves with status 2 for a wrong argument, 1 for what could not be done."""
    given = list(sys.argv[1:] if argv is None else argv)
    if not given or given[0].startswith("-"):
        given.insert(0, "run")
    if given[1:] in (["-h"], ["--help"]) and given[0] == "run":
        given.pop(0)
    parser = _parser()
    arguments = parser.parse_args(given)
    try:
        if arguments.command == "run":
            asyncio.run(_serve(arguments, _options(arguments)))
        else:
            client.run(arguments)
    except WrongOrder as wrong:
        parser.error(str(wrong))
    except client.Failed as failed:
        parser.exit(1, f"{_PROGRAM}: {failed}\n")


def _parser() -> _Parser:
    parser = _Parser(
        prog=_PROGRAM,
        description="A Runway on 127.0.0.1, and commands for one that runs. No command means run.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    _add_run(commands.add_parser("run", help="run a simulator", description=_RUNS))

    show = commands.add_parser("show", help="show what was asked, sessions, the account")
    show.add_argument("what", choices=["summary", "requests", "sessions", "account"])
    show.add_argument("--after", type=_whole, default=0, help="requests after this number")
    fill = commands.add_parser("fill", help="fill the account from a file of JSON")
    fill.add_argument(
        "file",
        help='{"avatars": [{"name": "Ada"}], "voices": [...], "documents": [...]}; - is stdin',
    )
    fault = commands.add_parser("fault", help="order what is to go wrong")
    fault.add_argument(
        "faults", help='the fields of Faults: {"create": [503], "worker_never_joins": true}'
    )
    fault.add_argument(
        "--session", default="next", help="next (the default), every, last, or a session's id"
    )
    fault.add_argument(
        "--account",
        action="store_true",
        help='with the account, and no session: {"avatar": "No face was found", "calls": [503]}',
    )
    do = commands.add_parser("do", help="do something to a session")
    do.add_argument("action", choices=[action.replace("_", "-") for action in ACTIONS])
    do.add_argument("--session", default="last", help="its id; the last one if left out")
    do.add_argument("--with", dest="with_json", metavar="JSON", help="what the action wants")
    wait = commands.add_parser("wait", help="wait until a session has reached a status")
    wait.add_argument("status", choices=list(SessionStatus))
    wait.add_argument("--session", default="last", help="its id; the last one if left out")
    wait.add_argument("--timeout", type=_whole, default=10, help="seconds")
    for one in (show, fill, fault, do, wait):
        one.add_argument(
            "--simulator",
            metavar="URL",
            default=os.environ.get("RUNWAYML_BASE_URL"),
            help="its address; RUNWAYML_BASE_URL if left out",
        )
    for one in commands.choices.values():
        one.add_argument(
            "--control-token",
            default=os.environ.get(_TOKEN_VARIABLE),
            help=f"of the control API; {_TOKEN_VARIABLE} if left out",
        )
    return parser


_RUNS = (
    "Prints one line of JSON, {url, api_secret, control}, when it is ready; ends on SIGINT or "
    "SIGTERM. Without --livekit-url no avatar worker comes."
)


def _add_run(parser: argparse.ArgumentParser) -> None:
    for name in ("url", "api-key", "api-secret"):
        variable = f"LIVEKIT_{name.upper().replace('-', '_')}"
        parser.add_argument(
            f"--livekit-{name}",
            default=os.environ.get(variable),
            help=f"of the server that hosts the rooms; {variable} if left out",
        )
    parser.add_argument("--port", type=_port, default=0, help="0 (the default) takes a free one")
    parser.add_argument("--api-secret", help="the account's key; made up if not given")
    parser.add_argument(
        "--speech",
        choices=[kind.value for kind in Speech],
        default=Speech.DATASTREAM.value,
        help="how the avatar worker takes speech",
    )
    parser.add_argument(
        "--as-measured",
        action="store_true",
        help="the pace and limits of the live service instead of quick ones",
    )
    parser.add_argument(
        "--time-scale", type=_positive, default=1.0, help="multiplies lifecycle timers"
    )
    parser.add_argument(
        "--render-latency", type=_seconds, help="seconds from speech in to voice out"
    )
    parser.add_argument("--playback-started", action="store_true", help="send lk.playback_started")
    parser.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="NAME=JSON",
        help="any other of SimulatorOptions: credits=0; repeatable",
    )


def _options(arguments: argparse.Namespace) -> SimulatorOptions:
    make = SimulatorOptions.as_measured if arguments.as_measured else SimulatorOptions
    changes: dict[str, Any] = {
        "speech": arguments.speech,
        "playback_started": arguments.playback_started,
    }
    if arguments.render_latency is not None:
        changes["render_latency"] = arguments.render_latency
    changes |= dict(option_of(setting) for setting in arguments.settings)
    try:
        return replace(make(time_scale=arguments.time_scale), **changes)
    except ValueError as error:
        raise WrongOrder(f"--set: {error}") from None


async def _serve(arguments: argparse.Namespace, options: SimulatorOptions) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        # Not in the event loop of Windows, where Ctrl-C cancels this task.
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, stop.set)
    simulator = RunwaySimulator(
        **_livekit(arguments),
        options=options,
        api_secret=arguments.api_secret,
        port=arguments.port,
    )
    simulator.unrecorded.extend(ControlApi(simulator, arguments.control_token).routes())
    try:
        await simulator.start()
    except OSError as error:
        why = error.strerror or error
        raise client.Failed(f"cannot listen on 127.0.0.1 port {arguments.port}: {why}") from None
    try:
        ready = {"url": simulator.url, "api_secret": simulator.api_secret}
        print(json.dumps({**ready, "control": simulator.url + PATH}), flush=True)
        await stop.wait()
    finally:
        await simulator.aclose()


def _livekit(arguments: argparse.Namespace) -> dict[str, Any]:
    given = {
        "--livekit-url": arguments.livekit_url,
        "--livekit-api-key": arguments.livekit_api_key,
        "--livekit-api-secret": arguments.livekit_api_secret,
    }
    missing = [name for name, value in given.items() if not value]
    if 0 < len(missing) < len(given):
        raise WrongOrder(
            f"{' and '.join(missing)} missing: a LiveKit server needs all of "
            f"{', '.join(given)}, or their variables"
        )
    url = arguments.livekit_url
    if url and not re.match(r"(ws|http)s?://[^/]", url):
        raise WrongOrder(f"--livekit-url must be like ws://127.0.0.1:7880, not {url!r}")
    return {name[2:].replace("-", "_"): value or None for name, value in given.items()}


def _positive(text: str) -> float:
    number = _seconds(text)
    if number <= 0:
        raise argparse.ArgumentTypeError("must be above 0")
    return number


def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < 1e6:
        raise argparse.ArgumentTypeError(f"must be a number of 0 or more, not {text!r}")
    return number


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number, not {text!r}")
    return int(text)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"must be from 0 to 65535, not {text!r}")
    return int(text)
