"""Text files that list pairs of images, one pair a line: names of two images of one folder, "#" begins a comment."""

import posixpath
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path


class PairList(dict[str, dict[tuple[str, str], int]]):
    """folder -> (file name 0, file name 1) -> line number. Folders are relative to the source's path, "" is itself."""

    def frames(self, folder: str) -> list[str]:
        """The file names that a folder's pairs use, in the order of their first use."""
        return list(dict.fromkeys(name for pair in self.get(folder, {}) for name in pair))

    def check(self, held: Mapping[str, Mapping[str, int]], where: str) -> None:
        """Raise ValueError naming the first listed image that `held` (folder -> file names) has not."""
        missing = [
            (line, f"{folder}/{name}".lstrip("/"))
            for folder, pairs in self.items()
            for pair, line in pairs.items()
            for name in pair
            if name not in held.get(folder, {})
        ]
        if missing:
            line, name = min(missing)
            raise ValueError(f"{where}, line {line}: there is no image {name!r} ({len(missing)} names are not known)")


def read_pairs(path: str) -> PairList:
    """The pairs in a file; one that is listed twice counts once.

    Names are relative to the source's path and part at blanks; where names hold blanks, one tab parts them.
    Raises ValueError with the line for anything but two names of one folder, and when the file cannot be read.
    """
    try:
        stat = Path(path).stat()
        return _read(path, stat.st_size, stat.st_mtime_ns)
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read as a list of pairs ({error})") from None


@lru_cache(maxsize=4)
def _read(path: str, num_bytes: int, mtime_ns: int) -> PairList:
    """Parsed once per process and version of the file."""
    pairs = PairList()
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            names = _names(line)
            if names:
                folder, pair = _pair(names, f"{path}, line {number}")
                pairs.setdefault(folder, {}).setdefault(pair, number)
    if not pairs:
        raise ValueError(f'{path}: lists no pairs; expected lines of "IMAGE0 IMAGE1"')
    return pairs


def _names(line: str) -> list[str]:
    line = re.sub(r"(^|\s)#.*", "", line.rstrip("\n")).strip()
    return [name.strip() for name in line.split("\t")] if "\t" in line else line.split()


def _pair(names: list[str], where: str) -> tuple[str, tuple[str, str]]:
    """The folder that holds both images, and their file names."""
    if len(names) != 2:
        raise ValueError(f'{where}: expected "IMAGE0 IMAGE1", found {len(names)} names (a tab parts names with blanks)')
    (folder0, name0), (folder1, name1) = (posixpath.split(posixpath.normpath(name)) for name in names)
    if folder0 != folder1:
        raise ValueError(f"{where}: {names[0]!r} and {names[1]!r} are in two folders; a pair's images must be in one")
    if name0 == name1:
        raise ValueError(f"{where}: names {names[0]!r} twice")
    return folder0, (name0, name1)
