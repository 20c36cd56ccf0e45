"""Repair: what can be known is made again to the byte, what cannot is counted, nothing is deleted, killed or not."""

import random
import shutil
import sys
from pathlib import Path

import pytest
from processes import killed_after, run
from samples import make_data_set, make_image, make_image_set
from test_depths import cut, edit_manifest, first_shard, flip_in_header, shift_index

from mimic_wds.storage.folder_place import FolderPlace
from mimic_wds.storage.index import index_path, read_index
from mimic_wds.storage.layout import STAGING_NAME
from mimic_wds.storage.manifest import read_manifest
from mimic_wds.storage.reader import open_shards
from mimic_wds.storage.repair import QUARANTINE_NAME, REPAIRING_NAME, repair
from mimic_wds.storage.scenes import scene_lines
from mimic_wds.storage.verify import verify

KILLS = 20


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def keys(folder: Path) -> list[str]:
    return [shard.key(i) for shard in open_shards(folder, read_manifest(folder)) for i in range(len(shard))]


@pytest.fixture
def tiny(tmp_path) -> Path:
    make_data_set(tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.fixture
def whole(tiny) -> Path:
    return shutil.copytree(tiny, tiny.parent / "whole")


def test_nothing_to_repair_changes_nothing(tiny, whole):
    report = repair(tiny)
    assert (report.done, report.salvaged, report.lost) == ([], 0, 0)
    assert contents(tiny) == contents(whole)


def test_indexes_are_made_again_to_the_byte(tiny, whole):
    shift_index(tiny)
    for path in sorted(tiny.glob("*.idx"))[1:]:
        path.unlink()
    assert len(repair(tiny, dry_run=True).done) == 3
    assert len(list(tiny.glob("*.idx"))) == 1
    repair(tiny)
    assert contents(tiny) == contents(whole)


def test_damaged_and_missing_shards_come_from_the_mirror(tiny, whole):
    names = [info.name for info in read_manifest(tiny).shards]
    cut(tiny)
    damaged = (tiny / names[0]).read_bytes()
    (tiny / names[1]).unlink()
    (tiny / "scenes.jsonl").unlink()
    (tiny / "manifest.json").unlink()
    repair(tiny, FolderPlace(whole))
    after = contents(tiny)
    assert after.pop(f"{QUARANTINE_NAME}/{names[0]}") == damaged
    assert after == contents(whole)


def test_a_damaged_mirror_is_not_believed_and_another_data_set_is_none(tiny, whole, tmp_path):
    cut(tiny)
    path = first_shard(whole)
    path.write_bytes(bytes(path.stat().st_size))
    report = repair(tiny, FolderPlace(whole))
    assert any("the mirror's is damaged too" in line for line in report.done)
    assert report.lost + report.salvaged == 3
    make_data_set(tmp_path / "other", per_scene=(2,))
    with pytest.raises(ValueError, match="is no mirror"):
        repair(tiny, FolderPlace(tmp_path / "other"))


@pytest.mark.parametrize("damage", ["between", "inside", "picture", "header", "missing"])
def test_whole_samples_of_a_damaged_shard_are_saved_and_the_others_counted(tiny, whole, damage):
    path = first_shard(tiny)
    index = read_index(index_path(path))
    data = bytearray(path.read_bytes())
    if damage == "between":
        data = data[: index.sample_range(1)[1]]
    elif damage == "inside":
        data = data[: index.ranges(1)[1][0] + 100]
    elif damage == "picture":
        offset, length = index.ranges(1)[0]
        data[offset : offset + length] = bytes(length)
    elif damage == "header":
        data[index.sample_range(1)[0]] ^= 1
    path.write_bytes(data)
    if damage == "missing":
        path.unlink()
    expected = {"between": 2, "inside": 1, "picture": 2, "header": 2, "missing": 0}[damage]
    before = keys(whole)
    report = repair(tiny)
    assert (report.salvaged, report.lost) == (expected, 3 - expected)
    assert list(verify(tiny)) == []
    assert set(keys(tiny)) < set(before)
    assert len(keys(tiny)) == 4 + expected
    manifest = read_manifest(tiny)
    assert manifest.generation == 1
    assert manifest.dropped["video"]["lost"] == 3 - expected
    assert manifest.candidates == read_manifest(whole).candidates
    assert sum(line.dropped.get("lost", 0) for line in scene_lines(tiny, 1)) == 3 - expected
    if damage != "missing":
        assert (tiny / QUARANTINE_NAME / path.name).read_bytes() == data
    assert repair(tiny).done == []


def test_without_an_index_samples_before_the_damage_are_saved(tiny):
    path = first_shard(tiny)
    data = bytearray(path.read_bytes())
    data[read_index(index_path(path)).sample_range(1)[0]] ^= 1
    path.write_bytes(data)
    index_path(path).unlink()
    assert repair(tiny).salvaged == 1
    assert list(verify(tiny)) == []


def test_a_lost_manifest_is_made_again_and_says_what_is_not_known(tiny, whole):
    (tiny / "manifest.json").write_text("{")
    repair(tiny)
    before, now = read_manifest(whole), read_manifest(tiny)
    for name in ("name", "id", "generation", "shards", "candidates", "kept", "dropped", "views", "scenes", "kind"):
        assert getattr(now, name) == getattr(before, name)
    assert now.overlap_histogram == before.overlap_histogram
    assert now.criteria == {"preset": "import", "size": 64, "patch_size": 16}
    assert now.versions["manifest"] == "made again from shards and scene lines"
    assert list(verify(tiny)) == []


def test_images_too(tmp_path):
    out = tmp_path / "images"
    make_image_set(out, [make_image(number) for number in range(5)])
    (out / "manifest.json").unlink()
    flipped = index_path(next(iter(sorted(out.glob("*.tar")))))
    flipped.unlink()
    before = sorted(p.name for p in out.iterdir())
    repair(out)
    assert read_manifest(out).kind == "images"
    assert list(verify(out)) == []
    assert set(before) < {p.name for p in out.iterdir()}
    flip_in_header(out)
    report = repair(out)
    assert report.lost + report.salvaged > 0
    assert list(verify(out)) == []


def test_edited_shards_in_the_manifest_are_found_damaged_but_kept(tiny):
    edit_manifest(tiny, lambda plain: plain["shards"][0].update(sha256="0" * 64))
    report = repair(tiny)
    assert (report.salvaged, report.lost) == (3, 0)
    assert list(verify(tiny)) == []


def test_an_unfinished_run_is_not_meddled_with(tiny):
    (tiny / STAGING_NAME).mkdir()
    with pytest.raises(ValueError, match="an unfinished run"):
        repair(tiny)


def test_killed_at_any_moment_a_rerun_gives_the_same_bytes(tmp_path):
    damaged = tmp_path / "damaged" / "tiny"
    make_data_set(damaged, per_scene=(40, 40, 40))
    mirror = shutil.copytree(damaged, tmp_path / "mirror")
    for number, info in enumerate(read_manifest(damaged).shards):
        path = damaged / info.name
        if number % 3 == 0:
            path.write_bytes(path.read_bytes()[:-20_000])
        if number % 3 == 1:
            index_path(path).unlink()
        if number % 4 == 0:
            (mirror / info.name).unlink()
    undisturbed = shutil.copytree(damaged, tmp_path / "undisturbed" / "tiny")

    def command(folder: Path) -> list[str]:
        return [sys.executable, "-m", "mimic_wds.cli.main", "repair", str(folder), "--mirror", str(mirror)]

    calm, expected = run(command(undisturbed)), contents(undisturbed)
    assert calm.returncode == 3
    assert list(verify(undisturbed, depth="default")) == []
    moments = random.Random(0)
    for number in range(KILLS):
        folder = shutil.copytree(damaged, tmp_path / str(number) / "tiny")
        killed_after(command(folder), calm.seconds * moments.random())
        again = run(command(folder))
        assert again.returncode in (0, 3), again.stderr
        assert not (folder / REPAIRING_NAME).exists()
        assert contents(folder) == expected
        shutil.rmtree(folder.parent)
