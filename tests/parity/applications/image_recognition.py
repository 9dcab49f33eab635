"""Image recognition in plain torch, one process: what sparkdl's ImageClassifier is compared with.

The same files, decoding, network and augmentation; a loop of its own. ``python image_recognition.py`` prints its accuracy.
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor, nn

from sparkdl.preprocess.augment import Augment
from sparkdl.ready.backbones import ImageNetwork, SmallConvNet

SIDE, CLASSES, BATCH, RATE = 16, 10, 32, 0.005
EPOCHS = {"smallest": 5, "small": 12}
MEAN, STD = [0.449], [0.226]


def figure(folder: Path, size: str) -> float:
    """Accuracy on ``folder/test`` after training on ``folder/train``."""
    torch.manual_seed(0)
    images, labels = tensors(folder / "train")
    augment = Augment([{"random_affine": {"degrees": 10, "translate": [0.08, 0.08]}}], (1, SIDE, SIDE))
    network = ImageNetwork(SmallConvNet(1, CLASSES), augment, MEAN, STD)
    optimizer = torch.optim.Adam(network.parameters())
    steps = EPOCHS[size] * -(-len(images) // BATCH)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=RATE, total_steps=steps)
    for _ in range(EPOCHS[size]):
        for rows in torch.randperm(len(images)).split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(images[rows]), labels[rows]).backward()
            optimizer.step()
            scheduler.step()
    images, labels = tensors(folder / "test")
    with torch.inference_mode():
        return float((network.eval()(images).argmax(1) == labels).float().mean())


def tensors(folder: Path) -> tuple[Tensor, Tensor]:
    """Images, ``uint8`` of shape ``(B, 1, SIDE, SIDE)``, and labels."""
    rows = pq.read_table(folder).to_pylist()
    size, how = (SIDE, SIDE), Image.Resampling.BILINEAR
    images = [np.asarray(Image.open(io.BytesIO(row["image"])).convert("L").resize(size, how)) for row in rows]
    return torch.from_numpy(np.stack(images))[:, None], torch.tensor([row["label"] for row in rows])


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[3] / "examples/image-recognition"))
    import data

    for size in EPOCHS:
        with tempfile.TemporaryDirectory() as folder:
            data.write(Path(folder), size)
            print(f"{size}: accuracy {figure(Path(folder), size):.4f}")
