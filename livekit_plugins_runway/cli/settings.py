"""What a command works with: global options, environment, `.env`."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import typer
from dotenv import dotenv_values

from .._common.checks import is_loopback, required
from ..errors import ConfigurationError
from ..runway.address import API_SECRET_VARIABLES, DEFAULT_BASE_URL, checked_base_url
from .credentials import stored_keys
from .exits import CredentialsError
from .output import Output

STAGE_BASE_URL = "https://api.dev-stage.runwayml.com"
KEY_VARIABLES = (*API_SECRET_VARIABLES, "RUNWAY_SKILLS_API_SECRET")
"""The first that is set counts; the last is the name that Runway's agent skills (runwayml/skills)
use."""
STAGE_KEY_VARIABLES = ("RUNWAYML_API_SECRET_STAGE", "RUNWAY_SKILLS_API_SECRET_STAGE")
"""Of the staging API, before the others."""
ADDRESS_VARIABLES = ("RUNWAYML_BASE_URL", "RUNWAY_SKILLS_BASE_URL")
LIVEKIT_VARIABLES = ("LIVEKIT_URL", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET")
_ENV_FILE = Path(".env")

Origin = Literal["environment", ".env", "auth set"]
AddressOrigin = Literal["option", "environment", ".env", "default"]


@dataclass(frozen=True)
class Variable:
    name: str
    value: str = field(repr=False)
    origin: Origin


@dataclass(frozen=True)
class LiveKitProject:
    """Where a LiveKit server is, and what it accepts."""

    url: str
    key: str
    secret: str = field(repr=False)


@dataclass(frozen=True)
class Settings:
    """Of one run of the command line."""

    output: Output
    dry_run: bool
    base_url: str
    env_file: Mapping[str, str] = field(repr=False)
    address_origin: AddressOrigin = "default"
    """Where `base_url` is from."""

    def variable(self, *names: str) -> Variable | None:
        """The first of them that is set; the environment goes before `.env`."""
        for name in names:
            if value := os.environ.get(name):
                return Variable(name, value, "environment")
        for name in names:
            if value := self.env_file.get(name):
                return Variable(name, value, ".env")
        return None

    def key(self) -> Variable | None:
        """The key for `base_url`: what is meant for staging alone goes first there. What `auth set`
        has kept is for the address that it was kept for, and no other.

        Raises:
            ConfigurationError: no variable is set, and the kept keys cannot be read.
        """
        is_stage = self.base_url == STAGE_BASE_URL
        if is_stage and (found := self.variable(*STAGE_KEY_VARIABLES)):
            return found
        usual = self.variable(*KEY_VARIABLES)
        if usual is not None and not is_stage:
            return usual
        if kept := stored_keys().get(self.base_url):
            return Variable("kept key", kept, "auth set")
        return usual

    def runway_key(self) -> str:
        """Raises `CredentialsError`, or what `key()` raises."""
        key = self.key()
        if key is None:
            raise CredentialsError(
                "There is no Runway key: set RUNWAYML_API_SECRET, write it into .env, or keep it "
                "with `runway-avatar auth set`. Keys are made in Runway's developer portal."
            )
        return key.value

    def livekit_project(self, url: str | None = None) -> LiveKitProject:
        """What may be sent a token that is made with the secret.

        Args:
            url: an option of the command, instead of `LIVEKIT_URL`.

        Raises:
            ConfigurationError: something is missing; or the address is from `.env` and the secret
                is not: whoever wrote that file would get what the secret opens; or the address is
                not https or wss, and not of this machine.
        """
        address = self.livekit(url, "--livekit-url", "LIVEKIT_URL", "The LiveKit URL")
        key, secret = self.livekit_keys()
        _check_livekit_url(address)
        found, signs = self.variable("LIVEKIT_URL"), self.variable("LIVEKIT_API_SECRET")
        from_elsewhere = (
            url is None
            and (found is not None and found.origin == ".env")
            and (signs is not None and signs.origin == "environment")
        )
        if from_elsewhere:
            raise ConfigurationError(
                "LIVEKIT_URL is in .env, but LIVEKIT_API_SECRET is in the environment, and a "
                "secret belongs to one server: put both in the same place, or pass --livekit-url."
            )
        return LiveKitProject(address, key, secret)

    def livekit_keys(self) -> tuple[str, str]:
        """Key and secret of the project. `ConfigurationError` names the one that is missing."""
        return (
            self.livekit(None, "it in .env", "LIVEKIT_API_KEY", "The LiveKit key"),
            self.livekit(None, "it in .env", "LIVEKIT_API_SECRET", "The LiveKit secret"),
        )

    def livekit(self, option: str | None, flag: str, name: str, what: str) -> str:
        """An option of the command, else the variable; `ConfigurationError` names both."""
        found = self.variable(name)
        return required(what, flag, option or (found.value if found else ""), name)


def _check_livekit_url(address: str) -> None:
    parts = urlsplit(address)
    if parts.scheme not in ("ws", "wss", "http", "https") or not parts.hostname:
        raise ConfigurationError(
            f"LIVEKIT_URL must be like wss://project.livekit.cloud, not {address[:80]!r}."
        )
    if parts.scheme in ("ws", "http") and not is_loopback(parts.hostname):
        raise ConfigurationError(
            f"LIVEKIT_URL is {parts.scheme}://, which shows everybody on the way the tokens that "
            "are sent: use wss:// or https://, beyond this machine."
        )


def load_env_file(path: Path | None) -> dict[str, str]:
    """The variables of the nearest `.env`, or of another file.

    Raises:
        ConfigurationError: a file that was asked for cannot be read.
    """
    chosen = path or _nearest_env_file(Path.cwd())
    if chosen is None:
        return {}
    if not chosen.is_file():
        raise ConfigurationError(f"--env-file: there is no file {path}.")
    try:
        values = dotenv_values(chosen, interpolate=False)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{chosen} cannot be read ({type(error).__name__}).") from None
    return {name: value for name, value in values.items() if value}


def _nearest_env_file(folder: Path) -> Path | None:
    """In this folder, else in the nearest one above it: there only one that is this user's own or
    root's, for in a folder like /tmp anybody can have put one."""
    if (here := folder / _ENV_FILE).is_file():
        return here
    for above in folder.parents:
        found = above / _ENV_FILE
        if found.is_file():
            return found if _is_trusted(found) else None
    return None


