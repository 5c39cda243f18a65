"""What an import loads, in processes of their own: nothing heavy that it does not need."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from textwrap import dedent

import pytest

import livekit_plugins_runway as package

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("numpy", "av", "prometheus_client", "livekit.rtc", "livekit.agents")


def run(script: str, *arguments: str) -> str:
    """What the script prints, as `python -c`; it must end well."""
    path = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-c", dedent(script), *arguments],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def loaded(script: str) -> list[str]:
    """Which of the heavy packages are there after the script."""
    watched = f"import sys\n{script}\nprint(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    return run(watched).splitlines()[-1].split()


def test_what_needs_neither_framework_nor_media_loads_none() -> None:
    run(f"""
        import sys
        from importlib import import_module
        for name in ("", ".errors", ".events", ".runway.client", ".serve.server"):
            import_module("livekit_plugins_runway" + name)
            heavy = set({HEAVY!r}) & set(sys.modules)
            if name == ".serve.server":
                heavy.discard("prometheus_client")  # counts what it does
            assert not heavy, (name, heavy)
    """)


@pytest.mark.parametrize(
    "arguments", [["--version"], ["--help"], ["--dry-run", "sessions", "cancel", "0"]]
)
def test_the_command_line_loads_neither_framework_nor_media(arguments: list[str]) -> None:
    assert (
        loaded(f"""
import contextlib
from livekit_plugins_runway.cli.app import app
with contextlib.suppress(SystemExit):
    app({arguments!r})
""")
        == []
    )


def test_the_version_is_told_without_http_and_models() -> None:
    told = run("""
        import contextlib, sys
        from livekit_plugins_runway.cli.app import app
        with contextlib.suppress(SystemExit):
            app(["--version"])
        print(sorted({"aiohttp", "pydantic", "livekit.api"} & set(sys.modules)))
    """)
    assert told == f"runway-avatar {package.__version__}\n[]\n"


def test_every_public_name_is_loaded_from_its_module() -> None:
    assert {*package._HOME, "__version__"} == set(package.__all__) <= set(dir(package))
    for name, module in package._HOME.items():
        home = import_module(f"livekit_plugins_runway.{module}")
        assert getattr(package, name) is getattr(home, name)
    with pytest.raises(AttributeError, match="no attribute 'Nobody'"):
        package.Nobody  # noqa: B018


def test_submodules_are_attributes_and_can_be_imported_from_the_package() -> None:
    run("""
        import livekit_plugins_runway as runway
        assert runway.errors.NotFoundError and runway.events.SessionEnd
        from livekit_plugins_runway import avatar, errors, testing
        assert runway.avatar is avatar and testing.RunwaySimulator
    """)


SAME = """
import pickle
import livekit.agents._exceptions
for name in errors._BASES:
    ours, theirs = getattr(errors, name), getattr(livekit.agents, name)
    assert ours is theirs is getattr(livekit.agents._exceptions, name), name
assert issubclass(errors.NotFoundError, livekit.agents.APIStatusError)
error = pickle.loads(pickle.dumps(errors.UnavailableError("x")))
assert isinstance(error, livekit.agents.APIConnectionError)
assert pickle.loads(pickle.dumps(livekit.agents.APIError)) is livekit.agents.APIError
"""


@pytest.mark.parametrize("order", ["errors alone", "errors twice", "framework"])
def test_there_is_one_class_of_each_error_whoever_comes_first(order: str) -> None:
    framework = "import livekit.agents\n"
    errors = "import sys\nfrom livekit_plugins_runway import errors\n"
    alone = errors + "assert 'livekit.agents' not in sys.modules\n"
    again = """
former = errors.NotFoundError
for name in [name for name in sys.modules if name.startswith("livekit_plugins_runway")]:
    del sys.modules[name]
"""
    kept = (
        "assert former is not errors.NotFoundError\n"
        "assert issubclass(former, livekit.agents.APIStatusError)\n"
    )
    begin = {
        "errors alone": alone + framework,
        "errors twice": alone + again + alone + framework + kept,
        "framework": framework + errors,
    }[order]
    run(begin + SAME)


CLASSES = """
class APIError(Exception):
    def __init__(self, message, **more): super().__init__(message)
