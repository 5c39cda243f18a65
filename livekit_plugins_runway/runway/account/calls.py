"""The calls about an account. `RunwayClient` has them all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from os import PathLike
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import quote, urlencode

import aiohttp

from ...errors import (
    ConfigurationError,
    NotFoundError,
    ProcessedKind,
    ProcessingFailedError,
    ProtocolError,
    StillProcessingError,
)
from ..address import checked_upload_url
from ..http import ApiCall, HttpCaller
from ..polling import Pace, poll
from .answers import (
    AccountAnswer,
    AvatarInfo,
    Created,
    CreditUsage,
    DocumentInfo,
    TaskInfo,
    UploadPlace,
    VoiceInfo,
    VoicePreview,
    parse,
)
from .files import MediaFile, MediaKind, read_media, read_text
from .requests import (
    LONGEST_DATA_URI,
    CreateAvatar,
    CreateAvatarVideo,
    CreateDocument,
    CreateUpload,
    CreateVoice,
    ImageProcessing,
    PreviewVoice,
    QueryCredits,
    UpdateAvatar,
    UpdateDocument,
    UpdateVoice,
    VoiceModel,
)

Media = str | PathLike[str]
"""An address (`https://`), an upload (`runway://`) or a data URI as a `str`, or the path of a file
of this machine, as a `pathlib.Path`."""

_LONGEST_TEXT = 800_003
"""Bytes: 200 000 characters of UTF-8, and a byte order mark."""
_PAGE = 100
"""Entries: the most that Runway gives at once."""
_Answer = TypeVar("_Answer", bound=AccountAnswer)


class _Processed(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def status(self) -> str: ...


_Made = TypeVar("_Made", bound=_Processed)


class AccountCalls:
    """Avatars, documents, voices, tasks and usage of the key's project.

    Reads and deletes are repeated after a failure like `RunwayClient.get`. What makes or changes
    something is repeated only where nothing was sent, or Runway said that it is not able to answer
    now (429, 502, 503, 504): after a lost answer it may have been done, which a `LostAnswerError`
    tells. Arguments are checked against the published limits before anything is sent
    (`ConfigurationError`). Every call raises the kinds in `errors`; all may be cancelled, and what
    was sent by then may have been done.
    """

    def __init__(self, api_secret: str, http: HttpCaller) -> None:
        self._api_secret = api_secret
        self._http = http

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object = None,
    ) -> object:
        """Any other call of Runway's API.

        GET is repeated after a failure like `get`, and DELETE; what else changes something only
        where nothing was sent, or Runway said that it is not able to answer now. Not for making
        sessions: nothing here would end one whose answer is lost.

        Args:
            path: from `/v1/` on.
            query: parameters of the URL.
            body: JSON-ready; None: no body, but `{}` where Runway wants one (POST, PATCH, PUT).

        Returns:
            The decoded JSON of the answer, None for an empty one.
        """
        return await self._http.perform(self._call(method, path, query=query, body=body))

    async def list_all(
        self, path: str, *, query: Mapping[str, str] | None = None, limit: int | None = None
    ) -> list[object]:
        """The entries of a list of Runway's, page by page, as decoded JSON.

        Args:
            path: from `/v1/` on.
            query: of the first page; `limit` and `cursor` are set here.
            limit: at most so many entries; None: all.

        Raises:
            ProtocolError: no list, or one that does not come to an end.
        """
        size = _PAGE if limit is None else min(limit, _PAGE)
        asked = {**(query or {}), "limit": str(size)}
        entries: list[object] = []
        cursors: set[str] = set()
        while limit is None or len(entries) < limit:
            page = await self.request("GET", path, query=asked)
            data = page.get("data") if isinstance(page, dict) else None
            if not isinstance(page, dict) or not isinstance(data, list):
                raise ProtocolError(f"Runway's answer to GET {path} is no list.")
            entries += data
            if not page.get("hasMore"):
                break
            cursor = page.get("nextCursor")
            if not isinstance(cursor, str) or cursor in cursors:
                raise ProtocolError(f"Runway's list {path} does not come to an end.")
            cursors.add(cursor)
            asked["cursor"] = cursor
        return entries[:limit]

    # -- avatars --

    async def create_avatar(
        self,
        *,
        name: str,
        reference_image: Media,
        personality: str,
        voice: str,
        start_script: str | None = None,
        document_ids: Sequence[str] | None = None,
        image_processing: ImageProcessing | None = None,
    ) -> AvatarInfo:
        """Make a custom avatar of a picture. It is PROCESSING at first: see
        `wait_until_avatar_ready`.

        Args:
            name: 1 to 50 characters.
            reference_image: JPEG, PNG or WebP, 16 MB behind an address. A file is sent as a data
                URI, or uploaded first where it is too large for one (some 3.9 MB).
            personality: how it behaves where Runway holds the conversation; 1 to 10 000 characters.
            voice: a live preset's id ("clara"; all are in `PresetVoice`), or a custom voice's.
            start_script: what it says first; at most 2 000 characters.
            document_ids: at most 50, of its knowledge.
            image_processing: "optimize" (Runway's default) or "none".
        """
        body = CreateAvatar.checked(
            name=name,
            reference_image=await self._reference(reference_image, "image"),
            personality=personality,
            voice=voice,
            start_script=start_script,
            document_ids=document_ids,
            image_processing=image_processing,
        )
        return parse(AvatarInfo, await self.request("POST", "/v1/avatars", body=body.wire()))

    async def get_avatar(self, avatar_id: str) -> AvatarInfo:
        """One custom avatar."""
        return parse(AvatarInfo, await self.request("GET", _path("avatars", avatar_id)))

    async def list_avatars(self, *, limit: int | None = None) -> list[AvatarInfo]:
        """The custom avatars; at most `limit`."""
        return await self._list(AvatarInfo, "/v1/avatars", limit=limit)

    async def update_avatar(
        self,
        avatar_id: str,
        *,
        name: str | None = None,
        reference_image: Media | None = None,
        personality: str | None = None,
        voice: str | None = None,
        start_script: str | None = None,
        document_ids: Sequence[str] | None = None,
        image_processing: ImageProcessing | None = None,
    ) -> AvatarInfo:
        """Change what is given; None leaves it as it is. Arguments are those of `create_avatar`.

        Args:
            start_script: "" takes it away.
            document_ids: all of them from now on; [] takes them away.

        Raises:
            RequestRejectedError: with status 409, a new picture while the avatar is PROCESSING.
        """
        image = reference_image
        body = UpdateAvatar.checked(
            name=name,
            reference_image=None if image is None else await self._reference(image, "image"),
            personality=personality,
            voice=voice,
            start_script=start_script,
            document_ids=document_ids,
            image_processing=image_processing,
        )
        path = _path("avatars", avatar_id)
        return parse(AvatarInfo, await self.request("PATCH", path, body=body.wire()))

    async def attach_document(self, avatar_id: str, document_id: str) -> AvatarInfo:
        """Add a document to what an avatar knows. Reads the avatar and changes it: what somebody
        else changes in between is lost."""
        avatar = await self.get_avatar(avatar_id)
        if document_id in avatar.document_ids:
            return avatar
        return await self.update_avatar(avatar_id, document_ids=[*avatar.document_ids, document_id])

    async def delete_avatar(self, avatar_id: str) -> None:
        """Delete a custom avatar. Raises `NotFoundError` where there is none."""
        await self._delete_at(_path("avatars", avatar_id))

    async def wait_until_avatar_ready(
        self,
        avatar_id: str,
        *,
        timeout: float = 300.0,
        interval: float = 2.0,
        on_poll: Callable[[AvatarInfo], None] | None = None,
    ) -> AvatarInfo:
        """Ask until the avatar is READY. It usually takes about half a minute (published by one
        project that measured it; not reproduced).

        Args:
            timeout: seconds.
            interval: seconds between two polls.
            on_poll: called with each answer, the last one too.

        Raises:
            ProcessingFailedError: FAILED, with Runway's reason.
            StillProcessingError: not READY in time; Runway goes on with it.
        """
        return await _wait(
            "avatar", avatar_id, lambda: self.get_avatar(avatar_id), timeout, interval, on_poll
        )

    # -- documents --

    async def create_document(
        self, content: str | PathLike[str], *, name: str | None = None
    ) -> DocumentInfo:
        """Make a document that avatars may know (`attach_document`).

        Args:
            content: plain text or Markdown, 1 to 200 000 characters; or the path of a file of it
                in UTF-8, as a `pathlib.Path`.
            name: 1 to 255 characters; None: the file's.
        """
        if name is None and not isinstance(content, str):
            name = Path(content).name
        body = CreateDocument.checked(name=name, content=await _text(content)).wire()
        return parse(DocumentInfo, await self.request("POST", "/v1/documents", body=body))

    async def get_document(self, document_id: str) -> DocumentInfo:
        """One document, with its text."""
        return parse(DocumentInfo, await self.request("GET", _path("documents", document_id)))

    async def list_documents(
        self, *, avatar_id: str | None = None, limit: int | None = None
    ) -> list[DocumentInfo]:
        """The documents without their texts, the newest first; at most `limit`.

        Args:
            avatar_id: only what this avatar knows. Runway has no such list: it is picked out of
                all documents.
        """
        query = {"sort": "createdAt", "order": "desc"}
        if avatar_id is None:
            return await self._list(DocumentInfo, "/v1/documents", query, limit)
        found = await self._list(DocumentInfo, "/v1/documents", query)
        known = [one for one in found if avatar_id in {user.id for user in one.used_by}]
        return known[:limit]

    async def update_document(
        self,
        document_id: str,
        *,
        name: str | None = None,
        content: str | PathLike[str] | None = None,
    ) -> None:
        """Change what is given, for every avatar that knows it. `content` is text, or the path of a
        file, as for `create_document`."""
        text = None if content is None else await _text(content)
        body = UpdateDocument.checked(name=name, content=text).wire()
        await self.request("PATCH", _path("documents", document_id), body=body)

    async def delete_document(self, document_id: str) -> None:
        """Delete a document, also from the avatars that know it. Raises `NotFoundError` where there
        is none."""
        await self._delete_at(_path("documents", document_id))

    # -- voices --

    async def create_voice(
        self,
        *,
        name: str,
        prompt: str | None = None,
        audio: Media | None = None,
        model: VoiceModel = "eleven_ttv_v3",
        description: str | None = None,
    ) -> str:
        """Make a custom voice, of a description or of a sample. It is PROCESSING at first: see
        `wait_until_voice_ready`.

        Args:
            name: 1 to 100 characters.
            prompt: a description of the voice, 20 to 1 000 characters; `preview_voice` lets it be
                heard before.
            audio: or a sample of it, 10 s to 5 min and at most 10 MB.
            model: what makes a voice of the `prompt`.
            description: for people, 1 to 1 024 characters.

        Returns:
            The id of the voice.
        """
        source: dict[str, object] = {"type": "text", "prompt": prompt, "model": model}
        if (prompt is None) == (audio is None):
            raise ConfigurationError("Pass either prompt or audio, and not both.")
        if audio is not None:
            source = {"type": "audio", "audio": await self._reference(audio, "audio")}
        body = CreateVoice.checked(name=name, source=source, description=description).wire()
        return parse(Created, await self.request("POST", "/v1/voices", body=body)).id

    async def get_voice(self, voice_id: str) -> VoiceInfo:
        """One custom voice."""
        return parse(VoiceInfo, await self.request("GET", _path("voices", voice_id)))

    async def list_voices(self, *, limit: int | None = None) -> list[VoiceInfo]:
        """The custom voices; at most `limit`. The presets are in `PresetVoice`."""
        return await self._list(VoiceInfo, "/v1/voices", limit=limit)

    async def update_voice(
        self, voice_id: str, *, name: str | None = None, description: str | None = None
    ) -> VoiceInfo:
        """Change what is given; `description=""` takes it away."""
        body = UpdateVoice.checked(name=name, description=description).wire()
        return parse(VoiceInfo, await self.request("PATCH", _path("voices", voice_id), body=body))

    async def delete_voice(self, voice_id: str) -> None:
        """Delete a custom voice. Raises `NotFoundError` where there is none."""
        await self._delete_at(_path("voices", voice_id))

    async def preview_voice(
        self, prompt: str, *, model: VoiceModel = "eleven_ttv_v3"
    ) -> VoicePreview:
        """Hear a voice by its description (20 to 1 000 characters), without making it."""
        body = PreviewVoice.checked(prompt=prompt, model=model).wire()
        return parse(VoicePreview, await self.request("POST", "/v1/voices/preview", body=body))

    async def wait_until_voice_ready(
        self,
        voice_id: str,
        *,
        timeout: float = 300.0,
        interval: float = 2.0,
        on_poll: Callable[[VoiceInfo], None] | None = None,
    ) -> VoiceInfo:
        """Ask until the voice is READY. Arguments and errors as `wait_until_avatar_ready`."""
        return await _wait(
            "voice", voice_id, lambda: self.get_voice(voice_id), timeout, interval, on_poll
        )

    # -- conversations and usage --

    async def delete_conversation(self, conversation_id: str) -> None:
        """Delete a conversation with its transcript and recording. Its id is the session's. Raises
        `NotFoundError` where there is none."""
        await self._delete_at(_path("avatar_conversations", conversation_id))

    async def credit_usage(
        self, *, since: date | None = None, before: date | None = None
    ) -> CreditUsage:
        """The credits that the organization has used, by day and model, in UTC.

        Args:
            since: the first day; None: 30 days ago.
            before: the day after the last one, at most 90 days later; None: 30 days later. (With
                neither, today is so not in it.)
        """
        if since is not None and before is not None and not 0 < (before - since).days <= 90:
            raise ConfigurationError("From since to before there must be 1 to 90 days.")
        body = QueryCredits.checked(
            start_date=None if since is None else f"{since:%Y-%m-%d}",
            before_date=None if before is None else f"{before:%Y-%m-%d}",
        ).wire()
        call = self._call("POST", "/v1/organization/usage", body=body)
        call.repeatable = True
        return parse(CreditUsage, await self._http.perform(call))

    # -- uploads --

    async def upload(self, file: PathLike[str] | MediaFile) -> str:
        """Give Runway a picture, sound or video of at most 200 MiB, for 24 hours.

        Returns:
            Its `runway://` address, for `reference_image` and `audio`.
        """
        if not isinstance(file, MediaFile):
            file = await asyncio.to_thread(read_media, file)
        body = CreateUpload.checked(filename=file.name).wire()
        place = parse(UploadPlace, await self.request("POST", "/v1/uploads", body=body))
        await self._send(file, place)
        return place.runway_uri

    async def _send(self, file: MediaFile, place: UploadPlace) -> None:
        def form() -> aiohttp.FormData:
            # The file is last: a store reads no field after it.
            data = aiohttp.FormData(place.fields)
            data.add_field("file", file.content, filename=file.name, content_type=file.media_type)
            return data

        await self._http.perform(
            ApiCall(
                "upload",
                "POST",
                checked_upload_url(place.upload_url, self._http.base_url),
                bearer="",
                secrets=tuple(place.fields.values()),
                form=form,
                form_length=len(file.content),
            )
        )

    async def _reference(self, media: Media, kind: MediaKind) -> str:
        """What stands for it in a body."""
        if isinstance(media, str):
            return media
        file = await asyncio.to_thread(read_media, media, kind)
        inline = await asyncio.to_thread(file.data_uri)
        return inline if len(inline) <= LONGEST_DATA_URI[kind] else await self.upload(file)

    # -- videos and tasks --

    async def create_avatar_video(
        self,
        *,
        avatar_id: str | None = None,
        preset_id: str | None = None,
        text: str | None = None,
        audio: Media | None = None,
        voice: str | None = None,
    ) -> str:
        """Have an avatar say something in a video; costs credits. See `wait_for_task`.

        Args:
            avatar_id: a custom avatar,
            preset_id: or one of Runway's.
            text: what it says, 1 to 5 000 characters,
            audio: or how it sounds.
            voice: for `text`: as for `create_avatar`; None: the avatar's own.

        Returns:
            The id of the task.
        """
        if (avatar_id is None) == (preset_id is None):
            raise ConfigurationError("Pass either avatar_id or preset_id, and not both.")
        if (text is None) == (audio is None):
            raise ConfigurationError("Pass either text or audio, and not both.")
        speech: dict[str, object] = {"type": "text", "text": text, "voice": voice}
        if audio is not None:
            if voice is not None:
                raise ConfigurationError("A voice is for text: audio has one.")
            speech = {"type": "audio", "audio": await self._reference(audio, "audio")}
        avatar = {"type": "custom", "avatar_id": avatar_id}
        if preset_id is not None:
            avatar = {"type": "runway-preset", "preset_id": preset_id}
        body = CreateAvatarVideo.checked(avatar=avatar, speech=speech).wire()
        return parse(Created, await self.request("POST", "/v1/avatar_videos", body=body)).id

    async def get_task(self, task_id: str) -> TaskInfo:
        """How far a task is. Runway asks for at most one call each 5 s for one task."""
        return parse(TaskInfo, await self.request("GET", _path("tasks", task_id)))

    async def wait_for_task(
        self,
        task_id: str,
        *,
        timeout: float = 600.0,
        interval: float = 5.0,
        on_poll: Callable[[TaskInfo], None] | None = None,
    ) -> TaskInfo:
        """Ask until the task has SUCCEEDED.

        Args:
            timeout: seconds.
            interval: seconds between two polls; Runway asks for 5 or more.
            on_poll: called with each answer, the last one too.

        Raises:
            ProcessingFailedError: FAILED or CANCELLED.
            StillProcessingError: not done in time; it goes on, and `delete_task` cancels it.
        """
        return await _wait(
            "task", task_id, lambda: self.get_task(task_id), timeout, interval, on_poll
        )

    async def delete_task(self, task_id: str) -> None:
        """Cancel a task that is under way; delete what another one has made. One that is not there
        (404) is as good as deleted, as Runway says."""
        try:
            await self._delete_at(_path("tasks", task_id))
        except NotFoundError:
            return

    # -- what they have in common --

    def _call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object = None,
    ) -> ApiCall:
        if body is None and method in ("POST", "PATCH", "PUT"):
            body = {}
        content = None if body is None else json.dumps(body, allow_nan=False).encode()
        target = f"{path}?{urlencode(query)}" if query else path
        return ApiCall("request", method, target, self._api_secret, content)

    async def _list(
        self,
        kind: type[_Answer],
        path: str,
        query: Mapping[str, str] | None = None,
        limit: int | None = None,
    ) -> list[_Answer]:
        found = await self.list_all(path, query=query, limit=limit)
        return [parse(kind, entry) for entry in found]

    async def _delete_at(self, path: str) -> None:
        call = self._call("DELETE", path)
        try:
            await self._http.perform(call)
        except NotFoundError:
            # An earlier attempt, whose answer did not come, may have done it. (What aiohttp
            # repeats by itself, on a connection that was closed meanwhile, is not seen here.)
            if call.attempts == 1:
                raise


async def _text(content: str | PathLike[str]) -> str:
    if isinstance(content, str):
        return content
    return await asyncio.to_thread(read_text, content, _LONGEST_TEXT)


def _path(kind: str, identifier: str) -> str:
    return f"/v1/{kind}/{quote(identifier, safe='')}"


async def _wait(
    kind: ProcessedKind,
    identifier: str,
    ask: Callable[[], Any],
    timeout: float,
    interval: float,
    on_poll: Callable[[_Made], None] | None,
) -> _Made:
    last = "PROCESSING"

    def is_over(answer: _Made) -> bool:
        nonlocal last
        last = answer.status
        if on_poll is not None:
            on_poll(answer)
        if last in ("FAILED", "CANCELLED"):
            raise _failed(kind, answer)
        return last in ("READY", "SUCCEEDED")

    return await poll(
        ask,
        is_over,
        pace=Pace(first=interval, slowest=interval, at_once=True),
        timeout=timeout,
        too_late=lambda: StillProcessingError(
            kind=kind, id=identifier, status=last, waited=timeout
        ),
    )


def _failed(kind: ProcessedKind, answer: _Processed) -> ProcessingFailedError:
    reason = getattr(answer, "failure_reason", None) or getattr(answer, "failure", None)
    return ProcessingFailedError(
        kind=kind,
        id=answer.id,
        status=answer.status,
        failure=reason or "",
        failure_code=getattr(answer, "failure_code", None) or "",
    )
