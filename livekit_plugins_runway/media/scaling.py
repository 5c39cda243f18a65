"""Converts pictures of any size to one size: cropped, scaled, with bars. I420 throughout, the
format of LiveKit tracks.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import Interpolation, VideoReformatter
from livekit import rtc

Scaling = Literal["cover", "fit", "stretch"]

_Plane = npt.NDArray[np.uint8]
_BLACK = (16, 128, 128)
"""Y, U, V in the limited range, which WebRTC assumes."""
_SUBSAMPLING = (1, 2, 2)


class Box(NamedTuple):
    """Part of a picture in pixels; all values are even, because colours have half the
    resolution.
    """

    left: int
    top: int
    width: int
    height: int


def placement(
    source: tuple[int, int], target: tuple[int, int], scaling: Scaling, crop_top: float = 0.0
) -> tuple[Box, Box]:
    """The part that is cut out of a picture, and its place in the target.

    Args:
        source, target: width and height in pixels; an odd last row or column of the source is left
            out.
        crop_top: with "cover", the share of the cropped rows that is taken from the top.
    """
    width, height = source[0] & ~1, source[1] & ~1
    wide, high = target
    whole, full = Box(0, 0, width, height), Box(0, 0, wide, high)
    if scaling == "stretch":
        return whole, full
    if scaling == "cover":
        cut_width = min(width, nearest_even(height * wide / high))
        cut_height = min(height, nearest_even(width * high / wide))
        left, top = (width - cut_width) / 2, (height - cut_height) * crop_top
        return Box(nearest_even(left, 0), nearest_even(top, 0), cut_width, cut_height), full
    fit_width = min(wide, nearest_even(high * width / height))
    fit_height = min(high, nearest_even(wide * height / width))
    left, top = (wide - fit_width) / 2, (high - fit_height) / 2
    return whole, Box(nearest_even(left, 0), nearest_even(top, 0), fit_width, fit_height)


def nearest_even(value: float, least: int = 2) -> int:
    """The nearest even number."""
    return max(least, 2 * round(value / 2))


class Scaler:
    """Makes pictures of one size. Its buffers are made once for each input size, except one that
    swscale makes for its result.
    """

    def __init__(self, width: int, height: int, scaling: Scaling, crop_top: float) -> None:
        self._target = (width, height)
        self._scaling = scaling
        self._crop_top = crop_top
        data = bytearray(width * height * 3 // 2)
        self._result = rtc.VideoFrame(width, height, rtc.VideoBufferType.I420, data)
        self._planes = _planes(self._result)
        self._reformatter = VideoReformatter()
        self._source = (0, 0)
        self._from = self._to = Box(0, 0, 0, 0)
        self._cut = av.VideoFrame(2, 2, "yuv420p")

    def scale(self, frame: rtc.VideoFrame) -> rtc.VideoFrame:
        """The picture in the target's size; the same object each time, or `frame` itself."""
        source = (frame.width, frame.height)
        if source == self._target:
            return frame
        if frame.type != rtc.VideoBufferType.I420:
            frame = frame.convert(rtc.VideoBufferType.I420)
        if source != self._source:
            self._source = source
            self._expect(source)
        cut = _parts(_planes(frame), self._from)
        if self._from[2:] != self._to[2:]:
            for into, part in zip(_av_planes(self._cut), cut, strict=True):
                np.copyto(into, part)
            # One thread: waking one per core is not worth it for half a millisecond of work.
            scaled = self._reformatter.reformat(
                self._cut,
                self._to.width,
                self._to.height,
                interpolation=Interpolation.BILINEAR,
                threads=1,
            )
            cut = _av_planes(scaled)
        for into, part in zip(_parts(self._planes, self._to), cut, strict=True):
            np.copyto(into, part)
        return self._result

    def _expect(self, source: tuple[int, int]) -> None:
        self._from, self._to = placement(source, self._target, self._scaling, self._crop_top)
        self._cut = av.VideoFrame(self._from.width, self._from.height, "yuv420p")
        for plane, value in zip(self._planes, _BLACK, strict=True):
            plane.fill(value)  # clear the bars, which are elsewhere now


def _planes(frame: rtc.VideoFrame) -> list[_Plane]:
    """Y, U and V, without a copy."""
    data, at, planes = np.frombuffer(frame.data, np.uint8), 0, []
    for by in _SUBSAMPLING:
        rows, columns = -(-frame.height // by), -(-frame.width // by)
        planes.append(data[at : at + rows * columns].reshape(rows, columns))
        at += rows * columns
    return planes


def _parts(planes: list[_Plane], box: Box) -> list[_Plane]:
    left, top, width, height = box
    return [
        plane[top // by : (top + height) // by, left // by : (left + width) // by]
        for plane, by in zip(planes, _SUBSAMPLING, strict=True)
    ]


def _av_planes(frame: av.VideoFrame) -> list[_Plane]:
    """Y, U and V without the padding of their rows, without a copy."""
    return [
        np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[
            : plane.height, : plane.width
        ]
        for plane in frame.planes
    ]
