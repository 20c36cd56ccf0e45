"""Published weights, read safely and told what became of them; and ours, written as others name them.

Read: MIMIC's CroCo checkpoint (with its stray discriminator), naver's `CroCo.pth` and files that its code writes, MAE's
encoder and full files, timm's and DINO's ViTs. Written: timm, MAE, CroCo and MultiMAE layouts. Names inside this
package are MAE's and MIMIC's, which are timm's for the encoder.

Shapes: L patches, D encoder width.
"""

import argparse
import ast
import math
import pathlib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

Weights: TypeAlias = dict[str, Tensor]

#: What the weights of a file are called: by MIMIC's CroCo, naver's CroCo, MAE with its decoder, any ViT encoder.
Layout: TypeAlias = Literal["mimic", "croco", "mae", "vit"]

#: Classes beside tensors and plain values that published checkpoints hold; others are never unpickled.
ALLOWED = (argparse.Namespace, pathlib.PosixPath)

#: Where files keep the weights; DINO's full checkpoint has a student and a teacher, which is the one to use.
_WRAPPERS = ("model", "state_dict", "teacher")

#: Prefixes of distributed training and of DINO's wrapper.
_PREFIXES = ("module.", "backbone.")

#: naver's names -> ours, by their beginnings; `decoder_pos_embed` and `pos_embed` get a row for the class token.
_CROCO = {
    "enc_blocks.": "blocks.",
    "enc_norm.": "norm.",
    "dec_blocks.": "decoder_blocks_croco.",
    "dec_norm.": "decoder_norm.",
    "prediction_head.": "decoder_pred.",
    "enc_pos_embed": "pos_embed",
    "dec_pos_embed": "decoder_pos_embed",
}

#: Beginnings of names that an encoder has.
_ENCODER = ("cls_token", "pos_embed", "patch_embed.", "blocks.", "norm.")

_TABLES = ("pos_embed", "decoder_pos_embed")


@dataclass(slots=True)
class Conversion:
    """What became of the weights of a file."""

    used: list[str] = field(default_factory=list)  #: as they are, under their names
    renamed: dict[str, str] = field(default_factory=dict)  #: their name -> ours
    resized: dict[str, str] = field(default_factory=dict)  #: our name -> from which shape to which
    dropped: list[str] = field(default_factory=list)  #: theirs that the model has no place for
    made: list[str] = field(default_factory=list)  #: ours that the file does not have: as they were initialised

    def rows(self) -> list[tuple[str, int, str]]:
        """A table for people: what, how many, and the first names."""
        parts: dict[str, list[str]] = {
            "used": self.used,
            "renamed": [f"{theirs} -> {ours}" for theirs, ours in self.renamed.items()],
            "resized": [f"{name} {change}" for name, change in self.resized.items()],
            "dropped": self.dropped,
            "initialised": self.made,
        }
        return [
            (what, len(names), ", ".join(names[:3]) + (", ..." if len(names) > 3 else ""))
            for what, names in parts.items()
        ]


@dataclass(frozen=True, slots=True)
class Published:
    """The weights of a file under the names of their layout, and what else it says of the model."""

    path: Path
    layout: Layout
    weights: Weights
    options: Mapping[str, Any]  #: of the constructor, where the file says them ("enc_embed_dim", "pos_embed", ...)


def read_published(path: Path) -> Published:
    """Read a .pth, .pt, .bin or .safetensors file.

    No code in it runs: only tensors, plain values and ALLOWED are unpickled, constructor strings are parsed. Raises
    ValueError naming the file when it is missing, damaged, asks for anything else, or holds no ViT.
    """
    found = _load(path)
    options = _options(found)
    weights = found
    for name in _WRAPPERS:
        if isinstance(weights.get(name), Mapping):
            weights = weights[name]
            break
    plain = {_bare(str(name)): value for name, value in weights.items() if isinstance(value, Tensor)}
    return Published(path, _layout(path, plain), plain, options)


