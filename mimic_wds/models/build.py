"""Models by name: the [model] table of a run config, and what is built from it."""

from dataclasses import dataclass
from typing import Any, Literal

from mimic_wds.models.croco import CroCo
from mimic_wds.models.mae import MAE
from mimic_wds.models.masking import num_keep
from mimic_wds.models.vit import height_and_width

#: Encoder sizes: width, depth, heads.
SIZES = {"tiny": (192, 12, 3), "small": (384, 12, 6), "base": (768, 12, 12), "large": (1024, 24, 16)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """A pretraining model in plain values; the decoder's defaults are MAE's and CroCo's.

    Raises ValueError naming the field for values that are unknown, out of range or do not fit together.
    """

    objective: Literal["mae", "croco"]
    size: Literal["tiny", "small", "base", "large"] = "base"
    depth: int = 0  #: blocks of the encoder; 0 = what `size` says
    image_size: int | tuple[int, int] = 224  #: pixels; [height, width] when not square
    patch_size: int = 16  #: pixels
    decoder_dim: int = 512
    decoder_depth: int = 8
    decoder_heads: int = 16
    mask_ratio: float  #: share of hidden patches: 0.9 for CroCo, 0.75 for MAE in the papers
    norm_pix_loss: bool = True  #: predict patches normalised by their own mean and deviation
    class_token: bool = True  #: False: CroCo v1 and v2
    rotary: bool = False  #: positions turn queries and keys instead of being added: CroCo v2

    def __post_init__(self) -> None:
        for field, value, known in (("objective", self.objective, ("mae", "croco")), ("size", self.size, SIZES)):
            if value not in known:
                raise ValueError(f"model.{field} = {value!r} is unknown; known: {', '.join(known)}")
        if self.patch_size <= 0 or any(side <= 0 or side % self.patch_size for side in self.image_shape):
            raise ValueError(
                f"model.image_size = {self.image_size} is no multiple of model.patch_size = {self.patch_size}"
            )
        try:
            num_keep(self.num_patches, self.mask_ratio, "keep" if self.class_token else "mask")
        except ValueError as error:
            raise ValueError(f"model.{error}") from None
        if min(self.decoder_dim, self.decoder_depth, self.decoder_heads) < 1 or self.depth < 0:
            raise ValueError(
                "model.decoder_dim, decoder_depth and decoder_heads must be 1 or more, model.depth 0 or more"
            )
        if self.decoder_dim % self.decoder_heads or self.decoder_dim % 4:
            raise ValueError(
                f"model.decoder_dim = {self.decoder_dim} must be a multiple of 4 and of model.decoder_heads = "
                f"{self.decoder_heads}"
            )
        if self.objective == "mae" and not self.class_token:
            raise ValueError("model.class_token = false is CroCo v1's; MAE has a class token")
        if self.rotary and (self.objective != "croco" or self.class_token):
            raise ValueError('model.rotary is CroCo v2\'s: it needs model.objective = "croco", class_token = false')

    @property
    def image_shape(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return height_and_width(self.image_size)

    @property
    def num_patches(self) -> int:
        """L, patches of an image."""
        height, width = self.image_shape
        return (height // self.patch_size) * (width // self.patch_size)


def build_model(config: ModelConfig) -> MAE | CroCo:
    """A freshly initialised model (seed torch first for repeatable weights)."""
    dim, depth, heads = SIZES[config.size]
    options: dict[str, Any] = {
        "image_size": config.image_size,
        "patch_size": config.patch_size,
        "dim": dim,
        "depth": config.depth or depth,
        "heads": heads,
        "decoder_dim": config.decoder_dim,
        "decoder_depth": config.decoder_depth,
        "decoder_heads": config.decoder_heads,
        "mask_ratio": config.mask_ratio,
        "norm_pix_loss": config.norm_pix_loss,
    }
    return (
        MAE(**options)
        if config.objective == "mae"
        else CroCo(**options, class_token=config.class_token, rotary=config.rotary)
    )
