"""The calls about uploads, avatar videos and their tasks."""

from __future__ import annotations

import re
import secrets
import uuid
from collections.abc import Callable
from typing import Any

from aiohttp import BodyPartReader, web

from ..rest import Refusal
from . import bodies
from .backend import Backend, checked_body, now, refuse_a_key, wanted
from .entries import RECORDING, StoredFile, entry_of

_EXTENSION = re.compile(r".+\.[A-Za-z0-9]+")
_LARGEST = 200 * 1024 * 1024
"""Bytes of an upload (documented)."""
_OVER = ("SUCCEEDED", "FAILED", "CANCELLED")


class WorkApi:
    """Uploads, videos, tasks.

    Args:
        check_avatar: raises `Refusal` for an avatar that cannot be shown, or without credits.
    """

    def __init__(self, backend: Backend, check_avatar: Callable[[dict[str, Any]], None]) -> None:
        self._backend = backend
        self._account = backend.account
        self._check_avatar = check_avatar
        self._places: dict[str, tuple[str, dict[str, str], str]] = {}
        """By the name in the address: the `runway://` address, the fields, the file's name."""

    def routes(self) -> list[web.RouteDef]:
        calls = self._backend.guarded
        return [
            web.post("/v1/uploads", calls(self._create_upload)),
            web.post("/uploads/{name}", self._receive),
            web.post("/v1/avatar_videos", calls(self._create_video)),
            web.get("/v1/tasks/{id}", calls(self._get_task), allow_head=False),
            web.delete("/v1/tasks/{id}", calls(self._delete_task)),
            web.get("/files/{name}", self._backend.file, allow_head=False),
        ]

    # Uploads.

    async def _create_upload(self, request: web.Request) -> web.Response:
        body = await checked_body(request, bodies.CREATE_UPLOAD)
        if not _EXTENSION.fullmatch(body["filename"]):
            issue = {
                "code": "custom",
                "message": "The filename must have a valid extension",
                "path": ["filename"],
            }
            raise Refusal(400, "Validation of body failed", issues=[issue])
        name = secrets.token_hex(16)
        fields = {
            "key": name,
            "policy": secrets.token_hex(32),
            "x-signature": secrets.token_hex(32),
        }
        address = f"runway://{uuid.uuid4()}"
        self._places[name] = (address, fields, body["filename"])
        return web.json_response(
            {
                "uploadUrl": f"{self._backend.url()}/uploads/{name}",
                "fields": fields,
                "runwayUri": address,
            }
        )

    async def _receive(self, request: web.Request) -> web.Response:
        """As a store takes a form: signed fields first, then the file, and no key."""
        refuse_a_key(request)
        place = self._places.get(request.match_info["name"])
        if place is None or not request.content_type.startswith("multipart/form-data"):
            raise Refusal(403, "Forbidden")
        address, expected, name = place
        fields: dict[str, str] = {}
        content: bytes | None = None
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader):
                continue
            if part.name == "file":
                content = bytes(await part.read())
                break
            fields[part.name or ""] = await part.text()
        if any(fields.get(field) != value for field, value in expected.items()):
            raise Refusal(403, "The fields before the file are not those that were signed")
        if content is None or len(content) > _LARGEST:
            raise Refusal(400, "A file of at most 200 MB is needed, after the fields")
        self._account.uploads[address] = StoredFile(name, content)
        return web.Response(status=204)

    # Avatar videos and tasks.

    async def _create_video(self, request: web.Request) -> web.Response:
        body = await checked_body(request, bodies.CREATE_VIDEO)
        self._check_avatar(body["avatar"])
        task: dict[str, Any] = {
            "id": str(uuid.uuid4()),
            "createdAt": now(),
            "status": "PENDING",
            "model": f"gwm1_avatar_async_{body['speech']['type']}_to_video",
        }
        self._account.tasks.append(task)
        delay = self._backend.options.task_delay
        failure = self._account.next_failure("task")

        def run() -> None:
            if task["status"] == "PENDING":
                task["status"] = "RUNNING"

        def done() -> None:
            if task["status"] in _OVER:
                return
            if failure is None:
                output = self._backend.publish(RECORDING, "video/mp4")
                task.update(status="SUCCEEDED", output=[output])
            else:
                task.update(status="FAILED", failure=failure.reason, failureCode=failure.code)

        self._backend.later(delay / 2, run)
        self._backend.later(delay, done)
        return web.json_response({"id": task["id"]})

    async def _get_task(self, request: web.Request) -> web.Response:
        task = entry_of(self._account.tasks, request.match_info["id"])
        if task is None or task["status"] == "DELETED":
            raise Refusal(404, "Could not find Task", doc_url=None)
        return web.json_response(self._task_view(task))

    async def _delete_task(self, request: web.Request) -> web.Response:
        """Cancelled or deleted: from then on it is not found. It stays here for what it cost."""
        task = wanted(request, self._account.tasks, "Task")
        if task["status"] == "DELETED":
            raise Refusal(404, "Could not find Task", doc_url=None)
        task["credits"] = task_credits(task, self._backend.options.avatar_video_credits)
        task["status"] = "DELETED"
        return web.Response(status=204)

    def _task_view(self, task: dict[str, Any]) -> dict[str, Any]:
        known = ("id", "createdAt", "status", "output", "failure")
        answer = {name: task[name] for name in known if name in task}
        if task.get("failureCode"):
            answer["failureCode"] = task["failureCode"]
        price = self._backend.options.avatar_video_credits
        if task["status"] in _OVER:
            answer["cost"] = {"credits": task_credits(task, price)}
        else:
            answer["estimatedCost"] = {"credits": price}
        if task["status"] == "RUNNING":
            answer["progress"] = 0.5
        return answer


def task_credits(task: dict[str, Any], price: int) -> int:
    """What a task has cost: nothing unless it has SUCCEEDED (inferred: a refund reports 0)."""
    if task["status"] == "DELETED":
        return int(task["credits"])
    return price if task["status"] == "SUCCEEDED" else 0
