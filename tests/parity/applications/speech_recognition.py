"""examples/speech-recognition without sparkdl's training and scoring: one process, the same network, data and recipe."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
import yaml
from torch import Tensor, nn
from torchmetrics.functional.text import word_error_rate

from sparkdl.preprocess import Audio, Characters
from sparkdl.ready.acoustics import Acoustics, ctc_loss

EXAMPLE = Path(__file__).resolve().parents[3] / "examples/speech-recognition"
RANKS = 2  # of the example, whose batches these are as large as


def data() -> Any:
    """The example's module."""
    spec = importlib.util.spec_from_file_location("speech_recognition_data", EXAMPLE / "data.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = made
    spec.loader.exec_module(made)
    return made


def settings(size: str) -> dict[str, Any]:
    """The example's, for a size."""
    changes = {key.removeprefix("estimator."): value for key, value in data().SETTINGS.get(size, {}).items()}
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
    with torch.no_grad():
        found = [text for part in heard.split(64) for text in words(model(part), alphabet)]
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


def words(outputs: dict[str, Tensor], alphabet: str) -> list[str]:
    """The best class of each frame, without repeats and blanks."""
    rows = zip(outputs["logits"].argmax(dim=2), outputs["frames"], strict=True)
    return ["".join(alphabet[one - 1] for one in best[:frames].unique_consecutive() if one) for best, frames in rows]


if __name__ == "__main__":
    print(f"wer {figure(Path(sys.argv[1]), sys.argv[2]):.4f}")
