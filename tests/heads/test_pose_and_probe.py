"""The pose models' positions, grid and heat maps; the probe's features and modes."""

import pytest
import torch

from mimic_wds.models.heads.pose import ClassicHead, PoseEncoder, PoseModel, SimpleHead, pose_weights
from mimic_wds.models.heads.probe import LinearProbe
from mimic_wds.models.vit import Encoder

SMALL = {"dim": 32, "depth": 2, "heads": 4}


def pretrained():
    torch.manual_seed(1)
    model = Encoder(image_size=64, patch_size=16, **SMALL)
    model.initialise()
    return model


@pytest.mark.parametrize("head", [ClassicHead(dim=32, features=8), SimpleHead(dim=32)])
def test_heat_maps_have_a_quarter_of_the_size(head):
    model = PoseModel(PoseEncoder(**SMALL), head).eval()
    with torch.no_grad():
        assert model.encoder(torch.zeros(1, 3, 256, 192)).shape == (1, 32, 16, 12)
        assert model(torch.zeros(1, 3, 256, 192)).shape == (1, 17, 64, 48)


def test_patches_see_two_pixels_up_and_left():
    encoder = PoseEncoder(**SMALL)
    with torch.no_grad():
        encoder.proj.weight.fill_(1.0)
        encoder.proj.bias.zero_()
        images = torch.zeros(1, 3, 256, 192)
        images[0, 0, 13, 13] = 1.0  # the last pixel of patch (0, 0): rows and columns -2 to 13
        images[0, 0, 14, 14] = 10.0  # the first of patch (1, 1)
        seen = encoder.proj(images)[0, 0]
    assert (seen[0, 0].item(), seen[1, 1].item()) == (1.0, 10.0)
    assert encoder.pos_embed.shape == (1, 193, 32)
    assert encoder.pos_embed.requires_grad


def test_pose_weights_resize_the_rows_and_keep_the_token():
    state = pretrained().state_dict()
    weights, left = pose_weights(state, 16, 12)
    encoder = PoseEncoder(**SMALL)
    missing = encoder.load_state_dict(weights, strict=False)
    assert missing.missing_keys == ["last_norm.weight", "last_norm.bias"]
    assert missing.unexpected_keys == []
    assert left == ["cls_token", "norm.bias", "norm.weight"]
    assert torch.equal(weights["pos_embed"][:, :1], state["pos_embed"][:, :1])


def test_probe_of_the_class_token_and_of_the_mean():
    base, images = pretrained().eval(), torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        tokens = base.encode(images)
    assert torch.allclose(LinearProbe(base, 5).features(images), tokens[:, 0])
    assert torch.allclose(LinearProbe(base, 5, token="mean").features(images), tokens[:, 1:].mean(1))


def test_probe_trains_its_layer_only_and_norms_without_affine():
    probe = LinearProbe(pretrained(), 5).train()
    out = probe(torch.randn(8, 3, 64, 64))
    out.sum().backward()
    assert {name for name, p in probe.named_parameters() if p.grad is not None} == {"head.weight", "head.bias"}
    assert not probe.encoder.training
    assert probe.norm.eps == 1e-6
    assert list(probe.norm.parameters()) == []
    assert probe.head.weight.std().item() == pytest.approx(0.01, rel=0.2)


def test_class_token_probe_needs_a_class_token():
    base = Encoder(image_size=64, patch_size=16, class_token=False, **SMALL)
    with pytest.raises(ValueError, match="mean"):
        LinearProbe(base, 5)
