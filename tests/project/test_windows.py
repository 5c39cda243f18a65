"""Nothing that only POSIX has is needed to import the package: Windows was not tried, and is not
shut out. What needs it asks for it where it is used."""

from __future__ import annotations

import ast
import asyncio
import signal
from pathlib import Path

import pytest

from livekit_plugins_runway._common.signals import stop_on_signals

PACKAGE = Path(__file__).resolve().parents[2] / "livekit_plugins_runway"
OF_POSIX_ALONE = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}


def needed_at_once(module: Path) -> set[str]:
    """The modules that importing it imports, outside of functions."""
    found: set[str] = set()
    for node in ast.parse(module.read_text()).body:
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


def test_no_module_of_the_package_imports_what_only_posix_has() -> None:
    modules = list(PACKAGE.rglob("*.py"))
    assert len(modules) > 100
    wrong = {str(path): needed_at_once(path) & OF_POSIX_ALONE for path in modules}
    assert {path: names for path, names in wrong.items() if names} == {}


async def test_signals_stop_a_program_where_the_loop_has_no_handlers_for_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(*_: object) -> None:
        raise NotImplementedError

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "add_signal_handler", refused)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        stop = stop_on_signals()
        signal.raise_signal(signal.SIGTERM)
        async with asyncio.timeout(5.0):
            await stop.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
