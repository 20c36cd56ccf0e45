"""mimic-wds: from videos, photographs and 3D scenes to pairs of views, shards and pretrained encoders."""

__version__ = "0.1.0"
