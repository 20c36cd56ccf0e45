#!/usr/bin/env python3
"""Compare ways to feed a model with pairs, in one run on the same pairs; read the ratios.

    python tools/bench_loader.py --json runs/bench-loader.json
    python tools/bench_loader.py --data shards/demo --workers 4 --only floor ours webdataset
    python tools/bench_loader.py --python-litdata ENV/bin/python --python-mosaic ENV2/bin/python
    python tools/bench_loader.py --decoders
    python tools/bench_loader.py --memory 1000000

Every contestant (`loader_contestants.py`) runs in a process of its own that is started once; they take turns, so a busy
machine slows all of them. Ratios are medians over the rounds of ratios within a round: of pairs per second, and of
pairs per second of processor time, which other programs on the machine disturb less. litdata and mosaicml-streaming are
left out unless an environment that holds them (and torch, webdataset, simplejpeg) is named. Without --data a synthetic
data set of 224 x 224 views is made. Everything lies in the page cache: storage is not measured.
"""

import argparse
import io
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from mimic_wds.pairs import Counts, PairSample, Scene
from mimic_wds.storage.layout import sample_key
from mimic_wds.storage.packing import pack
from mimic_wds.storage.staging import SceneStage, scene_tar

SCRIPT = Path(__file__).with_name("loader_contestants.py")

#: Contestants in the order of the report; those of other environments come with the format that they need.
NAMES = (
    "floor",
    "ours",
    "ours, croco",
    "webdataset",
    "files",
    "mosaicml-streaming",
    "litdata",
    "ours, mae",
    "files, mae",
)
NAMES += ("ours, undecoded", "webdataset, undecoded")
FORMATS = {"files": "files", "files, mae": "files", "mosaicml-streaming": "mds", "litdata": "litdata"}

#: Ratios that are reported, with the least that is wanted.
WANTED = {
    ("ours", "floor"): 0.9,
    ("ours", "webdataset"): 1.9,
    ("ours", "files"): 4.7,
    ("ours", "mosaicml-streaming"): 2.0,
    ("ours", "litdata"): 3.0,
    ("ours, mae", "files, mae"): 6.0,
    ("ours, undecoded", "webdataset, undecoded"): 10.0,
}

#: Contestant -> a rate for every round.
Rates: TypeAlias = dict[str, list[float]]

SIZE, PATCH = 224, 16

#: Random colours on grids of so many cells a side, with these weights: saved at quality 95 they have 25 KB, the mean of
#: photographs of 224 x 224 pixels.
DETAIL = {7: 0.6, 28: 0.25, 112: 0.15}

#: Pictures that the synthetic pairs are made from.
NUM_PICTURES = 64


def main() -> int:
    """Make what is missing, let the contestants take turns, report."""
    args = parse_args()
    if args.memory:
        return report(args, {"memory": memory_over(args.memory)})
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-loader-")))
        settings = prepare(args, place)
        if args.decoders:
            return report(args, {"decoders_us_per_image": compare_decoders(Path(settings["data"]))})
        file = place / "settings.json"
        file.write_text(json.dumps(settings), encoding="utf-8")
        names = [name for name in NAMES if python_of(name, args) and name in (args.only or NAMES)]
        for written in dict.fromkeys(FORMATS[name] for name in names if name in FORMATS):
            python = next(python_of(name, args) for name in names if FORMATS.get(name) == written)
            subprocess.run([python, SCRIPT, f"write {written}", file], check=True, stdout=subprocess.DEVNULL)
        contestants = {name: stack.enter_context(Contestant(python_of(name, args), name, file)) for name in names}
        rates = measure(contestants, args.repetitions)
    return report(args, summary(*rates))


def parse_args() -> argparse.Namespace:
    """The command line."""
    description, _, notes = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=description, epilog=notes, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder of a data set of pairs (default: make one)")
    parser.add_argument("--pairs", type=positive, default=2000, help="of the synthetic data set (default: 2000)")
    parser.add_argument("--batch", type=positive, default=64, help="pairs in a batch (default: 64)")
    parser.add_argument(
        "--workers", type=positive, default=os.cpu_count(), help="threads or processes (default: cores)"
    )
    parser.add_argument("--repetitions", type=positive, default=5, help="rounds that are counted (default: 5)")
    parser.add_argument("--only", nargs="+", choices=NAMES, metavar="NAME", help=f"some of: {'; '.join(NAMES)}")
    parser.add_argument("--python-litdata", metavar="PATH", help="python of an environment with litdata")
    parser.add_argument("--python-mosaic", metavar="PATH", help="python of an environment with mosaicml-streaming")
    parser.add_argument("--decoders", action="store_true", help="compare JPEG decoders instead, in thread time")
    parser.add_argument("--memory", type=positive, metavar="READS", help="watch the memory of a loader instead")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write all numbers to this file")
    return parser.parse_args()


