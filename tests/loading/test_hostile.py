"""Samples made to do harm, through the loader: each is counted under its reason and replaced, none costs memory."""

import io
import resource
import struct
from dataclasses import replace

import cv2
import numpy as np
import pytest
from samples import make_sample

from mimic_wds.loading.dataset import PairDataset
from mimic_wds.loading.faults import FaultPolicy
from mimic_wds.loading.pairs import PairLoader
from mimic_wds.storage import sample as codec

#: Kilobytes that an epoch may add to the process; the pictures that are asked for would add 12,000,000.
MEMORY_KB = 150_000


def bomb():
    """A JPEG of a few hundred bytes whose header asks for 65,500 x 65,500 pixels."""
    data = cv2.imencode(".jpg", np.zeros((16, 16, 3), np.uint8))[1].tobytes()
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", 65_500, 65_500) + data[at + 4 :]


def npy(array, **options):
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


#: Member, what it holds instead, and the reason that is counted.
CASES = [
    ("0.jpg", bomb(), "jpeg_does_not_decode"),
    ("1.jpg", make_sample().image0_jpg[:500], "jpeg_does_not_decode"),
    ("0.jpg", b"", "jpeg_does_not_decode"),
    ("corr.npy", npy(np.array([{}], object), allow_pickle=True), "correspondences_unreadable"),
    ("corr.npy", npy(np.zeros(16, np.int64)), "correspondences_of_another_shape"),
    ("corr.npy", npy(np.zeros((4, 4), np.int16)), "correspondences_of_another_shape"),
    ("corr.npy", npy(np.zeros(16, np.int16)), "correspondences_not_one_to_one"),
    ("corr.npy", b"\x93NUMPY\1\0\xff\xff", "correspondences_unreadable"),
    ("json", b'{"homography": [NaN]}', "json_unreadable"),
    ("json", b"[" * 100_000, "json_unreadable"),
]


@pytest.fixture
def hostile(packed, monkeypatch):
    """24 pairs; the first ones hold what CASES say, written past the encoder that would refuse them."""
    samples = [make_sample(number) for number in range(24)]
    spoiled = {sample.key: case for sample, case in zip(samples, CASES, strict=False)}
    encode = codec.encode

    def spoil(sample):
        member, data, _ = spoiled.get(sample.key, ("", b"", ""))
        return [(name, data if name == f"{sample.key}.{member}" else whole) for name, whole in encode(sample)]

    monkeypatch.setattr("mimic_wds.storage.writer.encode", spoil)
    with PairDataset(packed([replace(sample) for sample in samples])) as dataset:
        yield dataset


def test_each_is_counted_and_none_costs_memory(hostile):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    loader = PairLoader(hostile, global_batch=8, homographies=True, policy=FaultPolicy(count=len(CASES)))
    keys = {key for batch in loader.epoch(0) for key in batch.keys}
    expected = [reason for _, _, reason in CASES]
    assert dict(loader.faults) == {reason: expected.count(reason) for reason in expected}
    assert len(keys) == 24 - len(CASES)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEMORY_KB
