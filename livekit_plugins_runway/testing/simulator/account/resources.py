"""The calls about avatars, voices and documents."""

from __future__ import annotations

import io
import struct
import uuid
import wave
import zlib
from typing import Any

from aiohttp import web

from ..rest import Refusal
from . import bodies
from .backend import Backend, checked_body, now, wanted
from .entries import MadeKind, entry_of
from .queries import choice, page


class ResourceApi:
    """Lists, one, create, change, delete."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._account = backend.account

    def routes(self) -> list[web.RouteDef]:
        handlers = {
            ("GET", "/v1/avatars"): self._list_avatars,
            ("POST", "/v1/avatars"): self._create_avatar,
            ("GET", "/v1/avatars/{id}"): self._get_avatar,
            ("PATCH", "/v1/avatars/{id}"): self._update_avatar,
            ("DELETE", "/v1/avatars/{id}"): self._delete_avatar,
            ("GET", "/v1/voices"): self._list_voices,
            ("POST", "/v1/voices"): self._create_voice,
            ("POST", "/v1/voices/preview"): self._preview_voice,
            ("GET", "/v1/voices/{id}"): self._get_voice,
            ("PATCH", "/v1/voices/{id}"): self._update_voice,
            ("DELETE", "/v1/voices/{id}"): self._delete_voice,
            ("GET", "/v1/documents"): self._list_documents,
            ("POST", "/v1/documents"): self._create_document,
            ("GET", "/v1/documents/{id}"): self._get_document,
            ("PATCH", "/v1/documents/{id}"): self._update_document,
            ("DELETE", "/v1/documents/{id}"): self._delete_document,
        }
        return [
            web.route(method, path, self._backend.guarded(handler))
            for (method, path), handler in handlers.items()
        ]

    # Avatars.

    async def _list_avatars(self, request: web.Request) -> web.Response:
        seen = [self._avatar_view(entry) for entry in self._account.avatars]
        return page(request, seen, 50, self._account.page)

    async def _get_avatar(self, request: web.Request) -> web.Response:
        return web.json_response(
            self._avatar_view(wanted(request, self._account.avatars, "Avatar"))
        )

    async def _create_avatar(self, request: web.Request) -> web.Response:
        body = await checked_body(request, bodies.CREATE_AVATAR)
        moment = now()
        entry: dict[str, Any] = {
            "id": str(uuid.uuid4()),
            "startScript": None,
            "documentIds": [],
            "createdAt": moment,
        }
        self._account.avatars.append(entry)
        self._set_avatar(entry, body, moment)
        return web.json_response(self._avatar_view(entry))

    async def _update_avatar(self, request: web.Request) -> web.Response:
        entry = wanted(request, self._account.avatars, "Avatar")
        body = await checked_body(request, bodies.UPDATE_AVATAR)
        if "referenceImage" in body and entry["status"] == "PROCESSING":
            text = "The reference image cannot be updated while the avatar is being processed."
            raise Refusal(409, text, doc_url=None)
        self._set_avatar(entry, body, now())
        return web.json_response(self._avatar_view(entry))

    async def _delete_avatar(self, request: web.Request) -> web.Response:
        self._account.avatars.remove(wanted(request, self._account.avatars, "Avatar"))
        return web.Response(status=204)

    def _set_avatar(self, entry: dict[str, Any], body: dict[str, Any], moment: str) -> None:
        copied = ("name", "personality", "startScript", "documentIds", "voice")
        entry.update({name: body[name] for name in copied if name in body})
        entry["updatedAt"] = moment
        if "referenceImage" in body:
            picture = self._backend.publish(_picture(), "image/png")
            entry.update(referenceImageUri=picture, processedImageUri=None)
            delay = self._backend.options.avatar_processing_delay
            self._process("avatar", entry, delay, {"processedImageUri": picture})

    def _avatar_view(self, entry: dict[str, Any]) -> dict[str, Any]:
        return _by_status({**entry, "voice": self._voice_of(entry["voice"])})

    def _voice_of(self, chosen: dict[str, Any]) -> dict[str, Any]:
        if chosen["type"] == "custom":
            found = entry_of(self._account.voices, chosen["id"])
            answer = {"type": "custom", "id": chosen["id"], "deleted": found is None}
            return answer if found is None else {**answer, "name": found["name"]}
        preset = chosen["presetId"]
        return {"name": preset.capitalize(), "description": "One of Runway's voices.", **chosen}

    # Voices.

    async def _list_voices(self, request: web.Request) -> web.Response:
        seen = [_voice_view(entry) for entry in self._account.voices]
        return page(request, seen, 50, self._account.page)

    async def _get_voice(self, request: web.Request) -> web.Response:
        return web.json_response(_voice_view(wanted(request, self._account.voices, "Voice")))

    async def _create_voice(self, request: web.Request) -> web.Response:
        body = await checked_body(request, bodies.CREATE_VOICE)
        entry = {
            "id": str(uuid.uuid4()),
            "name": body["name"],
            "description": body.get("description"),
            "createdAt": now(),
        }
        self._account.voices.append(entry)
        sound = self._backend.publish(_sound(), "audio/wav")
        delay = self._backend.options.voice_processing_delay
        self._process("voice", entry, delay, {"previewUrl": sound})
        return web.json_response({"id": entry["id"]})

    async def _update_voice(self, request: web.Request) -> web.Response:
        entry = wanted(request, self._account.voices, "Voice")
        entry.update(await checked_body(request, bodies.UPDATE_VOICE))
        return web.json_response(_voice_view(entry))

    async def _delete_voice(self, request: web.Request) -> web.Response:
        self._account.voices.remove(wanted(request, self._account.voices, "Voice"))
        return web.Response(status=204)

    async def _preview_voice(self, request: web.Request) -> web.Response:
        await checked_body(request, bodies.PREVIEW_VOICE)
        sound = self._backend.publish(_sound(), "audio/wav")
        return web.json_response({"url": sound, "durationSecs": _SOUND_SECONDS})

    # Documents.

    async def _list_documents(self, request: web.Request) -> web.Response:
        key = choice(request, "sort", "createdAt", "updatedAt")
        order = choice(request, "order", "desc", "asc")
        found = sorted(self._account.documents, key=lambda d: d[key], reverse=order == "desc")
        seen = [self._document_view(entry) for entry in found]
        listed = [{k: v for k, v in entry.items() if k != "content"} for entry in seen]
        return page(request, listed, 50, self._account.page)

    async def _get_document(self, request: web.Request) -> web.Response:
        entry = wanted(request, self._account.documents, "Document")
        return web.json_response(self._document_view(entry))

    async def _create_document(self, request: web.Request) -> web.Response:
        body = await checked_body(request, bodies.CREATE_DOCUMENT)
        moment = now()
        entry = {
            "id": str(uuid.uuid4()),
            "type": "text",
            "usedBy": [],
            **body,
            "createdAt": moment,
            "updatedAt": moment,
        }
        self._account.documents.append(entry)
        return web.json_response(entry)

    async def _update_document(self, request: web.Request) -> web.Response:
        entry = wanted(request, self._account.documents, "Document")
        body = await checked_body(request, bodies.UPDATE_DOCUMENT)
        entry.update(body, updatedAt=now())
        return web.Response(status=204)

    async def _delete_document(self, request: web.Request) -> web.Response:
        """Also from the avatars that know it."""
        entry = wanted(request, self._account.documents, "Document")
        self._account.documents.remove(entry)
        for avatar in self._account.avatars:
            avatar["documentIds"] = [one for one in avatar["documentIds"] if one != entry["id"]]
        return web.Response(status=204)

    def _document_view(self, entry: dict[str, Any]) -> dict[str, Any]:
        users = {user["id"]: user for user in entry["usedBy"]}
        for avatar in self._account.avatars:
            if entry["id"] in avatar["documentIds"]:
                picture = avatar["processedImageUri"]
                users[avatar["id"]] = {
                    "id": avatar["id"],
                    "name": avatar["name"],
                    "imageUrl": picture,
                }
        return {**entry, "usedBy": list(users.values())}

    # What takes a while.

    def _process(
        self, kind: MadeKind, entry: dict[str, Any], delay: float, made: dict[str, Any]
    ) -> None:
        """READY or FAILED after so many seconds of the service."""
        failure = self._account.next_failure(kind)
        entry["status"] = "PROCESSING"

        def done() -> None:
            if failure is None:
                entry.update(made, status="READY")
            else:
                entry.update(status="FAILED", failureReason=failure.reason)

        self._backend.later(delay, done)


def _by_status(entry: dict[str, Any], **when_ready: Any) -> dict[str, Any]:
    """Only with the fields that something in its status has.

    Args:
        when_ready: those of something that is READY, with what they are where nothing is known.
    """
    by_status: dict[str, dict[str, Any]] = {
        "READY": when_ready,
        "FAILED": {"failureReason": "It could not be made"},
    }
    fields = by_status.get(entry["status"], {})
    others = {name for known in by_status.values() for name in known} - set(fields)
    return {**fields, **{name: value for name, value in entry.items() if name not in others}}


def _voice_view(entry: dict[str, Any]) -> dict[str, Any]:
    return _by_status(entry, previewUrl=None)


_SOUND_SECONDS = 0.5


def _sound() -> bytes:
    """Silence, as WAV."""
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(bytes(int(16_000 * _SOUND_SECONDS) * 2))
    return stream.getvalue()


def _picture() -> bytes:
    """One grey pixel, as PNG."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    head = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    pixel = zlib.compress(b"\x00\x80")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (chunk(b"IHDR", head), chunk(b"IDAT", pixel), chunk(b"IEND", b""))
    )