def positive(text: str) -> int:
    """A whole number above 0."""
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got {text!r}")
    return int(text)


def prepare(args: argparse.Namespace, place: Path) -> dict[str, Any]:
    """What contestants are told; the data set is made if none is given."""
    if args.data is None:
        (place / "data").mkdir()
        make_data_set(place / "data", args.pairs)
    formats = {name: str(place / name) for name in ("files", "mds", "litdata")}
    return {"data": str(args.data or place / "data"), "batch": args.batch, "workers": args.workers, **formats}


def python_of(name: str, args: argparse.Namespace) -> str | None:
    """The interpreter that a contestant runs in; None if there is none."""
    others = {"litdata": args.python_litdata, "mosaicml-streaming": args.python_mosaic}
    return others.get(name, sys.executable)


class Contestant:
    """A process that reads an epoch whenever it is told to."""

    def __init__(self, python: str | None, name: str, settings: Path):
        assert python is not None
        self.name = name
        self._process = subprocess.Popen(
            [python, SCRIPT, name, settings], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> "Contestant":
        self._answer()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def rates(self) -> tuple[float, float]:
        """Pairs per second of one epoch, and pairs per second of processor time."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        answer = self._answer()
        return answer["pairs"] / answer["seconds"], answer["pairs"] / answer["cpu_seconds"]

    def _answer(self) -> dict[str, Any]:
        """The next line. Raises RuntimeError when the process has ended instead."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} has ended; what it said is above")
        return dict(json.loads(line))


def measure(contestants: Mapping[str, Contestant], repetitions: int) -> tuple[Rates, Rates]:
    """Both rates of every contestant in every round, after one round that is not counted."""
    rates: tuple[Rates, Rates] = {name: [] for name in contestants}, {name: [] for name in contestants}
    for number in range(repetitions + 1):
        # Another one goes first in every round.
        names = list(contestants)
        start = number % len(names)
        for name in names[start:] + names[:start]:
            found = contestants[name].rates()
            print("round {}: {:22} {:8.0f} pairs/s {:8.0f} per CPU s".format(number, name, *found), file=sys.stderr)
            for kind, rate in zip(rates, found, strict=True):
                kind[name] += [rate] if number else []
    return rates


def summary(wall: Rates, cpu: Rates) -> dict[str, Any]:
    """Ratios and rates, for JSON."""
    numbers: dict[str, Any] = {}
    for title, rates in (("", wall), (" of CPU time", cpu)):
        numbers[f"ratios{title}"] = {
            f"{a} / {b}": {**spread([x / y for x, y in zip(rates[a], rates[b], strict=True)]), "wanted": wanted}
            for (a, b), wanted in WANTED.items()
            if a in rates and b in rates
        }
        numbers[f"pairs per second{title}"] = {name: spread(values) for name, values in rates.items()}
    return numbers


def spread(values: list[float]) -> dict[str, Any]:
    """Median, extremes, and all values by round."""
    rounded = [float(f"{value:.4g}") for value in values]
    return {"median": statistics.median(rounded), "min": min(rounded), "max": max(rounded), "rounds": rounded}


def report(args: argparse.Namespace, numbers: dict[str, Any]) -> int:
    """Print the numbers, and write them where asked to."""
    for title, rows in numbers.items():
        print(f"\n{title:34}{'median':>10}{'min':>10}{'max':>10}")
        for name, row in rows.items():
            print(f"{name:34}" + "".join(f"{row[column]:10.4g}" for column in ("median", "min", "max")))
    if args.json:
        machine = {"processors": os.cpu_count(), "type": platform.machine(), "python": platform.python_version()}
        libraries = ("torch", "webdataset", "simplejpeg", "opencv-python-headless", "numpy")
        about = {
            "settings": {"batch": args.batch, "workers": args.workers, "data": str(args.data or "synthetic")},
            "machine": machine,
            "versions": {name: version(name) for name in libraries},
        }
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({**numbers, **about}, indent=1) + "\n", encoding="utf-8")
    return 0


def version(library: str) -> str:
    """What is installed of a library."""
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "-"


