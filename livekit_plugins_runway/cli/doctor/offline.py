"""`doctor`: what can be checked without paying for a session. Each check says what to do."""

from __future__ import annotations

import asyncio
import platform
import re
import socket
import sys
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal
from urllib.parse import quote, urlsplit

import aiohttp

from ..._common.http import new_session
from ..._common.versions import untested_versions
from ...errors import ConfigurationError, NotFoundError, RunwayException
from ...runway.address import API_SECRET_VARIABLES
from ...runway.billing import credits_for
from ..calls import Request, ask, runway
from ..commands.account import MODEL, ORGANIZATION, summary
from ..commands.livekit_project import refusal, short_token
from ..exits import CredentialsError
from ..settings import LIVEKIT_VARIABLES, STAGE_BASE_URL, Settings

Status = Literal["ok", "warn", "fail"]

LIVE_SECONDS = 24
"""How long a worker is usually there in `doctor --live`."""
_TIMEOUT = 8.0
_MEDIA_TIMEOUT = 15.0
_KEY = re.compile(r"key_[0-9a-f]{128}")
"""As described by Runway's own agent skills (runwayml/skills); no promise of the API."""
_SKEW_WARN, _SKEW_FAIL = 5.0, 60.0
"""Seconds. LiveKit's tokens have a time from which they count, which is checked with a minute's
grace (livekit/protocol)."""
_AGENTS = (1, 8, 9)
_PORTS = (
    "needed from here: TCP 443 to *.livekit.cloud and *.turn.livekit.cloud, UDP 3478 to "
    "*.host.livekit.cloud, and for good quality UDP 50000-60000 and TCP 7881 to all hosts "
    "(docs.livekit.io/deploy/admin/firewall)"
)
_PACKAGES = (
    "livekit-plugins-runway-bridge",
    "livekit-agents",
    "livekit",
    "livekit-api",
    "aiohttp",
    "pydantic",
)


@dataclass(frozen=True)
class Check:
    name: str
    status: Status
    detail: str
    advice: str = ""


@dataclass(frozen=True)
class _Answer:
    """Of a server that was asked nothing in particular; seconds."""

    took: float
    skew: float | None


async def offline_checks(settings: Settings, avatar_id: str | None = None) -> list[Check]:
    """All of them, in the order in which they are shown. Takes some seconds at most.

    Args:
        avatar_id: a custom avatar that is asked for, too.
    """
    asked = await asyncio.gather(_runway(settings, avatar_id), _livekit(settings))
    return [
        _python(),
        *_packages(),
        _runway_key(settings),
        *asked[0],
        _livekit_variables(settings),
        *asked[1],
        await asyncio.to_thread(_ports),
    ]


def package_versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def _python() -> Check:
    detail = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.platform == "win32":
        return Check("python", "warn", detail, "Windows is not tested.")
    return Check("python", "ok", detail)


def _packages() -> list[Check]:
    versions = package_versions()
    detail = ", ".join(f"{name} {number or 'missing'}" for name, number in versions.items())
    agents = versions["livekit-agents"]
    numbers = tuple(map(int, re.findall(r"\d+", agents or "")[:3]))
    if None in versions.values():
        return [Check("packages", "fail", detail, "Install again: pip install --force-reinstall.")]
    if not _AGENTS <= numbers < (2,):
        return [Check("packages", "fail", detail, "livekit-agents must be 1.x, from 1.8.9 on.")]
    if untested := untested_versions():
        advice = f"Never tested with {' and '.join(untested)}; it may work."
        return [Check("packages", "warn", detail, advice)]
    return [Check("packages", "ok", detail)]


def _runway_key(settings: Settings) -> Check:
    try:
        found = settings.key()
    except ConfigurationError as error:
        return Check("runway key", "fail", "not read", error.message)
    if found is None:
        return Check(
            "runway key",
            "fail",
            "not set",
            "Make a key in Runway's developer portal, and set RUNWAYML_API_SECRET, or keep it with "
            "`runway-avatar auth set`.",
        )
    where = f"{found.name} from {found.origin}"
    if found.name not in API_SECRET_VARIABLES:
        names = ", else ".join(API_SECRET_VARIABLES)
        return Check("runway key", "warn", where, f"AvatarSession reads {names}: set one, too.")
    if found.origin == ".env":
        where += ", which this command reads and AvatarSession does not by itself"
    if not _KEY.fullmatch(found.value.strip()):
        return Check(
            "runway key",
            "warn",
            f"{where}; unusual: keys are key_ and 128 hexadecimal digits",
            "Check that it was copied whole, without quotes.",
        )
    return Check("runway key", "ok", where)


