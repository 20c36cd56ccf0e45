"""What the dense models compute: order of the tokens, which blocks, shapes, the unit that is never used."""

import pytest
import torch
import torch.nn.functional as F

from mimic_wds.models.heads.convnext import ConvNeXtHead, open_tokens
from mimic_wds.models.heads.dense import DenseModel, taken_blocks
from mimic_wds.models.heads.dpt import DPTHead
from mimic_wds.models.heads.encoder import DenseEncoder, dense_weights
from mimic_wds.models.heads.positions import resize_table
from mimic_wds.models.positions import sincos_2d
from mimic_wds.models.vit import Encoder

SMALL = {"dim": 32, "depth": 4, "heads": 4}


def small_encoder(size=64, **options):
    torch.manual_seed(0)
    return DenseEncoder(image_size=size, **SMALL, **options)


def small_dpt(channels=1):
    return DPTHead(channels, dim=32, widths=(4, 6, 8, 10), features=16)


def pretrained(size=64):
    torch.manual_seed(1)
    model = Encoder(image_size=size, patch_size=16, **SMALL)
    model.initialise()
    return model


def test_positions_are_resized_as_bicubic_without_antialias():
    table = sincos_2d(64, 14, 14, class_token=False).T.reshape(1, 64, 14, 14)
    for side in (16, 24, 32):
        resized = resize_table(table, side, side)
        assert resized.shape == (1, 64, side, side)
        # Golden: the cubic convolution kernel with a = -0.75 at half-pixel centres, by hand, along one row.
        at = (3 + 0.5) * 14 / side - 0.5
        first = int(at) - 1
        t = torch.tensor([abs(at - (first + k)) for k in range(4)])
        a = -0.75
        weights = torch.where(t <= 1, (a + 2) * t**3 - (a + 3) * t**2 + 1, a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a)
        lines = torch.stack([table[0, :, 7, max(first + k, 0)] for k in range(4)])
        along = F.interpolate(table, size=(14, side), mode="bicubic", align_corners=False)
        assert torch.allclose(along[0, :, 7, 3], weights @ lines, atol=1e-6)


def test_antialiased_resampling_gives_another_table():
    table = sincos_2d(768, 14, 14, class_token=False).T.reshape(1, 768, 14, 14)
    other = F.interpolate(table, size=(24, 24), mode="bicubic", align_corners=False, antialias=True)
    assert (other - resize_table(table, 24, 24)).abs().max() > 0.02


def test_pretrained_weights_give_the_same_tokens_as_the_pretrained_encoder():
    base = pretrained()
    weights, left = dense_weights(base.state_dict(), 4, 4)
    model = small_encoder()
    model.load_state_dict(weights, strict=True)
    images = torch.randn(2, 3, 64, 64)
    x = base.patch_embed(images) + base.pos_embed[:, 1:]
    x = torch.cat([(base.cls_token + base.pos_embed[:, :1]).expand(2, -1, -1), x], dim=1)
    expected = []
    for block in base.blocks:
        x = block(x)
        expected.append(x[:, 1:].transpose(1, 2).reshape(2, 32, 4, 4))
    found = model(images, (0, 1, 2, 3))
    assert left == ["norm.bias", "norm.weight"]
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, atol=1e-5)  # no final norm; attention does not mind where the token stands


def test_weights_for_another_grid_and_without_a_class_token():
    state = pretrained(size=64).state_dict()
    weights, _ = dense_weights(state, 6, 8)
    assert weights["pos_embed"].shape == (1, 32, 6, 8)
    bare = {k: v for k, v in state.items() if k != "cls_token"} | {"pos_embed": state["pos_embed"][:, 1:]}
    without, left = dense_weights(bare, 4, 4)
    assert not without["global_token"].any()
    assert torch.equal(without["pos_embed"], dense_weights(state, 4, 4)[0]["pos_embed"])
    assert left == ["norm.bias", "norm.weight"]


def test_class_position_is_added_to_the_global_token():
    state = pretrained().state_dict()
    state["pos_embed"] = state["pos_embed"].clone()
    state["pos_embed"][0, 0] = 3.0
    weights, _ = dense_weights(state, 4, 4)
    assert torch.allclose(weights["global_token"], state["cls_token"] + 3.0)


def test_foreign_weights_are_refused():
    with pytest.raises(ValueError, match="timm's names"):
        dense_weights({"conv1.weight": torch.zeros(1)}, 4, 4)


def test_table_is_resized_for_images_of_another_size():
    model = small_encoder(64).eval()
    with torch.no_grad():
        wide = model(torch.zeros(1, 3, 64, 128), (0,))[0]
    assert wide.shape == (1, 32, 4, 8)
    with pytest.raises(ValueError, match="multiples of 16"):
        model(torch.zeros(1, 3, 60, 64), (0,))


def test_taken_blocks():
    assert taken_blocks(12) == (2, 5, 8, 11)
    assert taken_blocks(24) == (5, 11, 17, 23)
    assert taken_blocks(3) == (0, 1, 2, 2)


def test_depth_model_shapes_along_the_way():
    model = DenseModel(small_encoder(), small_dpt())
    maps = model.encoder(torch.zeros(1, 3, 256, 256), model.taken)
    skips = [part(m) for part, m in zip(model.head.reassemble, maps, strict=True)]
    assert [tuple(s.shape[1:]) for s in skips] == [(4, 64, 64), (6, 32, 32), (8, 16, 16), (10, 8, 8)]
    assert model(torch.zeros(1, 3, 256, 256)).shape == (1, 1, 256, 256)


def test_odd_grids_are_refused():
    with pytest.raises(ValueError, match="multiples of 32"):
        DenseModel(small_encoder(80), small_dpt())(torch.zeros(1, 3, 80, 80))


def test_only_the_coarsest_skip_unit_gets_no_gradient():
    model = DenseModel(small_encoder(), small_dpt())
    model(torch.randn(1, 3, 64, 64)).square().sum().backward()
    without = {name for name, p in model.named_parameters() if p.requires_grad and p.grad is None}
    assert without == {
        f"head.fuse.3.skip_unit.{part}.{kind}" for part in ("first", "second") for kind in ("weight", "bias")
    }


def test_segmentation_model_has_no_idle_parameters():
    model = DenseModel(small_encoder(), ConvNeXtHead(5, dim=32, embed=64, depth=1))
    out = model(torch.randn(1, 3, 64, 96))
    out.square().sum().backward()
    assert out.shape == (1, 5, 64, 96)
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_cells_of_a_token_are_in_raster_order_channels_fastest():
    tokens = torch.arange(2 * 3 * 32.0).reshape(1, 2, 3, 32)
    cells = open_tokens(tokens)
    assert cells.shape == (1, 2, 8, 12)
    row, col, down, right, channel = 1, 2, 3, 1, 1
    assert cells[0, channel, row * 4 + down, col * 4 + right] == tokens[0, row, col, (down * 4 + right) * 2 + channel]


def test_frozen_encoder_stays_in_eval_mode_and_gets_no_gradient():
    model = DenseModel(small_encoder(drop_path=0.9), small_dpt(), frozen=True).train()
    images = torch.randn(2, 3, 64, 64)
    first, second = model(images), model(images)
    assert torch.equal(first, second)  # no stochastic depth
    first.sum().backward()
    assert all(p.grad is None for p in model.encoder.parameters())
    assert model.head.output[0].weight.grad is not None


def test_drop_path_grows_linearly():
    blocks = small_encoder(drop_path=0.3).blocks
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3])
