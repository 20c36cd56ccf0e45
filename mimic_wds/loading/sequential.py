"""Foreign tars without manifest or index, read from front to back by webdataset."""

import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from mimic_wds.pairs import PairSample
from mimic_wds.storage.layout import MEMBERS
from mimic_wds.storage.sample import decode
from mimic_wds.storage.tar import BLOCK, END


def read_tars(paths: Sequence[Path | str]) -> Iterator[PairSample]:
    """The pairs of tars in our format, in file order; slow, but needs nothing beside the tars.

    Raises ValueError naming the file (and key and members, where known) when a tar is torn or a sample not one of ours.
    """
    for path in map(Path, paths):
        try:
            yield from _read_tar(path)
        except FileNotFoundError:
            raise ValueError(f"{path}: no such file") from None
        except tarfile.ReadError as error:
            raise ValueError(f"{path}: not a whole tar: {error.args[0]}") from None


def _read_tar(path: Path) -> Iterator[PairSample]:
    """The samples of one tar."""
    # The file is opened here, since webdataset takes a path for a URL, expands braces in it and runs "pipe:" commands.
    from webdataset.tariterators import group_by_keys, tar_file_expander

    with path.open("rb") as stream:
        _check_end(path, stream)
        for members in group_by_keys(tar_file_expander([{"url": str(path), "stream": stream}])):
            key = members["__key__"]
            missing = [member for member in MEMBERS["pairs"] if member not in members]
            if missing:
                raise ValueError(f"{path}: sample {key!r} has no {', '.join(missing)}")
            yield decode(key, {member: members[member] for member in MEMBERS["pairs"]})


def _check_end(path: Path, stream: BinaryIO) -> None:
    """Raise ValueError for a tar without its end: webdataset takes one that was cut between two samples for whole."""
    if path.suffix != ".tar":  # a packed one, say; its end says nothing about the tar's
        return
    size = path.stat().st_size
    stream.seek(max(0, size - len(END)))
    if size % BLOCK or stream.read() != END:
        raise ValueError(f"{path}: ends without the two zero blocks that end a tar: it was cut short")
    stream.seek(0)
