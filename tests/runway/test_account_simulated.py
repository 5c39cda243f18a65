"""`RunwayClient` and an account that is simulated: nothing that it sends is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from livekit_plugins_runway import errors as e
from livekit_plugins_runway.runway.account import requests
from livekit_plugins_runway.runway.client import RunwayClient
from livekit_plugins_runway.testing import RunwaySimulator, SimulatorOptions
from tests.support.near_bodies import near
from tests.testing.test_simulator_bodies import CASES

LARGE = b"x" * 4_000_000


@asynccontextmanager
async def account() -> AsyncIterator[tuple[RunwaySimulator, RunwayClient]]:
    async with RunwaySimulator(options=SimulatorOptions(time_scale=0.05)) as simulator:
        client = RunwayClient(simulator.api_secret, base_url=simulator.url)
        try:
            yield simulator, client
        finally:
            await client.aclose()


async def an_avatar(client: RunwayClient, picture: Path, **fields: Any) -> str:
    made = await client.create_avatar(
        name="Ada", reference_image=picture, personality="Kind.", voice="luna", **fields
    )
    return made.id


@pytest.fixture
def picture(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    file = tmp_path / "face.png"
    file.write_bytes(getattr(request, "param", b"a picture"))
    return file


async def test_an_avatar_from_a_picture_to_its_end(picture: Path) -> None:
    async with account() as (_, client):
        prices = await client.create_document("Tea: 2 €", name="Prices")
        avatar_id = await an_avatar(client, picture, document_ids=[prices.id])
        ready = await client.wait_until_avatar_ready(avatar_id, interval=0.01)
        assert (ready.status, ready.document_ids) == ("READY", (prices.id,))
        hours = await client.create_document("9 to 5", name="Hours")
        assert (await client.attach_document(avatar_id, hours.id)).document_ids[1] == hours.id
        known = await client.list_documents(avatar_id=avatar_id)
        assert {one.id for one in known} == {prices.id, hours.id}
        changed = await client.update_avatar(avatar_id, start_script="Ahoy!", voice="adam")
        assert (changed.start_script, changed.status) == ("Ahoy!", "READY")
        assert (await client.update_avatar(avatar_id, start_script="")).start_script is None
        await client.update_document(hours.id, content="10 to 6")
        assert (await client.get_document(hours.id)).content == "10 to 6"
        await client.delete_document(hours.id)
        assert (await client.get_avatar(avatar_id)).document_ids == (prices.id,)
        await client.delete_avatar(avatar_id)
        assert await client.list_avatars() == []


async def test_an_avatar_that_fails_says_why(picture: Path) -> None:
    async with account() as (simulator, client):
        simulator.account.fail_next("avatar", "No face was found")
        avatar_id = await an_avatar(client, picture)
        with pytest.raises(e.ProcessingFailedError, match="No face was found"):
            await client.wait_until_avatar_ready(avatar_id, interval=0.01)


@pytest.mark.parametrize("picture", [LARGE], indirect=True)
async def test_a_picture_that_is_too_large_for_a_body_arrives(picture: Path) -> None:
    async with account() as (simulator, client):
        await an_avatar(client, picture)
        (stored,) = simulator.account.uploads.values()
        assert (stored.name, stored.content) == ("face.png", LARGE)


async def test_a_voice_from_its_description_to_its_end() -> None:
    prompt = "A warm voice with a friendly tone"
    async with account() as (_, client):
        assert (await client.preview_voice(prompt)).duration_secs > 0
        voice_id = await client.create_voice(name="Nova", prompt=prompt, description="Warm")
        ready = await client.wait_until_voice_ready(voice_id, interval=0.01)
        assert ready.preview_url
        changed = await client.update_voice(voice_id, description="")
        assert (changed.name, changed.description) == ("Nova", None)
        await client.delete_voice(voice_id)
        assert await client.list_voices() == []


async def test_a_video_is_made_paid_for_and_deleted() -> None:
    async with account() as (_, client):
        task_id = await client.create_avatar_video(preset_id="influencer", text="Hi")
        task = await client.wait_for_task(task_id, interval=0.01)
        assert task.cost is not None
        assert task.output
        day = date.fromisoformat((task.created_at or "")[:10])
        usage = await client.credit_usage(since=day)
        assert [one.total for one in usage.results] == [task.cost.credits]
        await client.delete_task(task_id)
        await client.delete_task(task_id)


def test_what_the_client_lets_pass_the_simulator_takes() -> None:
    """And the client refuses nothing that the simulator takes."""
    models: dict[str, type[requests.AccountRequest]] = {
        "avatar_create": requests.CreateAvatar,
        "avatar_update": requests.UpdateAvatar,
        "document_create": requests.CreateDocument,
        "document_update": requests.UpdateDocument,
        "voice_preview": requests.PreviewVoice,
        "avatar_video": requests.CreateAvatarVideo,
        "upload": requests.CreateUpload,
    }
    for kind, check, body in CASES:
        for other in near(body) if kind in models else ():
            taken = not list(check(other, ()))
            try:
                wire = models[kind].model_validate(other).wire()
            except ValueError:
                assert not taken, str(other)[:300]
            else:
                assert not list(check(wire, ())), str(other)[:300]
