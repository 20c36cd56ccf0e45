"""Data sets of other formats, made into ours: pairs that are published already are read where they lie and packed."""
