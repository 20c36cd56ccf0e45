"""The ViT encoder that MAE and CroCo share, on timm's blocks; its parameters have timm's names.

Shapes: B batch, L patches, K kept patches, T tokens (class token included), D width.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from timm.layers import PatchEmbed
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mimic_wds.models.masking import take
from mimic_wds.models.positions import sincos_2d
from mimic_wds.models.rotary import RotaryBlock, Rotation, rotation


class LayerNorm(nn.LayerNorm):
    """Layer norm of every model here: epsilon 1e-6 (MAE, CroCo), where torch's default is 1e-5."""

    def __init__(self, dim: int, device: torch.device | None = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(dim, eps=1e-6, device=device, dtype=dtype)


class ModelOutput(NamedTuple):
    """What the pretraining models return."""

    loss: Tensor  #: () float32
    prediction: Tensor  #: (B, L, P) of all patches, in the units of the target; bfloat16 under such autocast
    mask: Tensor  #: (B, L) bool, True = hidden from the encoder
    errors: Tensor  #: (B, L) float32 squared error of each patch, without gradient

    @property
    def losses(self) -> Tensor:
        """(B,) of each sample, without gradient; their mean is the loss, since all samples hide equally many."""
        return (self.errors * self.mask).sum(1) / self.mask.sum(1)

    @property
    def measures(self) -> dict[str, Tensor]:
        """Numbers () worth watching: the error of the patches that the encoder saw, which no loss asks for."""
        seen = ~self.mask
        return {"visible_loss": (self.errors * seen).sum() / seen.sum()}


class Turns(nn.Module):
    """A `Rotation` that moves with its model and is in no state dict."""

    cos: Tensor
    sin: Tensor

    def __init__(self, by: Rotation) -> None:
        super().__init__()
        self.register_buffer("cos", by.cos, persistent=False)
        self.register_buffer("sin", by.sin, persistent=False)

    def of(self, kept: Tensor | None = None) -> Rotation:
        """The rotation of the kept patches (B, K), or of all."""
        return Rotation(self.cos, self.sin).of(kept)


class Encoder(nn.Module):
    """Patch embedding, class token, fixed positions, blocks, final norm. Pretraining models inherit from it."""

    def __init__(
        self,
        *,
        image_size: int | tuple[int, int],
        patch_size: int,
        dim: int,
        depth: int,
        heads: int,
        class_token: bool = True,
        rotary: bool = False,
    ) -> None:
        """`rotary`: positions turn queries and keys (CroCo v2) instead of being added; there is no class token then."""
        super().__init__()
        assert not (rotary and class_token), "a class token has no place to turn by"
        #: Keep no activations within blocks for the backward pass but compute them again: slower, less memory.
        self.recompute = False
        self.image_shape = height_and_width(image_size)
        self.patch_size = patch_size
        self.rows, self.cols = (side // patch_size for side in self.image_shape)
        self.num_patches = self.rows * self.cols
        self.patch_embed = PatchEmbed(self.image_shape, patch_size, 3, dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim)) if class_token else None
        self.pos_embed = None if rotary else self.position_table(dim)
        self.rotation = self.rotations(dim // heads) if rotary else None
        self.blocks = nn.ModuleList((RotaryBlock if rotary else block)(dim, heads) for _ in range(depth))
        self.norm = LayerNorm(dim)

    def position_table(self, dim: int) -> nn.Parameter:
        """Fixed sin-cos positions (1, T, dim): in the state dict, never trained."""
        table = sincos_2d(dim, self.rows, self.cols, class_token=self.cls_token is not None)
        return nn.Parameter(table[None], requires_grad=False)

    def rotations(self, channels: int) -> "Turns":
        """Rotary positions of all patches for heads of so many channels; moves with the model, is never stored."""
        return Turns(rotation(channels, self.rows, self.cols))

    def encode(self, images: Tensor, kept: Tensor | None = None) -> Tensor:
        """Encode normalised images (B, 3, H, W), all patches or the `kept` ones (B, K): (B, T, D), class token first.

        Raises ValueError for images of another size than the model's.
        """
        if images.shape[-2:] != self.image_shape:
            raise ValueError(
                f"images are {tuple(images.shape[-2:])} (height, width) in pixels, but the model was made for "
                f"{self.image_shape}; set model.image_size to the size of the images, or resize them"
            )
        x = self.patch_embed(images)
        if self.pos_embed is not None:
            x = x + self.pos_embed[:, -self.num_patches :]
        if kept is not None:
            x = take(x, kept)
        if self.rotation is not None:
            return self.norm(through(self.blocks, x, self.rotation.of(kept), recompute=self.recompute))
        if self.cls_token is not None:
            assert self.pos_embed is not None
            token = (self.cls_token + self.pos_embed[:, :1]).to(x.dtype).expand(len(x), -1, -1)
            x = torch.cat([token, x], dim=1)
        return self.norm(through(self.blocks, x, recompute=self.recompute))

    def weights_were_loaded(self) -> None:
        """After weights of others were loaded into the model: bring along what depends on them."""

    def begin_step(self, epoch: float) -> None:
        """Before every optimizer step: what depends on the epoch (fractional)."""

    def finish_step(self, progress: float) -> None:
        """After every optimizer step that changed the weights. progress: share of the schedule before it, 0 to 1."""

    def initialise(self) -> None:
        """Fresh weights as in MAE, from torch's global generator: seed it first for weights that repeat.

        Xavier-uniform linear layers with zero biases, patch embedding likewise, tokens normal(0, 0.02), norms 1 and 0.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        # The convolution is a linear layer on patches; its bias keeps the default of convolutions.
        nn.init.xavier_uniform_(self.patch_embed.proj.weight.view(self.patch_embed.proj.weight.shape[0], -1))
        for name, parameter in self.named_parameters():
            if name in ("cls_token", "mask_token"):
                nn.init.normal_(parameter, std=0.02)


def through(layers: Iterable[Callable[..., Tensor]], x: Tensor, *rest: Any, recompute: bool = False) -> Tensor:
    """Through all layers in turn, each called with x and the rest.

    With `recompute` only what lies between layers is kept for the backward pass (Chen et al. 2016, arXiv 1604.06174):
    results are the same bit by bit, for nothing in a layer is random.
    """
    for layer in layers:
        if recompute and torch.is_grad_enabled():
            x = checkpoint(layer, x, *rest, use_reentrant=False, preserve_rng_state=False)
        else:
            x = layer(x, *rest)
    return x


def recompute_activations(model: nn.Module, on: bool = True) -> None:
    """Turn `recompute` on or off in a pretraining model and the encoders within it."""
    for module in model.modules():
        if isinstance(module, Encoder):
            module.recompute = on


def height_and_width(image_size: int | tuple[int, int]) -> tuple[int, int]:
    """Pixels: one number means a square."""
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    return height, width


def block(dim: int, heads: int) -> Block:
    """A pre-norm transformer block: MLP ratio 4, GELU, biases everywhere, no dropout."""
    return Block(dim, heads, mlp_ratio=4, qkv_bias=True, norm_layer=LayerNorm)
