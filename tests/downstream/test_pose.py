"""Pose on COCO in its genuine layout: packing, crops with their heat maps, detection and scores, the scripts."""

import json

import msgspec
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from coco import LEFT, RIGHT, make_coco
from labelled import run_script
from torch import nn

from mimic_wds.cli.main import run as shard
from mimic_wds.colours import MEAN, STD
from mimic_wds.downstream.config import config_from
from mimic_wds.downstream.data import choose
from mimic_wds.downstream.people import clipped, drawn_matrix, half_body, joints_of, normal, open_people
from mimic_wds.downstream.tasks.registry import get_task
from mimic_wds.storage.coco import Person, read_annotations

CPU = torch.device("cpu")
CONFIG = config_from({"task": "pose", "model": {"size": "tiny"}, "run": {"steps": 4, "batch": 4}}, "test")


class Seer(nn.Module):
    """Finds the brightest place for every joint."""

    def forward(self, images):
        red = images[:, :1] * STD[0] + MEAN[0]
        return F.interpolate(red, size=(64, 48), mode="bilinear", align_corners=True).expand(-1, 17, -1, -1)


def pack(root, split="train", **options):
    labels = make_coco(root, split, **options)
    assert shard(["pack-labels", "coco-pose", str(root), "--out", str(root / split), "-o", f"split={split}"]) == 0
    return root / split, labels


@pytest.fixture(scope="module")
def val(tmp_path_factory):
    return pack(tmp_path_factory.mktemp("coco"), "val", num=4, first=500)


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    return pack(tmp_path_factory.mktemp("coco"), "train", num=3, both=True)


def scores(where, labels, model=None):
    with open_people(str(where), labels) as dataset:
        rows = list(get_task("pose").rows((model or Seer()).eval(), CONFIG, dataset, range(len(dataset)), CPU))
        return get_task("pose").scores(dataset, rows, resamples=5), rows


def test_a_perfect_model_scores_perfectly(val):
    where, labels = val
    scored, rows = scores(where, [labels])
    assert list(scored) == ["true boxes"]
    assert scored["true boxes"]["scores"]["AP"] == scored["true boxes"]["scores"]["AR"] == 1.0
    assert scored["true boxes"]["spread"]["AP"]["std"] == 0.0
    truth = {(p.image_id, p.keypoints[0]): p for p in read_annotations(labels).annotations}
    found = [each for _, _, row in rows for each in row["true boxes"]]
    assert len(found) == len(truth) == 8
    for one in found:
        x, y = one["keypoints"][:2]
        nearest = min(truth, key=lambda key: abs(key[1] - x) + 1e6 * (key[0] != one["image_id"]))
        assert np.hypot(nearest[1] - x, truth[nearest].keypoints[1] - y) < 1.5


def test_boxes_of_a_detector_are_looked_at_and_missed_people_cost_recall(val, tmp_path):
    where, labels = val
    people = read_annotations(labels).annotations
    boxes = [{"image_id": p.image_id, "category_id": 1, "bbox": p.bbox, "score": 0.9} for p in people[1:]]
    boxes += [{**boxes[0], "score": 0.5}, {**boxes[0], "category_id": 2}]  # a double, and a chair
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    scored, rows = scores(where, [labels, tmp_path / "boxes.json"])
    assert list(scored) == ["paper", "true boxes"]
    assert sum(len(row["paper"]) for _, _, row in rows) == 7  # the double is suppressed
    assert scored["paper"]["scores"]["AR"] == pytest.approx(7 / 8)
    assert scored["true boxes"]["scores"]["AR"] == 1.0


