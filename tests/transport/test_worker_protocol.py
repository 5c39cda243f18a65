"""What a worker tells, in whatever form it comes."""

from __future__ import annotations

import pytest

from livekit_plugins_runway.transport.worker_protocol import says_interrupted


@pytest.mark.parametrize(
    ("payload", "interrupted"),
    [
        ('{"interrupted": false}', False),
        ('{"interrupted": true}', True),
        ("{}", True),
        ("[]", True),
        ("", True),
        ("no JSON", True),
        ("[" * 15_000, True),
    ],
)
def test_only_what_says_that_all_was_spoken_was_not_interrupted(
    payload: str, interrupted: bool
) -> None:
    assert says_interrupted(payload) is interrupted
