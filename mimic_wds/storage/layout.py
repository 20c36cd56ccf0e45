"""Every name on disk: files of a data set, members of a sample, keys."""

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

from mimic_wds.pairs import Kind

MANIFEST_NAME = "manifest.json"
SCENES_NAME = "scenes.jsonl"  #: what became of each scene; see `scenes_name`
REPORT_NAME = "build-report.json"  #: how the last build went: times, rates; not part of what is described
CARD_NAME = "README.md"  #: the next four are written from the manifest (card.py)
FIGURE_NAME = "composition.svg"
CROISSANT_NAME = "croissant.json"
SIZES_NAME = "sizes.json"  #: samples per shard
STAGING_NAME = ".build"  #: folder of an unfinished build
PULLING_NAME = ".pull"  #: folder of an unfinished pull
REPAIRING_NAME = ".repair"  #: folder of an unfinished repair
CLAIM_NAME = ".push.json"  #: file, in a bucket, of a push under way
QUARANTINE_NAME = "quarantine"  #: folder of what a repair put aside

#: Members of a sample in their order in the tar; their names are KEY.MEMBER. Maps follow them.
MEMBERS: dict[Kind, tuple[str, ...]] = {
    "pairs": ("0.jpg", "1.jpg", "corr.npy", "json"),
    "images": ("0.jpg", "json"),
}

#: Maps of a view that may be stored beside it, in their order: depth, surface normals, classes of the pixels.
MAPS = ("depth", "normal", "semseg")

#: A USTAR name has 100 bytes, so KEY and the longest member must fit in them.
MAX_KEY = 100 - len(".0.semseg.png")

#: Characters of a key's parts; with three "_" they fill MAX_KEY.
_SOURCE_LIMIT, _SCENE_LIMIT, _FRAME_LIMIT = 14, 34, 18

#: An image has one frame, which takes the room of two.
_ONLY_FRAME_LIMIT = 2 * _FRAME_LIMIT + 1

#: Hex digits, 40 bits: 100,000 scenes with the same first 23 characters get equal keys with a chance of 0.5 %.
_HASH_LENGTH = 10

#: Parts of a key: source, scene, frames.
_KEY: dict[Kind, re.Pattern[str]] = {
    "pairs": re.compile(r"[a-z0-9-]+(_[a-z0-9-]+){3}"),
    "images": re.compile(r"[a-z0-9-]+(_[a-z0-9-]+){2}"),
}
_DATASET = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


def members_of(kind: Kind, maps: Sequence[str] = ()) -> tuple[str, ...]:
    """The members of a sample with these maps of each view: "0.jpg", ..., "json", "0.depth.png", ..."""
    views = "01" if kind == "pairs" else "0"
    return (*MEMBERS[kind], *(f"{view}.{name}.png" for view in views for name in maps))


def kind_of(members: Sequence[str]) -> Kind | None:
    """What samples with these members are; None if no samples have them."""
    kinds: tuple[Kind, ...] = ("pairs", "images")
    maps = [name for name in MAPS if f"0.{name}.png" in members]
    return next((kind for kind in kinds if members_of(kind, maps) == tuple(members)), None)


def shard_name(dataset: str, number: int) -> str:
    """File name of shard `number`: "NAME-000000.tar"."""
    return f"{dataset}-{number:06d}.tar"


def is_shard_name(dataset: str, name: str) -> bool:
    """True if `name` names a shard of `dataset`."""
    return re.fullmatch(re.escape(dataset) + r"-[0-9]{6,}\.tar", name) is not None


def shard_number(name: str) -> int:
    """The number in the file name of a shard."""
    return int(name.removesuffix(".tar").rpartition("-")[2])


def scenes_name(generation: int) -> str:
    """File name of what a generation says of its scenes: "scenes.jsonl", "scenes-000001.jsonl", ..."""
    return f"scenes-{generation:06d}.jsonl" if generation else SCENES_NAME


def index_name(shard: str) -> str:
    """File name of a shard's index: "NAME-000000.idx"."""
    return shard.removesuffix(".tar") + ".idx"


def slug(text: str, limit: int) -> str:
    """`text` in [a-z0-9-], at most `limit` characters; ends in a hash of `text` when anything was lost."""
    assert limit > _HASH_LENGTH
    plain = re.sub(r"[^a-z0-9-]", "-", unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower())
    if plain == text and 0 < len(plain) <= limit and not _looks_hashed(plain):
        return plain
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH_LENGTH]
    kept = re.sub(r"-+", "-", plain)[: limit - _HASH_LENGTH - 1].strip("-")
    return f"{kept}-{digest}" if kept else digest


def _looks_hashed(text: str) -> bool:
    """True for a text that ends like the hash of another one, which it must not be mistaken for."""
    return re.search(rf"(^|-)[0-9a-f]{{{_HASH_LENGTH}}}$", text) is not None


def sample_key(source: str, scene: str, frame0: str, frame1: str) -> str:
    """Key of a pair, the same in every build: "source_scene_frame0_frame1", at most 87 characters of [a-z0-9_-]."""
    key = "_".join((scene_prefix(source, scene), slug(frame0, _FRAME_LIMIT), slug(frame1, _FRAME_LIMIT)))
    assert len(key) <= MAX_KEY
    return key


def image_key(source: str, scene: str, frame: str) -> str:
    """Key of a single image, the same in every import: "source_scene_frame", like those of pairs."""
    key = f"{scene_prefix(source, scene)}_{slug(frame, _ONLY_FRAME_LIMIT)}"
    assert len(key) <= MAX_KEY
    return key


@lru_cache(maxsize=1 << 10)  # asked for with every sample of a scene
def scene_prefix(source: str, scene: str) -> str:
    """What the keys of a scene begin with, before the second "_"."""
    return f"{slug(source, _SOURCE_LIMIT)}_{slug(scene, _SCENE_LIMIT)}"


def prefix_of(key: str) -> str:
    """The `scene_prefix` of a key."""
    return "_".join(key.split("_", 2)[:2])


def is_key(text: str, kind: Kind = "pairs") -> bool:
    """True if `text` is formed like the key of such a sample."""
    return len(text) <= MAX_KEY and _KEY[kind].fullmatch(text) is not None


def check_dataset_name(name: str) -> None:
    """Raise ValueError unless `name` can name a data set and its shards."""
    if not _DATASET.fullmatch(name):
        raise ValueError(
            f"{name!r} cannot name a data set: use up to 64 of a-z, 0-9, - and _, first a letter or digit (--name)"
        )
