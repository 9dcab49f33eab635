"""The example ``online-education-qa`` in plain PyTorch: one process, no Spark.

python tests/parity/applications/online_education_qa.py .examples/online-education-qa small
"""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor
from torchmetrics.text import SQuAD

from sparkdl.preprocess.text import Text
from sparkdl.ready.reading import Reader, ReaderLoss

EPOCHS = {"smallest": 5, "small": 6}
BATCH = 64  # two ranks with 32 rows each


def figure(folder: Path, size: str) -> float:
    """F1 of the held-out answers."""
    torch.manual_seed(0)
    train, test = (pq.read_table(folder / name).combine_chunks() for name in ("train", "test"))
    text = Text(tokenizer=trained(train), length=128, offsets=True)
    inputs, held_out = read(text, train), read(text, test)
    start = torch.tensor(train["start"].to_pylist())
    label = torch.stack([start, start + torch.tensor([len(answer) for answer in train["answer"].to_pylist()])], 1)
    model, loss = Reader(text.tokens, text.marks, width=64, layers=4, dropout=0.2), ReaderLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(EPOCHS[size]):
        for batch in torch.randperm(len(inputs)).split(BATCH):
            optimizer.zero_grad()
            loss(model(inputs[batch]), label[batch]).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    return f1(answers(model.eval(), held_out, test["context"].to_pylist()), test["answer"].to_pylist())


def trained(table: pa.Table) -> str:
    """A tokenizer's JSON: byte pairs of the questions and passages."""
    made = Tokenizer(models.BPE(unk_token="[UNK]"))
    made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.BertNormalizer(strip_accents=False)])
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Digits(individual_digits=True)]
    )
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    trainer = trainers.BpeTrainer(vocab_size=500, min_frequency=2, special_tokens=special, show_progress=False)
    made.train_from_iterator(table["question"].to_pylist() + table["context"].to_pylist(), trainer)
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return str(made.to_str())


def read(text: Text, table: pa.Table) -> Tensor:
    """``(rows, 128, 3)``."""
    return torch.from_numpy(text.read({name: table[name].combine_chunks() for name in ("question", "context")}))


def answers(model: Reader, inputs: Tensor, contexts: list[str]) -> list[str]:
    """What stands between the best start and end of at most 30 tokens."""
    with torch.inference_mode():
        returned = [model(part) for part in inputs.split(256)]
    start, end, place = (torch.cat([one[name] for one in returned]) for name in ("start", "end", "place"))
    sums = start[:, :, None] + end[:, None, :]
    allowed = torch.ones(sums.shape[1:], dtype=torch.bool).triu().tril(29)
    best = sums.masked_fill(~allowed, -torch.inf).flatten(1).argmax(1)
    rows = torch.arange(len(best))
    places = zip(
        place[rows, best // sums.shape[2], 0].tolist(), place[rows, best % sums.shape[2], 1].tolist(), strict=True
    )
    return [context[first:last] for context, (first, last) in zip(contexts, places, strict=True)]


def f1(found: list[str], right: list[str]) -> float:
    """SQuAD's, in [0, 1]."""
    told = [{"prediction_text": text, "id": str(number)} for number, text in enumerate(found)]
    known = [{"answers": {"answer_start": [0], "text": [text]}, "id": str(n)} for n, text in enumerate(right)]
    return float(SQuAD()(told, known)["f1"]) / 100


if __name__ == "__main__":
    print(figure(Path(sys.argv[1]), sys.argv[2]))
