"""Views, tasks and evaluation: pictures of any size, both protocols, every image once."""

import numpy as np
import pytest
import torch
from labelled import make_field, make_labelled
from torch import nn

from mimic_wds.downstream.data import choose, first_labels, make_loader, open_labelled, read_labelled
from mimic_wds.downstream.dense import predict, statistics_of
from mimic_wds.downstream.evaluation import in_order, share
from mimic_wds.downstream.fewshot import subset
from mimic_wds.downstream.metrics.bootstrap import pooled
from mimic_wds.downstream.task import Scale, scores_of, statistics_by_protocol
from mimic_wds.downstream.tasks.depth import DEPTH
from mimic_wds.downstream.tasks.normals import NORMALS, known_cells, mirror
from mimic_wds.downstream.tasks.registry import get_task
from mimic_wds.downstream.tasks.segmentation import SEGMENTATION, decode
from mimic_wds.downstream.views import cut_windows, starts
from mimic_wds.storage.maps import encode_semseg

CPU = torch.device("cpu")


class Seer(nn.Module):
    """Reads the field off the pictures of `labelled.make_labelled`: standardised depth of shift 1 and unit 4."""

    def forward(self, images):
        return images[:, :1] * 0.229 + 0.485


@pytest.fixture(scope="module")
def square(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "square"
    make_labelled(folder, num=7)
    return folder


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "wide"
    make_labelled(folder, num=3, shape=(48, 80))
    return folder


def picture(height, width):
    field = make_field(3, height, width)
    return np.repeat(np.rint(field * 255).astype(np.uint8)[..., None], 3, axis=-1), (1 + 4 * field).astype(np.float32)


@pytest.mark.parametrize("view", ["centre", "slide"])
@pytest.mark.parametrize("shape", [(64, 64), (100, 64), (48, 80), (150, 290), (64, 65)])
def test_windows_put_together_are_the_picture(view, shape):
    image, label = picture(*shape)
    (looked,) = predict(Seer(), DEPTH, Scale(1.0, 4.0), [(image, label)], view, size=64, device=CPU)
    assert looked.prediction.shape == looked.label.shape == ((64, 64) if view == "centre" else shape)
    assert np.abs(looked.prediction - looked.label).max() < 0.25
    assert np.abs(looked.prediction - looked.label).mean() < 0.03


def test_pad_keeps_all_of_the_picture_and_marks_the_rest():
    image, _ = picture(30, 60)
    windows = cut_windows(image, np.full((30, 60), 7, np.uint8), "pad", 64, 255)
    assert windows.pixels.shape == (1, 64, 64, 3)
    assert (windows.label[:32] == 7).all()
    assert (windows.label[32:] == 255).all()
    assert (windows.pixels[0, 32:] == 128).all()


def test_windows_cover_and_step_by_two_thirds():
    assert starts(512, 512) == [0]
    assert starts(683, 512) == [0, 171]
    assert starts(1200, 512) == [0, 341, 682, 688]


def test_a_perfect_model_scores_perfectly_under_both_protocols(square):
    with open_labelled(str(square), DEPTH) as dataset:
        rows = list(statistics_of(Seer().eval(), DEPTH, Scale(1, 4), dataset, range(7), outputs=1, size=64, device=CPU))
    rows = in_order(rows, 7)
    found = scores_of(DEPTH.protocols, statistics_by_protocol(rows), resamples=10)
    assert len({row[1] for row in rows}) == 7
    assert found["paper"]["scores"]["delta1"] == found["standard"]["scores"]["delta1"] == 1.0
    assert 0 < found["standard"]["scores"]["rmse_m"] < 0.05
    assert found["standard"]["spread"]["rmse_m"]["std"] < 0.02


def test_uneven_shares_count_every_image_once(square):
    with open_labelled(str(square), DEPTH) as dataset:
        options = {"outputs": 1, "size": 64, "device": CPU, "batch": 2}
        model = Seer().eval()
        alone = in_order(statistics_of(model, DEPTH, Scale(1, 4), dataset, range(7), **options), 7)
        for world_size in (2, 3, 9):
            parts = [
                statistics_of(model, DEPTH, Scale(1, 4), dataset, share(7, rank, world_size), **options)
                for rank in range(world_size)
            ]
            rows = in_order([row for part in parts for row in part], 7)
            assert [row[1] for row in rows] == [row[1] for row in alone]
            own, expected = statistics_by_protocol(rows), statistics_by_protocol(alone)
            assert np.array_equal(own["paper"], expected["paper"])
    with pytest.raises(ValueError, match="each of 7 images once"):
        in_order([(0, "a", {}), (0, "a", {})], 7)


def test_wide_pictures_are_scored_whole_by_the_standard_protocol(wide):
    with open_labelled(str(wide), DEPTH) as dataset:
        ((_, _, rows),) = statistics_of(Seer().eval(), DEPTH, Scale(1, 4), dataset, [1], outputs=1, size=64, device=CPU)
    assert rows["paper"][0] == 64 * 64  # pixels of the centre crop
    assert pooled(rows["standard"][None], DEPTH.protocols[1].scores)["delta1"] == 1.0


def test_loader_gives_pictures_and_labels_of_the_same_place(square):
    with open_labelled(str(square), DEPTH) as dataset:
        chosen = choose(dataset, 3, seed=4)
        loader = make_loader(chosen, DEPTH, size=64, augment=True, seed=1, global_batch=16)
        (batch,) = loader.epoch(0)
        expected = {dataset.read(int(i))[0] for i in subset(7, 3, 4)}
    assert set(batch.keys) == expected
    assert loader.steps_per_epoch == 1
    field = batch.image[..., 0].float() / 255
    assert (1 + 4 * field - batch.label).abs().max() < 0.1  # flipped together
    assert batch.jitter.shape == (3, 6)
    assert set(batch.jitter[:, 5].tolist()) <= {0.0, 1.0}


def test_scale_of_depth_is_that_of_the_known_pixels(square):
    with open_labelled(str(square), DEPTH) as dataset:
        labels = first_labels(dataset, DEPTH)
    labels[0][:10] = 0
    known = np.concatenate([label[label > 0] for label in labels])
    assert DEPTH.fit(labels) == pytest.approx((known.mean(), known.std()), rel=1e-5)
    with pytest.raises(ValueError, match="known depth"):
        DEPTH.fit([np.zeros((4, 4))])


def test_mirrored_normals_point_the_other_way():
    stored = np.array([[[200, 90, 10], [0, 0, 0]]], np.uint8)
    assert mirror(stored).tolist() == [[[55, 90, 10], [0, 0, 0]]]


def test_cells_with_an_unknown_normal_do_not_count():
    normals = torch.full((1, 8, 8, 3), 9, dtype=torch.uint8)
    normals[0, 5, 6] = 0
    known = known_cells(normals)[0, 0]
    assert not known[4:, 4:].any()
    assert known.sum() == 48


def test_normals_are_compared_as_they_are_stored(square):
    with open_labelled(str(square), NORMALS) as dataset:
        _, _, label = read_labelled(dataset, NORMALS, 0)
    off = label / 255 + 0.1
    paper, standard = NORMALS.protocols
    assert pooled(paper.statistics(off, label, 3)[None], paper.scores)["l1_x1000"] == pytest.approx(100)
    assert pooled(standard.statistics(label / 255, label, 3)[None], standard.scores)["mean_deg"] < 1e-4


def test_classes_start_from_zero_and_none_is_ignored(square):
    assert decode(encode_semseg(np.array([[0, 1, 2]]))).tolist() == [[255, 0, 1]]
    with open_labelled(str(square), SEGMENTATION) as dataset:
        assert SEGMENTATION.outputs(dataset.manifest) == 2


def test_data_sets_without_the_label_are_refused(tmp_path):
    make_labelled(tmp_path / "d", num=2, maps=("depth",))
    with pytest.raises(ValueError, match=r"0\.normal\.png.*render-labels"):
        open_labelled(str(tmp_path / "d"), NORMALS)
    with pytest.raises(ValueError, match="did you mean 'depth'"):
        get_task("depht")


def test_classes_follow_the_picture_through_scales_and_padding(wide):
    with open_labelled(str(wide), SEGMENTATION) as dataset:
        loader = make_loader(dataset, SEGMENTATION, size=64, augment=True, seed=1, global_batch=3)
        batches = [batch for epoch in range(8) for batch in loader.epoch(epoch)]
    image = torch.cat([batch.image for batch in batches])[..., 0].float()
    label = torch.cat([batch.label for batch in batches])
    padded = label == 255
    assert 0.1 < padded.float().mean() < 0.8
    assert (image[padded] == 128).float().mean() > 0.99
    surely = ~padded & ((image - 127.5).abs() > 20)
    assert ((image > 127.5) == (label == 1))[surely].float().mean() > 0.98
    assert len({tuple(row.tolist()) for batch in batches for row in batch.jitter}) > 8
