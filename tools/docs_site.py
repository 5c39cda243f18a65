"""`make docs`: README, docs/ and the API reference as a site. A warning is an error.

python tools/docs_site.py [FOLDER]     (default: site)
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / ".site" / "pages"

API = {
    "livekit_plugins_runway": "The package",
    "livekit_plugins_runway.errors": "Errors",
    "livekit_plugins_runway.runway.models": "Runway's models",
    "livekit_plugins_runway.runway.client": "Runway's client",
    "livekit_plugins_runway.runway.account.calls": "Calls about the account",
    "livekit_plugins_runway.runway.account.answers": "Answers about the account",
    "livekit_plugins_runway.testing": "Simulator",
    "livekit_plugins_runway.testing.livekit_server": "LiveKit server",
    "livekit_plugins_runway.testing.user": "Simulated user",
    "livekit_plugins_runway.testing.tones": "Tones",
}
"""Modules that users import from, and the titles of their pages."""

_LINK = re.compile(r"(\]\(\s*)([^)\s#]+)((?:#[^)\s]*)?\))")
_LANGUAGES = {".py": "python", ".toml": "toml", ".txt": "text", ".yml": "yaml", ".yaml": "yaml"}


def lay_out(root: Path, pages: Path) -> None:
    """Copy the pages as they lie in the repository, so that their relative links stay as they are.

    A link to a file that is no page, such as an example, leads to a page that shows the file; one
    to a folder leads to a page that lists it.
    """
    shutil.rmtree(pages, ignore_errors=True)
    shutil.copytree(root / "docs", pages / "docs")
    for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md"):
        shutil.copy(root / name, pages / name)
    for page in sorted(pages.rglob("*.md")):
        origin = root / page.relative_to(pages)

        def shown(link: re.Match[str], origin: Path = origin) -> str:
            before, target, after = link.groups()
            return f"{before}{_page_for(origin, target, root, pages)}{after}"

        page.write_text(_LINK.sub(shown, page.read_text()))


def _page_for(origin: Path, target: str, root: Path, pages: Path) -> str:
    file = (origin.parent / target).resolve()
    if ":" in target or not file.is_relative_to(root) or not file.exists():
        return target
    inside = pages / file.relative_to(root)
    if inside.is_file():
        return target
    if file.is_dir():
        _list_folder(file, inside)
        return f"{target.rstrip('/')}/index.md"
    _show_file(file, inside)
    return f"{target}.md"


def _show_file(file: Path, inside: Path) -> None:
    inside.parent.mkdir(parents=True, exist_ok=True)
    language = _LANGUAGES.get(file.suffix, "text")
    text = file.read_text().rstrip("\n")
    inside.with_name(f"{inside.name}.md").write_text(
        f"---\ntitle: {file.name}\n---\n# {file.name}\n\n````{language}\n{text}\n````\n"
    )


def _list_folder(folder: Path, inside: Path) -> None:
    inside.mkdir(parents=True, exist_ok=True)
    names = [path for path in sorted(folder.iterdir()) if path.is_file() and path.name[0] != "."]
    for path in names:
        _show_file(path, inside / path.name)
    rows = "".join(f"- [{path.name}]({path.name}.md)\n" for path in names)
    (inside / "index.md").write_text(f"# {folder.name}\n\n{rows}")


def write_api(pages: Path) -> None:
    folder = pages / "api"
    folder.mkdir()
    for module, title in API.items():
        name = "index" if "." not in module else module.partition(".")[2]
        (folder / f"{name}.md").write_text(f"# {title}\n\n`{module}`\n\n::: {module}\n")


def main(folder: Path) -> int:
    lay_out(ROOT, PAGES)
    write_api(PAGES)
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
    ]  # --quiet would not see warnings
    return subprocess.run(
        [*command, "--site-dir", str(folder.resolve())],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        check=False,
    ).returncode


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "site")))
