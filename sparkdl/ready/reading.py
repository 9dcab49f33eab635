"""Modules that read texts. Tokens are int64, 0 where there is none; no row's output depends on padding.

Shapes: B rows, L tokens, D width, C classes, P passages.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LOWEST = -1e4  # the logit of a place where nothing can be
EMPTY = 1e-6
SHARPNESS = 10.0  # so that the weights of tokens are learnt as fast as their vectors


def heads_of(width: int) -> int:
    """Of a Transformer so wide, which must be a multiple of them: each has 32 numbers or somewhat more."""
    return max(1, width // 32)


class Attention(nn.Module):
    """A Transformer's block, normalised before each part (Xiong et al. 2020)."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.within = nn.LayerNorm(width), nn.LayerNorm(width)
        self.to_qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.feed = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.drop = nn.Dropout(dropout)

    def forward(self, x_BLD: Tensor, there_BL: Tensor) -> Tensor:
        """As large as ``x_BLD``; only tokens that are there are attended to."""
        qkv = self.to_qkv(self.before(x_BLD)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2], attn_mask=there_BL[:, None, None, :])
        x_BLD = x_BLD + self.drop(self.out(seen.transpose(1, 2).flatten(2)))
        return x_BLD + self.drop(self.feed(self.within(x_BLD)))


