"""The guardian: waits for the end of the process that started it, and then ends the sessions that
it has left.

A program, not a module of the package: started with the file's path and `-I -S`, it uses the
standard library only. While it waits, it has loaded almost nothing: the work itself is in
`guardian_work.py`.

From its standard input it reads the path of a journal, a line, and a JSON object: `{"journal":
PATH, "url": WHERE_SESSIONS_ARE, "headers": {...}}`. The key comes this way, and not in an argument
or the environment. After that it only waits for the end of the input, which is the end of its
owner.
"""

import os

try:
    # Importing `signal` creates enums, which takes longer than everything else here.
    import _signal as signal  # type: ignore[import-not-found]
except ImportError:
    import signal


def main() -> None:
    # Ctrl-C and the stop of a service are sent to all processes, but the owner goes on for a while.
    # The guardian needs no signal to end: it ends after its owner.
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    told = b""
    while part := os.read(0, 65536):
        told += part
    journal, _, task = told.partition(b"\n")
    if os.path.exists(journal):  # else the owner has ended properly
        _work(task)


def _work(task: bytes) -> None:
    import json
    from importlib.util import module_from_spec, spec_from_file_location

    place = os.path.join(os.path.dirname(os.path.abspath(__file__)), "guardian_work.py")
    spec = spec_from_file_location("guardian_work", place)
    assert spec is not None and spec.loader is not None  # noqa: PT018
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    module.work(json.loads(task))


if __name__ == "__main__":
    main()