async def _runway(settings: Settings, avatar_id: str | None) -> list[Check]:
    name = "staging" if settings.base_url == STAGE_BASE_URL else settings.base_url
    try:
        answer = await _knock(f"{settings.base_url}{ORGANIZATION.path}")
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        return [
            Check(
                "runway reachable",
                "fail",
                f"{name}: {type(error).__name__}",
                "Check the network, a proxy, and RUNWAYML_BASE_URL.",
            )
        ]
    checks = [Check("runway reachable", "ok", f"{name} in {answer.took * 1000:.0f} ms")]
    checks += _skew("clock against runway", answer)
    return [*checks, *await _account(settings, avatar_id)]


async def _account(settings: Settings, avatar_id: str | None) -> list[Check]:
    try:
        if settings.key() is None:
            return []
    except ConfigurationError:
        return []  # told of the key
    try:
        async with runway(settings, retries=0) as client:
            organization = await ask(client, ORGANIZATION)
        told = summary(organization)
    except RunwayException as error:
        return [Check("runway account", "fail", type(error).__name__, error.message)]
    detail = ", ".join(f"{name}: {value}" for name, value in told.items())
    checks = [_judge_account(organization, detail)]
    return checks if avatar_id is None else [*checks, await _avatar(settings, avatar_id)]


def avatar_request(avatar_id: str) -> Request:
    return Request("GET", f"/v1/avatars/{quote(avatar_id, safe='')}")


async def _avatar(settings: Settings, avatar_id: str) -> Check:
    try:
        async with runway(settings, retries=0, patience=_TIMEOUT) as client:
            avatar = await client.get_avatar(avatar_id)
    except NotFoundError:
        advice = "Check the id, and that the key is of the project that owns it."
        return Check("avatar", "fail", "this key knows none with this id", advice)
    except RunwayException as error:
        return Check("avatar", "fail", type(error).__name__, error.message)
    if avatar.status == "READY":
        return Check("avatar", "ok", f"{avatar.name} is READY")
    reason = f": {avatar.failure_reason}" if avatar.failure_reason else ""
    advice = (
        f"Wait for it: runway-avatar avatars wait {avatar_id}"
        if avatar.status == "PROCESSING"
        else "It cannot be shown: make another one, and delete it."
    )
    return Check("avatar", "fail", f"{avatar.name} is {avatar.status}{reason}", advice)


def _judge_account(organization: Any, detail: str) -> Check:
    limits = organization["tier"]["models"].get(MODEL)
    used = organization["usage"]["models"].get(MODEL, {}).get("dailyGenerations", 0)
    if limits is None:
        return Check(
            "runway account",
            "warn",
            detail,
            f"The tier does not name {MODEL}: ask Runway whether it includes Characters.",
        )
    if organization["creditBalance"] < credits_for(LIVE_SECONDS):
        return Check("runway account", "fail", detail, "Buy credits in the developer portal.")
    if used >= limits["maxDailyGenerations"]:
        return Check("runway account", "fail", detail, "The day's limit is used up: wait.")
    if limits["maxConcurrentGenerations"] < 2:
        return Check(
            "runway account",
            "warn",
            detail,
            "One session at a time: renewals have a gap that the voice bridges, and a second call "
            "waits. A higher tier has more.",
        )
    return Check("runway account", "ok", detail)


def _livekit_variables(settings: Settings) -> Check:
    missing = [name for name in LIVEKIT_VARIABLES if settings.variable(name) is None]
    if missing:
        return Check(
            "livekit settings",
            "warn",
            f"not set: {', '.join(missing)}",
            "AvatarSession needs them, from the environment or as arguments of start().",
        )
    return Check("livekit settings", "ok", "LIVEKIT_URL, LIVEKIT_API_KEY, LIVEKIT_API_SECRET")


