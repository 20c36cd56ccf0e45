"""3DStreetView as it ships: a flat tar for each data set id, or unpacked; a scene is a target."""

import tracemalloc

import pytest
from pictures import encode, frames, mine, pack_tar, pack_zip, pan, read, read_elsewhere, same, write

from mimic_wds.pairs import AllPairs, SceneError
from mimic_wds.sources.base import Source
from mimic_wds.sources.streetview import StreetView


def files_of(dataset: str, targets: dict[int, int], step: int = 80) -> dict[str, bytes]:
    """Targets with so many views each, as they ship: a .jpg and a .txt of one name."""
    files = {}
    for target, num in targets.items():
        for k, image in enumerate(pan(num, step, seed=target)):
            name = f"{dataset}_{100 * target + k:07d}_{k:07d}_{target:07d}"
            files |= {f"{name}.jpg": encode(image), f"{name}.txt": b"d 1 2 3"}
    return files


@pytest.fixture
def dataset(tmp_path):
    files = files_of("0003", {12: 3, 2: 2}) | files_of("0004", {12: 2})
    return write(tmp_path / "flat", files), files


def test_scenes_are_targets_of_a_dataset_id(dataset):
    root, files = dataset
    source = StreetView(paths=(str(root),))
    assert isinstance(source, Source)
    assert {name: frames(found) for name, found in read(source).items()} == {
        "0003-0000002": [("0000200-0000000", "view"), ("0000201-0000001", "view")],
        "0003-0000012": [(f"000120{k}-000000{k}", "view") for k in range(3)],
        "0004-0000012": [(f"000120{k}-000000{k}", "view") for k in range(2)],
    }
    scene = source.scenes()[0]
    assert source.policy(scene) == AllPairs()
    assert StreetView(paths=("x",), keep="smallest").policy(scene) == AllPairs(keep="smallest")
    assert scene.num_bytes == sum(len(data) for name, data in files.items() if name.endswith("_0000002.jpg"))


def test_tars_folders_and_a_flat_folder_are_one_thing(dataset, tmp_path):
    _root, files = dataset
    for number in ("0003", "0004"):
        chosen = {f"{number}/{n}": d for n, d in files.items() if n.startswith(number)}
        write(tmp_path / "folders", chosen)
        (tmp_path / "tars").mkdir(exist_ok=True)
        pack_tar(tmp_path / "tars" / f"{number}.tar", tmp_path / "folders" / number)
    flat, folders, tars = (StreetView(paths=(str(tmp_path / name),)) for name in ("flat", "folders", "tars"))
    assert same(read(flat), read(folders))
    assert same(read(flat), read(tars))
    assert [s.num_bytes for s in flat.scenes()] == [s.num_bytes for s in tars.scenes()]
    one = StreetView(paths=(str(tmp_path / "tars/0004.tar"),))
    assert [s.name for s in one.scenes()] == ["0004-0000012"]


def test_a_scene_in_a_tar_is_read_by_its_path_alone(dataset, tmp_path):
    path = pack_tar(tmp_path / "0003.tar", dataset[0])
    source = StreetView(paths=(str(path),))
    scene = source.scenes()[0]
    archive, _, entries = scene.path.partition("::")
    assert archive == str(path)
    for entry in entries.split("|"):
        name, _, place = entry.partition("@")
        offset, size = map(int, place.split("+"))
        assert path.read_bytes()[offset : offset + size] == dataset[1][name]
    headless = bytearray(path.read_bytes())
    headless[:512] = b"?" * 512  # a list of the tar could not be made any more, and none is
    path.write_bytes(headless)
    assert [kind for _, kind in frames(list(source.views(scene)))] == ["view", "view"]


def test_aligned_and_unaligned_images_are_not_mixed(dataset, tmp_path):
    for name in ("dataset_aligned", "dataset_unaligned"):
        write(tmp_path / "both" / name, dataset[1])
    with pytest.raises(ValueError, match=r"000\d-\d+ is in .*aligned::.* and in .*aligned::.*give one of them"):
        StreetView(paths=(str(tmp_path / "both"),)).scenes()
    assert len(StreetView(paths=(str(tmp_path / "both/dataset_aligned"),)).scenes()) == 3
    twice = pack_tar(tmp_path / "twice.tar", tmp_path / "both")
    (scene, *_) = StreetView(paths=(str(twice),)).scenes()
    assert scene.path.count(".jpg") == 2  # of one name in a tar the last counts