@pytest.mark.parametrize("augment", [False, True])
def test_heat_maps_are_where_the_joints_are_seen(train, augment):
    where, labels = train
    config = config_from({"task": "pose", "run": {"steps": 1, "batch": 6, "augment": augment}}, "test")
    with open_people(str(where), [labels]) as dataset:
        people = get_task("pose").samples(choose(dataset, 0, 0))
        assert len(people) == 6
        loader = get_task("pose").loader(people, config, global_batch=6, seed=3)
        seen, swapped = 0, 0
        for epoch in range(6 if augment else 1):
            for batch in loader.epoch(epoch):
                for image, maps, weights in zip(batch.image, batch.maps, batch.weights, strict=True):
                    found = {}
                    for colour in (0, 1):
                        pure = image[..., colour].float() - image[..., 1 - colour].float()
                        if pure.max() > 200:
                            row, col = divmod(int(pure.argmax()), 192)
                            found[colour] = np.array([col * 47 / 191, row * 63 / 255])
                    places = {
                        joint: np.array(divmod(int(maps[joint].argmax()), 48))[::-1]
                        for joint in (LEFT, RIGHT)
                        if weights[joint] and maps[joint].max() > 0.9
                    }
                    if len(found) == len(places) == 2:
                        straight = np.abs(found[0] - places[LEFT]).max() < 1.5
                        crossed = np.abs(found[0] - places[RIGHT]).max() < 1.5
                        assert straight or crossed
                        seen, swapped = seen + 1, swapped + crossed
                    assert float(weights.sum()) <= 2
    assert seen > 5 if not augment else seen > 15
    assert (0 < swapped < seen) if augment else swapped == 0


def test_draws_belong_to_the_person_and_the_epoch(train):
    where, labels = train
    with open_people(str(where), [labels]) as dataset:
        people = get_task("pose").samples(choose(dataset, 0, 0))
        batches = {}
        for world in (1, 2):
            for rank in range(world):
                options = {"global_batch": 6, "seed": 1, "rank": rank, "world_size": world}
                for epoch in (0, 1):
                    for batch in get_task("pose").loader(people, CONFIG, **options).epoch(epoch):
                        batches.setdefault((world, epoch), []).append((batch.rows, batch.image))
    for epoch in (0, 1):
        (rows, images), halves = batches[1, epoch][0], batches[2, epoch]
        for some, part in halves:
            assert torch.equal(images[torch.isin(rows, some)], part)
    assert not torch.equal(batches[1, 0][0][1], batches[1, 1][0][1])


def test_an_undisturbed_draw_is_the_plain_frame():
    box, joints, visible = (10.0, 20.0, 60.0, 80.0), np.full((17, 2), 30.0), np.full(17, 2)
    draws = np.array([0.9, 0.9, 0.5, 0.5, 0.5, 0.25, 0.9, 0.5, 0.5, 0.5])  # cos(pi / 2): a scale of 1
    matrix = drawn_matrix(box, joints, visible, 320, draws, np.array([0.9, 0.5, 0.5]))
    assert (matrix @ [40, 60, 1]).tolist() == pytest.approx([95.5, 127.5])
    mirrored = drawn_matrix(box, joints, visible, 320, np.concatenate([[0.1], draws[1:]]), np.array([0.9, 0.5, 0.5]))
    assert (mirrored @ [40, 60, 1]).tolist() == pytest.approx([95.5, 127.5])
    assert mirrored[0, 0] == pytest.approx(-matrix[0, 0])


def test_half_bodies_and_normal_draws():
    given = np.column_stack([np.arange(17.0), 2 * np.arange(17.0)])
    upper, lower = half_body(given, np.arange(17), 0.2), half_body(given, np.arange(17), 0.8)
    assert upper.centre.tolist() == [5, 10]
    assert lower.centre.tolist() == [13.5, 27]
    assert upper.size[1] == pytest.approx(1.5 * 20)
    assert half_body(given[:11], np.arange(11), 0.9).centre.tolist() == [5, 10]  # nobody has legs here
    assert half_body(np.ones((9, 2)), np.arange(9), 0.1) is None
    drawn = np.array([normal(each) for each in np.random.default_rng(0).random((20_000, 2))])
    assert (drawn.mean(), drawn.std(), (drawn < 0.5).mean()) == pytest.approx((0, 1, 0.6915), abs=0.02)


def test_boxes_are_cut_to_the_image():
    assert clipped((-10, 5, 50, 20), (100, 30)) == (0, 5, 29, 19)
    assert clipped((40, 5, 50, 20), (100, 30)) is None


def test_people_that_teach_nothing_are_left_out(train):
    one = read_annotations(train[1]).annotations[0]
    assert one.is_trained_on
    for change in ({"iscrowd": 1}, {"area": 0.0}, {"num_keypoints": 0}):
        assert not msgspec.structs.replace(one, **change).is_trained_on
    assert isinstance(one, Person)
    joints, visible = joints_of(one)
    assert (visible > 0).sum() == 2
    assert joints.shape == (17, 2)


