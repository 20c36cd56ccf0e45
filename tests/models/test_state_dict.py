"""Names, shapes and numbers of weights, as published. Nothing is computed: the models live on the meta device."""

import pytest
import torch

from mimic_wds.models.build import ModelConfig, build_model


def skeleton(**values):
    with torch.device("meta"):
        return build_model(ModelConfig(**({"mask_ratio": 0.9} | values)))


@pytest.mark.parametrize(
    ("values", "entries", "stored", "trained"),
    [
        ({"objective": "mae"}, 254, 111_907_840, 111_655_680),
        ({"objective": "mae", "size": "large"}, 398, 329_541_888, None),
        ({"objective": "croco"}, 350, 120_329_216, 120_077_056),
        # CroCo v1, and the decoder of its second version
        ({"objective": "croco", "class_token": False}, 349, None, 120_076_288),
        (
            {"objective": "croco", "class_token": False, "decoder_dim": 768, "decoder_depth": 12, "decoder_heads": 12},
            443 + 2,  # the second version has no position tables
            None,
            200_269_824,
        ),
    ],
)
def test_published_numbers_of_weights(values, entries, stored, trained):
    model = skeleton(**values)
    state = model.state_dict()
    assert len(state) == entries
    if stored is not None:
        assert sum(value.numel() for value in state.values()) == stored
        assert sum(p.numel() for p in model.parameters()) == stored
    if trained is not None:
        assert sum(p.numel() for p in model.parameters() if p.requires_grad) == trained


def block(prefix, dim):
    """Keys and shapes of a standard transformer block."""
    layers = {"attn.qkv": (3 * dim, dim), "attn.proj": (dim, dim), "mlp.fc1": (4 * dim, dim), "mlp.fc2": (dim, 4 * dim)}
    return linears(prefix, layers) | norms(prefix, dim, "norm1", "norm2")


def linears(prefix, layers):
    weights = {f"{prefix}{name}.weight": shape for name, shape in layers.items()}
    return weights | {f"{prefix}{name}.bias": shape[:1] for name, shape in layers.items()}


def norms(prefix, dim, *names):
    return {f"{prefix}{name}.{part}": (dim,) for name in names for part in ("weight", "bias")}


def encoder_and_frame():
    keys = {"cls_token": (1, 1, 768), "pos_embed": (1, 197, 768)}
    keys |= {"mask_token": (1, 1, 512), "decoder_pos_embed": (1, 197, 512)}
    keys |= {"patch_embed.proj.weight": (768, 3, 16, 16), "patch_embed.proj.bias": (768,)}
    for i in range(12):
        keys |= block(f"blocks.{i}.", 768)
    keys |= norms("", 768, "norm") | norms("", 512, "decoder_norm")
    return keys | linears("", {"decoder_embed": (512, 768), "decoder_pred": (768, 512)})


def shapes(model):
    return {key: tuple(value.shape) for key, value in model.state_dict().items()}


def test_keys_of_mae():
    expected = encoder_and_frame()
    for i in range(8):
        expected |= block(f"decoder_blocks.{i}.", 512)
    assert shapes(skeleton(objective="mae")) == expected


def test_keys_of_croco():
    expected = encoder_and_frame()
    layers = {"attn.qkv": (1536, 512), "attn.proj": (512, 512), "mlp.fc1": (2048, 512), "mlp.fc2": (512, 2048)}
    layers |= {f"cross_attn.{name}": (512, 512) for name in ("projq", "projk", "projv", "proj")}
    for i in range(8):
        prefix = f"decoder_blocks_croco.{i}."
        expected |= linears(prefix, layers) | norms(prefix, 512, "norm1", "norm2", "norm3", "norm_y")
    assert shapes(skeleton(objective="croco")) == expected


def test_encoder_is_that_of_the_published_encoder_files():
    state = skeleton(objective="croco").state_dict()
    encoder = {k: v for k, v in state.items() if k != "mask_token" and not k.startswith("decoder_")}
    assert len(encoder) == 150
    assert sum(v.numel() for v in encoder.values()) == 85_798_656


@pytest.mark.parametrize("objective", ["mae", "croco"])
def test_position_tables_are_stored_but_never_trained(objective):
    frozen = [name for name, p in skeleton(objective=objective).named_parameters() if not p.requires_grad]
    assert frozen == ["pos_embed", "decoder_pos_embed"]
