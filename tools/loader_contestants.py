#!/usr/bin/env python3
"""Ways to feed a model with pairs, each in a process of its own that `bench_loader.py` starts and tells when to run.

    python tools/loader_contestants.py NAME SETTINGS.json     (reads "go" lines, answers with JSON lines)

Nothing of mimic_wds is imported but by its own contestants: the others run in environments without it. All give uint8
batches decoded by simplejpeg, which none of them does by itself and which serves all of them best; but the loose files
are read as the paper's code reads them: PIL, then float tensors.
"""

import io
import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

#: Reads one epoch and returns the number of pairs.
Epoch: TypeAlias = Callable[[], int]

#: What a contestant is told: "data", "files", "mds", "litdata" (folders), "batch", "workers", "size".
Settings: TypeAlias = dict[str, Any]

#: Batches that make a global batch.
ACCUMULATION = 8

#: Statistics that the paper's code normalises with.
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def one_thread(_: int = 0) -> None:
    """Have this process, or a worker, compute in one thread: there are as many workers as cores."""
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def decode(data: bytes) -> NDArray[np.uint8]:
    """JPEG -> (H, W, 3) uint8 RGB."""
    import simplejpeg

    return simplejpeg.decode_jpeg(data, "RGB")


def drain(batches: Iterable[Any]) -> int:
    """Pairs in the first columns of batches."""
    return sum(len(batch[0]) for batch in batches)


def floor(settings: Settings) -> Epoch:
    """Nothing but decoding: JPEGs lie in memory, pixels are overwritten, each thread has its share from the start."""
    import simplejpeg

    from mimic_wds.loading.dataset import PairDataset

    with PairDataset(settings["data"]) as dataset:
        jpegs = [dataset.read(i)[1][f"{view}.jpg"] for i in range(len(dataset)) for view in (0, 1)]
        side = dataset.size

    def decode_all(share: list[bytes]) -> None:
        out = np.empty((side, side, 3), np.uint8)
        for data in share:
            simplejpeg.decode_jpeg(data, "RGB", buffer=out)

    def epoch() -> int:
        workers = settings["workers"]
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(decode_all, (jpegs[i::workers] for i in range(workers))))
        return len(jpegs) // 2

    return epoch


def ours(settings: Settings, augmentation: str = "mimic") -> Epoch:
    """This package's loader; every call reads the next epoch in its exact random order.

    Its batches are parts of a global batch, as in training: planning one takes its time, however many parts it has.
    """
    from mimic_wds.loading.dataset import PairDataset
    from mimic_wds.loading.pairs import PairLoader

    loader = PairLoader(
        PairDataset(settings["data"]),
        global_batch=ACCUMULATION * settings["batch"],
        accumulation=ACCUMULATION,
        num_threads=settings["workers"],
        augmentation=augmentation,
    )
    numbers = count()
    return lambda: sum(len(batch) for batch in loader.epoch(next(numbers)))


def ours_raw(settings: Settings) -> Epoch:
    """Undecoded members through the index, in the order of the shards; one thread."""
    from mimic_wds.loading.dataset import PairDataset

    dataset = PairDataset(settings["data"])
    return lambda: sum(bool(dataset.read(i)[1]) for i in range(len(dataset)))


def webdataset_raw(settings: Settings) -> Epoch:
    """Undecoded members through webdataset, in the order of the shards; no worker processes."""
    import webdataset

    tars = sorted(map(str, Path(settings["data"]).glob("*.tar")))
    return lambda: sum("0.jpg" in sample for sample in webdataset.WebDataset(tars, shardshuffle=False))


def webdataset_loader(settings: Settings) -> Epoch:
    """webdataset at its best: undecoded bytes in the shuffle buffer, whole uint8 batches from lasting workers."""
    import webdataset
    from torch.utils.data import DataLoader

    tars = sorted(map(str, Path(settings["data"]).glob("*.tar")))
    samples = webdataset.WebDataset(tars, shardshuffle=len(tars), seed=0).shuffle(1000)
    batches = samples.map(members_to_arrays).batched(settings["batch"], collation_fn=stack)
    loader = DataLoader(batches, batch_size=None, **worker_options(settings))
    return partial(drain, loader)


def worker_options(settings: Settings) -> dict[str, Any]:
    """Of every DataLoader: as many workers as cores, which live as long as the program."""
    return {
        "num_workers": settings["workers"],
        "prefetch_factor": 4,
        "persistent_workers": True,
        "worker_init_fn": one_thread,
    }


def members_to_arrays(sample: dict[str, bytes]) -> tuple[NDArray[Any], ...]:
    """Both views and the correspondences of a sample."""
    return decode(sample["0.jpg"]), decode(sample["1.jpg"]), np.load(io.BytesIO(sample["corr.npy"]))


def stack(samples: list[tuple[NDArray[Any], ...]]) -> tuple[Any, ...]:
    """Samples -> tensors of a batch."""
    import torch

    return tuple(torch.from_numpy(np.stack(column)) for column in zip(*samples, strict=True))


class LooseFiles:
    """Two JPEG files a pair, opened by PIL and made float tensors one by one, as the paper's code does."""

    def __init__(self, folder: Path, augment: bool):
        """`augment`: MAE's random resized crop and mirror, of each view by itself."""
        from torchvision import transforms

        self.pairs = sorted(path for path in folder.iterdir() if path.is_dir())
        bicubic = transforms.InterpolationMode.BICUBIC
        moves = [transforms.RandomResizedCrop(224, scale=(0.2, 1.0), interpolation=bicubic)]
        moves += [transforms.RandomHorizontalFlip()]
        colours = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
        self.transform = transforms.Compose([*(moves if augment else []), *colours])

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        from PIL import Image

        views = (Image.open(self.pairs[index] / name).convert("RGB") for name in ("0000.jpg", "0001.jpg"))
        view0, view1 = map(self.transform, views)
        return view0, view1