def to_ours(published: Published) -> tuple[Weights, Conversion]:
    """The weights under this package's names. CroCo's tables (L, D) become (1, L, D)."""
    report, ours = Conversion(), Weights()
    for name, value in published.weights.items():
        own = _renamed(name, _CROCO) if published.layout == "croco" else name
        ours[own] = value[None] if own in _TABLES and value.dim() == 2 else value
        if own == name:
            report.used.append(name)
        else:
            report.renamed[name] = own
    return ours, report


def load_published(model: nn.Module, path: Path) -> Conversion:
    """Put the weights of a file into a model of this package (MAE, CroCo, or any with their encoder).

    Position tables of another number of patches are resized; a class token that only one side has is dropped, or stays
    as it was initialised. Raises ValueError as `read_published` does, for weights of another shape, and when nothing of
    the encoder fits.
    """
    published = read_published(path)
    if str(published.options.get("pos_embed", "")).startswith("RoPE") and not getattr(model, "rotation", None):
        raise ValueError(
            f"{path}: was trained with rotary positions, this model adds tables; set model.rotary = true and "
            "model.class_token = false (CroCo v2)"
        )
    ours, report = to_ours(published)
    theirs = {own: name for name, own in report.renamed.items()}
    own, fitting = model.state_dict(), Weights()
    for name, value in ours.items():
        if name not in own:
            _forget(report, theirs.get(name, name))
            continue
        if name in _TABLES and value.shape != own[name].shape and value.dim() == 3:
            report.resized[name] = f"{tuple(value.shape)} -> {tuple(own[name].shape)}"
            value = resized_table(value, own[name].shape[1])
        if value.shape != own[name].shape:
            raise ValueError(
                f"{path}: {name} has shape {tuple(value.shape)}, the model's has {tuple(own[name].shape)}: it is "
                "another size of model"
            )
        fitting[name] = value
    if not any(name.startswith("blocks.") for name in fitting):
        raise ValueError(f"{path}: none of its weights is one of this model's encoder")
    report.made = [name for name in own if name not in fitting]
    model.load_state_dict({**own, **fitting})
    return report


def resized_table(table: Tensor, rows: int) -> Tensor:
    """A position table (1, rows or more, D) for another number of rows, a square of patches each, bicubic.

    A row for the class token, in front, is kept, dropped or made of zeros. Raises ValueError for what is no square.
    """
    side, new_side = math.isqrt(table.shape[1]), math.isqrt(rows)
    special, new_special = table.shape[1] - side**2, rows - new_side**2
    if special not in (0, 1) or new_special not in (0, 1) or not side or not new_side:
        raise ValueError(
            f"a position table of {table.shape[1]} rows cannot become one of {rows}: no squares of patches"
        )
    patches = table[:, special:]
    if side != new_side:
        picture = patches.transpose(1, 2).unflatten(2, (side, side)).float()
        picture = F.interpolate(picture, size=(new_side, new_side), mode="bicubic", align_corners=False)
        patches = picture.flatten(2).transpose(1, 2).to(table.dtype)
    token = table[:, :special] if special else table.new_zeros(1, 1, table.shape[2])
    return torch.cat([token, patches], dim=1) if new_special else patches


def export_timm(weights: Mapping[str, Tensor]) -> Weights:
    """The encoder as timm's `vit_*_patch*` names it; without class token for `class_token=False` there."""
    return {name: value for name, value in weights.items() if name.startswith(_ENCODER)}


def export_mae(weights: Mapping[str, Tensor]) -> dict[str, Weights]:
    """An MAE, or the encoder of another model, as MAE's files hold it."""
    names = (*_ENCODER, "mask_token", "decoder_")
    kept = {n: v for n, v in weights.items() if n.startswith(names) and not n.startswith("decoder_blocks_croco.")}
    if not any(name.startswith("decoder_blocks.") for name in kept):
        kept = export_timm(weights)
    return {"model": kept}


def export_croco(weights: Mapping[str, Tensor]) -> dict[str, Weights]:
    """A CroCo as naver's code names it; the class token, which that does not know, is left out."""
    back = {ours: theirs for theirs, ours in _CROCO.items()}
    kept = Weights()
    for name, value in weights.items():
        if name in _TABLES:
            value = value[0, int("cls_token" in weights) :]
        if name != "cls_token":
            kept[_renamed(name, back)] = value
    return {"model": kept}


