"""pyspark.daemon with torch imported already: the workers of the shared session are forked from it, so that a test that
ends a worker does not cost the next one several seconds of imports. Elsewhere (test_clusters.py) it is Spark's own."""

import contextlib
import runpy

import sparkdl.columns
import sparkdl.score.udf
import sparkdl.train.loop  # noqa: F401

with contextlib.suppress(ImportError):
    import horovod.torch  # noqa: F401

if __name__ == "__main__":
    runpy.run_module("pyspark.daemon", run_name="__main__")
