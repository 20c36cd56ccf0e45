"""Whole forward passes against plain numpy in float64, written from the papers' descriptions, one image at a time."""

import math

import numpy as np
import pytest
import torch

PATCH = 16
erf = np.vectorize(math.erf)


class Numpy:
    """The models again: loops over heads and patches, explicit softmax, no batch."""

    def __init__(self, model):
        self.w = {key: value.double().numpy() for key, value in model.state_dict().items()}
        self.model = model
        self.cls = int(model.cls_token is not None)
        self.decoder = getattr(model, "decoder_blocks_croco", None) or model.decoder_blocks

    def linear(self, name, x):
        return x @ self.w[name + ".weight"].T + self.w[name + ".bias"]

    def norm(self, name, x):
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
        return scaled * self.w[name + ".weight"] + self.w[name + ".bias"]

    def mlp(self, name, x):
        hidden = self.linear(name + ".fc1", x)
        return self.linear(name + ".fc2", hidden * (1 + erf(hidden / math.sqrt(2))) / 2)

    def attention(self, q, k, v, heads):
        found = []
        for qh, kh, vh in zip(*(np.split(part, heads, axis=1) for part in (q, k, v)), strict=True):
            scores = np.exp(qh @ kh.T / math.sqrt(qh.shape[1]))
            found.append(scores / scores.sum(1, keepdims=True) @ vh)
        return np.concatenate(found, axis=1)

    def self_attention(self, name, x, heads):
        return self.linear(
            name + ".proj", self.attention(*np.split(self.linear(name + ".qkv", x), 3, axis=1), heads=heads)
        )

    def cross_attention(self, name, x, y, heads):
        q, k, v = (self.linear(f"{name}.proj{part}", z) for part, z in (("q", x), ("k", y), ("v", y)))
        return self.linear(name + ".proj", self.attention(q, k, v, heads))

    def block(self, name, x, heads):
        x = x + self.self_attention(name + ".attn", self.norm(name + ".norm1", x), heads)
        return x + self.mlp(name + ".mlp", self.norm(name + ".norm2", x))

    def croco_block(self, name, x, y, heads):
        x = x + self.self_attention(name + ".attn", self.norm(name + ".norm1", x), heads)
        memory = self.norm(name + ".norm_y", y)
        x = x + self.cross_attention(name + ".cross_attn", self.norm(name + ".norm2", x), memory, heads)
        return x + self.mlp(name + ".mlp", self.norm(name + ".norm3", x))

    def encode(self, image, visible):
        tokens = []
        for patch in visible:
            row, col = divmod(patch, self.model.cols)
            pixels = image[:, row * PATCH : (row + 1) * PATCH, col * PATCH : (col + 1) * PATCH]
            token = (self.w["patch_embed.proj.weight"] * pixels).sum((1, 2, 3)) + self.w["patch_embed.proj.bias"]
            tokens.append(token + self.w["pos_embed"][0, patch + self.cls])
        if self.cls:
            tokens.insert(0, self.w["cls_token"][0, 0])
        x = np.stack(tokens)
        for i in range(len(self.model.blocks)):
            x = self.block(f"blocks.{i}", x, self.model.blocks[0].attn.num_heads)
        return self.norm("norm", x)

    def with_mask_tokens(self, x, visible):
        tokens = [self.w["mask_token"][0, 0]] * self.model.num_patches
        for patch, token in zip(visible, x[self.cls :], strict=True):
            tokens[patch] = token
        return np.stack([*x[: self.cls], *tokens])

    def predict(self, images, noise):
        """images: one (MAE) or two (CroCo) of (3, H, W)."""
        visible = np.argsort(noise)[: self.model.keep]
        x = self.linear("decoder_embed", self.encode(images[0], visible))
        x = self.with_mask_tokens(x, visible) + self.w["decoder_pos_embed"][0]
        heads = self.decoder[0].attn.num_heads
        if len(images) == 2:
            y = self.encode(images[1], range(self.model.num_patches))
            y = self.linear("decoder_embed", y) + self.w["decoder_pos_embed"][0]
        for i in range(len(self.decoder)):
            if len(images) == 2:
                x = self.croco_block(f"decoder_blocks_croco.{i}", x, y, heads)
            else:
                x = self.block(f"decoder_blocks.{i}", x, heads)
        return self.linear("decoder_pred", self.norm("decoder_norm", x))[self.cls :]

    def squared_errors(self, image, prediction, noise):
        """One number per hidden patch."""
        found = []
        for patch in np.argsort(noise)[self.model.keep :]:
            row, col = divmod(patch, self.model.cols)
            pixels = image[:, row * PATCH : (row + 1) * PATCH, col * PATCH : (col + 1) * PATCH]
            target = pixels.transpose(1, 2, 0).ravel()
            if self.model.norm_pix_loss:
                target = (target - target.mean()) / np.sqrt(target.var(ddof=1) + 1e-6)
            found.append(np.mean((prediction[patch] - target) ** 2))
        return found


@pytest.mark.parametrize(
    ("objective", "values"),
    [
        ("mae", {}),
        ("mae", {"norm_pix_loss": False}),
        ("croco", {}),
        ("croco", {"class_token": False}),
    ],
)
def test_forward_pass(tiny_config, shaken, inputs, objective, values):
    config = tiny_config(objective, **values)
    model = shaken(config)
    *images, noise = (tensor.double() for tensor in inputs(config))
    oracle = Numpy(model)
    loss, prediction, mask, _ = model.double()(*images, noise)
    errors = []
    for i in range(2):
        expected = oracle.predict([image[i].numpy() for image in images], noise[i].numpy())
        np.testing.assert_allclose(prediction[i].detach().numpy(), expected, rtol=0, atol=1e-5)
        errors += oracle.squared_errors(images[0][i].numpy(), expected, noise[i].numpy())
        assert mask[i].nonzero().flatten().tolist() == sorted(np.argsort(noise[i].numpy())[model.keep :])
    assert loss.item() == pytest.approx(np.mean(errors), rel=1e-5)
    assert torch.equal(mask.sum(1), torch.full((2,), config.num_patches - model.keep))
