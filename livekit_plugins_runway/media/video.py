"""The picture that the user gets: size, frame rate and encoding. Off by default."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from livekit import rtc

from .._common.checks import check_choice, check_whole
from ..errors import ConfigurationError
from .scaling import Scaler, Scaling, nearest_even

Codec = Literal["h264", "vp8", "vp9", "av1"]
"""The codecs that were seen to reach a viewer (livekit 1.1.21, livekit-server 1.11.0, Linux
x86_64). For H265 the SDK publishes VP8.
"""

Encoder = Literal["auto", "software"]

CAMERA_BITRATE = 2_500_000
"""bit/s; set by hand, because the SDK would choose it for the first, small frames of a session."""
CAMERA_FRAMERATE = 30.0
MIN_FRAME_SIDE = 16
"""Pixels. When a publisher leaves, its track ends with 2x2 frames, which abort libwebrtc's encoder
(livekit 1.1.21)."""
MAX_FRAME_SIDE = 1920
"""Pixels. Runway's picture has 1088x704; a larger one would be enlarged only."""
MIN_FPS, MAX_FPS = 1.0, 60.0
MIN_BITRATE, MAX_BITRATE = 50_000, 10_000_000
RUNWAY_SIZE = (1088, 704)
"""Pixels, of Runway's picture after its first seconds; before that 556x360, of the same ratio."""
_BLANK_RANGE = 8
_LEAST_CHOSEN, _MOST_CHOSEN = 200_000, 4_000_000


@dataclass(frozen=True, kw_only=True)
class VideoOptions:
    """Size, frame rate and encoding of the picture that the user gets, for phones and watches. By
    default it is relayed as it comes (556x360, then 1088x704, 25 fps).

    Args:
        width: of the published picture in pixels, even, 16 to 1920. Without `height`, that follows
            from the ratio of the first picture. The picture keeps its size, whatever size Runway
            sends.
        height: likewise. 396x704 is the largest 9:16 in Runway's picture; a larger one is enlarged
            here, which costs CPU and shows nothing more.
        scaling: how the picture is fitted. "cover": fill the size and crop the rest, left and right
            equally, above and below by `crop_top`; "fit": the whole picture, with black bars;
            "stretch": the whole picture, distorted.
        crop_top: with "cover", the share of the cropped rows that is taken from the top: 0.0 none
            (the top, where the head is, stays), 0.5 half (the middle stays), 1.0 all (the bottom
            stays). Nothing is cut there if the output is narrower than Runway's picture.
        max_fps: pictures a second at most, 1 to 60. The others are left out, as evenly as possible.
            The rest keep their timestamps, so lips and voice stay in sync.
        bitrate: of the encoded picture at most, in bit/s, 50,000 to 10,000,000. None: 2,500,000 for
            Runway's own size; with `width` and `height` in proportion to the pixels, 200,000 to
            4,000,000.
        codec: what the SDK is to encode. WebRTC demands "h264" and "vp8" of browsers (RFC 7742);
            "vp9" and "av1" are for devices that you know.
        publish_early: publish the camera, muted, as soon as the avatar participant joins. By
            default it is published with the first picture. Users see that sooner, and detailed
            pictures with less delay (docs/video.md). Only for front ends that ask for `isMuted`:
            others show an empty tile until the avatar comes.
        encoder: "auto": the SDK takes hardware where it finds it (NVENC, VA-API, VideoToolbox);
            "software": it does not.

    Raises:
        ConfigurationError: names the option that is wrong.
    """

    width: int | None = None
    height: int | None = None
    scaling: Scaling = "cover"
    crop_top: float = 0.0
    max_fps: float | None = None
    bitrate: int | None = None
    codec: Codec = "h264"
    encoder: Encoder = "auto"
    publish_early: bool = False

    def __post_init__(self) -> None:
        check_choice("scaling", self.scaling, get_args(Scaling))
        check_choice("codec", self.codec, get_args(Codec))
        check_choice("encoder", self.encoder, get_args(Encoder))
        for name, side in (("width", self.width), ("height", self.height)):
            if side is not None:
                check_whole(name, side, MIN_FRAME_SIDE, MAX_FRAME_SIDE, "pixels")
                if side % 2:
                    raise ConfigurationError(
                        f"{name} must be even, for colours have half of the resolution; take "
                        f"{side - 1} or {side + 1} instead of {side}."
                    )
        if None in (self.width, self.height) and self.scaling != "cover":
            raise ConfigurationError(f"scaling={self.scaling!r} needs width and height.")
        wide, high = size_of(self, RUNWAY_SIZE) or RUNWAY_SIZE
        if not all(MIN_FRAME_SIDE <= side <= MAX_FRAME_SIDE for side in (wide, high)):
            raise ConfigurationError(
                f"In Runway's ratio this makes a picture of {wide}x{high}; sides must have "
                f"{MIN_FRAME_SIDE} to {MAX_FRAME_SIDE} pixels. Pass width and height."
            )
        if not 0 <= self.crop_top <= 1:
            raise ConfigurationError(
                f"crop_top must be a share from 0.0 (nothing is cut at the top) to 1.0, not "
                f"{self.crop_top!r}."
            )
        if self.crop_top and (None in (self.width, self.height) or self.scaling != "cover"):
            raise ConfigurationError(
                f'crop_top={self.crop_top!r} goes with width, height and scaling="cover" only.'
            )
        if self.max_fps is not None and not MIN_FPS <= self.max_fps <= MAX_FPS:
            raise ConfigurationError(
                f"max_fps must be None or {MIN_FPS:g} to {MAX_FPS:g} pictures a second, not "
                f"{self.max_fps!r}."
            )
        if self.bitrate is not None:
            check_whole("bitrate", self.bitrate, MIN_BITRATE, MAX_BITRATE, "bit/s")


