"""What is made of a model's outputs: labels, texts, boxes."""

from __future__ import annotations

from sparkdl.decode.base import KINDS, Decoder

__all__ = ["KINDS", "Decoder"]
