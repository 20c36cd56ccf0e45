"""A sample as bytes: its members, the same in every build (docs/shard-format.md)."""

import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np

from mimic_wds.pairs import Camera, ImageSample, PairSample, PairTruth, Sample
from mimic_wds.storage.layout import MEMBERS

#: Fields of a KEY.json in their order, with their types (a tuple: a list of these).
Fields: TypeAlias = Mapping[str, type | tuple[type, ...]]

#: Of a pair; the same in every sample.
FIELDS: Fields = {
    "overlap": float,
    "source": str,
    "scene": str,
    "frame0": str,
    "frame1": str,
    "time0_s": float,
    "time1_s": float,
    "homography": (float,) * 9,
    "num_inliers": int,
    "size": (int, int),
    "patch_size": int,
}

#: What follows in data sets that know it: where the cameras were (fx, fy, cx, cy; 3 x 4), all zeros = not known.
TRUTH_FIELDS: Fields = {
    "intrinsics0": (float,) * 4,
    "intrinsics1": (float,) * 4,
    "pose0": (float,) * 12,
    "pose1": (float,) * 12,
    "covisibility": float,
}

#: Of a single image.
IMAGE_FIELDS: Fields = {"source": str, "scene": str, "frame0": str, "label": int, "size": (int, int)}
IMAGE_TRUTH_FIELDS: Fields = {"intrinsics0": (float,) * 4, "pose0": (float,) * 12}

#: A number is smaller than that, without its sign: a float is finite, an integer fits in 64 bits.
_LIMITS: dict[type, float] = {float: math.inf, int: 2**63}

_NPY_HEADER = re.compile(
    rb"\s*\{\s*'descr':\s*'([<|][iuf][1248])',\s*'fortran_order':\s*False,\s*'shape':\s*\(([0-9, ]{0,80})\),?\s*\}\s*"
)


def encode(sample: Sample) -> list[tuple[str, bytes]]:
    """The members of a sample, (name, data), in their order in the tar."""
    members = _encode_pair(sample) if isinstance(sample, PairSample) else _encode_image(sample)
    return [(f"{sample.key}.{member}", data) for member, data in (*members.items(), *sample.maps.items())]


def _encode_pair(sample: PairSample) -> dict[str, bytes]:
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
    if sample.truth is not None:
        camera0, camera1 = encode_camera(sample.truth.camera0), encode_camera(sample.truth.camera1)
        facts |= {"intrinsics0": camera0[0], "intrinsics1": camera1[0], "pose0": camera0[1], "pose1": camera1[1]}
        facts["covisibility"] = float(sample.truth.covisibility)
    assert list(facts) == [*FIELDS, *(TRUTH_FIELDS if sample.truth else ())]
    data = sample.image0_jpg, sample.image1_jpg, encode_array(sample.corr_0to1.astype("<i2")), _encode_facts(facts)
    return dict(zip(MEMBERS["pairs"], data, strict=True))


def _encode_image(sample: ImageSample) -> dict[str, bytes]:
    facts = {
        "source": sample.source,
        "scene": sample.scene,
        "frame0": sample.frame,
        "label": int(sample.label),
        "size": [int(side) for side in sample.size],
    }
    if sample.camera is not None:
        facts["intrinsics0"], facts["pose0"] = encode_camera(sample.camera)
    assert list(facts) == [*IMAGE_FIELDS, *(IMAGE_TRUTH_FIELDS if sample.camera else ())]
    return dict(zip(MEMBERS["images"], (sample.image_jpg, _encode_facts(facts)), strict=True))


def encode_camera(camera: Camera | None) -> tuple[list[float], list[float]]:
    """fx, fy, cx, cy and the first three rows of the pose; zeros when it is not known."""
    if camera is None:
        return [0.0] * 4, [0.0] * 12
    K = camera.intrinsics
    return [float(v) for v in (K[0, 0], K[1, 1], K[0, 2], K[1, 2])], [float(v) for v in camera.pose[:3].ravel()]


def decode_camera(intrinsics: Sequence[float], pose: Sequence[float]) -> Camera | None:
    """The camera that `encode_camera` has written."""
    if not any(intrinsics):
        return None
    fx, fy, cx, cy = intrinsics
    K = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], np.float64)
    return Camera(intrinsics=K, pose=np.vstack([np.array(pose, np.float64).reshape(3, 4), [0, 0, 0, 1]]))


def _encode_facts(facts: dict[str, Any]) -> bytes:
    """KEY.json. Python writes the shortest text that reads back to the same float, so the homography is exact."""
    return json.dumps(facts, separators=(",", ":"), ensure_ascii=True).encode()


