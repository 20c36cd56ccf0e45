"""How a data set lies on disk: names, shards, indexes, manifest. The format: docs/shard-format.md."""
