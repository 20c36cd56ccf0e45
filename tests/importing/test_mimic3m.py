"""MIMIC as it was published: whatever the layout, every pair is kept or counted, with its map."""

import csv
import io
import json
import os
import zipfile

import numpy as np
import pytest
from published import PATCHES, a_map, jpeg, npy, pair_files, run_import, write_tree, write_zip

from mimic_wds.importing.mimic3m import patch_map
from mimic_wds.loading.dataset import PairDataset
from mimic_wds.storage.reader import open_shards
from mimic_wds.storage.verify import verify


def samples(folder, manifest):
    """All samples by key."""
    found = {}
    for shard in open_shards(folder, manifest):
        for i in range(len(shard)):
            found[shard.key(i)] = shard.sample(i)
        shard.close()
    return found


def one(folder, manifest, source, frame0):
    """The sample of a source and first frame."""
    (sample,) = [s for s in samples(folder, manifest).values() if (s.source, s.frame0) == (source, frame0)]
    return sample


FILES = {
    **pair_files("MIMIC/Gibson/Adrian/2", 1),
    **pair_files("MIMIC/Gibson/Adrian/10", 2),
    **pair_files("MIMIC/HM3D/00800-TEEsavR23oF/7", 3),
    **pair_files("MIMIC/DeMoN/mvs_00004", 4),  # no pair level
    **pair_files("MIMIC/Apple/41048190/1", 5),
    **pair_files("MIMIC/CO3D/apple/110_13051_23361/3", 6),  # a category that is named like a source
    "MIMIC/.DS_Store": b"x",
    "MIMIC/__MACOSX/Gibson/Adrian/2/0000.jpg": b"x",
    "MIMIC/__MACOSX/Gibson/Adrian/2/0001.jpg": b"x",
    "MIMIC/Gibson/Adrian/2/._0000.jpg": b"x",
    "MIMIC/Gibson/Empty/readme.txt": b"x",
}
NAMES = {
    ("arkitscenes", "41048190", "1-0000"),
    ("co3d", "apple/110_13051_23361", "3-0000"),
    ("demon", "mvs_00004", "0000"),
    ("gibson", "Adrian", "2-0000"),
    ("gibson", "Adrian", "10-0000"),
    ("hm3d", "00800-TEEsavR23oF", "7-0000"),
}


def names(found):
    return {(s.source, s.scene, s.frame0) for s in found.values()}


def split_zips(folder, files):
    """One zip per source, without the folder MIMIC, as they were published."""
    parts = {}
    for name, data in files.items():
        source, _, _ = name.removeprefix("MIMIC/").partition("/")
        parts.setdefault(source, {})[name.removeprefix("MIMIC/")] = data
    return [write_zip(folder / f"{source}.zip", part) for source, part in parts.items()]


def halves(folder, files):
    """Two zips that tear the pairs apart, as parts of a download may."""
    ordered = sorted(files)
    return [
        write_zip(folder / f"MIMIC-20230801T1234Z-00{n}.zip", {name: files[name] for name in ordered[n::2]})
        for n in range(2)
    ]


