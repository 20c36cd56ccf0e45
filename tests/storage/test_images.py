"""Data sets of single images: stored, found by their index and checked; those of pairs are what they were."""

import hashlib
import json
import tarfile

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import make_data_set, make_image, make_image_set, make_sample

from mimic_wds.pairs import ImageSample
from mimic_wds.storage.index import read_index
from mimic_wds.storage.layout import image_key, is_key
from mimic_wds.storage.manifest import encode_manifest, manifest_hash, read_manifest, write_manifest
from mimic_wds.storage.reader import Shard, open_shards
from mimic_wds.storage.sample import IMAGE_FIELDS, decode_image, encode
from mimic_wds.storage.verify import verify
from mimic_wds.storage.writer import ShardWriter


@pytest.fixture
def images():
    return [make_image(number) for number in range(12)]


@pytest.fixture
def folder(images, tmp_path):
    """Twelve images of two classes in several shards."""
    make_image_set(tmp_path / "set", images)
    return tmp_path / "set"


def plain(sample: ImageSample):
    return {name: getattr(sample, name) for name in ImageSample.__slots__}


names = st.text(st.characters(codec="utf-8"), max_size=60)


@given(number=st.integers(0, 50), scene=names, frame=names, label=st.integers(-1, 10**6))
def test_any_image_comes_back(number, scene, frame, label):
    key = image_key("image-folder", scene, frame)
    sample = make_image(number, key=key, scene=scene, frame=frame, label=label)
    members = encode(sample)
    assert [name for name, _ in members] == [f"{key}.0.jpg", f"{key}.json"]
    assert max(len(name) for name, _ in members) <= 100
    assert is_key(key, "images")
    assert not is_key(key, "pairs")
    assert plain(decode_image(key, {"0.jpg": members[0][1], "json": members[1][1]})) == plain(sample)


@given(names, names, names, names)
def test_keys_tell_images_apart(scene, frame, other_scene, other_frame):
    same = (scene, frame) == (other_scene, other_frame)
    assert (image_key("x", scene, frame) == image_key("x", other_scene, other_frame)) is same


def test_images_lie_where_the_index_says(folder, images):
    manifest = read_manifest(folder)
    assert (manifest.kind, manifest.format_version, manifest.classes) == ("images", 2, ["cat", "dog"])
    assert len(manifest.shards) >= 3
    shards = open_shards(folder, manifest)
    found = [shard.sample(i) for shard in shards for i in range(len(shard))]
    assert list(map(plain, found)) == list(map(plain, images))
    for shard in shards:
        spans = np.load(shard.path.with_suffix(".idx"), allow_pickle=False)
        assert spans.shape == (len(shard), 2, 2)
        data = shard.path.read_bytes()
        with tarfile.open(shard.path) as tar:
            members = tar.getmembers()
        assert [(m.offset_data, m.size) for m in members] == [tuple(span) for span in spans.reshape(-1, 2).tolist()]
        for i, (picture, facts) in enumerate(spans.tolist()):
            assert data[picture[0] : sum(picture)] == shard.sample(i).image_jpg
            assert list(json.loads(data[facts[0] : sum(facts)])) == list(IMAGE_FIELDS)
    assert list(verify(folder)) == []


def test_a_data_set_of_pairs_is_what_it_was(tmp_path):
    make_data_set(tmp_path / "tiny")
    path = tmp_path / "tiny" / "manifest.json"
    before = path.read_bytes()
    fields = json.loads(before)
    assert fields["format_version"] == 1
    assert not {"kind", "classes"} & set(fields)
    manifest = read_manifest(tmp_path / "tiny")
    assert (manifest.kind, manifest.classes) == ("pairs", [])
    write_manifest(tmp_path / "tiny", manifest)
    assert path.read_bytes() == before
    # what a training run remembers is the hash of the fields of version 1 and nothing else
    assert manifest_hash(manifest) == hashlib.sha256(msgspec.json.encode(fields)).hexdigest()
    assert read_index(tmp_path / "tiny" / "tiny-000000.idx").spans.shape[1:] == (4, 2)


