"""Barcodes: every number comes back through a codec, scaling and noise, and nothing else does."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest
from livekit import rtc

from livekit_plugins_runway.testing import barcode
from livekit_plugins_runway.testing.options import Picture
from livekit_plugins_runway.testing.worker.face import Face

FULL, SMALL = (1088, 704), (556, 360)
NUMBERS = (0, 1, 255, 256, 21_845, 43_690, 65_535)


def picture(number: int, size: tuple[int, int] = FULL, kind: Picture = "drawn") -> rtc.VideoFrame:
    return barcode.stamped(Face(kind).frame(size, 0.0, False), number)


def grey(width: int, height: int, luma: int | np.ndarray) -> rtc.VideoFrame:
    data = np.full(width * height * 3 // 2, 128, np.uint8)
    data[: width * height] = luma if isinstance(luma, int) else luma.ravel()
    return rtc.VideoFrame(width, height, rtc.VideoBufferType.I420, data.tobytes())


def to_av(frame: rtc.VideoFrame) -> av.VideoFrame:
    planes = np.frombuffer(frame.data, np.uint8).reshape(-1, frame.width)
    return av.VideoFrame.from_ndarray(planes, format="yuv420p")


def from_av(frame: av.VideoFrame) -> rtc.VideoFrame:
    data = frame.to_ndarray(format="yuv420p").tobytes()
    return rtc.VideoFrame(frame.width, frame.height, rtc.VideoBufferType.I420, data)


@pytest.mark.parametrize("size", [FULL, SMALL, (320, 240), (96, 88)])
@pytest.mark.parametrize("number", NUMBERS)
def test_a_number_is_read_from_a_picture_of_any_size(size: tuple[int, int], number: int) -> None:
    assert barcode.read(picture(number, size)) == number


def test_the_picture_itself_is_left_as_it_was() -> None:
    plain = Face().frame(FULL, 0.0, False)
    before = bytes(plain.data)
    barcode.stamped(plain, 7)
    assert bytes(plain.data) == before


def test_numbers_begin_anew_after_the_last() -> None:
    assert barcode.read(picture(barcode.COUNT + 5)) == 5


def test_a_picture_without_one_gives_none() -> None:
    for face in (Face(), Face("camera")):
        for size in (FULL, SMALL):
            for loudness in (0.0, 0.2):
                assert barcode.read(face.frame(size, loudness, True)) is None
    for luma in (0, 16, 128, 235, 255):
        assert barcode.read(grey(*FULL, luma)) is None
    assert barcode.read(grey(2, 2, 16)) is None


def test_a_block_that_was_changed_gives_none_and_not_another_number() -> None:
    whole = np.frombuffer(picture(1234).data, np.uint8, 1088 * 704).reshape(704, 1088)
    for block in range(24):
        luma = whole.copy()
        row, column = divmod(block, 12)
        part = luma[row * 32 : row * 32 + 32, column * 1088 // 12 : (column + 1) * 1088 // 12]
        part[:] = 251 - part
        assert barcode.read(grey(1088, 704, luma)) is None


def test_noise_does_not_change_a_number() -> None:
    random = np.random.default_rng(1)
    for number in NUMBERS:
        frame = picture(number)
        luma = np.frombuffer(frame.data, np.uint8, 1088 * 704).astype(float)
        noisy = np.clip(luma + random.normal(0, 40, luma.shape), 0, 255).astype(np.uint8)
        assert barcode.read(grey(1088, 704, noisy)) == number


@pytest.mark.parametrize("size", [(544, 352), (272, 176), (1280, 720), (640, 480)])
def test_scaling_does_not_change_a_number(size: tuple[int, int]) -> None:
    for number in NUMBERS:
        scaled = to_av(picture(number)).reformat(*size)
        assert barcode.read(from_av(scaled)) == number


@pytest.mark.parametrize("kind", ["drawn", "camera"])
def test_two_generations_of_a_starved_codec_do_not_change_a_number(kind: Picture) -> None:
    """As through a relay, at a fifth of its bit rate."""
    first = coded([to_av(picture(n * 257, kind=kind)) for n in range(25)])
    second = coded(first)
    assert len(second) == 25
    assert [barcode.read(from_av(frame)) for frame in second] == [n * 257 for n in range(25)]


def coded(frames: list[av.VideoFrame]) -> list[av.VideoFrame]:
    """Through an encoder at 0.5 Mbit/s, and a decoder."""
    name = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    encoder = av.CodecContext.create(name, "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = frames[0].width, frames[0].height, "yuv420p"
    encoder.framerate = Fraction(25)
    encoder.bit_rate, encoder.max_b_frames = 500_000, 0
    if name == "libx264":
        encoder.options = {"preset": "superfast", "tune": "zerolatency"}
    decoder = av.CodecContext.create("h264" if name == "libx264" else name, "r")
    assert isinstance(decoder, av.VideoCodecContext)
    out: list[av.VideoFrame] = []
    for number, frame in enumerate([*frames, None]):
        if frame is not None:
            frame.pts = number
        for packet in encoder.encode(frame):
            out += decoder.decode(packet)
    return out + decoder.decode(None)
