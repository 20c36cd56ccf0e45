"""Parameter counts of the finetuned models, against those of the published runs, to the digit; on the meta device."""

import pytest
import torch

from mimic_wds.models.heads.convnext import ConvNeXtHead
from mimic_wds.models.heads.dense import DenseModel
from mimic_wds.models.heads.dpt import DPTHead
from mimic_wds.models.heads.encoder import DenseEncoder
from mimic_wds.models.heads.pose import ClassicHead, PoseEncoder, PoseModel, SimpleHead
from mimic_wds.models.heads.probe import LinearProbe
from mimic_wds.models.vit import Encoder


def count(module, *, trained=True):
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trained)


def encoder(size, **options):
    with torch.device("meta"):
        return DenseEncoder(image_size=size, **options)


def dense(size, make_head):
    with torch.device("meta"):
        return DenseModel(DenseEncoder(image_size=size), make_head())


@pytest.mark.parametrize(
    ("size", "make_head", "head", "trained", "everything"),
    [
        (256, lambda: DPTHead(1), 20_065_921, 105_711_745, 105_908_353),
        (384, lambda: DPTHead(3), 20_065_987, 105_711_811, 106_154_179),
        (512, lambda: ConvNeXtHead(150), 9_588_630, 95_234_454, 96_020_886),
    ],
    ids=["depth", "normals", "segmentation"],
)
def test_dense_models(size, make_head, head, trained, everything):
    model = dense(size, make_head)
    assert (count(model.head), count(model), count(model, trained=False)) == (head, trained, everything)


def test_frozen_encoder_leaves_the_head():
    with torch.device("meta"):
        model = DenseModel(DenseEncoder(image_size=256), DPTHead(1), frozen=True)
    assert count(model) == 20_065_921


def test_parts_of_the_encoder():
    model = encoder(256)
    assert count(model) == 85_645_824
    assert count(model.blocks) == 85_054_464
    assert count(model.blocks[0]) == 7_087_872
    assert count(model.patch_embed) == 590_592
    assert model.global_token.numel() == 768


def test_parts_of_the_dpt_head():
    with torch.device("meta"):
        head = DPTHead(1)
    assert [count(part) for part in head.reassemble] == [221_376, 295_296, 295_296, 5_899_776]
    assert count(head.project) == 3_317_760
    assert [count(part) for part in head.fuse] == [2_426_112] * 4
    assert count(head.fuse[3].skip_unit) == 1_180_160
    assert count(head.output) == 331_969
    assert count(DPTHead(3).output) == 332_035


@pytest.mark.parametrize(
    ("dim", "widths", "features", "channels"), [(768, (96, 192, 384, 768), 256, 1), (64, (8, 12, 20, 24), 32, 5)]
)
def test_dpt_counts_follow_the_formula(dim, widths, features, channels):
    d1, d2, d3, d4 = widths
    f, d = features, dim + 1
    expected = (d * d1 + 16 * d1**2 + d1) + (d * d2 + 4 * d2**2 + d2) + d * d3 + (d * d4 + 9 * d4**2 + d4)
    expected += 9 * f * sum(widths) + 4 * (37 * f**2 + 5 * f)
    expected += (9 * f + 1) * f // 2 + (9 * f // 2 + 1) * 32 + 33 * channels
    with torch.device("meta"):
        assert count(DPTHead(channels, dim=dim, widths=widths, features=features)) == expected


def test_parts_of_the_convnext_head():
    with torch.device("meta"):
        head = ConvNeXtHead(150)
    assert count(head.open) == 4_724_736
    assert [count(block) for block in head.blocks] == [1_201_536] * 4
    assert count(head.classify) == 57_750


@pytest.mark.parametrize(
    ("make_head", "head", "model"), [(ClassicHead, 4_199_697, 89_994_513), (SimpleHead, 117_521, 85_912_337)]
)
def test_pose_models(make_head, head, model):
    with torch.device("meta"):
        found = PoseModel(PoseEncoder(), make_head())
    assert (count(found.encoder), count(found.head), count(found)) == (85_794_816, head, model)


@pytest.mark.parametrize("token", ["class", "mean"])
def test_linear_probe(token):
    with torch.device("meta"):
        base = Encoder(image_size=224, patch_size=16, dim=768, depth=12, heads=12)
        probe = LinearProbe(base, 1000, token=token)
    assert count(probe) == 769_000