TINY = """
task = "pose"
model = {size = "tiny", depth = 1, image_size = 256, head = "simple"}
optimizer = {lr = 1e-3, drops = [0.5]}
run = {steps = 4, batch = 4, log_every = 1, evaluate_every = 2}
"""


def test_chain(monkeypatch, capsys, tmp_path, train, val):
    (tmp_path / "pose.toml").write_text(TINY)
    run = tmp_path / "run"
    arguments = ["--data", train[0], "--labels", train[1], "--init", "random", "--output", run]
    held_out = ["--val", val[0], "--val-labels", val[1]]
    assert run_script(monkeypatch, "finetune", tmp_path / "pose.toml", *arguments, *held_out) == 0
    assert "on 6 samples of" in capsys.readouterr().out
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [line["lr"] for line in lines][2:] == pytest.approx([1e-4, 1e-4])
    assert ["val_true_boxes_AP" in line for line in lines] == [False, True, False, True]
    assert run_script(monkeypatch, "evaluate", run, "--data", val[0], "--labels", val[1], "--best", "--json") == 0
    account = json.loads(capsys.readouterr().out)
    best = max(line["val_true_boxes_AP"] for line in lines if "val_true_boxes_AP" in line)
    assert account["protocols"]["true boxes"]["scores"]["AP"] == best
    results = json.loads((run / "keypoints-true-boxes.json").read_text())
    assert {len(each["keypoints"]) for each in results} == {51}
    assert (run / "panels.png").is_file()
    assert run_script(monkeypatch, "report", run, "--output", tmp_path / "report.md") == 0
    page = (tmp_path / "report.md").read_text()
    assert "true boxes: AP (%)" in page
    assert "| CroCo | fine-tuned | MIMIC-3M | 72.8 |" in page


@pytest.mark.parametrize(
    ("labels", "message"),
    [([], "person_keypoints_train2017.json"), (["other"], "another split"), (["instances"], "is not")],
)
def test_wrong_annotations_are_told(monkeypatch, capsys, tmp_path, train, val, labels, message):
    (tmp_path / "instances").write_text('{"images": [], "annotations": [{"id": 1, "segmentation": []}]}')
    files = {"other": val[1], "instances": tmp_path / "instances"}
    (tmp_path / "pose.toml").write_text(TINY)
    given = ["--labels", *[files[name] for name in labels]] if labels else []
    arguments = ["--data", train[0], "--init", "random", "--output", tmp_path / "run", *given]
    assert run_script(monkeypatch, "finetune", tmp_path / "pose.toml", *arguments) == 2
    assert message in capsys.readouterr().err


def test_images_that_are_not_there_or_of_another_size_are_counted(tmp_path, capsys):
    labels = make_coco(tmp_path, num=4)
    found = json.loads(labels.read_text())
    found["images"][0]["height"] = 99
    labels.write_text(json.dumps(found))
    (tmp_path / "train2017" / f"{101:012d}.jpg").unlink()
    assert shard(["pack-labels", "coco-pose", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr()
    assert "not_as_annotated" in printed.out + printed.err
    with open_people(str(tmp_path / "out"), [labels]) as dataset:
        assert dataset.ids == [102, 103]


def test_genuine_photographs_and_annotations(shared_data, tmp_path):
    """COCO's own files: 29 people with joints; boxes and joints fit the photographs."""
    root = shared_data / "labels" / "pose" / "coco"
    for split in ("train", "val"):
        path = root / "annotations" / f"person_keypoints_{split}2017.json"
        if not path.is_file():
            continue
        out = tmp_path / split
        assert shard(["pack-labels", "coco-pose", str(root), "--out", str(out), "-o", f"split={split}"]) == 0
        with open_people(str(out), [path]) as dataset:
            for index in range(len(dataset)):
                shape = dataset.sizes[dataset.ids[index]]
                for person in dataset.people(index):
                    joints, visible = joints_of(person)
                    assert visible.sum() > 0
                    assert (joints[visible > 0] <= np.array(shape[::-1])).all()
            if any(dataset.people(index) for index in range(len(dataset))):
                rows = list(get_task("pose").rows(Seer().eval(), CONFIG, dataset, range(len(dataset)), CPU))
                scored = get_task("pose").scores(dataset, rows)["true boxes"]["scores"]
                assert 0 <= scored["AP"] < 0.2  # it looks for what is red
