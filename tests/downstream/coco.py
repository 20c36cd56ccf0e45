"""Tiny COCO 2017 in its genuine layout: people as bright dots, the left wrist red, the right one green."""

import json

import cv2
import numpy as np

LEFT, RIGHT = 9, 10


def blob(image, x, y, colour, sigma=5.0):
    """Add a Gaussian dot to (H, W, 3) float."""
    rows, cols = np.mgrid[: image.shape[0], : image.shape[1]]
    image += np.exp(-((cols - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))[..., None] * np.array(colour, float)


def person(number, image_id, x, y, both=False):
    """All 17 joints at one place; or only the wrists, 24 pixels left and right of it."""
    places = np.zeros((17, 3))
    if both:
        places[LEFT], places[RIGHT] = (x + 24, y, 2), (x - 24, y, 1)
    else:
        places[:] = (x, y, 2)
    return {
        "id": number,
        "image_id": image_id,
        "category_id": 1,
        "bbox": [x - 45, y - 60, 90, 120],
        "area": 90 * 120 * 0.6,
        "iscrowd": 0,
        "keypoints": places.ravel().tolist(),
        "num_keypoints": int((places[:, 2] > 0).sum()),
        "segmentation": [],
    }


def make_coco(root, split="train", first=100, num=4, both=False, people=2):
    """`num` images of 320 x 260 pixels with `people` each; returns the annotations."""
    rng = np.random.default_rng(first)
    folder = root / f"{split}2017"
    folder.mkdir(parents=True)
    (root / "annotations").mkdir(exist_ok=True)
    images, annotations = [], []
    for image_id in range(first, first + num):
        image = np.zeros((260, 320, 3))
        for place in range(people):
            x, y = 80 + 150 * place + rng.uniform(-20, 20), 130 + rng.uniform(-40, 40)
            annotations.append(person(1000 * image_id + place, image_id, x, y, both))
            dots = [(x + 24, (255, 0, 0)), (x - 24, (0, 255, 0))] if both else [(x, (255, 255, 255))]
            for across, colour in dots:
                blob(image, across, y, colour)
        name = f"{image_id:012d}.jpg"
        cv2.imwrite(str(folder / name), image.clip(0, 255).astype(np.uint8)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 100])
        images.append({"id": image_id, "file_name": name, "height": 260, "width": 320, "license": 1})
    found = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}
    path = root / "annotations" / f"person_keypoints_{split}2017.json"
    path.write_text(json.dumps(found))
    return path