LAYOUTS = {
    "tree": lambda folder: [write_tree(folder, FILES)],
    "tree, by source": lambda folder: sorted(
        p for p in (write_tree(folder, FILES) / "MIMIC").iterdir() if not p.name.startswith((".", "_"))
    ),
    "one zip": lambda folder: [write_zip(folder / "MIMIC.zip", FILES)],
    "a zip per source": lambda folder: split_zips(folder, FILES),
    "a folder of zips": lambda folder: [split_zips(folder, FILES)[0].parent],
    "parts of a download": lambda folder: halves(folder, FILES),
    "backslashes": lambda folder: [write_zip(folder / "x.zip", {k.replace("/", "\\"): v for k, v in FILES.items()})],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_pair_is_the_same_in_every_layout(layout, tmp_path):
    manifest = run_import(tmp_path / "out", "mimic3m", LAYOUTS[layout](tmp_path / "in"))
    found = samples(tmp_path / "out", manifest)
    assert names(found) == NAMES
    assert manifest.kept == {"arkitscenes": 1, "co3d": 1, "demon": 1, "gibson": 2, "hm3d": 1}
    assert not any([*manifest.dropped.values(), *manifest.faults.values()])
    assert list(verify(tmp_path / "out")) == []
    # The data sets are the same byte for byte wherever the pairs were read from.
    whole = run_import(tmp_path / "again", "mimic3m", [write_zip(tmp_path / "all" / "MIMIC.zip", FILES)])
    assert whole == manifest


def test_pictures_are_copied_and_maps_are_what_numpy_reads(tmp_path):
    manifest = run_import(tmp_path / "out", "mimic3m", [write_tree(tmp_path / "in", FILES)])
    sample = one(tmp_path / "out", manifest, "gibson", "10-0000")
    assert sample.image0_jpg == FILES["MIMIC/Gibson/Adrian/10/0000.jpg"]
    assert sample.image1_jpg == FILES["MIMIC/Gibson/Adrian/10/0001.jpg"]
    expected = np.load(io.BytesIO(FILES["MIMIC/Gibson/Adrian/10/corresponding.npy"]), allow_pickle=True).item()
    assert {k: v for k, v in enumerate(sample.corr_0to1.tolist()) if v >= 0} == expected
    assert sample.overlap == 110 / 196
    assert not sample.H_0to1.any()
    assert sample.num_inliers == -1


def test_pairs_are_in_order_of_their_numbers(tmp_path):
    files = {k: v for n in (10, 9, 100, 2) for k, v in pair_files(f"Gibson/Adrian/{n}", n).items()}
    manifest = run_import(tmp_path / "out", "mimic3m", [write_tree(tmp_path / "in", files)])
    assert [s.frame0 for s in samples(tmp_path / "out", manifest).values()] == [f"{n}-0000" for n in (2, 9, 10, 100)]


def test_every_fault_is_counted_and_none_loses_a_pair_that_can_be_kept(tmp_path):
    class Attack:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'marker'}",)

    files = {}
    for number in range(12):
        files |= pair_files(f"ScanNet/scene0000_00/{number}", number)
    at = "ScanNet/scene0000_00"
    del files[f"{at}/0/corresponding.npy"]
    files[f"{at}/1/corresponding.npy"] = npy({0: Attack()})
    files[f"{at}/2/corresponding.npy"] = npy(a_map())[:-20]
    files[f"{at}/3/corresponding.npy"] = npy({0: 196})
    files[f"{at}/4/corresponding.npy"] = npy({0: 1, 2: 1})
    files[f"{at}/5/corresponding.npy"] = npy({})
    del files[f"{at}/6/0001.jpg"]
    files[f"{at}/7/0000.jpg"] = files[f"{at}/7/0000.jpg"][:-50]
    files[f"{at}/8/0001.jpg"] = jpeg(1, (224, 256))
    files[f"{at}/9/0000.jpg"] = files[f"{at}/9/0001.jpg"] = jpeg(1, (256, 256))
    manifest = run_import(tmp_path / "out", "mimic3m", [write_tree(tmp_path / "in", files)])
    assert manifest.candidates == {"scannet": 12}
    assert manifest.kept == {"scannet": 8}
    assert manifest.dropped == {"scannet": {"missing_view": 1, "unreadable": 1, "sizes_differ": 1, "wrong_size": 1}}
    assert manifest.faults == {"scannet": {"missing_correspondences": 1, "refused_pickle": 1, "bad_correspondences": 4}}
    assert not (tmp_path / "marker").exists()
    absent = one(tmp_path / "out", manifest, "scannet", "1-0000")
    assert (absent.overlap, absent.num_inliers, set(absent.corr_0to1.tolist())) == (-1.0, -1, {-1})
    assert list(verify(tmp_path / "out")) == []
    assert sum(manifest.overlap_histogram.counts) == 2  # of those whose overlap is known


