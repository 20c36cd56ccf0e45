"""`mimic-shard show`: a picture of some samples; matching patches of pairs in the same colour."""

from pathlib import Path

import cv2
import numpy as np
import tyro

from mimic_wds.cli.console import say
from mimic_wds.looking.pictures import facts, image_picture, pair_picture
from mimic_wds.pairs import PairSample
from mimic_wds.storage.browse import Browser, open_browser
from mimic_wds.storage.files import atomic_write


def show(
    data_set: tyro.conf.Positional[str],
    /,
    out: Path = Path("pairs.png"),
    num: int = 6,
    seed: int = 0,
    key: str = "",
    endpoint: str = "",
    anonymous: bool = False,
) -> int:
    """Draw samples of a data set: of pairs both views, with matching patches in the same colour.

    Example: mimic-shard show shards/demo --num 8 --out pairs.png

    Args:
        data_set: Folder of the data set, or s3://, gs://, az://, https:// or hf://datasets/ URL.
        out: The picture to write (PNG or JPEG).
        num: How many pairs or images.
        seed: Which random ones.
        key: Draw this one instead.
        endpoint: Address of an S3-compatible service; default: AWS_ENDPOINT_URL, or the provider's own.
        anonymous: Send no credentials, for public buckets.

    Returns:
        0
    """
    if num < 1:
        raise ValueError(f"--num must be 1 or more, got {num}")
    if out.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise ValueError(f"{out}: expected a name ending in .png or .jpg")
    browser = open_browser(data_set, endpoint=endpoint, anonymous=anonymous)
    if not len(browser):
        raise ValueError(f"{data_set}: the data set holds no {browser.noun}s")
    if key:
        chosen = [browser.find(key)]
    else:
        chosen = sorted(np.random.default_rng(seed).permutation(len(browser))[:num].tolist())
    _write(out, np.vstack([_draw(browser, number) for number in chosen]))
    say(f"{len(chosen)} {browser.noun}(s) drawn in {out}")
    return 0


def _draw(browser: Browser, number: int) -> np.ndarray:
    sample = browser.sample(number)
    shard, place = browser.locate(number)
    say(f"{sample.key}  {facts(sample)}  {browser.manifest.shards[shard].name}[{place}]")
    return pair_picture(sample) if isinstance(sample, PairSample) else image_picture(sample)


def _write(path: Path, picture: np.ndarray) -> None:
    """Write an RGB picture atomically, in the format that its name says."""
    ok, data = cv2.imencode(path.suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    assert ok
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        file.write(data.tobytes())