class APIStatusError(APIError): pass
class APIConnectionError(APIError): pass
class APITimeoutError(APIConnectionError): pass
"""
TAKEN = "from ._exceptions import (APIConnectionError, APIError, APIStatusError, APITimeoutError)"
FRAMEWORKS = {
    "as it is": {"__init__": TAKEN, "_exceptions": CLASSES},
    "no such file": {"__init__": "from .errors import *", "errors": CLASSES},
    "an old file": {
        "__init__": "from .errors import *",
        "errors": CLASSES,
        "_exceptions": CLASSES,
    },
    "a class elsewhere": {
        "__init__": TAKEN.replace("APIError, ", "") + "\nfrom .errors import APIError",
        "errors": CLASSES,
        "_exceptions": CLASSES,
    },
    "no class": {
        "__init__": TAKEN + "\nfrom .errors import *",
        "errors": CLASSES,
        "_exceptions": "APIConnectionError = APIError = APIStatusError = APITimeoutError = None",
    },
    "it fails alone": {
        "__init__": "ready = True\n" + TAKEN,
        "_exceptions": "import sys; sys.modules['livekit.agents'].ready" + CLASSES,
    },
    "it needs the rest": {
        "__init__": TAKEN,
        "_exceptions": "from . import errors" + CLASSES,
        "errors": "",
    },
}


@pytest.mark.parametrize("kind", FRAMEWORKS)
def test_another_framework_is_imported_as_a_whole_and_is_right(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "livekit" / "agents"
    folder.mkdir(parents=True)
    for name, text in FRAMEWORKS[kind].items():
        (folder / f"{name}.py").write_text(text)
    told = run(
        f"""
        import sys
        sys.path.insert(0, {str(tmp_path)!r})
        from livekit_plugins_runway import errors
        print("livekit.agents" in sys.modules)
        import livekit.agents
        assert livekit.agents.__file__.startswith({str(tmp_path)!r})
        for name in errors._BASES:
            assert getattr(errors, name) is getattr(livekit.agents, name), name
        """
    )
    assert told == f"{kind != 'as it is'}\n"


REGISTERED = """
from livekit.agents import Plugin
def registered():
    return [p.title for p in Plugin.registered_plugins].count("livekit_plugins_runway")
"""


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("import livekit.agents", "import livekit_plugins_runway"),
        ("import livekit_plugins_runway", "livekit_plugins_runway.AvatarSession"),
    ],
    ids=["framework first", "framework last"],
)
def test_the_plugin_is_registered_once(first: str, then: str) -> None:
    run(f"{first}\n{then}\n{REGISTERED}\nassert registered() == 1")


def test_in_a_thread_the_avatar_can_be_imported_but_is_not_registered() -> None:
    run(f"""
import logging, threading
from livekit_plugins_runway.log import logger
logger.setLevel(logging.DEBUG)
told = []
logger.addFilter(lambda record: told.append(record.getMessage()))
got = []
def job():
    from livekit_plugins_runway import AvatarSession
    got.append(AvatarSession)
thread = threading.Thread(target=job)
thread.start()
thread.join()
{REGISTERED}
assert got and registered() == 0
assert any("not listed as a plugin" in text for text in told), told
""")


def test_a_second_import_finds_the_metrics_of_the_first() -> None:
    run("""
        import sys
        from prometheus_client import REGISTRY

        def total():
            name = "runway_avatar_forced_segments_total"
            return REGISTRY.get_sample_value(name, {"nodename": "here"})

        for time in (1, 2):
            import livekit_plugins_runway
            assert livekit_plugins_runway.AvatarSession
            from livekit_plugins_runway.lifecycle import telemetry
            telemetry._METRICS.forced.labels("here").inc()
            assert total() == time
            names = [name for name in sys.modules if name.startswith("livekit_plugins_runway")]
            for name in names:
                del sys.modules[name]
            del livekit_plugins_runway, telemetry
    """)


def test_a_worker_that_imports_the_plugin_beforehand_leaves_nothing_to_its_jobs() -> None:
    """The framework imports `Plugin.package` once, in the process from which jobs are forked."""
    run("""
        import livekit.agents, livekit_plugins_runway, subprocess, sys
        (plugin,) = (
            p for p in livekit.agents.Plugin.registered_plugins
            if p.title == "livekit_plugins_runway"
        )
        subprocess.run([sys.executable, "-c", f'''if True:
            import importlib, sys
            importlib.import_module({plugin.package!r})
            before = set(sys.modules)
            import livekit.agents, livekit_plugins_runway as runway
            runway.AvatarSession, runway.RecoveryOptions, runway.RunwayException
            late = {{name for name in set(sys.modules) - before if name.startswith("livekit")}}
            assert not late, late
        '''], check=True)
    """)