def _is_trusted(path: Path) -> bool:
    return sys.platform == "win32" or path.stat().st_uid in (os.getuid(), 0)


def choose_base_url(
    base_url: str | None, stage: bool, env_file: Mapping[str, str]
) -> tuple[str, AddressOrigin]:
    """Where Runway is, without a slash at the end, and who says so.

    Raises:
        ConfigurationError: contradicting options; or an address from `.env` that would be sent a
            key which is not from there: who wrote that file would get it.
    """
    if base_url and stage:
        raise ConfigurationError("Pass either --stage or --base-url, and not both.")
    if stage:
        return STAGE_BASE_URL, "option"
    if base_url:
        return checked_base_url(base_url), "option"
    if given := _first(os.environ, ADDRESS_VARIABLES):
        return checked_base_url(given), "environment"
    if given := _first(env_file, ADDRESS_VARIABLES):
        if _first(os.environ, (*STAGE_KEY_VARIABLES, *KEY_VARIABLES)):
            raise ConfigurationError(
                "RUNWAYML_BASE_URL is in .env, but the key is in the environment, and a key "
                "belongs to one host: put both in the same place, or pass --base-url."
            )
        return checked_base_url(given), ".env"
    return DEFAULT_BASE_URL, "default"


def _first(values: Mapping[str, str], names: Sequence[str]) -> str | None:
    return next((value for name in names if (value := values.get(name))), None)


def settings_of(ctx: typer.Context) -> Settings:
    """What the global options of this run gave."""
    found = ctx.find_object(Settings)
    if found is None:
        raise RuntimeError("the command was not called through the app")
    return found
