"""`VideoOptions`: what is refused, where each part of a picture lands, and which pictures stay."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from livekit import rtc

from livekit_plugins_runway import AvatarSession, VideoOptions
from livekit_plugins_runway.errors import ConfigurationError
from livekit_plugins_runway.media.scaling import Box, Scaler, Scaling, placement
from livekit_plugins_runway.media.video import Pace, VideoFitter, publish_options

RUNWAY = (1088, 704)
BLACK = (16, 128, 128)
PORTRAIT = {"width": 720, "height": 1280}


def picture(width: int, height: int, planes: Any = None) -> rtc.VideoFrame:
    """By default luma grows to the right, U downwards, and V falls to the right."""
    if planes is None:
        x, y = np.arange(width), np.arange(height)
        planes = [
            np.broadcast_to(luma_at((x + 0.5) / width), (height, width)),
            np.broadcast_to(u_at((y[::2] + 1) / height)[:, None], (-(-height // 2), len(x[::2]))),
            np.broadcast_to(v_at((x[::2] + 1) / width), (-(-height // 2), len(x[::2]))),
        ]
    data = b"".join(np.round(plane).astype(np.uint8).tobytes() for plane in planes)
    return rtc.VideoFrame(width, height, rtc.VideoBufferType.I420, data)


def luma_at(x: Any) -> Any:
    return 20 + 210 * x


def u_at(y: Any) -> Any:
    return 20 + 210 * y


def v_at(x: Any) -> Any:
    return 230 - 210 * x


def planes_of(frame: rtc.VideoFrame) -> list[Any]:
    assert frame.type == rtc.VideoBufferType.I420
    width, height = frame.width, frame.height
    shapes = [(height, width), (height // 2, width // 2), (height // 2, width // 2)]
    data, planes = np.frombuffer(bytes(frame.data), np.uint8), []
    for rows, columns in shapes:
        planes.append(data[: rows * columns].reshape(rows, columns).astype(int))
        data = data[rows * columns :]
    assert len(data) == 0
    return planes


def colour_at(frame: rtc.VideoFrame, x: float, y: float) -> tuple[int, ...]:
    """Y, U, V at a place in parts of width and height."""
    return tuple(int(p[int(y * p.shape[0]), int(x * p.shape[1])]) for p in planes_of(frame))


# -- options


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"height": 1920}, "2968x1920"),
        ({"width": 16}, "16x10"),
        ({"width": 720, "scaling": "fit"}, "width and height"),
        ({"height": 720, "crop_top": 0.5}, "width, height"),
        ({"width": 14, "height": 720}, "width must be .* 16 to 1920, not 14"),
        ({"width": 720, "height": 1922}, "height must be .* 16 to 1920, not 1922"),
        ({"width": 721, "height": 1280}, "width must be even.* 720 or 722"),
        ({"width": 720, "height": 1281}, "height must be even"),
        ({"width": 720.0, "height": 1280}, "width must be a whole number of pixels"),
        ({**PORTRAIT, "scaling": "contain"}, "scaling must be one of 'cover', 'fit', 'stretch'"),
        ({"scaling": "fit"}, "scaling='fit' needs width and height"),
        ({**PORTRAIT, "crop_top": -0.1}, "crop_top must be a share"),
        ({**PORTRAIT, "crop_top": 40}, "crop_top must be a share"),
        ({**PORTRAIT, "crop_top": 0.5, "scaling": "fit"}, 'crop_top=0.5 .*scaling="cover"'),
        ({"crop_top": 0.5}, "crop_top=0.5 goes with width"),
        ({"max_fps": 0}, "max_fps must be None or 1 to 60"),
        ({"max_fps": 61.0}, "max_fps must be"),
        ({"max_fps": float("nan")}, "max_fps must be"),
        ({"bitrate": 2_500}, "bitrate must be a whole number of bit/s"),
        ({"bitrate": 2.5e6}, "bitrate must be a whole number of bit/s"),
        ({"codec": "H264"}, "codec must be one of 'h264'"),
        ({"encoder": "nvenc"}, "encoder must be one of 'auto', 'software'"),
    ],
)
def test_a_wrong_option_is_refused_by_name(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        VideoOptions(**options)


def test_with_direct_there_is_no_picture_to_change() -> None:
    given: dict[str, Any] = {"preset_id": "influencer", "api_key": "key_x"}
    AvatarSession(**given, video=VideoOptions(max_fps=8))
    with pytest.raises(ConfigurationError, match=r'transport="direct" .* video=VideoOptions'):
        AvatarSession(**given, transport="direct", video=VideoOptions())


def test_by_default_pictures_pass_as_they_are_and_are_encoded_as_ever() -> None:
    fitter = VideoFitter(VideoOptions())
    for size in ((556, 360), RUNWAY):
        for at in (0, 1, 40_000):
            frame = picture(*size)
            assert fitter.fit(frame, at) is frame
    assert publish_options(VideoOptions()) == rtc.TrackPublishOptions(
        source=rtc.TrackSource.SOURCE_CAMERA,
        video_codec=rtc.VideoCodec.H264,
        simulcast=False,
        video_encoding=rtc.VideoEncoding(max_bitrate=2_500_000, max_framerate=30.0),
    )


@pytest.mark.parametrize(
    ("options", "bitrate"),
    [
        ({"width": 396, "height": 704}, 909_926),
        ({"width": 544}, 625_000),
        ({"height": 352}, 625_000),
        (PORTRAIT, 3_008_021),
        ({"width": 256, "height": 256}, 213_903),
        ({"width": 64, "height": 64}, 200_000),
        ({"width": 1920, "height": 1920}, 4_000_000),
        ({**PORTRAIT, "bitrate": 1_000_000}, 1_000_000),
        ({"max_fps": 8}, 2_500_000),
    ],
)
def test_the_bitrate_is_the_one_given_or_goes_with_the_size(
    options: dict[str, Any], bitrate: int
) -> None:
    assert publish_options(VideoOptions(**options)).video_encoding.max_bitrate == bitrate


def test_codec_and_pace_are_told_to_the_sdk() -> None:
    told = publish_options(VideoOptions(codec="vp8", max_fps=8))
    assert told.video_codec == rtc.VideoCodec.VP8
    assert told.video_encoding.max_framerate == 8.0
    codec = next(f for f in dataclasses.fields(VideoOptions) if f.name == "codec")
    assert codec.default == "h264"


def test_hardware_is_left_alone_where_that_is_asked_for() -> None:
    software = rtc.VideoEncoderBackend.ENCODER_BACKEND_SOFTWARE
    assert publish_options(VideoOptions(encoder="software")).video_encoder == software
    assert not publish_options(VideoOptions()).HasField("video_encoder")


# -- geometry


@pytest.mark.parametrize(
    ("target", "scaling", "crop_top", "cut", "box"),
    [
        ((720, 1280), "cover", 0.0, Box(346, 0, 396, 704), Box(0, 0, 720, 1280)),
        ((396, 704), "cover", 0.0, Box(346, 0, 396, 704), Box(0, 0, 396, 704)),
        ((256, 256), "cover", 1.0, Box(192, 0, 704, 704), Box(0, 0, 256, 256)),
        ((1280, 720), "cover", 0.0, Box(0, 0, 1088, 612), Box(0, 0, 1280, 720)),
        ((1280, 720), "cover", 0.5, Box(0, 46, 1088, 612), Box(0, 0, 1280, 720)),
        ((1280, 720), "cover", 1.0, Box(0, 92, 1088, 612), Box(0, 0, 1280, 720)),
        ((540, 960), "fit", 0.0, Box(0, 0, *RUNWAY), Box(0, 304, 540, 350)),
        ((1280, 640), "fit", 0.0, Box(0, 0, *RUNWAY), Box(144, 0, 990, 640)),
        ((256, 256), "stretch", 0.0, Box(0, 0, *RUNWAY), Box(0, 0, 256, 256)),
    ],
)
def test_what_is_cut_out_and_where_it_goes(
    target: tuple[int, int], scaling: Scaling, crop_top: float, cut: Box, box: Box
) -> None:
    assert placement(RUNWAY, target, scaling, crop_top) == (cut, box)


@pytest.mark.parametrize("scaling", ["cover", "fit", "stretch"])
def test_each_quarter_of_the_picture_lands_in_its_place_in_its_colour(scaling: Scaling) -> None:
    """Colours with a U and a V of their own, in the quarters of Runway's picture."""
    quarters = [[(60, 90, 200), (120, 200, 60)], [(180, 60, 90), (220, 150, 180)]]
    width, height = RUNWAY
    planes = [
        np.kron([[c[n] for c in row] for row in quarters], np.ones((height // by, width // by)))
        for n, by in enumerate((2, 4, 4))
    ]
    result = Scaler(360, 640, scaling, 0.0).scale(picture(width, height, planes))
    assert (result.width, result.height) == (360, 640)
    top, bottom = (0.4, 0.6) if scaling == "fit" else (0.1, 0.9)
    for row, y in zip(quarters, (top, bottom), strict=True):
        for colour, x in zip(row, (0.1, 0.9), strict=True):
            assert colour_at(result, x, y) == pytest.approx(colour, abs=2)
    above, below = colour_at(result, 0.5, 0.1), colour_at(result, 0.5, 0.9)
    assert (above == below == BLACK) == (scaling == "fit")


sides = st.integers(16, 300)
even_sides = st.integers(8, 150).map(lambda half: 2 * half)


@given(
    source=st.tuples(sides, sides),
    target=st.tuples(even_sides, even_sides),
    scaling=st.sampled_from(["cover", "fit", "stretch"]),
    crop_top=st.floats(0, 1),
)
def test_every_pixel_comes_from_where_the_placement_says(
    source: tuple[int, int], target: tuple[int, int], scaling: Scaling, crop_top: float
) -> None:
    (width, height), (wide, high) = source, target
    cut, box = placement(source, target, scaling, crop_top)
    assert not any(value % 2 for value in (*cut, *box))
    assert 0 <= cut.left <= cut.left + cut.width <= width
    assert 0 <= cut.top <= cut.top + cut.height <= height
    assert 0 <= box.left <= box.left + box.width <= wide
    assert 0 <= box.top <= box.top + box.height <= high
    result = Scaler(wide, high, scaling, crop_top).scale(picture(width, height))
    assert (result.width, result.height) == target
    if source == target:
        return
    for plane, by, value, black in zip(
        planes_of(result), (1, 2, 2), (luma_at, u_at, v_at), BLACK, strict=True
    ):
        rows, columns = np.mgrid[: high // by, : wide // by]
        x = cut.left + (columns + 0.5 - box.left / by) * by * cut.width / box.width
        y = cut.top + (rows + 0.5 - box.top / by) * by * cut.height / box.height
        inside = (x > cut.left) & (x < cut.left + cut.width)
        inside &= (y > cut.top) & (y < cut.top + cut.height)
        expected = value(y / height if value is u_at else x / width)
        # A pixel at the edge has a neighbour on one side only: off by one pixel of either picture.
        either = max(by, by * max(cut.width / box.width, cut.height / box.height))
        tolerance = 3 + 210 * either / min(width, height)
        assert np.all(np.abs(plane - expected)[inside] <= tolerance)
        assert np.all(plane[~inside] == black)


@given(source=st.tuples(sides, sides), target=st.tuples(even_sides, even_sides))
def test_cover_and_fit_keep_the_proportions(
    source: tuple[int, int], target: tuple[int, int]
) -> None:
    for scaling in ("cover", "fit"):
        cut, box = placement(source, target, scaling)
        across, down = box.width / cut.width, box.height / cut.height
        smallest = min(*cut[2:], *box[2:])  # what even pixels weigh most in
        assert smallest <= 4 or across / down == pytest.approx(1, abs=1.5 / smallest)


def test_a_new_size_leaves_the_output_as_it_is_and_nothing_of_the_former_picture() -> None:
    scaler = Scaler(360, 640, "fit", 0.0)
    square = scaler.scale(picture(400, 400))
    assert colour_at(square, 0.5, 0.25) != BLACK
    wide = scaler.scale(picture(*RUNWAY))
    assert (wide.width, wide.height) == (360, 640)
    assert colour_at(wide, 0.5, 0.25) == BLACK
    assert colour_at(wide, 0.5, 0.5) != BLACK


def test_a_picture_in_another_format_is_converted() -> None:
    red = rtc.VideoFrame(320, 208, rtc.VideoBufferType.RGBA, bytes([255, 0, 0, 255]) * (320 * 208))
    result = Scaler(64, 64, "cover", 0.0).scale(red)
    assert colour_at(result, 0.5, 0.5) == pytest.approx((81, 90, 240), abs=3)


# -- pace


def kept(times: list[int], max_fps: float) -> list[int]:
    pace = Pace(max_fps)
    return [at for at in times if pace.takes(at)]


def test_eight_of_twenty_five_are_evenly_spaced() -> None:
    times = [40_000 * n for n in range(26)]
    at = [0, 120, 240, 360, 480, 600, 720, 880, 1000]
    assert kept(times, 8) == [1000 * ms for ms in at]


@example(fps=60.0, max_fps=15.0, start=0)
@given(
    fps=st.floats(5, 60),
    max_fps=st.floats(1, 60),
    start=st.integers(0, 10**12),
)
def test_the_pace_is_even_and_not_above_the_limit(fps: float, max_fps: float, start: int) -> None:
    times = [start + round(n * 1e6 / fps) for n in range(round(fps * 10))]
    left = kept(times, max_fps)
    if fps <= max_fps:
        assert left == times
        return
    # The first one is on time, and those after it may be early.
    places = np.diff([times.index(at) for at in left[1:]])
    assert len(places) == 0 or places.max() - places.min() <= 1
    seconds = (times[-1] - start) / 1e6
    assert seconds * max_fps - 1.5 <= len(left) <= seconds * max_fps + 1.5


@given(jitter=st.lists(st.floats(-0.12, 0.12), min_size=50, max_size=50), fps=st.floats(5, 60))
def test_jitter_costs_no_picture_of_a_stream_that_keeps_the_pace(
    jitter: list[float], fps: float
) -> None:
    times = [round(1e6 / fps * (1 + n + by)) for n, by in enumerate(jitter)]
    assert kept(times, fps) == times


@given(gaps=st.lists(st.integers(1, 2_000_000), min_size=1), max_fps=st.floats(1, 60))
def test_pictures_that_come_as_they_like_never_come_in_a_burst(
    gaps: list[int], max_fps: float
) -> None:
    """Of any pictures in a row, at most one is above the limit."""
    left = kept([int(at) for at in np.cumsum(gaps)], max_fps)
    for n, first in enumerate(left):
        for more, last in enumerate(left[n + 1 :]):
            assert last - first >= more * 1e6 / max_fps - 1


def test_a_session_with_another_clock_is_seen_at_once() -> None:
    pace = Pace(8)
    assert pace.takes(90_000_000_000)
    assert pace.takes(5_000)
    assert not pace.takes(45_000)
    assert pace.takes(80_000_000_000)


def test_pictures_keep_their_order_and_those_left_out_are_not_scaled() -> None:
    fitter = VideoFitter(VideoOptions(width=64, height=64, max_fps=8))
    results = [fitter.fit(picture(320, 208), at * 40_000) for at in range(4)]
    assert [result is not None for result in results] == [True, False, False, True]


@pytest.mark.parametrize(
    ("options", "size"), [({"width": 544}, (544, 352)), ({"height": 352}, (544, 352))]
)
def test_one_side_keeps_the_ratio_of_the_first_picture(
    options: dict[str, Any], size: tuple[int, int]
) -> None:
    fitter = VideoFitter(VideoOptions(**options))
    for width, height in ((556, 360), (1088, 704), (640, 640)):
        result = fitter.fit(picture(width, height), 0)
        assert result is not None
        assert (result.width, result.height) == size


def test_the_ratio_of_a_picture_that_is_not_runways_is_kept_as_far_as_sides_may_be() -> None:
    for source, size in (((640, 640), (544, 544)), ((64, 1024), (544, 1920))):
        result = VideoFitter(VideoOptions(width=544)).fit(picture(*source), 0)
        assert result is not None
        assert (result.width, result.height) == size