def compare_decoders(folder: Path, num_images: int = 1500, repetitions: int = 6) -> dict[str, Any]:
    """Microseconds of processor time per image of one thread; decoders take turns, 100 images each."""
    from mimic_wds.loading.dataset import PairDataset

    with PairDataset(folder) as dataset:
        step = max(1, len(dataset) * 2 // num_images)
        jpegs = [dataset.read(i)[1][f"{view}.jpg"] for i in range(0, len(dataset), step) for view in (0, 1)]
        out = np.empty((dataset.size, dataset.size, 3), np.uint8)
    cv2.setNumThreads(1)
    decoders = dict(available_decoders(out))
    times: dict[str, list[float]] = {name: [] for name in decoders}
    for start in [*range(0, len(jpegs), 100)] * repetitions:
        block = jpegs[start : start + 100]
        for name, decoder in decoders.items():
            before = time.thread_time()
            for data in block:
                decoder(data)
            times[name].append((time.thread_time() - before) / len(block) * 1e6)
    return {name: spread(values) for name, values in times.items()}


def available_decoders(out: NDArray[np.uint8]) -> Iterator[tuple[str, Callable[[bytes], object]]]:
    """Name and function of every decoder that is installed; each writes RGB into `out` or makes an array."""

    def opencv(data: bytes) -> None:
        cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB, dst=out)

    yield f"opencv {cv2.__version__}", opencv
    if (found := version("simplejpeg")) != "-":
        import simplejpeg

        yield f"simplejpeg {found}", lambda data: simplejpeg.decode_jpeg(data, "RGB", buffer=out)
    if (found := version("PyTurboJPEG")) != "-":
        import turbojpeg

        codec = turbojpeg.TurboJPEG()
        yield f"PyTurboJPEG {found}", lambda data: codec.decode(data, pixel_format=turbojpeg.TJPF_RGB, dst=out)
    if (found := version("torchvision")) != "-":
        import torch
        import torchvision.io

        torch.set_num_threads(1)
        yield (
            f"torchvision {found}",
            lambda data: torchvision.io.decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8)),
        )
    if (found := version("pillow")) != "-":
        from PIL import Image

        yield f"pillow {found}", lambda data: np.copyto(out, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def memory_over(num_reads: int) -> dict[str, Any]:
    """Memory of this process in MiB at ten places of so many reads of a small data set, epoch after epoch."""
    from mimic_wds.loading.dataset import PairDataset
    from mimic_wds.loading.pairs import PairLoader

    with tempfile.TemporaryDirectory(prefix="bench-loader-") as place:
        make_data_set(Path(place), 2048, size=32)
        with PairDataset(place) as dataset:
            loader = PairLoader(dataset, global_batch=64, augmentation="croco")
            per_place = -(-num_reads // (10 * len(dataset)))
            found = []
            for number in range(10):
                for epoch in range(number * per_place, (number + 1) * per_place):
                    for _ in loader.epoch(epoch):
                        pass
                found.append(resident_mib())
                print(f"{(number + 1) * per_place * len(dataset):9} reads: {found[-1]:.1f} MiB", file=sys.stderr)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "MiB after each tenth": spread(found),
        "MiB at most": spread([peak]),
        "growth": spread([found[-1] / found[0]]),
    }


def resident_mib() -> float:
    """Memory of this process that is in RAM (Linux)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 2**20


def make_data_set(folder: Path, num_pairs: int, size: int = SIZE) -> None:
    """Write a data set of `num_pairs` pairs in about eight shards."""
    print(f"making {num_pairs} pairs in {folder} ...", file=sys.stderr, flush=True)
    rng = np.random.default_rng(0)
    jpegs = [make_picture(rng, size) for _ in range(NUM_PICTURES)]
    staging = folder / "staging"
    staging.mkdir()
    with SceneStage(staging, 0) as stage:
        for number in range(num_pairs):
            stage.add(make_pair(number, size, *(jpegs[i] for i in rng.integers(0, NUM_PICTURES, 2))))
        stage.finish(Scene(source="bench", name="noise", path=str(folder)), Counts(kept=num_pairs))
    shard_bytes = scene_tar(staging, 0).stat().st_size // 8 + 1
    description = {"criteria": {"size": size, "patch_size": PATCH}, "versions": {}, "licences": {}}
    pack(staging, 1, folder, "bench", shard_bytes, description)


def make_picture(rng: np.random.Generator, size: int) -> bytes:
    """A JPEG as heavy as a photograph's."""
    grids = ((weight, rng.random((cells, cells, 3), np.float32)) for cells, weight in DETAIL.items())
    image = sum(weight * cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC) for weight, grid in grids)
    pixels = np.clip(np.asarray(image) * 255, 0, 255).astype(np.uint8)
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


def make_pair(number: int, size: int, image0_jpg: bytes, image1_jpg: bytes) -> PairSample:
    """A pair in the format of the shards; what its homography says does not matter here."""
    return PairSample(
        key=sample_key("bench", "noise", f"{number}-0", f"{number}-1"),
        image0_jpg=image0_jpg,
        image1_jpg=image1_jpg,
        corr_0to1=np.arange((size // PATCH) ** 2, dtype=np.int16),
        overlap=1.0,
        H_0to1=np.eye(3),
        num_inliers=100,
        size=(size, size),
        patch_size=PATCH,
        source="bench",
        scene="noise",
        frame0=f"{number}-0",
        frame1=f"{number}-1",
    )


if __name__ == "__main__":
    sys.exit(main())
