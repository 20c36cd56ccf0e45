"""Base colours of glTF materials as textures: what an unlit picture shows of them.

Lighting, metalness, normal maps and emission are not. Alpha is dropped: what is cut out (MASK) or see-through (BLEND)
is drawn whole, as habitat-sim draws BLEND; only a material that is wholly invisible is left out. Textures repeat,
whatever the sampler says.
"""

import logging
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimic_wds.sources.simulator.formats import pictures
from mimic_wds.sources.simulator.formats.gltf_document import Document, Json

log = logging.getLogger(__name__)

#: Extensions of a texture that name its picture. The plain `source` is taken where there is one: it needs no decoder.
SOURCES = ("KHR_texture_basisu", "GOOGLE_texture_basis", "EXT_texture_webp")

_SPECULAR = "KHR_materials_pbrSpecularGlossiness"
_TRANSFORM = "KHR_texture_transform"


@dataclass(frozen=True, slots=True, eq=False)
class Paint:
    """How a surface is coloured."""

    texture: NDArray[np.uint8]  #: (h, w, 3), the material's factor folded in
    uv_set: int = -1  #: number of the texture coordinates that belong to it, -1 = it needs none
    uv_matrix: NDArray[np.float64] | None = None  #: (2, 3), takes (u, v, 1) to the texture; None = unchanged
    visible: bool = True


@dataclass(slots=True, eq=False)
class Palette:
    """The materials of a file; pictures are decoded once, when they are first asked for."""

    document: Document
    _paints: dict[int | None, Paint] = field(default_factory=dict)
    _images: dict[int, NDArray[np.uint8]] = field(default_factory=dict)
    _tinted: dict[tuple[int, tuple[float, ...]], NDArray[np.uint8]] = field(default_factory=dict)

    def paint(self, number: int | None) -> Paint:
        """The colours of a material, None = the default one (white)."""
        if number not in self._paints:
            self._paints[number] = self._mixed(number)
        return self._paints[number]

    def _mixed(self, number: int | None) -> Paint:
        material = {} if number is None else self.document.json["materials"][number]
        factor, texture = base_colour(material)
        visible = _visible(material, factor[3], has_texture=texture is not None)
        if texture is None:
            return Paint(pictures.solid(factor), visible=visible)
        transform = texture.get("extensions", {}).get(_TRANSFORM)
        uv_set = (
            texture.get("texCoord", 0) if transform is None else transform.get("texCoord", texture.get("texCoord", 0))
        )
        matrix = None if transform is None else uv_matrix(transform)
        return Paint(self._texture(texture["index"], tuple(factor[:3])), uv_set, matrix, visible)

    def _texture(self, number: int, factor: tuple[float, ...]) -> NDArray[np.uint8]:
        image = source(self.document.json["textures"][number])
        key = (-1 if image is None else image, factor)
        if key not in self._tinted:
            plain = pictures.GREY if image is None else self._image(image)
            self._tinted[key] = pictures.tinted(plain, factor)
        return self._tinted[key]

    def _image(self, number: int) -> NDArray[np.uint8]:
        if number not in self._images:
            where = f"{self.document.path}: image {number}"
            try:
                data = self.document.image(number)
            except OSError as error:
                log.warning("%s cannot be read (%s), grey instead", where, error)
                self._images[number] = pictures.GREY
            else:
                self._images[number] = pictures.decode(data, where)
        return self._images[number]


def base_colour(material: Json) -> tuple[list[float], Json | None]:
    """The colour factor (4 numbers, red first) of a material, and its reference to a texture, if it has one."""
    specular = material.get("extensions", {}).get(_SPECULAR)
    if specular is not None:  # it replaces the material's other description (specification of the extension)
        return _four(specular.get("diffuseFactor")), specular.get("diffuseTexture")
    plain = material.get("pbrMetallicRoughness", {})
    return _four(plain.get("baseColorFactor")), plain.get("baseColorTexture")


def source(texture: Json) -> int | None:
    """The number of a texture's image; None = it has none."""
    if "source" in texture:
        return int(texture["source"])
    extensions: dict[str, Any] = texture.get("extensions", {})
    found = [extensions[name]["source"] for name in SOURCES if "source" in extensions.get(name, {})]
    return int(found[0]) if found else None


def uv_matrix(transform: Json) -> NDArray[np.float64]:
    """(2, 3) of KHR_texture_transform: scale, then turn, then shift; (0, 0) is the top left corner."""
    (du, dv), (su, sv) = transform.get("offset", (0, 0)), transform.get("scale", (1, 1))
    cos, sin = np.cos(transform.get("rotation", 0)), np.sin(transform.get("rotation", 0))
    return np.array([[cos * su, sin * sv, du], [-sin * su, cos * sv, dv]])


def _visible(material: Json, alpha: float, *, has_texture: bool) -> bool:
    """Whether anything of a material shows, as far as its alpha factor says."""
    mode = material.get("alphaMode", "OPAQUE")
    if mode == "MASK" and not has_texture:
        return bool(alpha >= material.get("alphaCutoff", 0.5))
    return bool(mode == "OPAQUE" or alpha > 0)


def _four(factor: list[float] | None) -> list[float]:
    return [*(factor or ()), 1.0, 1.0, 1.0, 1.0][:4]
