"""JSON schemas of Runway's API, as published (`schema/`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent / "schema"
REALTIME: dict[str, Any] = json.loads((_FOLDER / "realtime.json").read_text())
ACCOUNT: dict[str, Any] = json.loads((_FOLDER / "account.json").read_text())
