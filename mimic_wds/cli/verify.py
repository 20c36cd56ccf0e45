"""`mimic-shard verify`: is a data set whole, and does every sample say the truth?"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import msgspec
import numpy as np
import tyro
from numpy.typing import NDArray

from mimic_wds.cli.console import ProgressLine, error, say
from mimic_wds.cli.making import threads
from mimic_wds.curation.criteria import Criteria
from mimic_wds.curation.scene import stored_correspondences
from mimic_wds.pairs import PairSample
from mimic_wds.settings import from_mapping
from mimic_wds.storage.folder_place import FolderPlace
from mimic_wds.storage.manifest import Manifest
from mimic_wds.storage.places import open_place, read_manifest_at
from mimic_wds.storage.verify import Depth, Problem, unfinished
from mimic_wds.storage.verify import verify as verify_data_set


def verify(
    where: tyro.conf.Positional[str],
    /,
    fast: bool = False,
    deep: bool = False,
    workers: int = 0,
    endpoint: str = "",
    anonymous: bool = False,
    json: bool = False,
) -> int:
    """Hold a data set against its manifest and name every problem.

    Without --fast or --deep every byte is read: sha256, structure, indexes, keys, counts, scenes. Shards of a bucket
    are copied to the folder for temporary files (TMPDIR), one for each worker at a time.

    Example: mimic-shard verify shards/demo --deep

    Args:
        where: Folder or URL of the data set.
        fast: Only names, sizes and indexes.
        deep: Also decode every picture, and check homographies, correspondences, overlaps, maps and labels.
        workers: Shards at once; 0 = one per core.
        endpoint: Address of an S3-compatible service; default: AWS_ENDPOINT_URL, or the provider's own.
        anonymous: Send no credentials, for public buckets.
        json: Print the problems as JSON.

    Returns:
        0 when all is well, 1 when there is a problem.
    """
    if fast and deep:
        raise ValueError("give --fast or --deep, not both")
    depth: Depth = "fast" if fast else "deep" if deep else "default"
    place = open_place(where, endpoint=endpoint, anonymous=anonymous)
    manifest = read_manifest_at(place)
    recompute = make_recompute(manifest.criteria) if manifest.kind == "pairs" and deep else None
    problems: list[Problem] = []
    with ProgressLine("shards") as line:
        line.start(len(manifest.shards))

        def progress(done: int, total: int) -> None:
            if not json:
                line.advance(f"{len(problems):,} problem(s)")

        found = verify_data_set(place, recompute, depth=depth, workers=threads(workers), progress=progress)
        for problem in found:
            problems.append(problem)
            if not json:
                error(str(problem))
    note = unfinished(place.folder) if isinstance(place, FolderPlace) else ""
    if json:
        print(msgspec.json.encode(_plain(where, depth, manifest, problems, note)).decode())
    else:
        _say(where, depth, manifest, problems, note)
    return 1 if problems else 0


def _plain(where: str, depth: Depth, manifest: Manifest, problems: list[Problem], note: str) -> dict[str, object]:
    return {
        "where": where,
        "depth": depth,
        "shards": len(manifest.shards),
        "samples": manifest.num_samples,
        "problems": [asdict(problem) for problem in problems],
        "unfinished": note,
    }


def _say(where: str, depth: Depth, manifest: Manifest, problems: list[Problem], note: str) -> None:
    if note:
        say(note)
    if problems:
        say(f"{where}: {len(problems):,} problem(s)")
        return
    looked = {"fast": "names, sizes and indexes", "default": "every byte", "deep": "every sample"}[depth]
    say(f"{where}: {manifest.num_samples:,} samples in {len(manifest.shards)} shard(s), no problem found in {looked}")


@dataclass(frozen=True)
class StoredCorrespondences:
    """Gives the correspondences of a sample's stored homography; may be handed to other processes."""

    criteria: Criteria

    def __call__(self, sample: PairSample) -> NDArray[np.int16]:
        """(L,) for each patch of image 0 the patch of image 1, or -1."""
        return stored_correspondences(sample, self.criteria)


def make_recompute(plain: Mapping[str, object]) -> StoredCorrespondences:
    """The correspondences under the criteria of a manifest. Raises ValueError for criteria that are not known."""
    criteria = {name: value for name, value in plain.items() if name != "preset"}
    return StoredCorrespondences(from_mapping(Criteria, criteria, "manifest: criteria"))
