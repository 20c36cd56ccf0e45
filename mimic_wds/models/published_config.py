"""Which model a published file is of: the values of a `ModelConfig`, from the names and shapes of its weights.

Heads leave no trace in the shapes; they are those of the published models (CroCo's arguments name them where there are
any). What only training needs, such as the mask ratio, is that of the papers.
"""

import math
from typing import Any

from torch import Tensor

from mimic_wds.models.build import SIZES
from mimic_wds.models.published import Published, to_ours

#: Heads of the decoders of MAE, CroCo (512) and CroCo v2 (768), by width.
DECODER_HEADS = {512: 16, 768: 12}

#: The only base of rotary positions that is known here.
ROTARY = "RoPE100"


def model_values(published: Published) -> dict[str, Any]:
    """Plain values for `ModelConfig`. An encoder alone is described as an MAE, whose decoder is then a fresh one.

    Raises ValueError naming the file for sizes, positions or shapes that no model here has.
    """
    path, (weights, _) = published.path, to_ours(published)
    projection = weights.get("patch_embed.proj.weight")
    if projection is None or projection.dim() != 4:
        raise ValueError(f"{path}: has no patch embedding (patch_embed.proj.weight of 4 dimensions)")
    is_croco = published.layout in ("mimic", "croco")
    values: dict[str, Any] = {
        "objective": "croco" if is_croco else "mae",
        "size": _size(published, projection.shape[0], _depth(weights, "blocks.")),
        "patch_size": int(projection.shape[2]),
        "mask_ratio": 0.9 if is_croco else 0.75,
    }
    if is_croco:
        positions = str(published.options.get("pos_embed", "cosine"))
        if positions.startswith("RoPE") and positions != ROTARY:
            raise ValueError(f"{path}: has positions {positions!r}; known: {ROTARY!r} and tables")
        values |= {"class_token": "cls_token" in weights, "rotary": positions == ROTARY or "pos_embed" not in weights}
    if "pos_embed" in weights:
        values["image_size"] = _image_size(
            published, weights["pos_embed"], values["patch_size"], "cls_token" in weights
        )
    elif isinstance(published.options.get("img_size"), int):
        values["image_size"] = published.options["img_size"]
    return values | _decoder(published, weights)


def _size(published: Published, dim: int, depth: int) -> str:
    """The name of an encoder's size. Raises ValueError for another one."""
    for name, (known_dim, known_depth, _) in SIZES.items():
        if (dim, depth) == (known_dim, known_depth):
            return name
    known = ", ".join(f"{name} {dim}x{depth}" for name, (dim, depth, _) in SIZES.items())
    raise ValueError(f"{published.path}: its encoder is {dim} wide and {depth} blocks deep; known: {known}")


def _image_size(published: Published, table: Tensor, patch_size: int, class_token: bool) -> int:
    side = math.isqrt(table.shape[1] - class_token)
    if side**2 + class_token != table.shape[1]:
        raise ValueError(f"{published.path}: its {table.shape[1] - class_token} positions are no square of patches")
    return side * patch_size


def _decoder(published: Published, weights: dict[str, Tensor]) -> dict[str, int]:
    """Width, depth and heads of the decoder; nothing of an encoder alone."""
    prefix = "decoder_blocks." if published.layout == "mae" else "decoder_blocks_croco."
    depth = _depth(weights, prefix)
    if not depth or "mask_token" not in weights:
        return {}
    dim = int(weights["mask_token"].shape[-1])
    heads = published.options.get("dec_num_heads", DECODER_HEADS.get(dim))
    if not isinstance(heads, int):
        raise ValueError(f"{published.path}: nothing says how many heads its decoder of width {dim} has")
    return {"decoder_dim": dim, "decoder_depth": depth, "decoder_heads": heads}


def _depth(weights: dict[str, Tensor], prefix: str) -> int:
    """How many blocks have names that begin so."""
    return len({name.removeprefix(prefix).split(".")[0] for name in weights if name.startswith(prefix)})
