"""What the scoring benchmarks score: tables of numbers, of mixed columns, of JPEG files and of texts, each with its network.

Every network gives one number a row. A table has the column ``id``, from 0, and the work's own. Shapes: B rows of a batch,
L tokens of its longest text.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from sparkdl.preprocess import Image
from sparkdl.signature import Signature, TensorSpec

FEATURES = 50
CATEGORIES = (10, 50, 100, 500, 1_000, 5_000, 20_000, 100_000)
NUMBERS = 12
IMAGE, DISTINCT_IMAGES = (3, 224, 224), 1_000
TOKENS, SHORTEST, LONGEST = 20_000, 5, 200
FILES = 8

warnings.filterwarnings("ignore", message="The given NumPy array is not writable")  # nobody writes to it


@dataclass(frozen=True, eq=False)
class Work:
    """rows: in full and in a quick run. group: rows of a row group. network: makes the module, the same each time.

    data: ``(rows, random) -> columns``.
    tensors: the network's arguments out of the columns' values, as pandas and numpy hand them to a UDF.
    batch: rows of a peer's forward pass; tuned: what bare chooses from.
    fed, shapes: what predict_batch_udf is called with, as SQL, and its input_tensor_shapes.
    touched: SQL that needs all columns read and computes next to nothing.
    lengths: whether rows are of varying length, and bare puts those of like length together.
    """

    name: str
    rows: tuple[int, int]
    group: int
    network: Callable[[], nn.Module]
    inputs: tuple[TensorSpec, ...]
    data: Callable[[int, np.random.Generator], dict[str, pa.Array]]
    tensors: Callable[..., tuple[Tensor, ...]]
    batch: int
    tuned: tuple[int, ...]
    fed: tuple[str, ...]
    touched: str
    shapes: list[list[int] | None] | None = None
    lengths: bool = False

    @property
    def signature(self) -> Signature:
        return Signature(self.inputs)

    @property
    def columns(self) -> tuple[str, ...]:
        return self.signature.columns

    def write(self, folder: Path, rows: int, files: int = FILES) -> None:
        for i in range(files):
            first, end = (rows * k // files for k in (i, i + 1))
            columns = self.data(end - first, np.random.default_rng(i))
            table = pa.table({"id": np.arange(first, end), **columns})
            pq.write_table(table, folder / f"{i}.parquet", row_group_size=self.group)

    def from_arrow(self, batch: pa.RecordBatch) -> tuple[Tensor, ...]:
        """The arguments as a hand-written mapInArrow or a bare loop makes them: lists of numbers without a copy a row."""
        columns = [batch.column(name) for name in self.columns]
        if self is MLP:
            return (torch.from_numpy(columns[0].flatten().to_numpy().reshape(-1, FEATURES)),)
        return self.tensors(*(column.to_numpy(zero_copy_only=False) for column in columns))


class Column(nn.Module):
    """(B, 1) -> (B,)"""

    def forward(self, x: Tensor) -> Tensor:
        return x.squeeze(1)


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(FEATURES, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 1), Column()
    ).eval()


def numbers(rows: int, random: np.random.Generator) -> dict[str, pa.Array]:
    values = random.standard_normal((rows, FEATURES), dtype=np.float32)
    offsets = np.arange(rows + 1, dtype=np.int32) * FEATURES
    return {"features": pa.ListArray.from_arrays(offsets, values.ravel())}


def stacked(features: np.ndarray) -> tuple[Tensor, ...]:
    return (torch.from_numpy(features if features.ndim == 2 else np.stack(features)),)


class WideAndDeep(nn.Module):
    """A linear model of numbers and categories beside an MLP of numbers and embeddings."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.register_buffer("first", torch.tensor([0, *np.cumsum(CATEGORIES)[:-1]]))
        self.wide = nn.Linear(NUMBERS, 1)
        self.weights = nn.Embedding(sum(CATEGORIES), 1)
        self.embeddings = nn.Embedding(sum(CATEGORIES), width)
        self.deep = nn.Sequential(
            nn.Linear(NUMBERS + width * len(CATEGORIES), 256),
            nn.ReLU(),
            nn.Linear(256, 64),
            nn.ReLU(),
            nn.Linear(64, 1),
        )

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        at = categories + self.first
        deep = self.deep(torch.cat([numbers, self.embeddings(at).flatten(1)], 1))
        return (self.wide(numbers) + self.weights(at).sum(1) + deep).squeeze(1)


