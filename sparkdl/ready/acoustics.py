"""From a waveform to the logits of characters, and their loss.

Shapes: B rows, N samples, T frames, M mel bands, H hidden, C the blank and the characters, S characters of a text.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WINDOW_S, HOP_S = 0.025, 0.010  # of a frame, as in Kaldi and Whisper
FLOOR = 1e-8  # of a band's energy: what 16 bits resolve, about
ENCODERS = ("gru", "transformer")


class LogMel(nn.Module):
    """Log-mel frames ``(B, M, T)`` of waveforms ``(B, N)``, each band with mean 0 and deviation 1 over the recording, 0
    behind its end; and how many frames each has, ``(B,)``: at least 1.

    A recording ends with its last sample that is not 0. Frames are of 25 ms, every 10 ms.
    """

    window: Tensor
    bands: Tensor

    def __init__(self, rate: int, mels: int) -> None:
        super().__init__()
        self.hop = round(rate * HOP_S)
        width = round(rate * WINDOW_S)
        self.size = 1 << (width - 1).bit_length()
        self.register_buffer("window", F.pad(torch.hann_window(width), (0, self.size - width)))
        self.register_buffer("bands", mel_bands(rate, self.size, mels))

    def forward(self, wave_BN: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        places_N = torch.arange(1, wave_BN.shape[1] + 1, device=wave_BN.device)
        samples_B = (places_N * (wave_BN != 0)).amax(dim=1)
        wave_BN = F.pad(wave_BN, (0, self.size))
        spectrum = torch.stft(
            wave_BN, self.size, self.hop, window=self.window, center=False, return_complex=True
        )  # fmt: skip
        energy = torch.view_as_real(spectrum).square().sum(dim=-1)
        mel_BMT = torch.log(torch.matmul(self.bands, energy) + FLOOR)
        frames_B = ((samples_B + self.hop - 1) // self.hop).clamp(1, mel_BMT.shape[2])
        mask_B1T = before(frames_B, mel_BMT.shape[2]).unsqueeze(1)
        count_B11 = frames_B.view(-1, 1, 1)
        mean = (mel_BMT * mask_B1T).sum(dim=2, keepdim=True) / count_B11
        centred = (mel_BMT - mean) * mask_B1T
        deviation = (centred.square().sum(dim=2, keepdim=True) / count_B11).sqrt()
        return centred / (deviation + 0.1), frames_B


def mel_bands(rate: int, size: int, mels: int) -> Tensor:
    """``(mels, size // 2 + 1)``: the weights of a spectrum's bins in triangles that lie evenly on the mel scale, from 20
    Hz to half the rate, each as wide as its two neighbours' middles; 2595 log10(1 + f / 700) (O'Shaughnessy, 1987)."""
    low, high = (2595 * math.log10(1 + f / 700) for f in (20.0, rate / 2))
    edges = 700 * (10 ** (torch.linspace(low, high, mels + 2, dtype=torch.float64) / 2595) - 1)
    bins = torch.linspace(0, rate / 2, size // 2 + 1, dtype=torch.float64)
    left, middle, right = (edges[i : mels + i].unsqueeze(1) for i in range(3))
    return torch.minimum((bins - left) / (middle - left), (right - bins) / (right - middle)).clamp(min=0).float()


def before(frames_B: Tensor, length: int) -> Tensor:
    """Where there is a frame, bool ``(B, length)``."""
    return torch.arange(length, device=frames_B.device) < frames_B.unsqueeze(1)


class SpecAugment(nn.Module):
    """Blanks one stretch of time and one of bands of each recording while training (Park et al., 2019)."""

    def __init__(self, time: float = 0.1, bands: float = 0.2) -> None:
        super().__init__()
        self.shares = {2: time, 1: bands}

    def forward(self, mel_BMT: Tensor) -> Tensor:
        """The same shape."""
        if not self.training:
            return mel_BMT
        for axis, share in self.shares.items():
            size, rows = mel_BMT.shape[axis], mel_BMT.shape[0]
            width_B1, start_B1 = torch.rand(2, rows, 1, device=mel_BMT.device)
            width_B1 = width_B1 * share * size
            start_B1 = start_B1 * (size - width_B1)
            place = torch.arange(size, device=mel_BMT.device)
            kept = (place < start_B1) | (place >= start_B1 + width_B1)
            mel_BMT = mel_BMT * kept.unsqueeze(3 - axis)
        return mel_BMT


class BothWays(nn.Module):
    """A GRU in each direction, ``(B, T, H)`` to ``(B, T, H)``; the one that goes back starts at each row's own end."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.forth = nn.GRU(width, width // 2, batch_first=True)
        self.back = nn.GRU(width, width // 2, batch_first=True)

    def forward(self, x_BTH: Tensor, frames_B: Tensor) -> Tensor:
        """What is behind a row's end is of no meaning."""
        back = turned(self.back(turned(x_BTH, frames_B))[0], frames_B)
        return torch.cat([self.forth(x_BTH)[0], back], dim=2)


def turned(x_BTH: Tensor, frames_B: Tensor) -> Tensor:
    """Each row's frames in reverse; those behind its end stay where they are."""
    place_T = torch.arange(x_BTH.shape[1], device=x_BTH.device)
    end_B1 = frames_B.unsqueeze(1)
    place_BT = torch.where(place_T < end_B1, end_B1 - 1 - place_T, place_T)
    return x_BTH.gather(1, place_BT.unsqueeze(2).expand_as(x_BTH))


class Attention(nn.Module):
    """A Transformer's layer that attends to a row's own frames."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(width, 4, 4 * width, 0.1, batch_first=True, norm_first=True)

    def forward(self, x_BTH: Tensor, frames_B: Tensor) -> Tensor:
        """What is behind a row's end is of no meaning."""
        out: Tensor = self.layer(x_BTH, src_key_padding_mask=~before(frames_B, x_BTH.shape[1]))
        return out


class Acoustics(nn.Module):
    """``logits`` ``(B, T, C)``, the blank first, and ``frames`` ``(B,)``, of waveforms ``(B, N)``; a frame is 20 ms.

    Log-mel, two convolutions over time, of which the second halves the frames, and ``layers`` of the encoder.
    """

    def __init__(
        self, rate: int, classes: int, encoder: str = "gru", mels: int = 40, hidden: int = 128, layers: int = 2,
        augment: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.mel = LogMel(rate, mels)
        self.augment = SpecAugment() if augment else nn.Identity()
        self.first = nn.Conv1d(mels, hidden, 5, padding=2)
        self.second = nn.Conv1d(hidden, hidden, 5, stride=2, padding=2)
        self.norms = nn.ModuleList([nn.LayerNorm(hidden), nn.LayerNorm(hidden)])
        self.has_positions = encoder == "transformer"
        layer = Attention if encoder == "transformer" else BothWays
        self.layers = nn.ModuleList([layer(hidden) for _ in range(layers)])
        self.head = nn.Linear(hidden, classes)

    def forward(self, wave_BN: Tensor) -> dict[str, Tensor]:
        """See the class."""
        mel_BMT, frames_B = self.mel(wave_BN)
        x_BHT = self.augment(mel_BMT)
        for number, convolution in enumerate((self.first, self.second)):
            x_BHT = F.relu(self.norms[number](convolution(x_BHT).transpose(1, 2)).transpose(1, 2))
            frames_B = (frames_B + number) // (number + 1)
            x_BHT = x_BHT * before(frames_B, x_BHT.shape[2]).unsqueeze(1)  # behind the end, as if it were padding
        x_BTH = x_BHT.transpose(1, 2)
        if self.has_positions:
            x_BTH = x_BTH + positions(x_BTH.shape[1], x_BTH.shape[2]).to(x_BTH)
        for layer in self.layers:
            x_BTH = layer(x_BTH, frames_B)
        return {"logits": self.head(x_BTH), "frames": frames_B}


def positions(length: int, width: int) -> Tensor:
    """Sines and cosines ``(length, width)`` of the places (Vaswani et al., 2017, 3.5)."""
    place = torch.arange(length).unsqueeze(1)
    angle = place * torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def ctc_loss(outputs: dict[str, Tensor], label_BS: Tensor, reduction: str = "mean") -> Tensor:
    """Connectionist temporal classification (Graves et al., 2006), per character of the text.

    label_BS: character ids from 1, 0 behind the end. reduction: ``none`` for a loss a row. A text that has more
    characters than the recording has frames cannot be learnt and counts as 0.
    """
    steps_TBC = outputs["logits"].float().log_softmax(dim=2).transpose(0, 1)
    length_B = (label_BS > 0).sum(dim=1)
    loss_B = F.ctc_loss(steps_TBC, label_BS, outputs["frames"], length_B, reduction="none", zero_infinity=True)
    loss_B = loss_B / length_B.clamp(min=1)
    return loss_B.mean() if reduction == "mean" else loss_B
