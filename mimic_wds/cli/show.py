"""`mimic-shard show`: a picture of some samples; matching patches of pairs in the same colour."""

from pathlib import Path

import cv2
import numpy as np
import tyro

from mimic_wds.cli.console import say
from mimic_wds.cli.pictures import facts, image_picture, pair_picture
from mimic_wds.pairs import PairSample
from mimic_wds.storage.files import atomic_write
from mimic_wds.storage.manifest import read_manifest
from mimic_wds.storage.reader import Shard, open_shards


def show(
    folder: tyro.conf.Positional[Path],
    /,
    out: Path = Path("pairs.png"),
    num: int = 6,
    seed: int = 0,
    key: str = "",
) -> int:
    """Draw samples of a data set: of pairs both views, with matching patches in the same colour.

    Example: mimic-shard show shards/demo --num 8 --out pairs.png

    Args:
        folder: Folder of the data set.
        out: The picture to write (PNG or JPEG).
        num: How many pairs or images.
        seed: Which random ones.
        key: Draw this one instead.

    Returns:
        0
    """
    if num < 1:
        raise ValueError(f"--num must be 1 or more, got {num}")
    if out.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise ValueError(f"{out}: expected a name ending in .png or .jpg")
    manifest = read_manifest(folder)
    shards, noun = open_shards(folder, manifest), manifest.kind.removesuffix("s")
    places = [(shard, i) for shard in shards for i in range(len(shard))]
    if not places:
        raise ValueError(f"{folder}: the data set holds no {noun}s")
    if key:
        chosen = [place for place in places if place[0].key(place[1]) == key]
        if not chosen:
            raise ValueError(f"{folder}: no {noun} has the key {key!r}")
    else:
        picked = np.random.default_rng(seed).permutation(len(places))[:num]
        chosen = [places[i] for i in sorted(picked)]
    _write(out, np.vstack([_draw(shard, i) for shard, i in chosen]))
    for shard in shards:
        shard.close()
    say(f"{len(chosen)} {noun}(s) drawn in {out}")
    return 0


def _draw(shard: Shard, index: int) -> np.ndarray:
    sample = shard.sample(index)
    say(f"{sample.key}  {facts(sample)}  {shard.path.name}[{index}]")
    return pair_picture(sample) if isinstance(sample, PairSample) else image_picture(sample)


def _write(path: Path, picture: np.ndarray) -> None:
    """Write an RGB picture atomically, in the format that its name says."""
    ok, data = cv2.imencode(path.suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    assert ok
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        file.write(data.tobytes())
