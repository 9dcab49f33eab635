"""From a DataFrame to batches: materialise, manifest, shard, read."""