def size_of(options: VideoOptions, picture: tuple[int, int]) -> tuple[int, int] | None:
    """Width and height of what is published of a picture of this size; None: the picture's own."""
    width, height = options.width, options.height
    wide, high = picture
    if width is None and height is None:
        return None
    if width is None and height is not None:
        width = nearest_even(height * wide / high)
    elif height is None and width is not None:
        height = nearest_even(width * high / wide)
    assert width is not None
    assert height is not None
    return width, height


def publish_options(options: VideoOptions) -> rtc.TrackPublishOptions:
    """How the camera is published."""
    told = rtc.TrackPublishOptions(
        source=rtc.TrackSource.SOURCE_CAMERA,
        # H.264 by default: it takes half the CPU of VP8 at Runway's size.
        video_codec=rtc.VideoCodec.Value(options.codec.upper()),
        simulcast=False,  # one encoder
        video_encoding=rtc.VideoEncoding(
            max_bitrate=options.bitrate or _bitrate(size_of(options, RUNWAY_SIZE)),
            max_framerate=options.max_fps or CAMERA_FRAMERATE,
        ),
    )
    if options.encoder == "software":
        told.video_encoder = rtc.VideoEncoderBackend.ENCODER_BACKEND_SOFTWARE
    return told


def _bitrate(size: tuple[int, int] | None) -> int:
    """In bit/s; as many per pixel as for Runway's own size."""
    if size is None:
        return CAMERA_BITRATE
    fair = CAMERA_BITRATE * math.prod(size) // math.prod(RUNWAY_SIZE)
    return min(max(fair, _LEAST_CHOSEN), _MOST_CHOSEN)


_EARLY = 0.245
"""Share of the period. Not a quarter: with 15 of 60 fps the picture before the due one would be
exactly early enough, and the rounding of timestamps would decide.
"""


class Pace:
    """Leaves pictures out so that at most `max_fps` a second remain, as evenly as possible.
    Pictures are taken by a clock of `1 / max_fps`. Each may be somewhat early, so that jitter of
    the timestamps does not drop pictures of a stream that has this rate anyway.
    """

    def __init__(self, max_fps: float) -> None:
        self._period = 1e6 / max_fps
        self._due = 0.0
        self._last: int | None = None

    def takes(self, timestamp_us: int) -> bool:
        """True if the picture with this capture time is kept."""
        if self._last is None or timestamp_us < self._last:  # another clock: another session
            self._due = timestamp_us
        self._last = timestamp_us
        if timestamp_us < self._due - self._period * _EARLY:
            return False
        # After a gap restart the clock, else pictures would come in a burst. The clock is kept
        # unless it is late by most of a period, which never happens in a steady stream.
        self._due = max(self._due + self._period, timestamp_us + self._period * _EARLY)
        return True


class VideoFitter:
    """Applies the options to each picture."""

    def __init__(self, options: VideoOptions) -> None:
        self._pace = Pace(options.max_fps) if options.max_fps is not None else None
        self._options = options
        self._scaler: Scaler | None = None
        """Made for the first picture, whose ratio may decide."""

    def fit(self, frame: rtc.VideoFrame, timestamp_us: int) -> rtc.VideoFrame | None:
        """The picture to publish with the same timestamp, valid until the next call; None if it is
        to be left out.

        Args:
            frame: of any size from `MIN_FRAME_SIDE` on and of any buffer type.
            timestamp_us: its capture time.
        """
        if self._pace is not None and not self._pace.takes(timestamp_us):
            return None
        if self._scaler is None:
            size = size_of(self._options, (frame.width, frame.height))
            if size is None:
                return frame
            width, height = (min(max(side, MIN_FRAME_SIDE), MAX_FRAME_SIDE) for side in size)
            self._scaler = Scaler(width, height, self._options.scaling, self._options.crop_top)
        return self._scaler.scale(frame)


def is_blank(frame: rtc.VideoFrame) -> bool:
    """True if the picture is of one colour. A LiveKit SDK sends black frames, ten a second, from
    the publication of a camera until its first picture (livekit 1.1.21).
    """
    luma = np.frombuffer(frame.data, np.uint8, frame.width * frame.height)[::61]
    return int(luma.max()) - int(luma.min()) < _BLANK_RANGE