def test_the_loader_opens_an_import(tmp_path):
    run_import(tmp_path / "out", "mimic3m", [write_tree(tmp_path / "in", FILES)])
    with PairDataset(tmp_path / "out") as dataset:
        assert (len(dataset), dataset.size, dataset.patch_size, dataset.num_patches) == (6, 224, 16, 196)


def rows(path, *pairs, header=("", "path1", "path2", "correspondence")):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for number, folder in enumerate(pairs):
            row = [number, f"{folder}/0000.jpg", f"{folder}/0001.jpg", f"{folder}/corresponding.npy"]
            writer.writerow(row[len(row) - len(header) :] if len(header) < 4 else row)
    return path


@pytest.mark.parametrize("prefix", ["", "/", "MIMIC/", "/MIMIC/", "/home/demon/data/MIMIC/", "./"])
def test_a_list_chooses_and_orders(prefix, tmp_path):
    chosen = [f"{prefix}{p}" for p in ("Gibson/Adrian/10", "Gibson/Adrian/2", "Gibson/Adrian/3", "DeMoN/mvs_00004")]
    table = rows(tmp_path / "list.csv", *chosen, f"{prefix}Gibson/Adrian/2")
    with table.open("a") as file:
        file.write(f"5,{prefix}Gibson/Adrian/2/0000.jpg,{prefix}Gibson/Adrian/3/0001.jpg,x\n6,short\n")
    manifest = run_import(tmp_path / "out", "mimic3m", [write_tree(tmp_path / "in", FILES)], csv=str(table))
    kept = [(s.source, s.frame0) for s in samples(tmp_path / "out", manifest).values()]
    assert kept == [("gibson", "10-0000"), ("gibson", "2-0000"), ("demon", "0000")]
    assert manifest.dropped["hm3d"] == {"not_listed": 1}
    assert manifest.dropped["arkitscenes"] == {"not_listed": 1}
    lost = {}
    for reasons in manifest.dropped.values():
        for reason, number in reasons.items():
            lost[reason] = lost.get(reason, 0) + number
    assert lost == {"missing_files": 1, "duplicate_key": 1, "bad_list_row": 2, "not_listed": 3}
    assert manifest.dropped["gibson"]["missing_files"] == 1
    assert list(verify(tmp_path / "out")) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a,b\n1,2\n", "expected columns path1 and path2, has a, b"),
        (b"", "has none"),
        (b"path1,path2\n\xff\xfe", "not a readable list"),
    ],
)
def test_a_list_that_is_none_is_told(content, message, tmp_path):
    (tmp_path / "list.csv").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        run_import(tmp_path / "out", "mimic3m", [write_tree(tmp_path / "in", FILES)], csv=str(tmp_path / "list.csv"))


def test_the_same_pair_twice_is_counted(tmp_path):
    paths = [write_tree(tmp_path / "in", FILES), write_zip(tmp_path / "Gibson.zip", pair_files("Adrian/2", 1))]
    manifest = run_import(tmp_path / "out", "mimic3m", paths)
    assert manifest.kept["gibson"] == 2
    assert manifest.dropped["gibson"] == {"duplicate_key": 1}


def test_a_source_may_be_named(tmp_path):
    files = {k.replace("Adrian", "x"): v for k, v in pair_files("Adrian/2", 1).items()}
    manifest = run_import(tmp_path / "out", "mimic3m", [write_tree(tmp_path / "in", files)], source="Mine")
    assert manifest.kept == {"Mine": 1}
    manifest = run_import(tmp_path / "other", "mimic3m", [write_tree(tmp_path / "in", files)])
    assert manifest.kept == {"mimic3m": 1}


