"""Make or update .venv with the project and its development dependencies; quick if up to date.

Run by the Makefile with a Python >= 3.11. Several runs at once wait for one another.
"""

import fcntl
import hashlib
import importlib.util
import subprocess
import sys
import venv
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
VENV = PROJECT / ".venv"
STAMP = VENV / "installed-from"


def main() -> int:
    python = VENV / "bin/python"
    with (PROJECT / "pyproject.toml").open("rb") as pyproject:
        fcntl.flock(pyproject, fcntl.LOCK_EX)  # until the file is closed
        # With the place: a checkout that was moved has a .venv that points to the old one.
        wanted = hashlib.sha256(pyproject.read() + str(PROJECT).encode()).hexdigest()
        if python.exists() and STAMP.exists() and STAMP.read_text() == wanted:
            return 0
        print("setting up .venv (a minute or two, the first time)", file=sys.stderr, flush=True)
        if Path(sys.prefix).resolve() != VENV.resolve():
            venv.create(VENV, clear=True, symlinks=True, with_pip=True)
        elif importlib.util.find_spec("pip") is None:
            subprocess.run([python, "-m", "ensurepip"], check=True)
        STAMP.unlink(missing_ok=True)
        install = ["-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
        subprocess.run([python, *install, "--editable", ".[dev]"], check=True, cwd=PROJECT)
        STAMP.write_text(wanted)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as error:
        sys.exit(f"setting up .venv failed: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
