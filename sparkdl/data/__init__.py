"""From a DataFrame to batches: materialise, manifest, shard, read."""

from sparkdl.data.manifest import Dataset
from sparkdl.data.materialize import materialize

__all__ = ["Dataset", "materialize"]
