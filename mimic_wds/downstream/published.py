"""Published numbers to print beside ours: Tables 1 to 3 of MIMIC (arXiv 2306.15128), and what its logs add.

None: not in the paper's text. The rows of one table need not be of one pipeline: the 85.1 of MAE on ImageNet equals a
number that MultiMAE (arXiv 2204.01678) had published, while users of that pipeline report about 89 for several
backbones, and MIMIC's own runs of the CroCo model, the ones here, gave 84.66 and 90.19 where CroCo's paper has 85.20
and 85.60.
"""

from typing import NamedTuple


class Published(NamedTuple):
    """A row of Tables 1 to 3."""

    model: str
    encoder: str  #: "fine-tuned" or "frozen"
    data: str  #: pretraining set
    depth_delta1: float | None  #: NYUv2, per cent
    normals_l1: float | None  #: Taskonomy, L1 x 1000
    segmentation_miou: float | None = None  #: ADE20K, per cent
    pose_ap: float | None = None  #: COCO, per cent
    probe_top1: float | None = None  #: ImageNet-1K, per cent


ROWS = (
    Published("DINO", "fine-tuned", "ImageNet-1K", 81.45, 65.64),
    Published("MAE", "fine-tuned", "ImageNet-1K", 85.1, 59.20, 46.10, 74.90, 67.45),
    Published("MAE", "frozen", "MIMIC-3M", 80.65, 68.97),
    Published("MAE", "fine-tuned", "MV-Habitat", 79.00, 59.76, 40.30, None, 32.50),
    Published("MAE", "fine-tuned", "MIMIC-3M", 85.32, 58.72, 40.54, 69.13, 39.86),
    Published("DINO", "frozen", "MIMIC-3M", 77.98, None),
    Published("DINO", "fine-tuned", "MIMIC-3M", 78.67, None),
    Published("CroCo", "frozen", "MV-Habitat", 84.66, 64.58),
    Published("CroCo", "frozen", "MIMIC-3M", 85.81, 61.7),
    Published("CroCo", "fine-tuned", "MV-Habitat", 90.19, 54.13, 40.60, 66.50, 37.00),
    Published("CroCo", "fine-tuned", "MIMIC-1M", 89.46, 57.12, 38.45),
    Published("CroCo", "fine-tuned", "MIMIC-3M", 91.79, 53.02, 42.18, 72.80, 39.64),
)

#: What a table or figure shows and the paper's text does not say.
NOT_PUBLISHED = (
    "Table 4 (reconstruction): absolute FIDs and losses; only the difference of 12.65 is in the text.",
    "Table 7 (resampled test sets): all values.",
    "Figures 3a and 3b (few-shot): the numbers of images and all values.",
)


def value(row: Published, task: str) -> float | None:
    """What a row says of a task by its name; None for tasks that the paper has not."""
    return {
        "depth": row.depth_delta1,
        "normals": row.normals_l1,
        "segmentation": row.segmentation_miou,
        "pose": row.pose_ap,
        "probe": row.probe_top1,
    }.get(task)
