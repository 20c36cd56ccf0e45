"""Read one data set with other tools and with ours: do they find the same samples, with the same pixels?

    python -m venv /tmp/others
    /tmp/others/bin/pip install . webdataset datasets megatron-energon mlcroissant pillow
    /tmp/others/bin/python tools/check_interoperability.py DIR

Prints a line per tool, and writes a JSON report when asked. Exits with 1 if a tool that is installed found anything
else than ours did. A copy of the folder is read: Energon writes into it.
"""

import argparse
import importlib.metadata
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
from PIL import Image

from mimic_wds.storage.manifest import Manifest, read_manifest
from mimic_wds.storage.reader import open_shards

#: Key and first view, (H, W, 3) RGB, of each sample.
Found = Iterator[tuple[str, np.ndarray]]


def main() -> int:
    """Read the command line, run all readers, print and write what they found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data_set", type=Path, help="folder of a data set with a card (`mimic-shard card`)")
    parser.add_argument("--json", type=Path, help="write the report here")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = copytree(args.data_set, Path(scratch) / args.data_set.resolve().name)
        rows = compare(folder, read_manifest(folder))
    for row in rows:
        print(f"{row['tool']:28} {row['samples']!s:>9}  {row['verdict']}")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")
    return int(any(row["verdict"].startswith("DIFFERENT") for row in rows))


def compare(folder: Path, manifest: Manifest) -> list[dict[str, Any]]:
    """What each tool found, beside what ours did."""
    expected = list(ours(folder, manifest))
    rows: list[dict[str, Any]] = [{"tool": "mimic-wds", "samples": len(expected), "verdict": "the same"}]
    for package, read in READERS.items():
        try:
            tool = f"{package} {importlib.metadata.version(package)}"
        except importlib.metadata.PackageNotFoundError:
            rows.append({"tool": package, "samples": 0, "verdict": "not installed"})
            continue
        found = list(read(folder, manifest))
        rows.append({"tool": tool, "samples": len(found), "verdict": verdict(expected, found)})
    return rows


def verdict(expected: list[tuple[str, np.ndarray]], found: list[tuple[str, np.ndarray]]) -> str:
    """Whether two tools found the same; the pixels are compared of every sample."""
    pixels = dict(found)
    if sorted(pixels) != sorted(key for key, _ in expected) or len(found) != len(expected):
        return "DIFFERENT SAMPLES"
    if not all(np.array_equal(pixels[key], view) for key, view in expected):
        return "DIFFERENT PIXELS"
    return "the same" if [key for key, _ in found] == [key for key, _ in expected] else "the same, in another order"


def ours(folder: Path, manifest: Manifest) -> Found:
    """The views are decoded by Pillow, as the other tools do."""
    for shard in open_shards(folder, manifest):
        for i in range(len(shard)):
            picture = Image.open(io.BytesIO(shard.read(i)["0.jpg"]))
            yield shard.key(i), np.asarray(picture.convert("RGB"))


def with_webdataset(folder: Path, manifest: Manifest) -> Found:
    """As `webdataset` groups and decodes them; shards by a brace expression."""
    import webdataset

    for sample in webdataset.WebDataset(braces(folder, manifest), shardshuffle=False).decode("rgb8"):
        yield sample["__key__"], sample["0.jpg"]


def with_datasets(folder: Path, manifest: Manifest) -> Found:
    """As `datasets` streams a folder of tars."""
    from datasets import load_dataset

    files = [str(folder / shard.name) for shard in manifest.shards]
    for sample in load_dataset("webdataset", data_files={"train": files}, split="train", streaming=True):
        yield sample["__key__"], np.asarray(sample["0.jpg"].convert("RGB"))


def with_energon(folder: Path, manifest: Manifest) -> Found:
    """As `energon prepare` indexes them, and as its loader reads them once in order."""
    command = [str(Path(sys.executable).with_name("energon")), "prepare", "--non-interactive", "--split-ratio", "1,0,0"]
    subprocess.run([*command, "--sample-type", "CrudeWebdataset", str(folder)], check=True, stdout=subprocess.DEVNULL)
    from megatron.energon import Cooker, DefaultTaskEncoder, WorkerConfig, get_loader, get_val_dataset, stateless

    class Encoder(DefaultTaskEncoder):
        cookers = (Cooker(stateless(lambda sample: sample)),)
        encode_sample = staticmethod(stateless(lambda sample: sample))

    one = WorkerConfig(rank=0, world_size=1, num_workers=0)
    data = get_val_dataset(folder, split_part="train", worker_config=one, batch_size=None, task_encoder=Encoder())
    for sample in get_loader(data):  # views as float tensors (3, H, W) in 0..1
        yield sample["__key__"], (sample["0.jpg"] * 255).round().byte().permute(1, 2, 0).numpy()


def with_croissant(folder: Path, manifest: Manifest) -> Found:
    """As `mlcroissant` reads the records that croissant.json describes.

    With a cache of its own: in the common one it takes tars of the same name in another folder for these.
    """
    os.environ["CROISSANT_CACHE"] = str(folder.parent / "croissant")
    import mlcroissant

    for record in mlcroissant.Dataset(str(folder / "croissant.json")).records("0.jpg"):
        yield record["0.jpg/key"].decode(), np.asarray(record["0.jpg/content"].convert("RGB"))


READERS: dict[str, Callable[[Path, Manifest], Found]] = {
    "webdataset": with_webdataset,
    "datasets": with_datasets,
    "megatron-energon": with_energon,
    "mlcroissant": with_croissant,
}


def braces(folder: Path, manifest: Manifest) -> str:
    """All shards as one expression: FOLDER/NAME-{000000..000004}.tar"""
    first, last = manifest.shards[0].name, manifest.shards[-1].name
    number = slice(len(manifest.name) + 1, -len(".tar"))
    return str(folder / f"{manifest.name}-{{{first[number]}..{last[number]}}}.tar")


if __name__ == "__main__":
    sys.exit(main())
