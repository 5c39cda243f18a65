"""`RunwayClient` and an account: what goes out, what comes back, what is waited for."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from livekit_plugins_runway import AvatarInfo
from livekit_plugins_runway import errors as e
from livekit_plugins_runway.runway.client import RunwayClient
from livekit_plugins_runway.runway.http import ConnectOptions
from tests.support.scripted_runway import Reply, ScriptedRunway
from tests.support.virtual_clock import virtual_clock

KEY = "key_0123456789abcdef"
AN_ID = "17f20503-6c24-4c16-946b-35dbbce2af2f"
IMAGE = "https://example.com/face.png"
PERSONALITY = "Knows where the treasure is."
AVATAR = {
    "id": AN_ID,
    "name": "Ada",
    "personality": PERSONALITY,
    "startScript": None,
    "voice": {"type": "runway-live-preset", "presetId": "clara", "name": "Clara"},
    "referenceImageUri": "https://signed.test/picture?signature=abc",
    "documentIds": [AN_ID],
    "status": "READY",
    "later": "what this version does not know",
}


@asynccontextmanager
async def runway(*script: Reply) -> AsyncIterator[tuple[ScriptedRunway, RunwayClient]]:
    server = ScriptedRunway()
    server.script.extend(script)
    async with server.running():
        options = ConnectOptions(max_retry=2, retry_interval=1.0)
        client = RunwayClient(KEY, base_url=server.url, conn_options=options, jitter=lambda: 0.0)
        try:
            yield server, client
        finally:
            await client.aclose()


def body_of(server: ScriptedRunway, number: int = -1) -> Any:
    return json.loads(server.seen[number].body)


def becoming(*states: str, **last: Any) -> list[Reply]:
    replies = [Reply(payload={"id": AN_ID, "status": state}) for state in states[:-1]]
    return [*replies, Reply(payload={"id": AN_ID, "status": states[-1], **last})]


async def an_avatar(client: RunwayClient, **fields: Any) -> AvatarInfo:
    given = {"name": "Ada", "reference_image": IMAGE, "personality": PERSONALITY, "voice": "clara"}
    return await client.create_avatar(**{**given, **fields})


async def test_an_avatar_is_made_of_what_was_given() -> None:
    async with runway(Reply(payload=AVATAR)) as (server, client):
        made = await an_avatar(client, document_ids=[AN_ID], start_script="Ahoy!")
        assert (server.seen[0].method, server.seen[0].path) == ("POST", "/v1/avatars")
        assert body_of(server) == {
            "name": "Ada",
            "referenceImage": IMAGE,
            "personality": PERSONALITY,
            "voice": {"type": "runway-live-preset", "presetId": "clara"},
            "documentIds": [AN_ID],
            "startScript": "Ahoy!",
        }
        assert (made.id, made.status, made.document_ids) == (AN_ID, "READY", (AN_ID,))
        assert made.voice is not None
        assert made.voice.preset_id == "clara"
        assert made.wire() == AVATAR


async def test_what_is_personal_or_signed_is_not_in_a_repr() -> None:
    async with runway(Reply(payload=AVATAR)) as (_, client):
        shown = repr(await client.get_avatar(AN_ID))
        assert "Ada" in shown
        for hidden in (PERSONALITY, "signature", "later"):
            assert hidden not in shown


async def test_a_file_is_sent_as_a_data_uri(tmp_path: Path) -> None:
    face = tmp_path / "face.PNG"
    face.write_bytes(b"a picture")
    async with runway(Reply(payload=AVATAR)) as (server, client):
        await an_avatar(client, reference_image=face)
        sent = body_of(server)["referenceImage"]
        assert sent == f"data:image/png;base64,{base64.b64encode(b'a picture').decode()}"


@pytest.mark.slow
async def test_a_file_that_is_too_large_for_that_is_uploaded_without_the_key(
    tmp_path: Path,
) -> None:
    face = tmp_path / "face.png"
    face.write_bytes(b"x" * 4_000_000)
    async with runway() as (server, client):
        place = {
            "uploadUrl": f"{server.url}/store",
            "fields": {"key": "k", "policy": "p"},
            "runwayUri": "runway://stored",
        }
        server.script += [Reply(payload=place), Reply(503), Reply(204), Reply(payload=AVATAR)]
        await an_avatar(client, reference_image=face)
        asked, first, again, create = server.seen
        assert json.loads(asked.body) == {"filename": "face.png", "type": "ephemeral"}
        assert (first.path, again.path) == ("/store", "/store")
        assert "Authorization" not in again.headers
        order = [again.body.index(part) for part in (b'name="key"', b'name="policy"', b'"file"')]
        assert order == sorted(order)
        assert face.read_bytes() in again.body
        assert json.loads(create.body)["referenceImage"] == "runway://stored"


async def test_a_file_goes_to_no_place_that_anybody_could_read(tmp_path: Path) -> None:
    face = tmp_path / "face.png"
    face.write_bytes(b"a picture")
    place = {"uploadUrl": "ftp://store.test/", "fields": {}, "runwayUri": "runway://x"}
    async with runway(Reply(payload=place)) as (server, client):
        with pytest.raises(e.ProtocolError):
            await client.upload(face)
        assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 51}, "name"),
        ({"personality": "x" * 10_001}, "personality"),
        ({"voice": "caruso"}, "voice"),
        ({"reference_image": "face.png"}, "pathlib.Path"),
        ({"reference_image": "data:image/png;base64," + "A" * 5_300_000}, "5242880"),
        ({"reference_image": Path("/nowhere/face.png")}, "face.png"),
        ({"reference_image": Path("/nowhere/face.txt")}, ".png"),
        ({"document_ids": ["x"]}, "document_ids"),
        ({"document_ids": [AN_ID] * 51}, "document_ids"),
        ({"start_script": "x" * 2_001}, "start_script"),
    ],
)
async def test_what_runway_would_refuse_is_not_sent(fields: dict[str, Any], names: str) -> None:
    async with runway() as (server, client):
        with pytest.raises(e.ConfigurationError, match=names) as caught:
            await an_avatar(client, **fields)
        assert not server.seen
        assert len(str(caught.value)) < 600


async def test_a_change_says_only_what_is_to_change() -> None:
    async with runway(Reply(payload=AVATAR), Reply(payload=AVATAR)) as (server, client):
        await client.update_avatar(AN_ID, start_script="", voice=AN_ID)
        assert (server.seen[0].method, server.seen[0].path) == ("PATCH", f"/v1/avatars/{AN_ID}")
        assert body_of(server) == {"startScript": None, "voice": {"type": "custom", "id": AN_ID}}
        await client.update_avatar(AN_ID, document_ids=[])
        assert body_of(server) == {"documentIds": []}
        with pytest.raises(e.ConfigurationError):
            await client.update_avatar(AN_ID)


async def test_a_document_is_added_to_those_that_an_avatar_knows() -> None:
    other = AN_ID.replace("1", "2")
    async with runway(Reply(payload=AVATAR), Reply(payload=AVATAR)) as (server, client):
        await client.attach_document(AN_ID, other)
        assert body_of(server) == {"documentIds": [AN_ID, other]}


async def test_a_document_is_made_of_a_file_and_named_after_it(tmp_path: Path) -> None:
    file = tmp_path / "prices.md"
    file.write_bytes("\ufeffTea 2 €".encode())
    async with runway(Reply(payload={"id": AN_ID})) as (server, client):
        await client.create_document(file)
        assert body_of(server) == {"name": "prices.md", "content": "Tea 2 €"}
        file.write_bytes(b"\xff\xfe")
        with pytest.raises(e.ConfigurationError, match="UTF-8"):
            await client.create_document(file)


async def test_the_documents_of_an_avatar_are_picked_out_of_all_pages() -> None:
    used = {"usedBy": [{"id": AN_ID, "name": "Ada", "imageUrl": None}]}
    pages = [
        {"data": [{"id": "1", **used}, {"id": "2"}], "hasMore": True, "nextCursor": "c"},
        {"data": [{"id": "3", **used}], "hasMore": False, "nextCursor": None},
    ]
    async with runway(*(Reply(payload=page) for page in pages)) as (_, client):
        found = await client.list_documents(avatar_id=AN_ID)
        assert [document.id for document in found] == ["1", "3"]


async def test_a_list_that_does_not_end_is_an_error() -> None:
    page = Reply(payload={"data": [{"id": "1", "status": "READY"}], "hasMore": True})
    async with runway(page) as (_, client):
        with pytest.raises(e.ProtocolError):
            await client.list_avatars()


async def test_no_more_than_the_limit_is_asked_for() -> None:
    page = Reply(payload={"data": [AVATAR] * 2, "hasMore": True, "nextCursor": "c"})
    async with runway(page) as (server, client):
        assert len(await client.list_avatars(limit=2)) == 2
        assert len(server.seen) == 1


# -- what takes a while --


@virtual_clock
async def test_an_avatar_is_waited_for_until_it_is_ready() -> None:
    states = ("PROCESSING", "PROCESSING", "READY")
    async with runway(*becoming(*states)) as (server, client):
        told: list[str] = []
        ready = await client.wait_until_avatar_ready(
            AN_ID, on_poll=lambda avatar: told.append(avatar.status)
        )
        assert (ready.status, told) == ("READY", list(states))
        assert [at - server.times[0] for at in server.times] == [0, 2, 4]


@virtual_clock
async def test_why_an_avatar_failed_is_told() -> None:
    async with runway(*becoming("FAILED", failureReason="No face was found")) as (_, client):
        with pytest.raises(e.ProcessingFailedError, match="No face was found") as caught:
            await client.wait_until_avatar_ready(AN_ID)
        assert (caught.value.kind, caught.value.id) == ("avatar", AN_ID)
        assert not caught.value.retryable


@virtual_clock
async def test_a_wait_is_bounded_and_outlasts_what_passes() -> None:
    replies = [Reply(payload={"id": AN_ID, "status": "PROCESSING"}), Reply(500)] * 9
    async with runway(*replies) as (_, client):
        with pytest.raises(e.RunwayException) as caught:
            await client.wait_until_avatar_ready(AN_ID, timeout=5.0)
        assert isinstance(caught.value, e.StillProcessingError)
        assert (caught.value.status, caught.value.waited) == ("PROCESSING", 5.0)


@virtual_clock
async def test_an_avatar_that_is_not_there_is_not_waited_for() -> None:
    async with runway(Reply(404)) as (server, client):
        with pytest.raises(e.NotFoundError):
            await client.wait_until_avatar_ready(AN_ID)
        assert len(server.seen) == 1


@virtual_clock
async def test_a_task_is_waited_for_and_tells_what_it_made() -> None:
    done = becoming("PENDING", "RUNNING", "SUCCEEDED", output=["https://made.test/a.mp4"])
    async with runway(*done) as (server, client):
        task = await client.wait_for_task(AN_ID)
        assert task.output == ("https://made.test/a.mp4",)
        assert "made.test" not in repr(task)
        assert [at - server.times[0] for at in server.times] == [0, 5, 10]
    async with runway(*becoming("FAILED", failure="f", failureCode="INTERNAL.X")) as (_, client):
        with pytest.raises(e.ProcessingFailedError, match=r"INTERNAL\.X") as caught:
            await client.wait_for_task(AN_ID)
        assert caught.value.retryable


# -- voices, videos, usage --


async def test_a_voice_is_made_of_a_description_or_a_sample(tmp_path: Path) -> None:
    sample = tmp_path / "me.wav"
    sample.write_bytes(b"sound")
    prompt = "A warm voice with a friendly tone"
    made = Reply(payload={"id": AN_ID})
    async with runway(made, made) as (server, client):
        assert await client.create_voice(name="Nova", prompt=prompt) == AN_ID
        design = {"type": "text", "prompt": prompt, "model": "eleven_ttv_v3"}
        assert body_of(server) == {"name": "Nova", "from": design}
        await client.create_voice(name="Me", audio=sample)
        assert body_of(server)["from"]["audio"].startswith("data:audio/wav;base64,")
        with pytest.raises(e.ConfigurationError):
            await client.create_voice(name="Both", prompt=prompt, audio=sample)


async def test_a_video_names_avatar_speech_and_voice() -> None:
    async with runway(Reply(payload={"id": AN_ID})) as (server, client):
        task = await client.create_avatar_video(preset_id="influencer", text="Hi", voice="luna")
        assert task == AN_ID
        assert body_of(server) == {
            "model": "gwm1_avatars",
            "avatar": {"type": "runway-preset", "presetId": "influencer"},
            "speech": {
                "type": "text",
                "text": "Hi",
                "voice": {"type": "preset", "presetId": "luna"},
            },
        }


@virtual_clock
async def test_credits_are_told_by_day_and_the_question_may_be_repeated() -> None:
    used = [{"model": "gwm1_avatars", "amount": 12}, {"model": "gen4.5", "amount": -2}]
    answer = {"results": [{"date": "2026-11-01", "usedCredits": used}], "models": []}
    async with runway(Reply(cut="request read"), Reply(payload=answer)) as (server, client):
        usage = await client.credit_usage(since=date(2026, 11, 1), before=date(2026, 11, 2))
        assert [(day.date, day.total) for day in usage.results] == [("2026-11-01", 10)]
        assert body_of(server) == {"startDate": "2026-11-01", "beforeDate": "2026-11-02"}
        with pytest.raises(e.ConfigurationError):
            await client.credit_usage(since=date(2026, 11, 2), before=date(2026, 11, 1))


# -- what is repeated --

Caller = Callable[[RunwayClient], Awaitable[object]]
CHANGES: dict[str, Caller] = {
    "create_avatar": an_avatar,
    "update_avatar": lambda client: client.update_avatar(AN_ID, name="Bea"),
    "create_document": lambda client: client.create_document("text", name="name"),
    "create_voice": lambda client: client.create_voice(name="n", prompt="x" * 20),
    "preview_voice": lambda client: client.preview_voice("x" * 20),
    "create_avatar_video": lambda client: client.create_avatar_video(avatar_id=AN_ID, text="Hi"),
}
DELETES: dict[str, Caller] = {
    "delete_avatar": lambda client: client.delete_avatar(AN_ID),
    "delete_document": lambda client: client.delete_document(AN_ID),
    "delete_voice": lambda client: client.delete_voice(AN_ID),
    "delete_conversation": lambda client: client.delete_conversation(AN_ID),
}


@virtual_clock
@pytest.mark.parametrize("name", CHANGES)
async def test_a_change_whose_answer_is_lost_is_not_repeated(name: str) -> None:
    async with runway(Reply(cut="request read")) as (server, client):
        with pytest.raises(e.LostAnswerError):
            await CHANGES[name](client)
        assert len(server.seen) == 1


@virtual_clock
@pytest.mark.parametrize("name", DELETES)
async def test_a_delete_is_repeated_and_not_surprised_by_its_own_success(name: str) -> None:
    async with runway() as (server, client):
        # (A connection that is cut before an answer is repeated by aiohttp itself, unseen.)
        server.delete_script += [Reply(cut="half an answer"), Reply(404)]
        await DELETES[name](client)
        assert [seen.method for seen in server.seen] == ["DELETE"] * 2


@pytest.mark.parametrize("name", DELETES)
async def test_what_is_not_there_cannot_be_deleted(name: str) -> None:
    async with runway() as (server, client):
        server.delete_script.append(Reply(404))
        with pytest.raises(e.NotFoundError):
            await DELETES[name](client)


async def test_a_task_that_is_gone_is_deleted() -> None:
    async with runway() as (server, client):
        server.delete_script.append(Reply(404))
        await client.delete_task(AN_ID)


async def test_an_id_cannot_leave_its_place_in_the_path() -> None:
    async with runway() as (server, client):
        await client.delete_avatar("../documents/x?y")
        assert server.seen[0].path.startswith("/v1/avatars/")


async def test_an_answer_without_an_id_is_no_avatar() -> None:
    async with runway(Reply(payload={"name": "Ada", "status": "READY"})) as (_, client):
        with pytest.raises(e.ProtocolError, match="id"):
            await client.get_avatar(AN_ID)


@virtual_clock
async def test_what_is_given_reaches_neither_log_nor_error(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    face = tmp_path / "face.png"
    face.write_bytes(b"a picture")
    async with runway(Reply(503), Reply(cut="request read")) as (server, client):
        with pytest.raises(e.LostAnswerError) as lost:
            await an_avatar(client, reference_image=face)
        place = {
            "uploadUrl": f"{server.url}/store?signature=a-signature",
            "fields": {"policy": "a-policy"},
            "runwayUri": "runway://stored",
        }
        server.script += [Reply(payload=place), Reply(403, "<Error>a-policy is over</Error>")]
        with pytest.raises(e.ForbiddenError) as refused:
            await client.upload(face)
        server.script += [Reply(payload=place), *[Reply(cut="request read")] * 3]
        with pytest.raises(e.UnavailableError) as away:
            await client.upload(face)
    told = "".join((caplog.text, *map(str, (lost.value, refused.value, away.value))))
    for secret in (KEY, PERSONALITY, "data:image", "a-policy", "a-signature"):
        assert secret not in told
