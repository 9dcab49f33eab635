"""Scoring in Spark's own JVM, by ONNX Runtime: no Python worker, one record at a time."""
