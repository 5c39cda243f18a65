"""What a camera adds to a drawn face: a room full of detail behind it, and noise on each picture.

A drawn face costs an encoder next to nothing, and its second generation nothing more. A camera's
picture fills its bit rate, and is never the same twice.
"""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt

NOISE = 3.0
"""Standard deviation of the noise on luma, of 255: a camera in the light of a room."""

_Plane = npt.NDArray[np.uint8]

_DARKEST, _BRIGHTEST = 36, 222
"""Of a picture without its noise, so that no noise of four deviations leaves the range of video."""
_SEED = 20
_ROOM_FOR_OFFSETS = 1 << 18
"""More noise than a picture has pixels: so many places at which a picture's noise may begin."""
_STEP = 104_729
"""From one picture's place to the next one's, a prime: all places come before one comes again, and
no encoder finds the noise of the last picture nearby."""
_SHELVES, _BOOKS = 5, 24


def room(width: int, height: int) -> tuple[_Plane, _Plane, _Plane]:
    """Shelves of books in uneven light, as Y, U and V."""
    random = np.random.default_rng(_SEED)
    luma = 120 + 40 * _cloud(random, width, height, 3) + 14 * _cloud(random, width, height, 24)
    chroma = [np.full((height // 2, width // 2), 128.0) for _ in range(2)]
    for shelf in range(_SHELVES):
        top, bottom = (height * (shelf + n) // _SHELVES for n in (0, 1))
        edges = np.sort(random.integers(0, width, _BOOKS))
        for left, right in itertools.pairwise(edges):
            lower = top + (bottom - top) // 8 + int(random.integers(0, (bottom - top) // 4 + 1))
            luma[lower:bottom, left:right] += random.uniform(-45, 45)
            for plane in chroma:
                plane[lower // 2 : bottom // 2, left // 2 : right // 2] += random.uniform(-24, 24)
        luma[bottom - max(1, height // 90) : bottom] -= 40
    planes = [np.clip(plane, 16, 235).astype(np.uint8) for plane in (luma, *chroma)]
    return planes[0], planes[1], planes[2]


class Grain:
    """Of skin, cloth and paper, and light from one side; the same in each picture."""

    def __init__(self, width: int, height: int) -> None:
        random = np.random.default_rng(_SEED + 1)
        grain = 5 * _cloud(random, width, height, 120) + 5 * _cloud(random, width, height, 40)
        self._grain = grain + np.linspace(16, -16, width)

    def added(self, luma: _Plane) -> _Plane:
        """A copy that has it, and leaves room for noise."""
        return np.clip(luma + self._grain, _DARKEST, _BRIGHTEST).astype(np.uint8)


class Noise:
    """Of another picture each time it is asked. The noise is drawn once and added from another
    place for each picture: 0.2 ms for one of Runway's size, 0.5 % of a core at 25 a second."""

    def __init__(self, pixels: int) -> None:
        random = np.random.default_rng(_SEED + 2)
        noise = random.normal(0, NOISE, pixels + _ROOM_FOR_OFFSETS)
        limit = 4 * NOISE
        # As uint8, in which adding a negative number is a matter of wrapping around.
        self._noise = np.clip(np.rint(noise), -limit, limit).astype(np.int8).view(np.uint8)
        self._place = 0

    def added(self, picture: memoryview | bytes, pixels: int) -> bytearray:
        """A copy of an I420 picture whose luma, so many pixels, has noise."""
        data = bytearray(picture)
        luma = np.frombuffer(data, np.uint8, pixels)
        np.add(luma, self._noise[self._place : self._place + pixels], out=luma)
        self._place = (self._place + _STEP) % _ROOM_FOR_OFFSETS
        return data


def _cloud(
    random: np.random.Generator, width: int, height: int, cells: int
) -> npt.NDArray[np.float64]:
    """A smooth pattern from -1 to 1, with so many cells in the picture's height."""
    across = max(2, cells * width // height)
    grid = random.uniform(-1, 1, (cells + 1, across + 1))
    x, y = np.linspace(0, across, width), np.linspace(0, cells, height)
    rows = np.array([np.interp(x, np.arange(across + 1), row) for row in grid])
    low = np.minimum(y.astype(int), cells - 1)
    part = (y - low)[:, None]
    cloud: npt.NDArray[np.float64] = rows[low] * (1 - part) + rows[low + 1] * part
    return cloud
