"""The textures of the house: photographs and surfaces that two Python packages carry, and patterns drawn over them.

Nothing is downloaded, and the packages are not imported (importing miniworld needs a display): only their files are
read. `pip install 'mimic-wds[demo]'` brings both.

Licences:

- miniworld 2.1 (Apache-2.0): the surfaces of `SURFACES`, and `PORTRAITS`: details of paintings, named by their
  painters, all of whom died more than a hundred years ago.
- scikit-image (BSD-3-Clause; the pictures are not under it): `PHOTOGRAPHS`. Its data module says of them: CC0: brick,
  camera, chelsea, coffee, grass, gravel, retina; public domain: astronaut (NASA), hubble_deep_field (NASA), rocket
  (SpaceX), text; "no known copyright restrictions": coins, ihc.
- Wallpapers, carpets and book spines are drawn here.

SIFT finds nothing on a bare wall, and repeated tiles fail the ratio test: so wallpapers and carpets carry large random
patterns that do not repeat within a room's length.
"""

import importlib.util
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

Texture: TypeAlias = NDArray[np.uint8]
Colour: TypeAlias = tuple[int, int, int]

#: What to type when a package or a file of it is missing.
INSTALL = "pip install 'mimic-wds[demo]'"

#: name -> file in miniworld's texture folder
SURFACES = {
    "brick": "brick_wall_1.png",
    "cardboard": "cardboard_1.png",
    "ceiling": "ceiling_tiles_1.png",
    "cinder": "cinder_blocks_1.png",
    "concrete": "concrete_3.png",
    "door": "door_steel_brown.png",
    "drywall": "drywall_1.png",
    "marble": "marble_1.png",
    "metal": "door_steel_grey.png",
    "stucco": "stucco_1.png",
    "tiles": "floor_tiles_bw_1.png",
    "vent": "airduct_grate_1.png",
    "oak": "wood_1.png",
    "pine": "wood_2.png",
    "planks": "wood_planks_1.png",
}

#: Files in the folder "portraits" of miniworld's textures, without ".png".
PORTRAITS = (
    "alessandro_allori2",
    "alexandre_cabanel1",
    "alexey_petrovich_antropov1",
    "benoist_marie-guillemine1",
    "bouguereau_william-adolphe1",
    "carl_fredric_breda2",
    "cranach_lucas2",
    "delacroix_eugene_ferdinand_victor1",
    "domenikos_theotokopoulos1",
    "francesco_hayez1",
    "francisco_goya_lucientes1",
    "francisco_zurbaran1",
    "frederic_westin1",
    "giovanni_battista_tiepolo1",
    "giovanni_bellini1",
    "hans_holbein1",
    "hayez_francesco1",
    "henryk_siemiradzki1",
    "jean-baptiste-camille_corot1",
    "jean-leon_gerome2",
    "jean-leon_gerome4",
    "madrazo_garreta_raimundo1",
    "marie_bashkirtseff1",
    "paolo_veronese1",
    "regnault_henri1",
    "velazquez_diego1",
)

#: name -> file in scikit-image's data folder; all lie inside its wheel
PHOTOGRAPHS = {
    "astronaut": "astronaut.png",
    "bricks": "brick.png",
    "camera": "camera.png",
    "cat": "chelsea.png",
    "coffee": "coffee.png",
    "coins": "coins.png",
    "grass": "grass.png",
    "gravel": "gravel.png",
    "stars": "hubble_deep_field.jpg",
    "tissue": "ihc.png",
    "retina": "retina.jpg",
    "rocket": "rocket.jpg",
    "text": "text.png",
}

#: Pixels: what is loaded is scaled to powers of two no larger than this.
MAX_SIDE = 512

#: Metres that a wallpaper is long and high; its texture has four times as many columns as rows.
WALLPAPER_M = (10.4, 2.6)
WALLPAPER_PX = (2048, 512)

#: What books are bound in.
COVERS = ((132, 40, 38), (38, 62, 112), (44, 92, 62), (176, 132, 62), (92, 58, 40), (222, 214, 196), (70, 70, 78))


def load_textures(seed: int = 0) -> dict[str, Texture]:
    """All textures of the house by name, (h, w, 3) uint8 RGB. The same seed draws the same patterns.

    Raises ImportError with the install command when a package, or a file in it, is missing.
    """
    surfaces = _folder("miniworld", "textures")
    photographs = _folder("skimage", "data")
    textures = {name: _read(surfaces / file) for name, file in SURFACES.items()}
    textures |= {f"portrait{i}": _read(surfaces / "portraits" / f"{name}.png") for i, name in enumerate(PORTRAITS)}
    textures |= {name: _read(photographs / file) for name, file in PHOTOGRAPHS.items()}
    return textures | _drawn(textures, seed)


def _drawn(textures: dict[str, Texture], seed: int) -> dict[str, Texture]:
    """The textures that are made here."""
    rng = np.random.default_rng(seed)
    papers = {
        "paper_living": ("stucco", (196, 206, 186), ((96, 122, 84), (150, 92, 70), (214, 178, 96))),
        "paper_kitchen": ("marble", (226, 214, 190), ((190, 96, 62), (84, 110, 140), (120, 140, 80))),
        "paper_bedroom": ("drywall", (178, 192, 214), ((72, 92, 140), (226, 226, 232), (150, 108, 140))),
        "paper_hall": ("concrete", (214, 196, 170), ((130, 70, 52), (62, 82, 82), (232, 214, 150))),
        "paper_study": ("stucco", (150, 92, 84), ((226, 190, 140), (92, 52, 56), (196, 130, 96))),
    }
    drawn = {name: wallpaper(textures[base], ground, inks, rng) for name, (base, ground, inks) in papers.items()}
    drawn["carpet_red"] = carpet(textures["tissue"], (150, 62, 52), rng)
    drawn["carpet_blue"] = carpet(textures["tissue"], (62, 82, 140), rng)
    drawn["cloth_green"] = carpet(textures["gravel"], (96, 130, 92), rng)
    drawn["cloth_ochre"] = carpet(textures["grass"], (196, 150, 76), rng)
    drawn["leaves"] = np.clip(textures["grass"] * np.array((0.55, 0.95, 0.4)), 0, 255).astype(np.uint8)
    for i in range(3):
        drawn[f"books{i}"] = book_spines(rng)
    return drawn


