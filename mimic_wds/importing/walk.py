"""All files below a folder: hidden ones and a Mac's leftovers are passed over, links to folders are followed once."""

import os
from collections.abc import Iterator
from pathlib import Path

#: What zips made on a Mac hold beside the files.
_LEFTOVERS = frozenset({"__MACOSX", "Thumbs.db"})


def is_leftover(part: str) -> bool:
    """True for a name that no data set means: ".DS_Store", "._0000.jpg", "__MACOSX"."""
    return part in _LEFTOVERS or part.startswith(".")


def walk(root: Path) -> Iterator[tuple[str, list[str]]]:
    """(folder relative to `root` as "a/b" or "", its file names) of each folder with files, in order of the names."""
    stack, linked = [""], {os.path.realpath(root)}
    while stack:
        folder = stack.pop()
        files, folders = [], []
        with os.scandir(root / folder) as entries:
            for entry in entries:
                if is_leftover(entry.name):
                    continue
                if not entry.is_dir():
                    files.append(entry.name)
                elif not entry.is_symlink() or _is_new(entry.path, linked):
                    folders.append(entry.name)
        if files:
            yield folder, sorted(files)
        stack += [f"{folder}/{name}" if folder else name for name in sorted(folders, reverse=True)]


def _is_new(path: str, linked: set[str]) -> bool:
    """True for a link to a folder that was not entered yet; a link to a folder above itself never ends."""
    target = os.path.realpath(path)
    is_above = os.path.realpath(os.path.dirname(path)).startswith(target.rstrip("/") + "/")
    if is_above or target in linked:
        return False
    linked.add(target)
    return True
