"""Runway's own SDKs for Python and npm behind one interface, to try them on the simulator."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import runwayml


class SdkError(Exception):
    """An error of the SDK's own: `kind` is the name of its class."""

    def __init__(self, kind: str, status: int | None, body: Any) -> None:
        super().__init__(f"{kind} ({status}): {body}")
        self.kind = kind
        self.status = status
        self.body = body


class Sdk(Protocol):
    async def call(
        self, name: str, *arguments: str | dict[str, Any], every_page: bool = False
    ) -> Any:
        """What the SDK's method gives, as JSON with Runway's names of fields.

        Args:
            name: as in Python, `avatar_conversations.list`.
            arguments: ids, then the fields by Runway's names; bytes under `file` are a file.
            every_page: follow the pages of a list, and give the entries of all.

        Raises:
            SdkError: the SDK's method has failed.
        """


class PythonSdk:
    def __init__(self, client: runwayml.AsyncRunwayML) -> None:
        self._client = client

    async def call(
        self, name: str, *arguments: str | dict[str, Any], every_page: bool = False
    ) -> Any:
        resource, _, method = name.partition(".")
        ids = [argument for argument in arguments if isinstance(argument, str)]
        fields = next((argument for argument in arguments if isinstance(argument, dict)), {})
        snake = {key: value for key, value in _snake(fields).items() if key != "file"}
        if "file" in fields:
            snake["file"] = ("file.png", fields["file"])
        try:
            answer = getattr(getattr(self._client, resource), method)(*ids, **snake)
            if every_page:
                return [_json(entry) async for entry in answer]
            return _json(await answer)
        except runwayml.APIStatusError as error:
            raise SdkError(type(error).__name__, error.status_code, error.body) from error
        except runwayml.APIError as error:
            raise SdkError(type(error).__name__, None, error.body) from error


class NpmSdk:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def call(
        self, name: str, *arguments: str | dict[str, Any], every_page: bool = False
    ) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        camel = re.sub(r"_(\w)", lambda found: found[1].upper(), name)
        request = {"call": camel, "arguments": list(arguments), "all": every_page}
        line = json.dumps(request, default=_file)
        self._process.stdin.write(line.encode() + b"\n")
        answer = json.loads(await self._process.stdout.readline() or b"{}")
        if "error" in answer:
            raise SdkError(**answer["error"])
        return answer["value"]


@asynccontextmanager
async def python_sdk(url: str, key: str, max_retries: int) -> AsyncIterator[PythonSdk]:
    """Answers that are not as the SDK's classes say are an error."""
    async with runwayml.AsyncRunwayML(
        api_key=key, base_url=url, max_retries=max_retries, _strict_response_validation=True
    ) as client:
        yield PythonSdk(client)


@asynccontextmanager
async def npm_sdk(folder: Path, url: str, key: str, max_retries: int) -> AsyncIterator[NpmSdk]:
    """`folder`: tests/clients/sdk with its packages."""
    options = json.dumps({"apiKey": key, "baseURL": url, "maxRetries": max_retries})
    process = await asyncio.create_subprocess_exec(
        "node",
        "call.mjs",
        options,
        cwd=folder,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    try:
        yield NpmSdk(process)
    finally:
        process.stdin.close()  # it ends with its input
        await process.wait()


def _json(answer: Any) -> Any:
    if answer is None:
        return None
    return answer.model_dump(mode="json", by_alias=True, exclude_unset=True)


def _snake(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            "from_" if k == "from" else re.sub(r"[A-Z]", lambda c: "_" + c[0].lower(), k): _snake(v)
            for k, v in value.items()
        }
    return [_snake(entry) for entry in value] if isinstance(value, list) else value


def _file(content: Any) -> dict[str, str]:
    return {"name": "file.png", "base64": base64.b64encode(content).decode()}
