"""The pictures of the simulated worker: one that is kind to encoders, and one like a camera's."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from livekit_plugins_runway.testing import SimulatorOptions
from livekit_plugins_runway.testing.options import Picture
from livekit_plugins_runway.testing.worker.face import Face

SIZE = (1088, 704)


def luma(face: Face, loudness: float = 0.0) -> npt.NDArray[np.float64]:
    width, height = SIZE
    frame = face.frame(SIZE, loudness, False)
    return np.frombuffer(frame.data, np.uint8, width * height).reshape(height, width).astype(float)


def test_a_drawn_face_is_the_same_in_each_picture_and_a_cameras_never() -> None:
    drawn, camera = Face(), Face("camera")
    assert np.array_equal(luma(drawn), luma(drawn))
    pictures = [luma(camera) for _ in range(8)]
    for n, one in enumerate(pictures[:-1]):
        for other in pictures[n + 1 :]:
            # Independent noise of deviation 3 twice.
            assert np.std(one - other) == pytest.approx(3 * 2**0.5, rel=0.03)


def test_noise_leaves_no_trace_where_it_is_averaged() -> None:
    """It neither wraps around to black or white, nor makes the picture brighter."""
    camera = Face("camera")
    mean = np.mean([luma(camera) for _ in range(100)], axis=0)
    one = luma(camera)
    assert np.abs(one - mean).max() < 15
    assert (one - mean).mean() == pytest.approx(0.0, abs=0.05)


def test_a_cameras_background_has_detail() -> None:
    """Beside the face neighbours differ by more than noise; a drawn wall is smooth."""
    for face, least, most in ((Face(), 0.0, 0.1), (Face("camera"), 5.0, 30.0)):
        left = np.mean([luma(face)[100:, :300] for _ in range(50)], axis=0)
        assert least <= np.abs(left[:, 8:] - left[:, :-8]).mean() <= most


@pytest.mark.parametrize("kind", ["drawn", "camera"])
def test_the_mouth_opens_with_the_voice(kind: Picture) -> None:
    face = Face(kind)
    change = np.abs(luma(face, 0.3) - luma(face, 0.0))
    mouth = change[400:520, 480:610].mean()
    assert mouth > 20
    assert change[150:250, 480:610].mean() < mouth / 4


def test_a_picture_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="camera"):
        SimulatorOptions(picture="oil")  # type: ignore[arg-type]