def test_images_are_not_taken_for_pairs(folder):
    """A reader that knows version 1 alone stops at the version; one that ignored it, at the members of the samples."""
    fields = json.loads((folder / "manifest.json").read_bytes())
    assert fields["format_version"] == 2
    (folder / "manifest.json").write_text(json.dumps({**fields, "format_version": 1}))
    with pytest.raises(ValueError, match="format version 1 does not hold images"):
        read_manifest(folder)
    (folder / "manifest.json").write_text(json.dumps({**fields, "kind": "pairs"}))
    with pytest.raises(ValueError, match="format version 2 does not hold pairs"):
        read_manifest(folder)
    (folder / "manifest.json").write_text(json.dumps({**fields, "kind": "triples"}))
    with pytest.raises(ValueError, match=r"manifest\.json.*kind"):
        read_manifest(folder)
    new = {"kind", "classes", "maps", "semseg_classes", "truth"}
    old = {name: value for name, value in fields.items() if name not in new}
    (folder / "manifest.json").write_text(json.dumps({**old, "format_version": 1}))
    with pytest.raises(ValueError, match=r"have the members 0\.jpg, json, the manifest says 0\.jpg, 1\.jpg"):
        open_shards(folder, read_manifest(folder))


def test_a_shard_holds_samples_of_one_kind(tmp_path):
    with ShardWriter(tmp_path / "x.tar") as writer:
        writer.add(make_image())
        with pytest.raises(AssertionError, match="samples of one kind"):
            writer.add(make_sample())
    with pytest.raises(ValueError, match="is no key"), ShardWriter(tmp_path / "y.tar") as writer:
        writer.add(make_image(key=make_sample().key))


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"label": 2}, "label"),
        ({"label": -2}, "label"),
        ({"label": 1}, "label"),
        ({"label": -1}, "label"),
        ({"key": image_key("image-folder", "cat", "other")}, "key"),
        ({"size": (40, 99)}, "jpeg"),
        ({"image_jpg": make_image().image_jpg[:-300]}, "jpeg"),
        ({"image_jpg": b"\xff\xd8\xff\xd9"}, "jpeg"),
    ],
)
def test_verify_names_what_is_wrong_with_an_image(tmp_path, changes, kind):
    make_image_set(tmp_path / "set", [make_image(0, **changes), make_image(1)])
    assert [problem.kind for problem in verify(tmp_path / "set")] == [kind]


def test_verify_holds_images_to_the_shrunk_size_and_the_classes_to_their_order(folder):
    path = folder / "manifest.json"
    fields = json.loads(path.read_bytes())
    largest = max(min(make_image(number).size) for number in range(12))
    for size, problems in ((largest, 0), (largest - 1, 1)):
        path.write_text(json.dumps({**fields, "criteria": {"preset": "import", "size": size}}))
        assert [problem.kind for problem in verify(folder)].count("size") >= problems
        assert bool(list(verify(folder))) is bool(problems)
    path.write_text(json.dumps({**fields, "classes": ["dog", "cat"]}))
    assert {problem.kind for problem in verify(folder)} == {"label", "manifest"}


def test_a_torn_shard_of_images_is_found(folder):
    shard = sorted(folder.glob("*.tar"))[1]
    shard.write_bytes(shard.read_bytes()[:-1])
    assert {problem.kind for problem in verify(folder)} >= {"bytes", "sha256", "structure"}
    with pytest.raises(ValueError, match="it was cut short or replaced"):
        Shard(shard)


def test_the_manifest_is_written_as_it_is_read(folder):
    manifest = read_manifest(folder)
    assert json.loads(encode_manifest(manifest)) == json.loads((folder / "manifest.json").read_bytes())