def loose_files(settings: Settings, augment: bool = False) -> Epoch:
    """Loose files through torch's DataLoader."""
    from torch.utils.data import DataLoader

    dataset = LooseFiles(Path(settings["files"]), augment)
    loader = DataLoader(dataset, batch_size=settings["batch"], shuffle=True, **worker_options(settings))
    return partial(drain, loader)


def write_files(settings: Settings) -> None:
    """The pairs as the paper's code keeps them: a folder each."""
    for number, members in enumerate(all_members(settings)):
        folder = Path(settings["files"]) / f"{number:06d}"
        folder.mkdir(parents=True)
        (folder / "0000.jpg").write_bytes(members["0.jpg"])
        (folder / "0001.jpg").write_bytes(members["1.jpg"])


def all_members(settings: Settings) -> Iterable[dict[str, bytes]]:
    """The members of every pair, read by webdataset, which every environment has."""
    import webdataset

    tars = sorted(map(str, Path(settings["data"]).glob("*.tar")))
    yield from webdataset.WebDataset(tars, shardshuffle=False)


def write_mds(settings: Settings) -> None:
    """The pairs as mosaicml-streaming's shards."""
    from streaming import MDSWriter

    columns = {"0.jpg": "bytes", "1.jpg": "bytes", "corr.npy": "bytes"}
    with MDSWriter(out=settings["mds"], columns=columns, size_limit=2**26) as writer:
        for members in all_members(settings):
            writer.write({name: members[name] for name in columns})


def mosaic_loader(settings: Settings) -> Epoch:
    """mosaicml-streaming, shuffled, its samples decoded and stacked by its DataLoader's workers."""
    from streaming import StreamingDataset
    from torch.utils.data import DataLoader

    dataset = StreamingDataset(local=settings["mds"], shuffle=True, batch_size=settings["batch"])
    loader = DataLoader(dataset, batch_size=settings["batch"], collate_fn=decode_and_stack, **worker_options(settings))
    return partial(drain, loader)


def decode_and_stack(samples: list[dict[str, bytes]]) -> tuple[Any, ...]:
    """Undecoded samples -> tensors of a batch."""
    return stack([members_to_arrays(sample) for sample in samples])


def write_litdata(settings: Settings) -> None:
    """The pairs as litdata's chunks."""
    from litdata import optimize

    samples = [{name: members[name] for name in ("0.jpg", "1.jpg", "corr.npy")} for members in all_members(settings)]
    optimize(fn=same, inputs=samples, output_dir=settings["litdata"], chunk_bytes="64MB", num_workers=1)


def same(sample: dict[str, bytes]) -> dict[str, bytes]:
    """What litdata is to store of a sample."""
    return sample


def litdata_loader(settings: Settings) -> Epoch:
    """litdata, shuffled, its samples decoded and stacked by its own DataLoader's workers."""
    from litdata import StreamingDataLoader, StreamingDataset

    dataset = StreamingDataset(settings["litdata"], shuffle=True)
    loader = StreamingDataLoader(
        dataset, batch_size=settings["batch"], collate_fn=decode_and_stack, **worker_options(settings)
    )
    return partial(drain, loader)


CONTESTANTS: dict[str, Callable[[Settings], Epoch]] = {
    "floor": floor,
    "ours": ours,
    "ours, mae": partial(ours, augmentation="mae"),
    "ours, croco": partial(ours, augmentation="croco"),
    "ours, undecoded": ours_raw,
    "webdataset": webdataset_loader,
    "webdataset, undecoded": webdataset_raw,
    "files": loose_files,
    "files, mae": partial(loose_files, augment=True),
    "mosaicml-streaming": mosaic_loader,
    "litdata": litdata_loader,
}

WRITERS: dict[str, Callable[[Settings], None]] = {"files": write_files, "mds": write_mds, "litdata": write_litdata}


def main() -> int:
    """Write a format once ("write NAME SETTINGS"), or run epochs whenever a line comes in."""
    if len(sys.argv) < 3 or sys.argv[1] in ("-h", "--help"):
        print(__doc__)
        return 0
    settings = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    one_thread()
    answers, sys.stdout = sys.stdout, sys.stderr  # some contestants are chatty
    name = sys.argv[1]
    if name.startswith("write "):
        WRITERS[name.removeprefix("write ")](settings)
        return 0
    epoch = CONTESTANTS[name](settings)
    print(json.dumps({"ready": name}), file=answers, flush=True)
    for _ in sys.stdin:
        start, cpu = time.perf_counter(), cpu_seconds()
        pairs = epoch()
        answer = {"pairs": pairs, "seconds": time.perf_counter() - start, "cpu_seconds": cpu_seconds() - cpu}
        print(json.dumps(answer), file=answers, flush=True)
    return 0


def cpu_seconds() -> float:
    """Processor time of this process and its living workers, which the system has not added yet (Linux)."""
    parents, times = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        pid = int(path.parent.name)
        parents[pid], times[pid] = int(fields[1]), int(fields[11]) + int(fields[12])
    ours, found = {os.getpid()}, 0
    while len(ours) > found:
        found = len(ours)
        ours |= {pid for pid, parent in parents.items() if parent in ours}
    return sum(times[pid] for pid in ours) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    sys.exit(main())
