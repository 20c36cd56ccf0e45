#!/usr/bin/env python3
"""Compare ways to feed a model, side by side: webdataset in a DataLoader, this package's loader, decoding alone.

    python tools/bench_loading.py --json runs/bench-loading.json
    python tools/bench_loading.py --data shards/demo --threads 4

All three give uint8 batches of both views, decoded by OpenCV; each reads whole epochs of the same data set, and they
take turns, so a busy machine slows all of them. Read the ratios: they are medians over the rounds of ratios within a
round. Without --data a synthetic data set of 224 x 224 views is made in a temporary folder.
"""

import argparse
import io
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from itertools import count
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

try:
    import torch
    import webdataset
    from PIL import Image
    from torch.utils.data import DataLoader

    from mimic_wds.loading.dataset import PairDataset
    from mimic_wds.loading.decoding import decode_into
    from mimic_wds.loading.pairs import PairLoader
except ModuleNotFoundError as error:
    sys.exit(f"bench_loading: {error.name} is missing; install it with: pip install 'mimic-wds[train]'")

from mimic_wds.pairs import Counts, PairSample, Scene
from mimic_wds.storage.layout import sample_key
from mimic_wds.storage.packing import pack
from mimic_wds.storage.sample import decode_array
from mimic_wds.storage.staging import SceneStage, scene_tar

#: Reads one epoch and returns the number of pairs.
Epoch: TypeAlias = Callable[[], int]

#: JPEG -> (H, W, 3) uint8 RGB.
Decoder: TypeAlias = Callable[[bytes], NDArray[np.uint8]]

WEBDATASET, OURS, FLOOR = "webdataset", "ours", "decode only"

SIZE, PATCH = 224, 16

#: Random colours on grids of so many cells a side, with these weights: saved at quality 95 they have 25 KB, the mean of
#: photographs of 224 x 224 pixels.
DETAIL = {7: 0.6, 28: 0.25, 112: 0.15}

#: Pictures that the synthetic pairs are made from.
NUM_PICTURES = 64


def main() -> int:
    """Make or open the data set, let the pipelines take turns, report."""
    args = parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with ExitStack() as stack:
        folder = args.data
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-loading-")))
            make_data_set(folder, args.pairs)
        try:
            dataset = stack.enter_context(PairDataset(folder))
            # webdataset first: its worker processes are forked before any thread is running.
            epochs = {WEBDATASET: webdataset_epochs(dataset, args.batch, args.threads, args.decoder)}
            epochs[OURS] = our_epochs(dataset, args.batch, args.threads)
            epochs[FLOOR] = decode_epochs(dataset, args.threads)
        except ValueError as error:
            print(f"bench_loading: {error}", file=sys.stderr)
            return 2
        rates = measure(epochs, args.repetitions)
        report = {"num_pairs": len(dataset), **summary(rates, args)}
    print_report(report)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


def parse_args() -> argparse.Namespace:
    """The command line."""
    description, _, notes = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=description, epilog=notes, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder of a data set (default: make one)")
    parser.add_argument("--pairs", type=positive, default=2000, help="of the synthetic data set (default: 2000)")
    parser.add_argument("--batch", type=positive, default=64, help="pairs in a batch (default: 64)")
    parser.add_argument("--threads", type=positive, default=2, help="threads, or worker processes (default: 2)")
    parser.add_argument("--repetitions", type=positive, default=7, help="rounds that are counted (default: 7)")
    parser.add_argument("--decoder", choices=("cv2", "pil"), default="cv2", help="of webdataset (default: cv2)")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write all numbers to this file")
    return parser.parse_args()


def positive(text: str) -> int:
    """A whole number above 0."""
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got {text!r}")
    return int(text)


def make_data_set(folder: Path, num_pairs: int) -> None:
    """Write a data set of `num_pairs` pairs in about eight shards."""
    print(f"making {num_pairs} pairs in {folder} ...", flush=True)
    rng = np.random.default_rng(0)
    jpegs = [make_picture(rng) for _ in range(NUM_PICTURES)]
    staging = folder / "staging"
    staging.mkdir()
    with SceneStage(staging, 0) as stage:
        for number in range(num_pairs):
            stage.add(make_pair(number, *(jpegs[i] for i in rng.integers(0, NUM_PICTURES, 2))))
        stage.finish(Scene(source="bench", name="noise", path=str(folder)), Counts(kept=num_pairs))
    shard_bytes = scene_tar(staging, 0).stat().st_size // 8 + 1
    description = {"criteria": {"size": SIZE, "patch_size": PATCH}, "versions": {}, "licences": {}}
    pack(staging, 1, folder, "bench", shard_bytes, description)


def make_picture(rng: np.random.Generator) -> bytes:
    """A JPEG as heavy as a photograph's."""
    grids = ((weight, rng.random((cells, cells, 3), np.float32)) for cells, weight in DETAIL.items())
    image = sum(weight * cv2.resize(grid, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC) for weight, grid in grids)
    pixels = np.clip(np.asarray(image) * 255, 0, 255).astype(np.uint8)
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


