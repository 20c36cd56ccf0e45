"""Joints to heat maps and back, to fractions of a pixel; similarity as in pycocotools; recipes of pose and probe."""

import copy

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from labelled import ROOT
from pycocotools.cocoeval import Params
from test_pose_metric import people

from mimic_wds.downstream import joints
from mimic_wds.downstream.config import read_config
from mimic_wds.downstream.joints import Frame, decode, encode, frame_of, warp_matrix
from mimic_wds.downstream.metrics import pose as pose_metric
from mimic_wds.downstream.optimizer import LARS
from mimic_wds.downstream.task import with_outputs
from mimic_wds.downstream.tasks.registry import get_task
from mimic_wds.models.heads.probe import LinearProbe
from mimic_wds.models.vit import Encoder

CONFIGS = ROOT / "finetune" / "configs"
WHOLE = Frame(centre=np.array([95.5, 127.5]), size=np.array([191.0, 255.0]))  #: the input itself


def test_stride_is_of_lengths_between_centres():
    assert joints.to_map(np.array([191.0, 255.0])).tolist() == [47, 63]
    assert pytest.approx((4.0638, 4.0476), abs=1e-4) == (191 / 47, 255 / 63)


def test_frames_have_the_aspect_of_the_input():
    wide = frame_of((10, 20, 200, 100))
    assert wide.centre.tolist() == [110, 70]
    assert wide.size == pytest.approx([250, 250 / 0.75])
    assert frame_of((0, 0, 10, 100)).size == pytest.approx([93.75, 125])
    with pytest.raises(ValueError, match="no area"):
        frame_of((1, 1, 0, 5))


def test_warp_takes_the_frame_to_the_input():
    frame = frame_of((30, 40, 60, 120))
    matrix = warp_matrix(frame)
    corners = np.array([frame.centre - frame.size / 2, frame.centre + frame.size / 2])
    assert corners @ matrix[:, :2].T + matrix[:, 2] == pytest.approx(np.array([[0, 0], [191, 255]]))
    assert warp_matrix(WHOLE) == pytest.approx(np.array([[1, 0, 0], [0, 1, 0]]), abs=1e-12)


def test_rotation_turns_about_the_centre():
    frame = frame_of((30, 40, 60, 120))
    matrix = warp_matrix(frame, 40)
    assert matrix[:, :2] @ frame.centre + matrix[:, 2] == pytest.approx([95.5, 127.5])
    reference = cv2.getRotationMatrix2D((0, 0), -40, 191 / frame.size[0])[:, :2]
    assert matrix[0, :2] == pytest.approx(reference[0])


def test_golden_heat_map():
    maps, weights = encode(np.array([[20 * 191 / 47, 30 * 255 / 63]]), np.array([1]))
    assert weights.tolist() == [1]
    assert maps[0, 30, 20] == 1
    assert maps[0, 30, 22] == pytest.approx(np.exp(-0.5))
    assert maps[0, 33, 18] == pytest.approx(np.exp(-(9 + 4) / 8))
    assert np.count_nonzero(maps) == 13 * 13


def test_joints_that_are_not_given_or_far_outside_weigh_nothing():
    places = np.array([[50.0, 50], [-200, 50], [-20, 50], [50, 400]])
    _, weights = encode(places, np.array([0, 2, 1, 2]))
    assert weights.tolist() == [0, 0, 1, 0]


@settings(max_examples=60, deadline=None)
@given(st.floats(30, 160), st.floats(30, 220))
def test_decoding_finds_the_joint_to_a_tenth_of_a_pixel(x, y):
    maps, _ = encode(np.array([[x, y]]), np.array([2]))
    found, scores = decode(maps, WHOLE)
    assert np.abs(found[0] - [x, y]).max() < 0.1  # of pixels that are 4 times finer than the map's
    assert scores[0] == pytest.approx(maps.max())


def test_there_and_back_through_a_frame():
    frame = frame_of((100, 50, 80, 200))
    place = np.array([[130.0, 120.0], [160.0, 222.0]])
    matrix = warp_matrix(frame)
    maps, _ = encode(place @ matrix[:, :2].T + matrix[:, 2], np.array([2, 2]))
    found, _ = decode(maps, frame)
    assert np.abs(found - place).max() < 0.1


def test_joints_at_the_border_do_not_leave_it_far():
    maps, _ = encode(np.array([[0.0, 0.0], [191.0, 255.0]]), np.array([2, 2]))
    found, _ = decode(maps, WHOLE)
    assert np.isfinite(found).all()
    assert np.abs(found - [[0, 0], [191, 255]]).max() < 8


