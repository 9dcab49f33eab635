"""Streams: micro-batches scored once each, by a model that can be swapped while the query runs."""
