"""What scaling the picture costs: milliseconds for each picture of Runway's size, and what share
of a core that is at 25 a second. On the event loop, as in a call.

    .venv/bin/python -m bench.picture

Asserts nothing.
"""

from __future__ import annotations

import platform
import time

import av
import numpy as np
from livekit import rtc

from livekit_plugins_runway import VideoOptions
from livekit_plugins_runway.media.video import VideoFitter

SOURCE = (1088, 704)
FPS = 25
PICTURES = 500
CASES = [
    VideoOptions(width=396, height=704),
    VideoOptions(width=720, height=1280),
    VideoOptions(width=540, height=960, scaling="fit"),
    VideoOptions(width=360, height=640),
    VideoOptions(width=256, height=256),
    VideoOptions(width=1920, height=1080),
]


def main() -> None:
    width, height = SOURCE
    noise = np.random.default_rng(1).integers(16, 235, width * height * 3 // 2, np.uint8)
    frame = rtc.VideoFrame(width, height, rtc.VideoBufferType.I420, bytearray(noise.tobytes()))
    print(f"PyAV {av.__version__}, Python {platform.python_version()}, {PICTURES} pictures each\n")
    print("| picture | p50 | p95 | max | of a core at 25 fps |\n|---|--:|--:|--:|--:|")
    for options in CASES:
        fitter = VideoFitter(options)
        for _ in range(10):
            fitter.fit(frame, 0)
        took = np.empty(PICTURES)
        cpu = time.process_time()
        for n in range(PICTURES):
            began = time.perf_counter()
            fitter.fit(frame, n)
            took[n] = (time.perf_counter() - began) * 1e3
        cpu = (time.process_time() - cpu) / PICTURES
        figures = " | ".join(f"{np.percentile(took, p):.2f} ms" for p in (50, 95, 100))
        size = f'{options.width}x{options.height} `"{options.scaling}"`'
        print(f"| {size} | {figures} | {100 * cpu * FPS:.1f} % |")


if __name__ == "__main__":
    main()
