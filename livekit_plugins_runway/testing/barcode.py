"""A number in a picture, as black and white blocks along its top.

It says which picture of the sender's has arrived, so that latency and losses can be measured
through any codec, relay or scaling. The blocks are large: H.264 at 0.5 Mbit/s leaves them alone,
also where the picture is scaled down to a quarter of its width.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt
from livekit import rtc

COUNT = 1 << 16
"""Numbers are taken modulo this; 25 pictures a second reach it after 43 minutes."""

_COLUMNS, _ROWS = 12, 2
_BITS = _COLUMNS * _ROWS
_HEIGHT = 1 / 11
"""Of the picture's height. 1088x704 gives blocks of 91x32 pixels, whole macroblocks in height."""
_BLACK, _WHITE = 16, 235
"""Luma of video (ITU-R BT.601)."""
_DARK, _BRIGHT = 90, 160
"""What lies between them is no block."""
_SAMPLES = (0.35, 0.5, 0.65)
"""Where a block is looked at, of its width and height: codecs smear the edges."""


def stamped(frame: rtc.VideoFrame, number: int) -> rtc.VideoFrame:
    """A copy of an I420 picture with the number in it. From 96x88 pixels on it can be read."""
    width, height = frame.width, frame.height
    data = bytearray(frame.data)
    top = round(height * _HEIGHT)
    strip = np.frombuffer(data, np.uint8, width * top).reshape(top, width)
    levels = np.where(_bits(number % COUNT), _WHITE, _BLACK).astype(np.uint8)
    columns = np.arange(width) * _COLUMNS // width
    rows = np.arange(top) * _ROWS // top
    strip[:] = levels.reshape(_ROWS, _COLUMNS)[rows][:, columns]
    return rtc.VideoFrame(width, height, rtc.VideoBufferType.I420, data)


def read(frame: rtc.VideoFrame) -> int | None:
    """The number in a picture whose buffer begins with its luma (I420, I422, I444, NV12); `None`
    if it has none, or an unreadable one. Looks at 216 pixels."""
    luma = np.frombuffer(frame.data, np.uint8, frame.width * frame.height)
    blocks = luma[_places(frame.width, frame.height)].mean(axis=1)
    bright = blocks > _BRIGHT
    if not np.all(bright | (blocks < _DARK)):
        return None
    value = int.from_bytes(np.packbits(bright).tobytes(), "big")
    number = value >> 8
    return number if value & 0xFF == _check(number) else None


def _bits(number: int) -> npt.NDArray[np.uint8]:
    value = number << 8 | _check(number)
    return np.unpackbits(np.frombuffer(value.to_bytes(_BITS // 8, "big"), np.uint8))


def _check(number: int) -> int:
    """CRC-8 (polynomial 0x07) from 0xFF on, so that neither all black nor all white is a number."""
    crc = 0xFF
    for byte in number.to_bytes(2, "big"):
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ 0x07) & 0xFF if crc & 0x80 else crc << 1
    return crc


@functools.lru_cache(maxsize=8)
def _places(width: int, height: int) -> npt.NDArray[np.int64]:
    """For each block the pixels of the luma plane to look at."""
    top = round(height * _HEIGHT)
    x = [(c + s) * width / _COLUMNS for c in range(_COLUMNS) for s in _SAMPLES]
    y = [(r + s) * top / _ROWS for r in range(_ROWS) for s in _SAMPLES]
    grid = np.array(y).astype(np.int64)[:, None] * width + np.array(x).astype(np.int64)
    count = len(_SAMPLES)
    blocks = grid.reshape(_ROWS, count, _COLUMNS, count).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(blocks.reshape(_BITS, count * count))