def test_mirrored_maps_are_turned_back():
    rng = np.random.default_rng(0)
    maps = rng.random((17, 64, 48)).astype(np.float32)
    mirrored = maps[list(joints.MIRRORED)][:, :, ::-1]
    assert np.allclose(joints.merge_mirrored(maps, mirrored), maps)
    assert [joints.MIRRORED[j] for j in joints.MIRRORED] == list(range(17))


def test_sigmas_and_similarity_are_those_of_pycocotools():
    assert Params(iouType="keypoints").kpt_oks_sigmas == pytest.approx(joints.OKS_SIGMAS)
    annotations, detections = people(num_images=5, seed=3)
    for one in annotations["annotations"]:
        one["keypoints"] = [2 if i % 3 == 2 else v for i, v in enumerate(one["keypoints"])]
        one["num_keypoints"] = 17
    evaluation = pose_metric.match(copy.deepcopy(annotations), copy.deepcopy(detections))
    checked = 0
    for image in annotations["images"]:
        truth = [a for a in annotations["annotations"] if a["image_id"] == image["id"]]
        found = sorted((d for d in detections if d["image_id"] == image["id"]), key=lambda d: -d["score"])
        if not truth or not found:
            continue
        places = np.array([d["keypoints"] for d in found]).reshape(-1, 17, 3)[..., :2]
        for column, one in enumerate(truth):
            own = np.array(one["keypoints"]).reshape(17, 3)[:, :2]
            areas = np.full(len(found), one["area"])
            ours = joints.oks(own, places, one["area"], areas)
            assert ours == pytest.approx(evaluation.ious[image["id"], 1][:, column])
            checked += 1
    assert checked >= 3


def test_suppression_keeps_the_better_of_two_alike():
    rng = np.random.default_rng(1)
    one, other = rng.uniform(0, 200, (2, 17, 2))
    people_found = np.stack([one, one + 0.5, other])
    assert joints.suppress(people_found, np.array([0.5, 0.9, 0.1]), np.full(3, 1e4)) == [1, 2]


def test_person_score():
    assert joints.person_score(0.5, np.array([0.1, 0.4, 0.8])) == pytest.approx(0.3)
    assert joints.person_score(0.5, np.array([0.1, 0.2])) == 0


@pytest.mark.parametrize(("head", "count"), [("classic", 89_994_513), ("simple", 85_912_337)])
def test_pose_has_the_published_number_of_parameters(head, count):
    config = read_config(CONFIGS / "pose.toml", [f"model.head={head}"])
    with torch.device("meta"):
        model = get_task("pose").build(with_outputs(config, 17))
    assert sum(p.numel() for p in model.parameters()) == count


def test_rates_of_pose_are_vitposes():
    config, pose = read_config(CONFIGS / "pose.toml"), get_task("pose")
    epoch = [pose.rate(config, 293 * number) for number in (2, 169, 170, 199, 200, 209)]
    assert epoch == pytest.approx([5e-4, 5e-4, 5e-5, 5e-5, 5e-6, 5e-6])
    assert pose.rate(config, 0) == pytest.approx(5e-7)
    assert pose.rate(config, 499) < pose.rate(config, 500) == 5e-4


def test_rates_of_the_probe_are_those_of_the_published_log():
    config, probe = read_config(CONFIGS / "probe.toml"), get_task("probe")
    logged = {5: 0.041026, 77: 0.631795, 780: 6.4, 50 * 78: 3.2}  # an epoch has 312 iterations, 78 updates
    assert [probe.rate(config, step) for step in logged] == pytest.approx(list(logged.values()), abs=5e-7)
    with torch.device("meta"):
        model = probe.build(with_outputs(config, 1000))
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 769_000


def test_probe_learns_what_its_features_tell():
    torch.manual_seed(0)
    encoder = Encoder(image_size=32, patch_size=16, dim=32, depth=1, heads=2)
    encoder.initialise()
    probe = LinearProbe(encoder, 2, token="mean")
    optimizer = LARS(probe.head.parameters(), lr=100.0)  # a rate for few steps
    images = torch.randn(64, 3, 32, 32)
    labels = torch.arange(64) % 2
    images[labels == 1] += 0.5
    losses = []
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(probe(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert (probe.eval()(images).argmax(1) == labels).float().mean() > 0.95