def make_pair(number: int, image0_jpg: bytes, image1_jpg: bytes) -> PairSample:
    """A pair in the format of the shards; what its homography says does not matter here."""
    return PairSample(
        key=sample_key("bench", "noise", f"{number}-0", f"{number}-1"),
        image0_jpg=image0_jpg,
        image1_jpg=image1_jpg,
        corr_0to1=np.arange((SIZE // PATCH) ** 2, dtype=np.int16),
        overlap=1.0,
        H_0to1=np.eye(3),
        num_inliers=100,
        size=(SIZE, SIZE),
        patch_size=PATCH,
        source="bench",
        scene="noise",
        frame0=f"{number}-0",
        frame1=f"{number}-1",
    )


def webdataset_epochs(dataset: PairDataset, batch: int, workers: int, decoder: str) -> Epoch:
    """webdataset in worker processes that live as long as the program; they decode, shuffle and stack bytes."""
    decode = {"cv2": decode_cv2, "pil": decode_pil}[decoder]
    tars = [str(shard.path) for shard in dataset.shards]
    if len(tars) < workers:
        raise ValueError(f"{dataset.folder}: {len(tars)} shards cannot be shared by {workers} workers; use --threads")
    samples = webdataset.WebDataset(tars, shardshuffle=len(tars), seed=0).shuffle(min(1000, len(dataset)))
    # Undecoded bytes go through the shuffle buffer and workers hand over whole batches: both are cheaper so.
    batches = samples.map(partial(to_arrays, decode=decode)).batched(batch, collation_fn=stack)
    loader = DataLoader(
        batches, batch_size=None, num_workers=workers, prefetch_factor=4, persistent_workers=True, worker_init_fn=alone
    )
    return lambda: sum(len(corr) for _, _, corr in loader)


def alone(_: int) -> None:
    """Have a worker process use one thread."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def to_arrays(
    sample: dict[str, bytes], decode: Decoder
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.int16]]:
    """Both views and the correspondences of a sample."""
    return decode(sample["0.jpg"]), decode(sample["1.jpg"]), decode_array(sample["corr.npy"], "corr.npy")


def stack(samples: list[tuple[np.ndarray, ...]]) -> tuple[torch.Tensor, ...]:
    """Samples -> arrays of a batch."""
    return tuple(torch.from_numpy(np.stack(column)) for column in zip(*samples, strict=True))


def decode_cv2(data: bytes) -> NDArray[np.uint8]:
    """JPEG -> (H, W, 3) uint8 RGB."""
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def decode_pil(data: bytes) -> NDArray[np.uint8]:
    """JPEG -> (H, W, 3) uint8 RGB."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def our_epochs(dataset: PairDataset, batch: int, threads: int) -> Epoch:
    """This package's loader; every call reads the next epoch in its exact random order."""
    loader = PairLoader(dataset, global_batch=batch, num_threads=threads)
    numbers = count()
    return lambda: sum(len(pairs) for pairs in loader.epoch(next(numbers)))


def decode_epochs(dataset: PairDataset, threads: int) -> Epoch:
    """Nothing but decoding: JPEGs lie in memory, pixels are dropped, each thread has its share from the start."""
    members = [dataset.read(i)[1] for i in range(len(dataset))]
    jpegs = [data[name] for data in members for name in ("0.jpg", "1.jpg")]
    shape = (dataset.size, dataset.size, 3)

    def decode_all(share: list[bytes]) -> None:
        out = np.empty(shape, np.uint8)
        for data in share:
            decode_into(data, out)

    def epoch() -> int:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(decode_all, (jpegs[i::threads] for i in range(threads))))
        return len(members)

    return epoch


def measure(epochs: dict[str, Epoch], repetitions: int) -> dict[str, list[float]]:
    """Pairs per second of every pipeline in every round, after one round that is not counted."""
    rates: dict[str, list[float]] = {name: [] for name in epochs}
    for number in range(repetitions + 1):
        # Another one goes first in every round.
        names = list(epochs)
        names = names[number % len(names) :] + names[: number % len(names)]
        for name in names:
            start = time.perf_counter()
            pairs = epochs[name]()
            if number:
                rates[name].append(pairs / (time.perf_counter() - start))
    return rates


def summary(rates: dict[str, list[float]], args: argparse.Namespace) -> dict[str, object]:
    """All numbers, for JSON."""
    ratios = {
        f"{a} / {b}": [x / y for x, y in zip(rates[a], rates[b], strict=True)]
        for a, b in ((OURS, WEBDATASET), (OURS, FLOOR), (WEBDATASET, FLOOR))
    }
    return {
        "ratios": {name: spread(values) for name, values in ratios.items()},
        "pairs_per_s": {name: spread(values) for name, values in rates.items()},
        "settings": {name: getattr(args, name) for name in ("batch", "threads", "decoder")},
        "data": str(args.data) if args.data else "synthetic",
        "machine": {"processors": os.cpu_count(), "type": platform.machine(), "python": platform.python_version()},
        "versions": {"torch": torch.__version__, "opencv": cv2.__version__, "webdataset": webdataset.__version__},
    }


def spread(values: list[float]) -> dict[str, object]:
    """Median, extremes, and all values by round."""
    rounded = [float(f"{value:.4g}") for value in values]
    return {"median": statistics.median(rounded), "min": min(rounded), "max": max(rounded), "rounds": rounded}


def print_report(report: dict[str, object]) -> None:
    """A line for every ratio and every rate."""
    for title in ("ratios", "pairs_per_s"):
        print(f"\n{title:28}{'median':>10}{'min':>10}{'max':>10}")
        for name, values in report[title].items():
            print(f"{name:28}" + "".join(f"{values[column]:10.4g}" for column in ("median", "min", "max")))


if __name__ == "__main__":
    sys.exit(main())
