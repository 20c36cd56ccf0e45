"""Rotary positions: the angles and the attention against plain numpy; CroCo v2's names and numbers."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mimic_wds.models.build import ModelConfig, build_model
from mimic_wds.models.croco import CroCo
from mimic_wds.models.rotary import RotaryAttention, rotate, rotation

TINY = {"size": "tiny", "depth": 2, "image_size": 64, "decoder_dim": 64, "decoder_depth": 2, "decoder_heads": 4}


def turned(x, row, col):
    """One head's channels (E,) at a place, pair by pair: first half by the row, second by the column."""
    half, out = len(x) // 2, np.array(x, np.float64)
    for start, place in ((0, row), (half, col)):
        for i in range(half // 2):
            angle = place * 100.0 ** (-2 * i / half)
            one, other = start + i, start + i + half // 2
            out[one] = x[one] * np.cos(angle) - x[other] * np.sin(angle)
            out[other] = x[other] * np.cos(angle) + x[one] * np.sin(angle)
    return out


@pytest.mark.parametrize("channels", [4, 32, 64])
def test_the_rotation_is_that_of_the_definition(channels):
    x = torch.randn(2, 3, 12, channels, generator=torch.Generator().manual_seed(0))
    found = rotate(x, rotation(channels, 3, 4))
    for patch in range(12):
        expected = turned(x[1, 2, patch].numpy(), *divmod(patch, 4))
        np.testing.assert_allclose(found[1, 2, patch].numpy(), expected, atol=2e-6)


@given(st.tuples(*[st.integers(0, 7)] * 4), st.integers(0, 3), st.integers(0, 3))
def test_attention_sees_distances_only(places, down, right):
    """The product of a query and a key does not change when both move alike."""
    generator = torch.Generator().manual_seed(1)
    q, k = torch.randn(2, 64, generator=generator).double()
    row0, col0, row1, col1 = places
    here = turned(q.numpy(), row0, col0) @ turned(k.numpy(), row1, col1)
    there = turned(q.numpy(), row0 + down, col0 + right) @ turned(k.numpy(), row1 + down, col1 + right)
    assert here == pytest.approx(there, abs=1e-9)


def test_kept_tokens_keep_their_places():
    """Attention over some patches is that over all with the others hidden."""
    torch.manual_seed(2)
    attention, by = RotaryAttention(16, 2), rotation(8, 3, 3)
    x, kept = torch.randn(2, 9, 16), torch.tensor([[0, 4, 8], [1, 2, 7]])
    some = attention(x.gather(1, kept[..., None].expand(-1, -1, 16)), by.of(kept))
    q, k, v = attention.qkv(x).unflatten(2, (3, 2, 8)).permute(2, 0, 3, 1, 4)
    scores = rotate(q, by) @ rotate(k, by).transpose(-1, -2) / 8**0.5
    hidden = torch.full((2, 1, 1, 9), -torch.inf).scatter(3, kept[:, None, None], 0.0)
    whole = attention.proj(((scores + hidden).softmax(-1) @ v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(some, whole.gather(1, kept[..., None].expand(-1, -1, 16)))


@pytest.mark.parametrize(
    ("size", "decoder", "entries", "values"),
    [
        ("base", (512, 8, 16), 347, 120_076_288),
        ("base", (768, 12, 12), 443, 200_269_824),
        ("large", (768, 12, 12), 587, 417_918_720),
    ],
)
def test_published_numbers_of_the_second_version(size, decoder, entries, values):
    dim, depth, heads = decoder
    config = ModelConfig(
        objective="croco",
        size=size,
        decoder_dim=dim,
        decoder_depth=depth,
        decoder_heads=heads,
        mask_ratio=0.9,
        class_token=False,
        rotary=True,
    )
    with torch.device("meta"):
        state = build_model(config).state_dict()
    assert (len(state), sum(value.numel() for value in state.values())) == (entries, values)
    assert not any("pos_embed" in name or "rotation" in name for name in state)


def test_it_learns_and_every_weight_takes_part():
    torch.manual_seed(3)
    model = build_model(ModelConfig(objective="croco", mask_ratio=0.75, class_token=False, rotary=True, **TINY))
    image0, image1, noise = torch.randn(4, 3, 64, 64), torch.randn(4, 3, 64, 64), torch.rand(4, 16)
    losses = []
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    for _ in range(12):
        optimizer.zero_grad()
        loss = model(image0, image1, noise).loss
        loss.backward()
        assert all(p.grad is not None for p in model.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.02
    assert model.keep == 4


def test_places_matter():
    """With the patches of the reference in another order, the prediction is another one."""
    torch.manual_seed(4)
    model = build_model(ModelConfig(objective="croco", mask_ratio=0.75, class_token=False, rotary=True, **TINY)).eval()
    image0, noise = torch.randn(1, 3, 64, 64), torch.rand(1, 16)
    reference = torch.randn(1, 16, 192)
    kept = noise.argsort(1)[:, :4].sort(1).values
    with torch.no_grad():
        target = model.encode(image0, kept)
        one = model.decode(target, kept, reference)
        other = model.decode(target, kept, reference.flip(1))
    assert (one - other).abs().max() > 1e-4


def test_other_models_have_no_rotary_positions():
    for values in ({"objective": "mae"}, {"objective": "croco"}):
        with pytest.raises(ValueError, match=r"model\.rotary is CroCo v2's"):
            ModelConfig(mask_ratio=0.75, rotary=True, **values)
    assert isinstance(build_model(ModelConfig(objective="croco", mask_ratio=0.75, **TINY)), CroCo)