def wide_and_deep() -> nn.Module:
    torch.manual_seed(0)
    return WideAndDeep().eval()


def mixed(rows: int, random: np.random.Generator) -> dict[str, pa.Array]:
    """Numbers, and categories of which the first are frequent."""
    found = {f"x{i:02}": random.standard_normal(rows, dtype=np.float32) for i in range(NUMBERS)}
    for i, size in enumerate(CATEGORIES):
        found[f"c{i}"] = (size * random.random(rows) ** 3).astype(np.int32)
    return {name: pa.array(values) for name, values in found.items()}


def split(*columns: np.ndarray) -> tuple[Tensor, ...]:
    """Of 20 columns, or of one array (B, 20)."""
    of = columns if len(columns) > 1 else columns[0].T
    return tuple(
        torch.from_numpy(np.stack(part, axis=1).astype(dtype, copy=False))
        for part, dtype in ((of[:NUMBERS], np.float32), (of[NUMBERS:], np.int64))
    )


class Scaled(nn.Module):
    """Bytes as floats of ImageNet's mean and deviation."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1))
        self.register_buffer("deviation", torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return (images.float() - self.mean) / self.deviation


def resnet() -> nn.Module:
    from torchvision.models import resnet18

    torch.manual_seed(0)
    return nn.Sequential(Scaled(), resnet18(weights=None, num_classes=1), Column()).eval()


def jpegs(rows: int, random: np.random.Generator) -> dict[str, pa.Array]:
    """Smooth colours with edges and grain, about as large as photographs of that size; repeated if very many."""
    from PIL import Image as pillow

    def drawn() -> bytes:
        pixels = np.zeros((*IMAGE[1:], 3), np.float32)
        for side in (4, 14, 56):
            patches = random.normal(0, 55 / np.sqrt(side), (side, side, 3)).astype(np.float32)
            scaled = [pillow.fromarray(patches[..., k]).resize(IMAGE[1:], pillow.Resampling.BICUBIC) for k in range(3)]
            pixels += np.stack(scaled, axis=-1) * 2
        x, y, width, height = random.integers(20, 110, 4)
        pixels[y : y + height, x : x + width] += random.normal(0, 40, 3)
        pixels += 128 + random.normal(0, 5, pixels.shape)
        file = io.BytesIO()
        pillow.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=85)
        return file.getvalue()

    distinct = [drawn() for _ in range(min(rows, DISTINCT_IMAGES // FILES))]
    return {"image": pa.array([distinct[i % len(distinct)] for i in range(rows)], pa.binary())}


def decoded(images: np.ndarray) -> tuple[Tensor, ...]:
    """In the order of bytes that decoding gives, (B, H, W, 3), by which convolutions are faster than by (B, 3, H, W)."""
    from PIL import Image as pillow

    pixels = [np.asarray(pillow.open(io.BytesIO(content)).convert("RGB")) for content in images]
    return (torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2),)


class Block(nn.Module):
    """Attention and an MLP, each after a norm and added to what it was given."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.projected, self.joined = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.widened, self.narrowed = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        rows, length, width = x.shape
        parts = self.projected(self.norms[0](x)).view(rows, length, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        found = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=seen)
        x = x + self.joined(found.transpose(1, 2).reshape(rows, length, width))
        return x + self.narrowed(nn.functional.gelu(self.widened(self.norms[1](x))))