def export_multimae(weights: Mapping[str, Tensor]) -> dict[str, Weights]:
    """The encoder as MultiMAE (arXiv 2204.01678) finetunes it: the table a picture, the token with its position.

    Raises ValueError for encoders that have no table (CroCo v2) or not one of a square of patches.
    """
    if "pos_embed" not in weights:
        raise ValueError("MultiMAE's layout has a position table; these weights have none (rotary positions, CroCo v2)")
    table, special = weights["pos_embed"], int("cls_token" in weights)
    side = math.isqrt(table.shape[1] - special)
    if side**2 + special != table.shape[1]:
        raise ValueError(f"MultiMAE's layout is of square images; {table.shape[1] - special} patches are no square")
    kept = {
        "input_adapters.rgb.pos_emb": table[:, special:].transpose(1, 2).unflatten(2, (side, side)),
        "input_adapters.rgb.proj.weight": weights["patch_embed.proj.weight"],
        "input_adapters.rgb.proj.bias": weights["patch_embed.proj.bias"],
    }
    if "cls_token" in weights:
        kept["global_tokens"] = weights["cls_token"] + table[:, :special]
    kept |= {f"encoder.{n.removeprefix('blocks.')}": v for n, v in weights.items() if n.startswith("blocks.")}
    return {"model": kept}


EXPORTS: dict[str, Callable[[Mapping[str, Tensor]], Mapping[str, Any]]] = {
    "timm": export_timm,
    "mae": export_mae,
    "croco": export_croco,
    "multimae": export_multimae,
}


def _load(path: Path) -> dict[str, Any]:
    """The contents of a file. Raises ValueError."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    try:
        if path.suffix == ".safetensors":
            return dict(safetensors.torch.load_file(path))
        with torch.serialization.safe_globals(list(ALLOWED)), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the file is an old one, or none at all
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged or a foreign file
        first = " ".join(str(error).split())[:300]
        raise ValueError(f"{path}: cannot be read as weights, or asks for more than those: {first}") from None
    if not isinstance(found, Mapping):
        raise ValueError(f"{path}: holds a {type(found).__name__}, expected a table of weights")
    return dict(found)


def _options(found: Mapping[str, Any]) -> dict[str, Any]:
    """The options of the constructor that a CroCo file names, as a table or in a string like "CroCoNet(a=1, b='x')"."""
    if isinstance(found.get("croco_kwargs"), Mapping):
        return dict(found["croco_kwargs"])
    text = getattr(found.get("args"), "model", "")
    return parse_call(text) if isinstance(text, str) and "(" in text else {}


def parse_call(text: str) -> dict[str, Any]:
    """The keyword arguments of a call, plain values only; nothing is evaluated. Raises ValueError for anything else."""
    try:
        call = ast.parse(text.strip(), mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
            raise ValueError("expected a name and keyword arguments")
        if not all(keyword.arg for keyword in call.keywords):
            raise ValueError("expected no **")
        return {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (SyntaxError, TypeError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"{text[:100]!r} is no constructor with plain arguments: {error}") from None


def _layout(path: Path, weights: Mapping[str, Tensor]) -> Layout:
    marks: dict[Layout, str] = {
        "mimic": "decoder_blocks_croco.0.",
        "croco": "enc_blocks.0.",
        "mae": "decoder_blocks.0.",
        "vit": "blocks.0.",
    }
    for layout, mark in marks.items():
        if any(name.startswith(mark) for name in weights):
            return layout
    known = ", ".join(marks.values())
    raise ValueError(f"{path}: holds no ViT that is known here; expected weights that begin with one of {known}")


def _bare(name: str) -> str:
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name


def _renamed(name: str, table: Mapping[str, str]) -> str:
    return next((new + name.removeprefix(old) for old, new in table.items() if name.startswith(old)), name)


def _forget(report: Conversion, name: str) -> None:
    """A weight is not used after all."""
    report.renamed.pop(name, None)
    if name in report.used:
        report.used.remove(name)
    report.dropped.append(name)