def test_links_are_followed_once(tmp_path):
    write_tree(tmp_path / "disk", pair_files("Gibson/Adrian/2", 1))
    (tmp_path / "MIMIC").mkdir()
    (tmp_path / "MIMIC" / "Gibson").symlink_to(tmp_path / "disk" / "Gibson")
    (tmp_path / "disk" / "Gibson" / "Adrian" / "up").symlink_to(tmp_path / "disk")
    manifest = run_import(tmp_path / "out", "mimic3m", [tmp_path / "MIMIC"])
    assert (manifest.kept, manifest.dropped) == ({"gibson": 1}, {"gibson": {}})


def test_a_damaged_file_in_a_zip_is_counted(tmp_path):
    path = write_zip(tmp_path / "Gibson.zip", {**pair_files("A/1", 1), **pair_files("A/2", 2)}, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[data.index(b"A/1/0000.jpg") + 300] ^= 1
    path.write_bytes(data)
    manifest = run_import(tmp_path / "out", "mimic3m", [path])
    assert (manifest.kept, manifest.dropped) == ({"gibson": 1}, {"gibson": {"unreadable": 1}})


def test_wrong_input_is_told(tmp_path):
    write_tree(tmp_path / "in", {"a/0000.jpg": b"x", "b.txt": b"x"})
    for paths, message in (
        ([tmp_path / "nothing"], "nothing: no such file or folder"),
        ([tmp_path / "in"], "no pairs here or below; expected folders .* with 0000.jpg and 0001.jpg"),
        ([tmp_path / "in" / "b.txt"], r"b\.txt: neither a folder nor a \.zip"),
    ):
        with pytest.raises(ValueError, match=message):
            run_import(tmp_path / "out", "mimic3m", paths)
    with pytest.raises(ValueError, match=r"unknown key 'cvs'; did you mean 'csv'"):
        run_import(tmp_path / "out", "mimic3m", [tmp_path / "in"], cvs="x")


def test_recomputing_measures_every_pair(tmp_path, shared_data):
    """Views of one photograph, shifted by four patches: 10/14 of the patches are in both."""
    import cv2

    photo = sorted((shared_data / "images").rglob("*.jpg"))[0]
    image = cv2.resize(cv2.imread(str(photo)), (288, 224))
    files = pair_files("Gibson/A/1", 1) | pair_files("Gibson/A/2", 2)
    for name, view in (("0000", image[:, :224]), ("0001", image[:, 64:288])):
        files[f"Gibson/A/1/{name}.jpg"] = cv2.imencode(".jpg", view, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
        files[f"Gibson/A/2/{name}.jpg"] = cv2.imencode(".jpg", np.full_like(view, 90))[1].tobytes()
    manifest = run_import(tmp_path / "out", "mimic3m", [write_tree(tmp_path / "in", files)], recompute=True)
    first, second = samples(tmp_path / "out", manifest).values()
    assert first.overlap == pytest.approx(10 / 14, abs=0.02)
    assert first.H_0to1 / first.H_0to1[2, 2] == pytest.approx(np.array([[1, 0, -64], [0, 1, 0], [0, 0, 1]]), abs=0.5)
    assert first.num_inliers > 20
    # A bare wall cannot be measured: what was published of it stays.
    assert (second.overlap, second.num_inliers) == (110 / 196, -1)
    assert manifest.faults == {"gibson": {"not_measured_no_keypoints": 1}}
    assert list(verify(tmp_path / "out")) == []


def test_a_map_keeps_its_direction():
    assert patch_map({0: 5, 3: 1}, 6).tolist() == [5, -1, -1, 1, -1, -1]
    assert np.count_nonzero(patch_map(a_map(), PATCHES) >= 0) == 110


def test_outcomes_name_no_path_of_this_machine(tmp_path):
    run_import(tmp_path / "out", "mimic3m", [write_tree(tmp_path / "in", FILES)])
    for path in (tmp_path / "out").glob("*.json*"):
        assert str(tmp_path) not in path.read_text(), path
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["criteria"] == {
        "patch_size": 16,
        "preset": "import",
        "size": 224,
    }