def wallpaper(base: Texture, ground: Colour, inks: tuple[Colour, ...], rng: np.random.Generator) -> Texture:
    """A wallpaper of `WALLPAPER_PX`: leaves and blossoms of all sizes at random places on a tinted `base`."""
    width, height = WALLPAPER_PX
    grain = cv2.resize(base, (256, 256), interpolation=cv2.INTER_AREA).astype(np.float32)
    grain = np.tile(grain / grain.mean(), (height // 256, width // 256, 1))
    paper = np.clip(grain * np.array(ground), 0, 255).astype(np.uint8)
    for _ in range(900):
        ink = _shade(inks[rng.integers(len(inks))], rng)
        at = (int(rng.integers(width)), int(rng.integers(height)))
        _leaf(paper, at, ink, rng)
    return paper


def _leaf(paper: Texture, at: tuple[int, int], ink: Colour, rng: np.random.Generator) -> None:
    """Draw one leaf with its vein, or a blossom of five of them, around `at`."""
    length = int(rng.integers(6, 26))
    breadth, angle = max(2, int(length * rng.uniform(0.25, 0.6))), float(rng.uniform(0, 360))
    petals = 5 if rng.random() < 0.3 else 1
    for petal in range(petals):
        turn = angle + petal * 360 / petals
        direction = np.array([np.cos(np.radians(turn)), np.sin(np.radians(turn))])
        centre = np.rint(at + direction * length).astype(int).tolist()
        tip = np.rint(at + direction * 2 * length).astype(int).tolist()
        cv2.ellipse(paper, centre, (length, breadth), turn, 0, 360, ink, -1, cv2.LINE_AA)
        cv2.line(paper, at, tip, tuple(c * 3 // 5 for c in ink), 1, cv2.LINE_AA)
    if petals > 1:
        cv2.circle(paper, at, breadth, (240, 220, 150), -1, cv2.LINE_AA)


def carpet(base: Texture, tint: Colour, rng: np.random.Generator) -> Texture:
    """A woven cloth (512, 512, 3): the weave of `base` in one tint, random lozenges, and borders all round."""
    weave = cv2.resize(base, (512, 512), interpolation=cv2.INTER_AREA).astype(np.float32)
    cloth = np.clip((0.5 + 0.5 * weave / weave.mean()) * np.array(tint), 0, 255).astype(np.uint8)
    for _ in range(140):
        x, y, size = (int(v) for v in (*rng.integers(40, 472, 2), rng.integers(5, 26)))
        corners = np.array([(x - size, y), (x, y - 2 * size // 3), (x + size, y), (x, y + 2 * size // 3)])
        ink = tuple(int(c) for c in rng.integers(40, 240, 3) * 0.6 + np.array(tint) * 0.4)
        cv2.fillPoly(cloth, [corners], ink, cv2.LINE_AA)
        cv2.circle(cloth, (x, y), max(1, size // 4), _shade(tint, rng), -1, cv2.LINE_AA)
    for inset, width in ((8, 5), (22, 3), (32, 7)):
        cv2.rectangle(cloth, (inset, inset), (511 - inset, 511 - inset), _shade((225, 205, 170), rng), width)
    return cloth


def book_spines(rng: np.random.Generator) -> Texture:
    """One shelf board of books (128, 512, 3), upright, of all widths, heights and colours, with bands as titles."""
    shelf = np.full((128, 512, 3), 36, np.uint8)
    x = 2
    while x < 500:
        width, top = int(rng.integers(9, 26)), int(rng.integers(4, 40))
        cover = _shade(COVERS[rng.integers(len(COVERS))], rng)
        cv2.rectangle(shelf, (x, top), (x + width - 2, 127), cover, -1)
        for _ in range(int(rng.integers(1, 5))):
            y = int(rng.integers(top + 6, 118))
            ink = _shade((215, 200, 160), rng)
            cv2.rectangle(shelf, (x + 2, y), (x + width - 5, y + int(rng.integers(1, 12))), ink, -1)
        x += width
    return shelf


def _shade(colour: Colour, rng: np.random.Generator) -> Colour:
    """The colour, somewhat lighter or darker."""
    red, green, blue = np.clip(np.array(colour) * rng.uniform(0.75, 1.2), 0, 255).astype(int).tolist()
    return red, green, blue


def _folder(package: str, name: str) -> Path:
    """A folder inside an installed package, found without importing the package."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(f"the house needs the package {package}; install it with: {INSTALL}")
    return Path(spec.submodule_search_locations[0]) / name


def _read(path: Path) -> Texture:
    """An image file as RGB, scaled down so that its longer side is at most MAX_SIDE."""
    if not path.is_file():
        raise ImportError(f"{path}: the house needs this file of an installed package; reinstall it with: {INSTALL}")
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if bgr is None:
        raise ImportError(f"{path}: cannot be decoded; reinstall it with: {INSTALL}")
    scale = min(1.0, MAX_SIDE / max(bgr.shape[:2]))
    small = cv2.resize(bgr, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else bgr
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2RGB), np.uint8)
