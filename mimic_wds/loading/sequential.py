"""Foreign tars without manifest or index, read from front to back through webdataset itself."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from mimic_wds.pairs import PairSample
from mimic_wds.storage.layout import MEMBERS
from mimic_wds.storage.sample import decode


def read_tars(paths: Sequence[Path | str]) -> Iterator[PairSample]:
    """The samples of tars in our format, in file order; slow, but needs nothing beside the tars.

    Raises ValueError naming key and members when a sample is not one of ours.
    """
    import webdataset

    for path in paths:
        for sample in webdataset.WebDataset(str(path), shardshuffle=False):
            missing = [member for member in MEMBERS if member not in sample]
            if missing:
                raise ValueError(f"{path}: sample {sample['__key__']!r} has no {', '.join(missing)}")
            yield decode(sample["__key__"], {member: sample[member] for member in MEMBERS})
