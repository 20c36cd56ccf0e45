"""MIMIC's layout made on the spot: real JPEGs, maps written by numpy, in a tree or in a zip."""

import io
import zipfile

import cv2
import numpy as np

from mimic_wds.executors.serial import SerialExecutor
from mimic_wds.importing.registry import make_format
from mimic_wds.importing.run import Target, import_data_set

SIZE, PATCHES = 224, 196


def jpeg(seed=0, size=(SIZE, SIZE)):
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (size[0] // 8, size[1] // 8, 3), dtype=np.uint8)
    return cv2.imencode(".jpg", cv2.resize(small, size[::-1]), [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


def a_map(seed=0, length=110):
    rng = np.random.default_rng(seed)
    keys = np.sort(rng.permutation(PATCHES)[:length]).tolist()
    return dict(zip(keys, rng.permutation(PATCHES)[:length].tolist(), strict=True))


def npy(content):
    file = io.BytesIO()
    np.save(file, np.array(content, dtype=object), allow_pickle=True)
    return file.getvalue()


def pair_files(folder, seed=0, content=None):
    """The three files of a pair: {name: bytes}."""
    return {
        f"{folder}/0000.jpg": jpeg(2 * seed),
        f"{folder}/0001.jpg": jpeg(2 * seed + 1),
        f"{folder}/corresponding.npy": npy(a_map(seed) if content is None else content),
    }


def write_tree(root, files):
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def write_zip(path, files, method=zipfile.ZIP_DEFLATED):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def run_import(out, name, paths, size=0, recompute=False, executor=None, resume=False, **options):
    """Import and return the manifest."""
    chosen = make_format(name, [str(path) for path in paths], options)
    target = Target(out=out, name="set", size=size or chosen.default_size, kind=chosen.kind, recompute=recompute)
    return import_data_set(chosen, target, executor or SerialExecutor(), resume=resume)