async def _livekit(settings: Settings) -> list[Check]:
    found = settings.variable("LIVEKIT_URL")
    if found is None:
        return []
    parts = urlsplit(found.value)
    if parts.scheme not in ("ws", "wss", "http", "https") or not parts.hostname:
        return [
            Check(
                "livekit reachable",
                "fail",
                "LIVEKIT_URL is no address",
                "It must be like wss://project.livekit.cloud.",
            )
        ]
    secure = parts.scheme in ("wss", "https")
    try:
        answer = await _knock(f"{'https' if secure else 'http'}://{parts.netloc}")
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        return [
            Check(
                "livekit reachable",
                "fail",
                type(error).__name__,
                "Check LIVEKIT_URL, and that the server runs.",
            )
        ]
    checks = [Check("livekit reachable", "ok", f"in {answer.took * 1000:.0f} ms")]
    checks += _skew("clock against livekit", answer)
    return [*checks, *await _livekit_key(settings)]


async def _livekit_key(settings: Settings) -> list[Check]:
    """Listing rooms is the cheapest call that needs a key."""
    if any(settings.variable(name) is None for name in LIVEKIT_VARIABLES):
        return []
    try:
        project = settings.livekit_project()
    except ConfigurationError as error:
        return [Check("livekit key", "fail", "not sent", error.message)]
    from livekit import api  # here: `runway-avatar --help` does without

    limit = aiohttp.ClientTimeout(total=_TIMEOUT)
    token = short_token(project, api.VideoGrants(room_list=True))
    try:
        async with (
            new_session(timeout=limit) as http,
            api.LiveKitAPI(project.url, token=token, session=http) as livekit,
        ):
            await livekit.room.list_rooms(api.ListRoomsRequest(names=["runway-avatar-doctor"]))
    except api.TwirpError as error:
        problem = refusal(error)
        kind = "not accepted" if isinstance(problem, CredentialsError) else "refused"
        return [Check("livekit key", "fail", kind, problem.message)]
    except (aiohttp.ClientError, TimeoutError) as error:
        return [Check("livekit key", "fail", type(error).__name__, "Try again.")]
    media = await _media(project.url, project.key, project.secret)
    return [Check("livekit key", "ok", "accepted"), media]


async def _media(url: str, key: str, secret: str) -> Check:
    from .encoder import NotPublished, encoder_in_use, is_software  # here: with LiveKit's SDK

    try:
        encoder = await encoder_in_use(url, key, secret, _MEDIA_TIMEOUT)
    except NotPublished as error:
        return Check("livekit media", "fail", str(error), "Check the ports below, TCP and UDP.")
    if is_software(encoder):
        return Check("livekit media", "ok", f"a picture was sent, encoded by {encoder}")
    return Check(
        "livekit media",
        "ok",
        f"a picture was sent, encoded in hardware by {encoder}",
        'VideoOptions(encoder="software") leaves the GPU to your models (docs/deploy.md).',
    )


async def _knock(url: str) -> _Answer:
    """Without a key: whether somebody answers, how fast, and what time it is there."""
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT)
    async with new_session(timeout=timeout) as http:
        began = time.monotonic()
        async with http.get(url, allow_redirects=False) as response:
            took = time.monotonic() - began
            date = response.headers.get("Date")
            skew = None
            if date is not None:
                # It has whole seconds, cut off.
                there = parsedate_to_datetime(date).timestamp() + 0.5
                skew = time.time() - took / 2 - there
            return _Answer(took, skew)


def _skew(name: str, answer: _Answer) -> list[Check]:
    if answer.skew is None:
        return []
    detail = f"{answer.skew:+.0f} s"
    advice = "Set this machine's clock (NTP): tokens are refused when clocks disagree."
    if abs(answer.skew) > _SKEW_FAIL:
        return [Check(name, "fail", detail, advice)]
    if abs(answer.skew) > _SKEW_WARN:
        return [Check(name, "warn", detail, advice)]
    return [Check(name, "ok", detail)]


def _ports() -> Check:
    """Whether there is a way out for UDP at all. Nothing is sent, and no firewall is tried."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.1", 3478))  # reserved for documentation (RFC 5737)
        except OSError:
            return Check(
                "ports", "warn", f"no route for UDP; {_PORTS}", "Media will go over TCP, if at all."
            )
    return Check("ports", "ok", f"{_PORTS}; only --live shows whether Runway's media pass")
