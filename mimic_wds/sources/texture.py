"""How much texture a picture has."""

import cv2

from mimic_wds.pairs import Image


def laplacian_variance(image: Image) -> float:
    """How much texture an (H, W, 3) image has: the variance of its grey Laplacian; blurred pictures have little.

    MIMIC's walk through 3D scenes asks for 1000 at 224 x 224 (arXiv 2306.15128, appendix C.1).
    """
    return float(cv2.Laplacian(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.CV_64F).var())
