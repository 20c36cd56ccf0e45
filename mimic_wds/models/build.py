"""Models by name: the [model] table of a run config, and what is built from it."""

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from mimic_wds.models.croco import CroCo
from mimic_wds.models.dino import DINO
from mimic_wds.models.dino_recipe import DinoConfig
from mimic_wds.models.mae import MAE
from mimic_wds.models.masking import num_keep
from mimic_wds.models.vit import height_and_width

OBJECTIVES = ("mae", "croco", "dino")

#: Encoder sizes: width, depth, heads.
SIZES = {"tiny": (192, 12, 3), "small": (384, 12, 6), "base": (768, 12, 12), "large": (1024, 24, 16)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """A pretraining model in plain values; the decoder's defaults are MAE's and CroCo's.

    Raises ValueError naming the field for values that are unknown, out of range or do not fit together.
    """

    objective: Literal["mae", "croco", "dino"]
    size: Literal["tiny", "small", "base", "large"] = "base"
    depth: int = 0  #: blocks of the encoder; 0 = what `size` says
    image_size: int | tuple[int, int] = 224  #: pixels; [height, width] when not square
    patch_size: int = 16  #: pixels
    decoder_dim: int = 512
    decoder_depth: int = 8
    decoder_heads: int = 16
    mask_ratio: float = 0.0  #: share of hidden patches: 0.9 for CroCo, 0.75 for MAE in the papers; DINO hides none
    norm_pix_loss: bool = True  #: predict patches normalised by their own mean and deviation
    class_token: bool = True  #: False: CroCo v1 and v2
    rotary: bool = False  #: positions turn queries and keys instead of being added: CroCo v2
    dino: DinoConfig = field(default_factory=DinoConfig)  #: what only DINO has

    def __post_init__(self) -> None:
        for key, value, known in (("objective", self.objective, OBJECTIVES), ("size", self.size, SIZES)):
            if value not in known:
                raise ValueError(f"model.{key} = {value!r} is unknown; known: {', '.join(known)}")
        if self.patch_size <= 0 or any(side <= 0 or side % self.patch_size for side in self.image_shape):
            raise ValueError(
                f"model.image_size = {self.image_size} is no multiple of model.patch_size = {self.patch_size}"
            )
        self._check_masking()
        if min(self.decoder_dim, self.decoder_depth, self.decoder_heads) < 1 or self.depth < 0:
            raise ValueError(
                "model.decoder_dim, decoder_depth and decoder_heads must be 1 or more, model.depth 0 or more"
            )
        if self.decoder_dim % self.decoder_heads or self.decoder_dim % 4:
            raise ValueError(
                f"model.decoder_dim = {self.decoder_dim} must be a multiple of 4 and of model.decoder_heads = "
                f"{self.decoder_heads}"
            )
        if self.objective != "croco" and not self.class_token:
            raise ValueError("model.class_token = false is CroCo v1's; MAE and DINO have a class token")
        if self.rotary and (self.objective != "croco" or self.class_token):
            raise ValueError('model.rotary is CroCo v2\'s: it needs model.objective = "croco", class_token = false')

    def _check_masking(self) -> None:
        """Raise ValueError unless the mask ratio leaves some patches; DINO hides none, and has crops instead."""
        if self.objective == "dino":
            if self.mask_ratio:
                raise ValueError(f"model.mask_ratio = {self.mask_ratio} means nothing to DINO; leave it out")
            if self.dino.local_size % self.patch_size:
                raise ValueError(
                    f"model.dino.local_size = {self.dino.local_size} is no multiple of model.patch_size = "
                    f"{self.patch_size}"
                )
            return
        try:
            num_keep(self.num_patches, self.mask_ratio, "keep" if self.class_token else "mask")
        except ValueError as error:
            raise ValueError(f"model.{error}") from None

    @property
    def image_shape(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return height_and_width(self.image_size)

    @property
    def num_patches(self) -> int:
        """L, patches of an image."""
        height, width = self.image_shape
        return (height // self.patch_size) * (width // self.patch_size)

    @property
    def num_draws(self) -> int:
        """Random numbers in [0, 1) that the model takes with every sample: one a patch, or all of DINO's crops."""
        if self.objective != "dino":
            return self.num_patches
        return self.dino.num_draws(self.depth or SIZES[self.size][1])


PretrainingModel: TypeAlias = MAE | CroCo | DINO


def build_model(config: ModelConfig) -> PretrainingModel:
    """A freshly initialised model (seed torch first for repeatable weights)."""
    dim, depth, heads = SIZES[config.size]
    encoder: dict[str, Any] = {
        "image_size": config.image_size,
        "patch_size": config.patch_size,
        "dim": dim,
        "depth": config.depth or depth,
        "heads": heads,
    }
    if config.objective == "dino":
        return DINO(**encoder, config=config.dino)
    options = encoder | {
        "decoder_dim": config.decoder_dim,
        "decoder_depth": config.decoder_depth,
        "decoder_heads": config.decoder_heads,
        "mask_ratio": config.mask_ratio,
        "norm_pix_loss": config.norm_pix_loss,
    }
    if config.objective == "mae":
        return MAE(**options)
    return CroCo(**options, class_token=config.class_token, rotary=config.rotary)