def decode(key: str, members: Mapping[str, bytes]) -> PairSample:
    """A pair from its members, name -> data. Raises ValueError naming the key and what is wrong."""
    facts = decode_facts(key, members["json"], FIELDS, TRUTH_FIELDS)
    corr = decode_array(members["corr.npy"], f"{key}.corr.npy")
    if corr.dtype != np.int16 or corr.ndim != 1:
        raise ValueError(f"{key}.corr.npy: expected int16 of shape (L,), got {corr.dtype} of shape {corr.shape}")
    return PairSample(
        key=key,
        image0_jpg=members["0.jpg"],
        image1_jpg=members["1.jpg"],
        corr_0to1=corr,
        overlap=facts["overlap"],
        H_0to1=np.array(facts["homography"], np.float64).reshape(3, 3),
        num_inliers=facts["num_inliers"],
        size=(facts["size"][0], facts["size"][1]),
        patch_size=facts["patch_size"],
        source=facts["source"],
        scene=facts["scene"],
        frame0=facts["frame0"],
        frame1=facts["frame1"],
        time0_s=facts["time0_s"],
        time1_s=facts["time1_s"],
        truth=_decode_truth(facts) if "covisibility" in facts else None,
        maps=_maps(members),
    )


def _decode_truth(facts: Mapping[str, Any]) -> PairTruth:
    return PairTruth(
        camera0=decode_camera(facts["intrinsics0"], facts["pose0"]),
        camera1=decode_camera(facts["intrinsics1"], facts["pose1"]),
        covisibility=facts["covisibility"],
    )


def _maps(members: Mapping[str, bytes]) -> dict[str, bytes]:
    """The members that are maps of a view."""
    return {name: data for name, data in members.items() if name.endswith(".png")}


def decode_image(key: str, members: Mapping[str, bytes]) -> ImageSample:
    """A single image from its members, name -> data. Raises ValueError naming the key and what is wrong."""
    facts = decode_facts(key, members["json"], IMAGE_FIELDS, IMAGE_TRUTH_FIELDS)
    return ImageSample(
        key=key,
        image_jpg=members["0.jpg"],
        size=(facts["size"][0], facts["size"][1]),
        source=facts["source"],
        scene=facts["scene"],
        frame=facts["frame0"],
        label=facts["label"],
        camera=decode_camera(facts["intrinsics0"], facts["pose0"]) if "pose0" in facts else None,
        maps=_maps(members),
    )


def decode_facts(key: str, data: bytes, fields: Fields, more: Fields) -> dict[str, Any]:
    """KEY.json as a dictionary of `fields`, and of all or none of `more`.

    Raises ValueError when fields are missing, unknown or of another type.
    """
    try:
        facts = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{key}.json: not valid JSON: {error}") from None
    if isinstance(facts, dict) and not facts.keys().isdisjoint(more):
        fields = {**fields, **more}
    if not isinstance(facts, dict) or set(facts) != set(fields):
        raise ValueError(f"{key}.json: expected exactly the fields {', '.join(fields)}")
    for name, kind in fields.items():
        if not _has_type(facts[name], kind):
            raise ValueError(f"{key}.json: {name} should be {_describe(kind)}, is {str(facts[name])[:100]!r}")
    return facts


def _has_type(value: object, kind: type | tuple[type, ...]) -> bool:
    """True if `value`, as json reads it, is exactly of this kind: neither is 1 a float nor true an int."""
    if isinstance(kind, tuple):
        return isinstance(value, list) and len(value) == len(kind) and all(map(_has_type, value, kind))
    if type(value) is not kind:
        return False
    return kind is str or -_LIMITS[kind] < value < _LIMITS[kind]  # type: ignore[operator]


def _describe(kind: type | tuple[type, ...]) -> str:
    return f"{len(kind)} of {kind[0].__name__}" if isinstance(kind, tuple) else kind.__name__


def encode_array(array: np.ndarray[Any, Any]) -> bytes:
    """An array as .npy bytes; never a pickle."""
    assert not array.dtype.hasobject
    return _npy_header(array.dtype.str, array.shape) + array.tobytes()


@lru_cache(maxsize=64)  # numpy takes longer to write one than to copy the numbers of a sample
def _npy_header(descr: str, shape: tuple[int, ...]) -> bytes:
    """What stands before the numbers of an .npy file, version 1.0, C order."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": descr, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def decode_array(data: bytes, where: str) -> np.ndarray[Any, Any]:
    """An array from .npy bytes: version 1.0, plain numbers, C order. Raises ValueError naming `where` for any others.

    Not numpy's reader: that evaluates the header as Python, allocates what it asks for, and warns or raises anything
    when it is damaged.
    """
    end = 10 + int.from_bytes(data[8:10], "little")
    header = _NPY_HEADER.fullmatch(data[10:end])
    if data[:8] != b"\x93NUMPY\1\0" or header is None:
        raise ValueError(f"{where}: not a plain .npy array (version 1.0, numbers, C order)")
    dtype, shape = np.dtype(header[1].decode()), tuple(int(side) for side in header[2].replace(b",", b" ").split())
    if math.prod(shape) * dtype.itemsize != len(data) - end:
        raise ValueError(f"{where}: its header says {shape} of {dtype}, {len(data) - end} bytes follow it")
    return np.frombuffer(data, dtype, offset=end).reshape(shape).copy()
