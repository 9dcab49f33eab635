"""Small modules of many kinds, by import path, each with arguments for three rows."""

import torch
from torch import nn


class Named(nn.Module):
    """A dictionary comes out."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, x):
        hidden = self.linear(x)
        return {"logits": hidden, "norm": hidden.norm(dim=1)}


class Several(nn.Module):
    """Two inputs of different dtypes, a tuple comes out."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(10, 4)

    def forward(self, x, key):
        both = torch.cat([x, self.embedding(key)], dim=1)
        return both, key * 2


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(4, 8, batch_first=True)
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(10, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(8, 3)

    def forward(self, words):
        return self.head(self.encoder(self.embedding(words)).mean(dim=1))


class Tied(nn.Module):
    """Two names, one tensor."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(4, 4, bias=False)
        self.decoder = nn.Linear(4, 4, bias=False)
        self.decoder.weight = self.encoder.weight

    def forward(self, x):
        return self.decoder(torch.relu(self.encoder(x)))


class Rows(nn.Module):
    """Sizes are computed with: the number of rows is an input too."""

    def __init__(self):
        super().__init__()
        self.register_buffer("offset", torch.arange(3.0), persistent=False)

    def forward(self, x):
        return (x.reshape(x.shape[0], 2, -1) * x.shape[0] ** 0.5).sum(2) / x.shape[0] ** 0.5 + self.offset[1]


class Star(nn.Module):
    """However many columns there are."""

    def forward(self, *columns):
        return torch.stack(columns, dim=1).sum(dim=1)


class Choosing(nn.Module):
    """Cannot be exported: which way it goes depends on the data."""

    def __init__(self, width=2):
        super().__init__()
        self.linear = nn.Linear(4, width)

    def forward(self, x):
        return self.linear(x) if x.sum() > 0 else -self.linear(x)


def cnn():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(), nn.Flatten(), nn.Linear(4 * 36, 2)
    )


def mlp():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


def double():
    return nn.Linear(4, 2).double()


def choosing(width=2):
    return Choosing(width)


MODELS = {
    "MLP": (mlp, {"x": ("float32", (4,))}),
    "CNN with batch norm": (cnn, {"x": ("float32", (1, 8, 8))}),
    "LSTM": (Recurrent, {"x": ("float32", (5, 4))}),
    "Transformer": (Transformer, {"words": ("int64", (6,))}),
    "several inputs, a tuple": (Several, {"x": ("float32", (4,)), "key": ("int64", ())}),
    "a dictionary": (Named, {"x": ("float32", (4,))}),
    "tied weights": (Tied, {"x": ("float32", (4,))}),
    "float64": (double, {"x": ("float64", (4,))}),
    "sizes computed with": (Rows, {"x": ("float32", (6,))}),
    "any number of inputs": (Star, {"a": ("float32", ()), "b": ("float32", ())}),
}


class Masked(nn.Module):
    """Texts of varying length: an embedding, a layer over the steps, and what it gives where there are tokens."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.embedding = nn.Embedding(10, 8)
        if kind == "transformer":
            layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
            self.layer = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        else:
            self.layer = {"lstm": nn.LSTM, "gru": nn.GRU}[kind](8, 8, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, tokens, mask):
        x = self.embedding(tokens)
        x = self.layer(x, src_key_padding_mask=~mask) if self.kind == "transformer" else self.layer(x)[0]
        if self.kind == "gru":  # the last step that is there
            last = mask.sum(dim=1).clamp(min=1) - 1
            return self.head(x[torch.arange(x.shape[0], device=x.device), last])
        share = mask.unsqueeze(-1).to(x.dtype)
        return self.head((x * share).sum(dim=1) / share.sum(dim=1).clamp(min=1))


class Padded(nn.Module):
    """Depends on how far rows are padded: in its values, in its shape, or by refusing another length."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.embedding = nn.Embedding(10, 4)

    def forward(self, tokens):
        x = self.embedding(tokens)
        if self.how == "shape":
            return x.sum(dim=2) * 0
        if self.how == "fixed":
            return x[:, :1].sum(dim=(1, 2)) + 0 * tokens.shape[1] * int(tokens.shape[1] == 12)
        return x.mean(dim=1)


class Summed(nn.Module):
    """Rows of vectors, of varying number, and a mask of floats."""

    def forward(self, steps, mask):
        return (steps * mask.unsqueeze(-1)).sum(dim=1)
