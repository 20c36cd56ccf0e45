"""Where views come from: one module per family of data sets, one protocol (`base`), one table (`registry`)."""