class Encoder(nn.Module):
    """A small Transformer; the mean over a text's tokens becomes one number."""

    def __init__(self, width: int = 128, layers: int = 2, heads: int = 4) -> None:
        super().__init__()
        self.embedding = nn.Embedding(TOKENS, width)
        self.register_buffer("frequencies", 200.0 ** -torch.linspace(0, 1, width // 2))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.head = nn.Linear(width, 1)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        angles = torch.arange(tokens.shape[1], device=tokens.device).unsqueeze(1) * self.frequencies
        x = self.embedding(tokens) + torch.cat([angles.sin(), angles.cos()], 1)
        for block in self.blocks:
            x = block(x, mask[:, None, None, :])
        weights = mask.unsqueeze(2).to(x.dtype)
        return self.head((x * weights).sum(1) / weights.sum(1)).squeeze(1)


def encoder() -> nn.Module:
    torch.manual_seed(0)
    return Encoder().eval()


def texts(rows: int, random: np.random.Generator) -> dict[str, pa.Array]:
    """Token numbers from 1; most texts are short, a few have all the tokens they may."""
    lengths = random.lognormal(3.4, 0.8, rows).clip(SHORTEST, LONGEST).astype(np.int32)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    tokens = 1 + ((TOKENS - 1) * random.random(offsets[-1]) ** 3).astype(np.int32)
    return {"tokens": pa.ListArray.from_arrays(offsets, tokens)}


def padded(tokens: np.ndarray, *_: Any) -> tuple[Tensor, ...]:
    """To the longest of them, with a mask."""
    lengths = np.fromiter(map(len, tokens), np.int64, len(tokens))
    mask = np.arange(lengths.max(initial=0)) < lengths[:, None]
    numbers = np.zeros(mask.shape, np.int64)
    numbers[mask] = np.concatenate(tokens)
    return torch.from_numpy(numbers), torch.from_numpy(mask)


def scalars(name: str, dtype: str, columns: list[str], kind: str) -> TensorSpec:
    return TensorSpec(name, dtype, (len(columns),), tuple(columns), (kind,) * len(columns))


_NUMBERS = [f"x{i:02}" for i in range(NUMBERS)]
_CATEGORIES = [f"c{i}" for i in range(len(CATEGORIES))]
MLP = Work(
    "mlp", (2_000_000, 400_000), 65_536, mlp,
    (TensorSpec("features", "float32", (FEATURES,), ("features",), ("array<float>",)),),
    numbers, stacked, batch=4096, tuned=(512, 1024, 2048, 4096, 16_384), fed=("features",), shapes=[[FEATURES]],
    touched="size(features)",
)  # fmt: skip
WIDE_DEEP = Work(
    "wide-deep", (200_000, 100_000), 16_384, wide_and_deep,
    (scalars("numbers", "float32", _NUMBERS, "float"), scalars("categories", "int64", _CATEGORIES, "integer")),
    mixed, split, batch=4096, tuned=(512, 1024, 2048, 4096, 16_384),
    fed=(f"struct({', '.join([*_NUMBERS, *_CATEGORIES])})",), touched=" + ".join([*_NUMBERS, *_CATEGORIES]),
)  # fmt: skip
IMAGES = Work(
    "images", (20_000, 128), 256, resnet,
    (TensorSpec("image", "uint8", IMAGE, ("image",), ("binary",), preprocess=Image(height=224, width=224)),),
    jpegs, decoded, batch=32, tuned=(4, 8, 16, 32, 64), fed=("image",), touched="length(image)",
)  # fmt: skip
TEXTS = Work(
    "texts", (50_000, 2_000), 4096, encoder,
    (TensorSpec("tokens", "int64", (-1,), ("tokens",), ("array<integer>",)),
     TensorSpec("mask", "bool", (-1,), mask_of="tokens")),
    texts, padded, batch=256, tuned=(16, 32, 64, 128, 256), fed=("tokens", "size(tokens)"), shapes=[None, None],
    touched="size(tokens)", lengths=True,
)  # fmt: skip
WORKS = {work.name: work for work in (MLP, WIDE_DEEP, IMAGES, TEXTS)}
