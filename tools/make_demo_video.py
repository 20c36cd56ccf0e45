#!/usr/bin/env python3
"""Render the demo video: a walk through a small furnished house, for trying out the whole pipeline.

    python tools/make_demo_video.py runs/demo-input/house-walk.mp4

Needs no download and no graphics library: `pip install 'mimic-wds[demo]'` brings the renderer's compiler (numba) and
the packages whose textures furnish the house. Made for frames one second apart: of the pairs of such frames about
80 % overlap by 50-75 %, some 400 in the default length.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mimic_wds.sources.simulator.film import frames, write_video
from mimic_wds.sources.simulator.house import build_house
from mimic_wds.sources.simulator.walk import walk

#: Seconds between two progress lines.
REPORT_EVERY_S = 5.0


def parse_args() -> argparse.Namespace:
    """The command line."""
    description, _, notes = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=description, epilog=notes, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, metavar="OUT.mp4", help="the video to write; kept if it exists")
    parser.add_argument("--seconds", type=positive, default=520.0, help="length (default: %(default)s)")
    parser.add_argument("--fps", type=positive, default=5.0, help="frames per second (default: %(default)s)")
    parser.add_argument("--size", type=size, default=(240, 320), metavar="WxH", help="in pixels (default: 320x240)")
    parser.add_argument("--hfov", type=positive, default=75.0, help="horizontal field of view, degrees (default: 75)")
    parser.add_argument("--seed", type=int, default=0, help="another seed: other wallpaper, another walk (default: 0)")
    parser.add_argument(
        "--supersample", action="store_true", help="average 2 x 2 samples a pixel (four times the work)"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="default: one per processor")
    parser.add_argument("--force", action="store_true", help="render again even if OUT.mp4 exists")
    return parser.parse_args()


def size(text: str) -> tuple[int, int]:
    """ "640x480" as (height, width)."""
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) > 0 and int(height) > 0):
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT, such as 640x480, got {text!r}")
    if int(width) % 2 or int(height) % 2:
        raise argparse.ArgumentTypeError(f"videos need an even width and height, got {text!r}")
    return int(height), int(width)


def positive(text: str) -> float:
    """A number above 0."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return value


def reported(images: Iterable[NDArray[np.uint8]], total: int) -> Iterator[NDArray[np.uint8]]:
    """Pass the images through and say now and then how many there were."""
    started = printed = time.monotonic()
    for count, image in enumerate(images, 1):
        yield image
        now = time.monotonic()
        if count == 1:
            print(
                f"first frame after {now - started:.0f} s (the first time on a machine, the renderer is compiled)",
                flush=True,
            )
            started = printed = now
        elif now - printed >= REPORT_EVERY_S or count == total:
            rate = (count - 1) / max(1e-9, now - started)
            print(f"frame {count} of {total}  ({rate:.0f} frames/s)", flush=True)
            printed = now


def main(args: argparse.Namespace) -> None:
    """Render and write the video, unless it is there."""
    if args.out.exists() and not args.force:
        print(f"{args.out} exists; --force renders it again")
        return
    started = time.monotonic()
    house = build_house(args.seed)
    poses = walk(house.solids, house.stops, house.passages, seconds=args.seconds, fps=args.fps, seed=args.seed)
    print(f"house: {len(house.mesh.triangles)} triangles; walk: {len(poses)} frames", flush=True)
    images = frames(
        house.mesh,
        poses,
        size=args.size,
        hfov_deg=args.hfov,
        supersample=args.supersample,
        num_threads=max(1, args.threads),
    )
    write_video(args.out, reported(images, len(poses)), args.fps)
    took, megabytes = time.monotonic() - started, args.out.stat().st_size / 1e6
    print(f"{args.out}: {len(poses)} frames, {args.seconds:g} s, {megabytes:.0f} MB, made in {took:.0f} s")


if __name__ == "__main__":
    try:
        main(parse_args())
    except (ImportError, ValueError, OSError) as problem:
        sys.exit(f"error: {problem}")