class Convolution(nn.Module):
    """A residual block of a convolution over ``2 * dilation`` tokens to each side, normalised before."""

    def __init__(self, width: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.conv = nn.Conv1d(width, width, 5, padding=2 * dilation, dilation=dilation)
        self.drop = nn.Dropout(dropout)

    def forward(self, x_BLD: Tensor, there_BL: Tensor) -> Tensor:
        """As large as ``x_BLD``."""
        inside = self.norm(x_BLD) * there_BL.unsqueeze(-1)
        return x_BLD + self.drop(F.gelu(self.conv(inside.transpose(1, 2)))).transpose(1, 2)


class Tower(nn.Module):
    """A text as one vector of length 1: the weighted mean of its tokens' vectors, with weights that are learnt."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, width, padding_idx=0)
        self.weight = nn.Embedding(tokens, 1)
        nn.init.zeros_(self.weight.weight)

    def forward(self, tokens_BL: Tensor, of_text_BL: Tensor) -> Tensor:
        """``(B, D)`` float."""
        weight_BL1 = F.softplus(SHARPNESS * self.weight(tokens_BL)) * of_text_BL.unsqueeze(-1)
        return F.normalize((self.embedding(tokens_BL) * weight_BL1).sum(1), dim=-1, eps=EMPTY)


class Reader(nn.Module):
    """Where in the context the answer to a question starts and ends; and both as vectors, to find contexts by.

    Takes what ``Text(offsets=True)`` makes of (question, context), ``(B, L, 3)``. As DrQA's reader (Chen et al. 2017) it
    knows which tokens of the context are in the question, and what of the question each of them is about.
    """

    marks: Tensor

    def __init__(self, tokens: int, marks: Sequence[int], width: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.register_buffer("marks", torch.tensor(list(marks)))
        self.embedding = nn.Embedding(tokens, width, padding_idx=0)
        self.asked = nn.ModuleList(Convolution(width, 1, dropout) for _ in range(2))
        self.mixed = nn.Linear(3 * width + 1, width)
        self.blocks = nn.ModuleList(Convolution(width, 2 ** (i % 4), dropout) for i in range(layers))
        self.norm, self.span = nn.LayerNorm(width), nn.Linear(width, 2)
        self.summary = nn.Linear(width, 1)
        self.drop = nn.Dropout1d(dropout)  # whole tokens: names that training did not see are like these
        self.tower = Tower(tokens, width)

    def forward(self, text_BL3: Tensor) -> dict[str, Tensor]:
        """``start``, ``end``: logits ``(B, L)``. ``place``: ``(B, L, 2)``, see Text. ``question``, ``context``: ``(B, D)``."""
        tokens_BL, place_BL2 = text_BL3[..., 0], text_BL3[..., 1:]
        context_BL = place_BL2[..., 0] >= 0
        is_text_BL = ~torch.isin(tokens_BL, self.marks)
        question_BL = is_text_BL & ~context_BL
        x_BLD = self.drop(self.embedding(tokens_BL))
        q_BLD = x_BLD
        for block in self.asked:
            q_BLD = block(q_BLD, question_BL)
        pair_BLL = torch.einsum("bid,bjd->bij", x_BLD, x_BLD) / x_BLD.shape[-1] ** 0.5
        aligned_BLD = _softmax(pair_BLL, question_BL[:, None, :]) @ q_BLD
        summary_BD = (_softmax(self.summary(q_BLD).squeeze(-1), question_BL).unsqueeze(-1) * q_BLD).sum(1)
        same_BLL = (tokens_BL[:, :, None] == tokens_BL[:, None, :]) & question_BL[:, None, :]
        same_BL1 = same_BLL.any(-1, keepdim=True).to(x_BLD.dtype)
        x_BLD = self.mixed(torch.cat([x_BLD, aligned_BLD, summary_BD[:, None, :].expand_as(x_BLD), same_BL1], -1))
        for block in self.blocks:
            x_BLD = block(x_BLD, context_BL)
        logits_BL2 = self.span(self.norm(x_BLD)).masked_fill(~context_BL[..., None], LOWEST)
        return {
            "start": logits_BL2[..., 0],
            "end": logits_BL2[..., 1],
            "place": place_BL2,
            "question": self.tower(tokens_BL, question_BL),
            "context": self.tower(tokens_BL, is_text_BL & context_BL),
        }


def _softmax(logits: Tensor, there: Tensor) -> Tensor:
    """Over the last dimension, where something is there."""
    return torch.softmax(logits.masked_fill(~there, LOWEST), -1)


class ReaderLoss:
    """Cross-entropy of start and end, and of which context of the batch belongs to a question.

    A label is where the answer starts and ends in the context, ``(B, 2)`` in characters; an answer that is not whole within
    the tokens, since its context was cut, counts for nothing. temperature: of the cosines of questions and contexts.
    by_row: give a loss a row, for weights.
    """

    def __init__(self, *, by_row: bool = False, temperature: float = 0.05) -> None:
        self.by_row, self.temperature = by_row, temperature

    def __call__(self, outputs: dict[str, Tensor], label_B2: Tensor) -> Tensor:
        """Of what ``Reader`` returned: the mean, or ``(B,)``."""
        start_BL, end_BL = outputs["place"].unbind(-1)
        is_context_BL = start_BL >= 0
        first_BL = is_context_BL & (end_BL > label_B2[:, :1])
        last_BL = is_context_BL & (start_BL < label_B2[:, 1:])
        is_whole_B = end_BL.amax(1) >= label_B2[:, 1]
        first_B = first_BL.to(torch.int64).argmax(1)
        last_B = end_BL.shape[1] - 1 - last_BL.to(torch.int64).flip(1).argmax(1)
        span_B = F.cross_entropy(outputs["start"], first_B, reduction="none")
        span_B = span_B + F.cross_entropy(outputs["end"], last_B, reduction="none")
        question_BD, context_BD = outputs["question"], outputs["context"]
        with torch.no_grad():  # several questions about one context: its copies are no wrong answers
            is_copy_BB = (context_BD @ context_BD.T > 0.999).fill_diagonal_(False)
        alike_BB = (question_BD @ context_BD.T / self.temperature).masked_fill(is_copy_BB, LOWEST)
        found_B = F.cross_entropy(alike_BB, torch.arange(len(alike_BB), device=alike_BB.device), reduction="none")
        loss_B = torch.where(is_whole_B, span_B, 0.0) + found_B
        return loss_B if self.by_row else loss_B.mean()


class Finder(nn.Module):
    """Which of some passages is nearest to a question: ``prediction``, logits ``(B, P)``, and ``similarity``, the cosine of
    the nearest, ``(B,)``. Takes what ``Text`` makes of the question, ``(B, L)``.

    index: ``(P, D)``, the passages by ``tower``.
    """

    marks: Tensor
    index: Tensor

    def __init__(self, tower: Tower, marks: Tensor, index: Tensor) -> None:
        super().__init__()
        self.tower = tower
        self.register_buffer("marks", marks)
        self.register_buffer("index", index)

    def forward(self, tokens_BL: Tensor) -> dict[str, Tensor]:
        """See the class."""
        question_BD = self.tower(tokens_BL, ~torch.isin(tokens_BL, self.marks))
        cosine_BP = question_BD @ self.index.T
        return {"prediction": cosine_BP, "similarity": cosine_BP.amax(1)}


class Classifier(nn.Module):
    """Logits ``(B, C)`` of texts ``(B, L)``: their tokens' vectors, an encoder, the mean or the last of what it gives.

    encoder: ``mean``: none; ``gru``; ``transformer``, with positions that are learnt.
    """

    def __init__(
        self, tokens: int, length: int, classes: int, encoder: str, width: int, layers: int, dropout: float
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.embedding = nn.Embedding(tokens, width, padding_idx=0)
        if encoder == "gru":
            self.gru = nn.GRU(width, width, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)
        if encoder == "transformer":
            self.position = nn.Parameter(torch.randn(length, width) * 0.02)
            self.blocks = nn.ModuleList(Attention(width, heads_of(width), dropout) for _ in range(layers))
        self.drop = nn.Dropout(dropout)
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Dropout(dropout), nn.Linear(width, classes))

    def forward(self, tokens_BL: Tensor) -> Tensor:
        """See the class."""
        there_BL = tokens_BL != 0
        x_BLD = self.drop(self.embedding(tokens_BL))
        if self.encoder == "gru":
            last_B = (there_BL.sum(1) - 1).clamp(min=0)
            return self.out(self.gru(x_BLD)[0][torch.arange(len(last_B), device=last_B.device), last_B])
        if self.encoder == "transformer":
            x_BLD = x_BLD + self.position[: x_BLD.shape[1]]
            for block in self.blocks:
                x_BLD = block(x_BLD, there_BL)
        there_BL1 = there_BL.unsqueeze(-1).to(x_BLD.dtype)
        return self.out((x_BLD * there_BL1).sum(1) / there_BL1.sum(1).clamp(min=1.0))


class FineTuned(nn.Module):
    """Logits ``(B, C)`` of texts ``(B, L)``: the mean of a Hugging Face encoder's last hidden states, and one layer."""

    def __init__(self, backbone: nn.Module, width: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.backbone = backbone
        self.out = nn.Sequential(nn.Dropout(dropout), nn.Linear(width, classes))

    def forward(self, tokens_BL: Tensor) -> Tensor:
        """See the class."""
        there_BL = (tokens_BL != 0).to(torch.int64)
        hidden_BLD = self.backbone(input_ids=tokens_BL, attention_mask=there_BL, return_dict=True).last_hidden_state
        there_BL1 = there_BL.unsqueeze(-1).to(hidden_BLD.dtype)
        return self.out((hidden_BLD * there_BL1).sum(1) / there_BL1.sum(1).clamp(min=1.0))
