"""Attention agreement: known attention gives known shares; the weights are those that the model uses."""

import pytest
import torch

from mimic_wds.models.build import ModelConfig, build_model
from mimic_wds.training.attention import Agreement, attention_agreement, cross_attention

ROWS = COLS = 4
L = ROWS * COLS


@pytest.fixture
def model():
    torch.manual_seed(0)
    config = ModelConfig(
        objective="croco",
        size="tiny",
        depth=2,
        image_size=64,
        decoder_dim=64,
        decoder_depth=2,
        decoder_heads=4,
        mask_ratio=0.75,
    )
    return build_model(config).eval()


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(1)
    image0, image1 = torch.randn(2, 3, 3, 64, 64, generator=generator)
    return image0, image1, torch.rand(3, L, generator=generator)


def test_the_weights_are_those_that_the_model_uses(model, pair):
    """Attending with the reported weights, one block and one head, gives the very output of the module."""
    block = model.decoder_blocks_croco[0].cross_attn
    block.heads = 1
    model.decoder_blocks_croco = model.decoder_blocks_croco[:1]
    kept = {}
    block.register_forward_hook(lambda module, inputs, output: kept.update(inputs=inputs, output=output))
    block.register_forward_hook(lambda module, inputs, output: None)
    weights = cross_attention(model, *pair)
    x, memory = kept["inputs"]
    full = ((block.projq(x) @ block.projk(memory).transpose(1, 2)) * x.shape[-1] ** -0.5).softmax(-1)
    assert torch.allclose(block.proj(full @ block.projv(memory)), kept["output"], atol=1e-5)
    assert torch.allclose(weights, full[:, 1:, 1:], atol=1e-6)
    assert weights.shape == (3, L, L)


def fixed(monkeypatch, strongest):
    """A model whose target patches look at these reference patches."""
    attention = torch.nn.functional.one_hot(strongest, L).float()
    monkeypatch.setattr("mimic_wds.training.attention.cross_attention", lambda *_: attention)


def shifted():
    """Correspondences of a shift by one column and of one by two; the last columns have none."""
    corr = torch.arange(L).reshape(ROWS, COLS).repeat(2, 1, 1)
    corr[0, :, :3] += 1
    corr[0, :, 3] = -1
    corr[1, :, :2] += 2
    corr[1, :, 2:] = -1
    return corr.flatten(1)


def test_known_attention_gives_known_shares(model, pair, monkeypatch):
    corr = shifted()
    here = torch.arange(L).expand(2, L)
    for strongest, share in ((corr.clamp(min=0), 1.0), (here, 12 / 20), (torch.full((2, L), 0), None)):
        fixed(monkeypatch, strongest)
        found = attention_agreement(model, *pair[:2], corr, pair[2])
        if share is not None:
            assert found.share == pytest.approx(share)
        assert found.same_place == pytest.approx(12 / 20)
        # Neighbours, itself included, of columns 1 to 3 (shift by one) and 2 and 3 (by two), in 4 rows of 2, 3, 3, 2.
        rows = 2 + 3 + 3 + 2
        assert found.chance == pytest.approx((rows * (3 + 3 + 2) + rows * (3 + 2)) / 20 / L)


def test_without_correspondences_there_is_no_share(model, pair):
    found = attention_agreement(model, *pair[:2], torch.full((3, L), -1), pair[2])
    assert isinstance(found, Agreement)
    assert all(value != value for value in found)


def test_hooks_are_gone_afterwards(model, pair):
    cross_attention(model, *pair)
    assert not any(module._forward_hooks for module in model.modules())
