"""`make docs`: the API reference as HTML, from the docstrings. A warning is an error.

python tools/api_docs.py FOLDER
"""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from pathlib import Path

import pdoc
import pdoc.render

PACKAGE = "livekit_plugins_runway"
PUBLIC = (
    "",
    ".errors",
    ".runway.models",
    ".runway.client",
    ".testing",
    ".testing.livekit_server",
    ".testing.user",
    ".testing.tones",
)
"""Modules that users import from; pdoc leaves out what an `__all__` does not name."""


def main(folder: Path) -> None:
    package = import_module(PACKAGE)
    for name in package.__all__:
        getattr(package, name)  # loaded when it is asked for, which pdoc does not do
    pdoc.render.configure(docformat="google", footer_text=PACKAGE)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # pdoc's own
        pdoc.pdoc(*(PACKAGE + name for name in PUBLIC), output_directory=folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
