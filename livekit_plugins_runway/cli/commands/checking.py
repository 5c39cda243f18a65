"""`request --check`: a body against the published schema of its path, before anything is sent."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from ...errors import ConfigurationError
from ...runway.account.requests import (
    AccountRequest,
    CreateAvatar,
    CreateAvatarVideo,
    CreateDocument,
    CreateUpload,
    CreateVoice,
    PreviewVoice,
    QueryCredits,
    UpdateAvatar,
    UpdateDocument,
    UpdateVoice,
)
from ...runway.models import CreateRealtimeSession
from ...runway.wire import explain

_MODELS: dict[str, type[AccountRequest | CreateRealtimeSession]] = {
    "POST /v1/avatar_videos": CreateAvatarVideo,
    "POST /v1/avatars": CreateAvatar,
    "PATCH /v1/avatars/ID": UpdateAvatar,
    "POST /v1/documents": CreateDocument,
    "PATCH /v1/documents/ID": UpdateDocument,
    "POST /v1/organization/usage": QueryCredits,
    "POST /v1/realtime_sessions": CreateRealtimeSession,
    "POST /v1/uploads": CreateUpload,
    "POST /v1/voices": CreateVoice,
    "PATCH /v1/voices/ID": UpdateVoice,
    "POST /v1/voices/preview": PreviewVoice,
}
_MOST = 5


def check_body(method: str, path: str, body: object) -> None:
    """Raises `ConfigurationError` for a body that Runway would refuse, and for a path whose schema
    is not here."""
    model = _model_of(method, path.partition("?")[0].rstrip("/"))
    if not isinstance(body, dict):
        raise ConfigurationError("--check: the body must be a JSON object.")
    # What is to be taken away is null to Runway, and "" to the models.
    given = {name: "" if method == "PATCH" and v is None else v for name, v in body.items()}
    try:
        meant = model.model_validate(given).wire()
    except ValidationError as error:
        raise ConfigurationError(f"--check: {explain(error)}.") from None
    # The models also take Python's names, short forms and numbers as text, which Runway does not.
    if faults := list(_differences(body, meant, ""))[:_MOST]:
        raise ConfigurationError(f"--check: {'; '.join(faults)}.")


def _model_of(method: str, path: str) -> type[AccountRequest | CreateRealtimeSession]:
    exact = f"{method} {path}"
    of_one = re.sub(r"/[^/]+$", "/ID", exact)
    if model := _MODELS.get(exact) or _MODELS.get(of_one):
        return model
    raise ConfigurationError(f"--check knows the bodies of {', '.join(_MODELS)}; not {exact[:80]}.")


def _differences(given: Any, meant: Any, where: str) -> Iterator[str]:
    if isinstance(given, dict) and isinstance(meant, dict):
        for name in given.keys() | meant.keys():
            inner = f"{where}.{name}".lstrip(".")
            if name not in meant:
                yield f"{inner}: Runway has no such field"
            elif name not in given:
                yield f"{inner}: is missing"
            else:
                yield from _differences(given[name], meant[name], inner)
    elif isinstance(given, list) and isinstance(meant, list) and len(given) == len(meant):
        for at, (one, other) in enumerate(zip(given, meant, strict=True)):
            yield from _differences(one, other, f"{where}.{at}".lstrip("."))
    elif (type(given) is not type(meant) and not _are_numbers(given, meant)) or given != meant:
        yield f"{where}: is not in the form that Runway takes"


def _are_numbers(*values: object) -> bool:
    return all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
