"""A face whose mouth opens with the voice, as I420 frames that are drawn once."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import numpy.typing as npt
from livekit import rtc

from ..options import Picture
from . import camera

MOUTHS = 6
"""How many openings of the mouth there are, closed to wide open."""

_Plane = npt.NDArray[np.uint8]
_Colour = tuple[int, int, int]

# Y, U, V.
_WALL: _Colour = (96, 142, 112)
_SHIRT: _Colour = (70, 158, 110)
_HAIR: _Colour = (44, 122, 138)
_SKIN: _Colour = (178, 112, 150)
_SHADE: _Colour = (148, 114, 154)
_LIGHT: _Colour = (186, 113, 148)
_LID: _Colour = (168, 112, 152)
_WHITE: _Colour = (228, 128, 128)
_IRIS: _Colour = (86, 138, 118)
_PUPIL: _Colour = (32, 128, 128)
_TEETH: _Colour = (210, 126, 130)
_LIPS: _Colour = (112, 118, 172)
_MOUTH: _Colour = (48, 122, 150)


class Face:
    """Pictures of one face. Drawing those of Runway's size takes 0.1 s, once in a process; with a
    camera's background and noise it takes 0.3 s."""

    def __init__(self, picture: Picture = "drawn") -> None:
        self._picture = picture

    def prepare(self, *sizes: tuple[int, int]) -> None:
        """Draw the pictures of these sizes in pixels now: a worker that draws in mid-call leaves
        its voice waiting."""
        for size in sizes:
            _draw_all(self._picture, *size)

    def frame(self, size: tuple[int, int], loudness: float, blinking: bool) -> rtc.VideoFrame:
        """The picture for a voice of this loudness (RMS, 1.0 = full scale). Size in pixels."""
        # Quiet speech has to show too, so the opening grows with the root.
        opening = min(MOUTHS - 1, round(math.sqrt(max(0.0, loudness - 0.004) * 6) * (MOUTHS - 1)))
        pictures, noise = _draw_all(self._picture, *size)
        picture = pictures[blinking][opening]
        if noise is None:
            return picture
        data = noise.added(picture.data, picture.width * picture.height)
        return rtc.VideoFrame(picture.width, picture.height, rtc.VideoBufferType.I420, data)


@functools.lru_cache(maxsize=8)
def _draw_all(
    picture: Picture, width: int, height: int
) -> tuple[list[list[rtc.VideoFrame]], camera.Noise | None]:
    noisy = picture == "camera"
    canvas = _Canvas(camera.room(width, height) if noisy else _wall(width, height))
    grain = camera.Grain(width, height) if noisy else None
    _head(canvas)
    pictures = []
    for blinking in (False, True):
        eyes = canvas.copy()
        for side in (-0.09, 0.09):
            if blinking:
                eyes.ellipse(side, -0.076, 0.040, 0.010, _SHADE)
                eyes.ellipse(side, -0.081, 0.040, 0.010, _LID)
            else:
                eyes.ellipse(side, -0.080, 0.042, 0.024, _SHADE)
                eyes.ellipse(side, -0.078, 0.038, 0.021, _WHITE)
                eyes.ellipse(side, -0.080, 0.019, 0.020, _IRIS)
                eyes.ellipse(side, -0.080, 0.010, 0.011, _PUPIL)
                eyes.ellipse(side - 0.006, -0.086, 0.004, 0.004, _WHITE)
        row = []
        for opening in range(MOUTHS):
            mouth = eyes.copy()
            gape = 0.065 * opening / (MOUTHS - 1)
            middle, wide = 0.135 + gape * 0.5, 0.072 - gape * 0.2
            mouth.ellipse(0.0, middle, wide, 0.018 + gape, _LIPS)
            mouth.ellipse(0.0, middle, wide - 0.014, 0.003 + gape * 0.85, _MOUTH)
            if opening > 1:
                mouth.ellipse(0.0, middle - gape * 0.6, wide - 0.034, gape * 0.2, _TEETH)
            row.append(mouth.frame(grain))
        pictures.append(row)
    return pictures, camera.Noise(width * height) if noisy else None


def _head(canvas: _Canvas) -> None:
    """All that does not move."""
    canvas.ellipse(0.0, -0.095, 0.232, 0.300, _HAIR)
    canvas.ellipse(0.0, 0.32, 0.092, 0.170, _SHADE)  # the neck, in the chin's shadow
    canvas.ellipse(0.0, 0.60, 0.460, 0.215, _SHIRT)
    canvas.ellipse(0.0, 0.39, 0.086, 0.050, _SHADE)
    for side in (-1, 1):
        canvas.ellipse(side * 0.196, -0.03, 0.026, 0.052, _SHADE)
    canvas.ellipse(0.0, -0.02, 0.195, 0.285, _SKIN)
    canvas.ellipse(-0.055, -0.255, 0.140, 0.080, _HAIR)
    canvas.ellipse(0.095, -0.255, 0.100, 0.066, _HAIR)
    for side in (-1, 1):
        canvas.ellipse(side * 0.09, -0.128, 0.046, 0.009, _HAIR)
    canvas.ellipse(0.0, 0.052, 0.030, 0.017, _SHADE)
    canvas.ellipse(-0.003, 0.010, 0.018, 0.050, _LIGHT)


def _wall(width: int, height: int) -> tuple[_Plane, _Plane, _Plane]:
    rows = np.linspace(-18, 18, height)[:, None]
    wall = np.broadcast_to(np.clip(_WALL[0] - rows, 0, 255), (height, width)).astype(np.uint8)
    chroma = (height // 2, width // 2)
    return wall, np.full(chroma, _WALL[1], np.uint8), np.full(chroma, _WALL[2], np.uint8)


class _Canvas:
    """Three planes; places and sizes are in parts of the picture's height, from its middle."""

    def __init__(self, planes: tuple[_Plane, _Plane, _Plane]) -> None:
        self._planes = planes

    def copy(self) -> _Canvas:
        luma, u, v = self._planes
        return _Canvas((luma.copy(), u.copy(), v.copy()))

    def ellipse(self, x: float, y: float, wide: float, high: float, colour: _Colour) -> None:
        for plane, value in zip(self._planes, colour, strict=True):
            height, width = plane.shape
            left, right = ((x + side * wide) * height + width / 2 for side in (-1, 1))
            top, bottom = ((y + side * high + 0.5) * height for side in (-1, 1))
            box = (
                slice(max(0, int(top)), min(height, int(bottom) + 1)),
                slice(max(0, int(left)), min(width, int(right) + 1)),
            )
            rows: Any
            columns: Any
            rows, columns = np.ogrid[box]
            inside = ((columns - (left + right) / 2) / (wide * height)) ** 2 + (
                (rows - (top + bottom) / 2) / (high * height)
            ) ** 2 <= 1
            plane[box][inside] = value

    def frame(self, grain: camera.Grain | None) -> rtc.VideoFrame:
        luma, u, v = self._planes
        height, width = luma.shape
        if grain is not None:
            luma = grain.added(luma)
        data = b"".join(plane.tobytes() for plane in (luma, u, v))
        return rtc.VideoFrame(width, height, rtc.VideoBufferType.I420, data)
