"""`mimic-shard verify`: is a data set whole, and does every sample say the truth?"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tyro
from numpy.typing import NDArray

from mimic_wds.cli.console import error, say
from mimic_wds.curation.criteria import Criteria
from mimic_wds.curation.scene import stored_correspondences
from mimic_wds.pairs import PairSample
from mimic_wds.settings import from_mapping
from mimic_wds.storage.manifest import read_manifest
from mimic_wds.storage.verify import Recompute
from mimic_wds.storage.verify import verify as verify_data_set


def verify(folder: tyro.conf.Positional[Path], /) -> int:
    """Recount, rehash and decode a data set; name every problem.

    Example: mimic-shard verify shards/demo

    Args:
        folder: Folder of the data set.

    Returns:
        0 when all is well, 1 when there is a problem.
    """
    manifest = read_manifest(folder)
    problems = 0
    recompute = _recompute(manifest.criteria) if manifest.kind == "pairs" else None
    for problem in verify_data_set(folder, recompute):
        problems += 1
        error(str(problem))
    if problems:
        say(f"{folder}: {problems} problem(s)")
        return 1
    say(f"{folder}: {manifest.num_samples:,} samples in {len(manifest.shards)} shard(s), no problem found")
    return 0


def _recompute(plain: Mapping[str, object]) -> Recompute:
    """A function that gives the correspondences of a sample's stored homography under the manifest's criteria."""
    criteria = from_mapping(Criteria, {k: v for k, v in plain.items() if k != "preset"}, "manifest: criteria")

    def recompute(sample: PairSample) -> NDArray[np.int16]:
        return stored_correspondences(sample, criteria)

    return recompute
