"""examples/speech-recognition without sparkdl's training and scoring: one process, the same network, data, recipe and
decoder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
import yaml
from torch import Tensor, nn
from torchmetrics.functional.text import word_error_rate

from sparkdl.decode.ctc import CtcDecoder
from sparkdl.preprocess import Audio, Characters
from sparkdl.ready.acoustics import Acoustics, ctc_loss

EXAMPLE = Path(__file__).resolve().parents[3] / "examples/speech-recognition"
sys.path.insert(0, str(EXAMPLE.parent))
from run import module  # noqa: E402

RANKS = 2  # of the example, whose batches these are as large as


def settings(size: str) -> dict[str, Any]:
    """The example's, for a size."""
    changes = {
        key.removeprefix("estimator."): value
        for key, value in module(EXAMPLE / "data.py").SETTINGS.get(size, {}).items()
    }
    return dict(yaml.safe_load((EXAMPLE / "train.yaml").read_text())["estimator"], **changes)


def figure(folder: Path, size: str) -> float:
    """The word error rate of the tables in ``folder``."""
    torch.manual_seed(0)
    own = settings(size)
    train, test = pq.read_table(folder / "train"), pq.read_table(folder / "test")
    audio = Audio(rate=own["rate"], seconds=own["seconds"])
    alphabet = "".join(sorted(set("".join(train["transcript"].to_pylist()))))
    text = Characters(alphabet=alphabet, length=own["textLength"])
    waves, heard = (torch.from_numpy(audio.read({"": rows["audio"].combine_chunks()})) for rows in (train, test))
    said = torch.from_numpy(text.read({"": train["transcript"].combine_chunks()}))
    shape = {name: own[name] for name in ("mels", "hidden", "layers")}
    model = trained(Acoustics(own["rate"], len(alphabet) + 1, **shape), waves, said, own).eval()
    decoder, found = CtcDecoder(alphabet=alphabet, beam=own["beam"]), []
    with torch.no_grad():
        for part in heard.split(64):
            outputs = {name: tensor.numpy() for name, tensor in model(part).items()}
            found += decoder.decode(outputs, {})["prediction"].to_pylist()
    return float(word_error_rate(found, test["transcript"].to_pylist()))


def trained(model: nn.Module, waves: Tensor, said: Tensor, own: dict[str, Any]) -> nn.Module:
    """The model after all epochs."""
    size, epochs, peak = RANKS * own["batchSize"], own["epochs"], own["schedulerParams"]["max_lr"]
    optimizer = torch.optim.Adam(model.parameters(), lr=peak)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, peak, total_steps=epochs * -(-len(waves) // size), pct_start=own["schedulerParams"]["pct_start"]
    )
    for _ in range(epochs):
        for batch in torch.randperm(len(waves)).split(size):
            optimizer.zero_grad()
            ctc_loss(model(waves[batch]), said[batch]).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    return model


if __name__ == "__main__":
    print(f"wer {figure(Path(sys.argv[1]), sys.argv[2]):.4f}")
