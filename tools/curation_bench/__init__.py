"""Parts of `tools/bench_curation.py`: pictures, both sides, ways below the floor, processes."""
