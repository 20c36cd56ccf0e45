"""A sample as bytes: four members, the same in every build (docs/shard-format.md)."""

import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from mimic_wds.pairs import PairSample
from mimic_wds.storage.layout import MEMBERS

#: Fields of KEY.json in their order, with their types; the same in every sample.
FIELDS: dict[str, type] = {
    "overlap": float,
    "source": str,
    "scene": str,
    "frame0": str,
    "frame1": str,
    "time0_s": float,
    "time1_s": float,
    "homography": list,
    "num_inliers": int,
    "size": list,
    "patch_size": int,
}


def encode(sample: PairSample) -> list[tuple[str, bytes]]:
    """The members of a sample, (name, data), in their order in the tar."""
    facts = {
        "overlap": float(sample.overlap),
        "source": sample.source,
        "scene": sample.scene,
        "frame0": sample.frame0,
        "frame1": sample.frame1,
        "time0_s": float(sample.time0_s),
        "time1_s": float(sample.time1_s),
        "homography": [float(v) for v in sample.H_0to1.ravel()],
        "num_inliers": int(sample.num_inliers),
        "size": [int(side) for side in sample.size],
        "patch_size": int(sample.patch_size),
    }
    assert list(facts) == list(FIELDS)
    data = (
        sample.image0_jpg,
        sample.image1_jpg,
        encode_array(sample.corr_0to1.astype("<i2")),
        # Python writes the shortest text that reads back to the same float, so the homography is exact.
        json.dumps(facts, separators=(",", ":"), ensure_ascii=True).encode(),
    )
    return [(f"{sample.key}.{member}", content) for member, content in zip(MEMBERS, data, strict=True)]


def decode(key: str, members: Mapping[str, bytes]) -> PairSample:
    """A sample from its members (MEMBERS -> data). Raises ValueError naming the key and what is wrong."""
    facts = decode_facts(key, members["json"])
    homography, size = facts["homography"], facts["size"]
    if len(homography) != 9 or len(size) != 2:
        raise ValueError(f"{key}.json: expected 9 numbers in homography and 2 in size")
    corr = decode_array(members["corr.npy"], f"{key}.corr.npy")
    if corr.dtype != np.int16 or corr.ndim != 1:
        raise ValueError(f"{key}.corr.npy: expected int16 of shape (L,), got {corr.dtype} of shape {corr.shape}")
    return PairSample(
        key=key,
        image0_jpg=members["0.jpg"],
        image1_jpg=members["1.jpg"],
        corr_0to1=corr,
        overlap=facts["overlap"],
        H_0to1=np.array(homography, np.float64).reshape(3, 3),
        num_inliers=facts["num_inliers"],
        size=(size[0], size[1]),
        patch_size=facts["patch_size"],
        source=facts["source"],
        scene=facts["scene"],
        frame0=facts["frame0"],
        frame1=facts["frame1"],
        time0_s=facts["time0_s"],
        time1_s=facts["time1_s"],
    )


def decode_facts(key: str, data: bytes) -> dict[str, Any]:
    """KEY.json as a dictionary. Raises ValueError when fields are missing, unknown or of another type."""
    try:
        facts = json.loads(data)
    except ValueError as error:
        raise ValueError(f"{key}.json: not valid JSON: {error}") from None
    if not isinstance(facts, dict) or set(facts) != set(FIELDS):
        raise ValueError(f"{key}.json: expected exactly the fields {', '.join(FIELDS)}")
    for name, kind in FIELDS.items():
        if type(facts[name]) is not kind:
            raise ValueError(f"{key}.json: {name} should be {kind.__name__}, is {type(facts[name]).__name__}")
    return facts


def encode_array(array: np.ndarray[Any, Any]) -> bytes:
    """An array as .npy bytes; never a pickle."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def decode_array(data: bytes, where: str) -> np.ndarray[Any, Any]:
    """An array from .npy bytes; a pickle is refused. Raises ValueError naming `where`."""
    try:
        return np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{where}: not a plain .npy array: {error}") from None
