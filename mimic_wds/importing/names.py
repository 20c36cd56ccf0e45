"""From a path to the pair it holds: which of MIMIC's sources, which scene, which pair number.

The published layout is `MIMIC/SOURCE/SCENE/PAIR/{0000.jpg, 0001.jpg, corresponding.npy}`, DeMoN's has no PAIR level.
Nothing relies on its depth or its prefix: the source is the folder (or zip) with a known name, the pair number is a
last folder of digits, and the scene is what lies between. So a pair has the same name whether it is read from a zip,
from the whole tree or from one folder of it.
"""

import re
from functools import lru_cache
from pathlib import PurePosixPath
from typing import NamedTuple

#: Source -> the folder and zip names it goes by, in lower-case letters and digits. MIMIC calls ARKitScenes `Apple`.
_ALIASES = {
    "3dstreetview": ("3dstreetview", "3dstreet", "streetview"),
    "arkitscenes": ("apple", "arkit", "arkitscenes"),
    "co3d": ("co3d",),
    "demon": ("demon",),
    "gibson": ("gibson",),
    "hm3d": ("hm3d",),
    "mannequin": ("mannequin", "mannequinchallenge"),
    "matterport": ("matterport", "matterport3d", "mp3d"),
    "objectron": ("objectron",),
    "scannet": ("scannet",),
}
_SOURCES = {alias: source for source, aliases in _ALIASES.items() for alias in aliases}

#: Source of pairs below no folder of a known name.
UNKNOWN_SOURCE = "mimic3m"

#: The source without a PAIR level.
_WITHOUT_PAIRS = "demon"


#: A pair's number in the published layout: digits, not padded, with gaps.
_NUMBER = re.compile(r"[0-9]{1,18}")


class PairName(NamedTuple):
    """What names a pair of MIMIC."""

    source: str
    scene: str
    pair: str  #: its number as text, "" where the scene is the pair

    @property
    def frames(self) -> tuple[str, str]:
        """Names of the two views within the scene: pair number and file, e.g. "17-0000"; the frames' own are lost."""
        prefix = f"{self.pair}-" if self.pair else ""
        return f"{prefix}0000", f"{prefix}0001"


@lru_cache(maxsize=1 << 14)
def source_of(name: str) -> str | None:
    """The source that a folder or zip of this name holds, if it is a known one: "Gibson-001.zip" is gibson."""
    stem = name.lower().removesuffix(".zip")
    for candidate in (stem, re.split(r"[-.\s(]", stem)[0]):
        source = _SOURCES.get(re.sub(r"[^a-z0-9]", "", candidate))
        if source is not None:
            return source
    return None


def pair_name(root: PurePosixPath, inside: PurePosixPath, source: str = "") -> PairName:
    """The pair in folder `inside`, relative to `root`: an absolute folder or zip that was given.

    The source is told by the root's own name, else by the first folder inside it, else by the nearest one above it;
    `source` overrules them.
    """
    above, below = list(root.parts[1:]), [part for part in inside.parts if part != "/"]
    own = [source_of(part) for part in below]
    found, scene = _split(above, below, own)
    name = source or found or UNKNOWN_SOURCE
    pair = scene.pop() if name != _WITHOUT_PAIRS and len(scene) > 1 and _NUMBER.fullmatch(scene[-1]) else ""
    return PairName(name, "/".join(scene) or (above[-1] if above else "scene"), pair)


def _split(above: list[str], below: list[str], own: list[str | None]) -> tuple[str | None, list[str]]:
    """The source, and the path from it to the pair."""
    root_source = source_of(above[-1]) if above else None
    first = next((i for i, known in enumerate(own) if known and root_source in (None, known)), None)
    if first is not None:
        return own[first], below[first + 1 :]
    if root_source:
        return root_source, below
    for i in range(len(above) - 2, -1, -1):
        if known := source_of(above[i]):
            return known, [*above[i + 1 :], *below]
    return None, below


def sort_key(name: PairName) -> tuple[str, str, int, str]:
    """Order of the pairs: by source, scene, then pair number."""
    return (name.source, name.scene, int(name.pair or -1), name.pair)