def test_another_process_reads_the_same_from_a_tar(dataset, tmp_path):
    source = StreetView(paths=(str(pack_tar(tmp_path / "x.tar", dataset[0])),))
    assert read_elsewhere(source) == [[frame for frame, _ in frames(views)] for views in read(source).values()]


def test_damaged_images_are_faults_in_their_place(dataset, tmp_path):
    root, files = dataset
    name = "0003_0001201_0000001_0000012.jpg"
    (root / name).write_bytes(files[name][:1000])
    expected = [("0001200-0000000", "view"), ("0001201-0000001", "unreadable_image"), ("0001202-0000002", "view")]
    assert frames(read(StreetView(paths=(str(root),)))["0003-0000012"]) == expected
    tar = pack_tar(tmp_path / "x.tar", root)
    source = StreetView(paths=(str(tar),))
    assert frames(read(source)["0003-0000012"]) == expected
    scene = source.scenes()[-1]
    tar.write_bytes(tar.read_bytes()[:512])
    assert {kind for _, kind in frames(list(source.views(scene)))} == {"unreadable_image"}
    tar.unlink()
    with pytest.raises(SceneError, match="does not say which images"):
        list(source.views(scene))


def test_what_is_there_instead_is_said(tmp_path):
    (tmp_path / "readme.txt").touch()
    (tmp_path / "1_2_3.jpg").touch()
    with pytest.raises(ValueError, match=r"no 3DStreetView images here; expected <DatasetID>.*found 1 .\w+ and 1 "):
        StreetView(paths=(str(tmp_path),)).scenes()
    path = pack_zip(tmp_path / "0003.zip", {"1_2_3_4.jpg": b""})
    with pytest.raises(ValueError, match=r"found 1 .zip file"):
        StreetView(paths=(str(path),)).scenes()


def test_every_accepted_pair_is_kept_or_the_smallest(tmp_path):
    write(tmp_path, files_of("0003", {1: 3}, step=70))  # neighbours overlap by 69 %, the ends by 37 %
    kept, counts = mine(StreetView(paths=(str(tmp_path),)))
    assert [(p.frame0, p.frame1) for p in kept] == [
        ("0000100-0000000", "0000101-0000001"),
        ("0000101-0000001", "0000102-0000002"),
    ]
    assert [p.overlap for p in kept] == pytest.approx([1 - 70 / 224] * 2, abs=0.03)
    assert counts.candidates == 3
    assert kept[0].key == "streetview_0003-0000001_0000100-0000000_0000101-0000001"
    smallest, counts = mine(StreetView(paths=(str(tmp_path),), keep="smallest"))
    assert [p.overlap for p in smallest] == [min(p.overlap for p in kept)]
    assert counts.dropped["not_selected"] == 1


def test_listing_many_scenes_takes_little_memory(tmp_path):
    for target in range(1500):
        for k in range(2):
            (tmp_path / f"0003_{2 * target + k:07d}_{k:07d}_{target:07d}.jpg").touch()
    tracemalloc.start()
    scenes = StreetView(paths=(str(tmp_path),)).scenes()
    assert len(scenes) == 1500
    assert tracemalloc.get_traced_memory()[0] / 1500 < 700  # bytes for a scene; its path takes 200
    tracemalloc.stop()


def test_the_sample_targets(shared_data):
    found = read(StreetView(paths=(str(shared_data / "images/3dstreetview"),)))
    assert list(found) == [f"0099-{k:07d}" for k in range(14)]
    assert all(kind == "view" for views in found.values() for _, kind in frames(views))
    assert [frame for frame, _ in frames(found["0099-0000003"])] == [
        "0000009-0000006",
        "0000010-0000007",
        "0000011-0000008",
    ]
