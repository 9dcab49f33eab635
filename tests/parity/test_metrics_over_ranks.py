"""Ranks with any number of rows give what one torchmetrics object gives over all rows. Real processes, real collectives."""

import itertools
import math

import pytest
import torch
import torchmetrics
from ranks import alone, on_horovod, on_torch
from torchmetrics import classification, regression, retrieval

from sparkdl.train.metrics import Metrics

STARTED = {"horovod": on_horovod, "torch": on_torch}
ROWS = 96
SHARES = {
    "unequal": [[0, 10, 20, 30, 40, 50, 60, 70], [70, 83, 96]],  # bounds of each rank's batches
    "rank 1 has none": [[0, 50, 96], []],
    "rank 0 has none": [[], [0, 96]],
    "nobody has any": [[], []],
}


class Queries(retrieval.RetrievalMRR):
    """States that are lists without a reduction, which torchmetrics gathers one by one; rows as (query, score)."""

    def update(self, outputs, label):
        super().update(outputs[:, 1], label, indexes=outputs[:, 0].long())


CASES = {
    "binary": {
        "auroc": classification.BinaryAUROC(),
        "f1": classification.BinaryF1Score(),
        "ap": classification.BinaryAveragePrecision(thresholds=20),
    },
    "multiclass": {
        "auroc": classification.MulticlassAUROC(3),
        "f1": classification.MulticlassF1Score(3),
        "each": classification.MulticlassRecall(3, average=None),
        "wrapped": torchmetrics.wrappers.ClasswiseWrapper(classification.MulticlassAUROC(3, average=None)),
    },
    "regression": {
        "mse": regression.MeanSquaredError(),
        "r2": regression.R2Score(),
        "spearman": regression.SpearmanCorrCoef(),
    },
    None: {"mrr": Queries(empty_target_action="skip")},
}


def rows(task):
    """All rows' (outputs, label); numbers that float32 sums exactly, in any order."""
    generator = torch.Generator().manual_seed(1)
    number = lambda *shape: torch.randint(-64, 64, shape, generator=generator) / 16  # noqa: E731
    if task == "binary":
        return number(ROWS, 1), (number(ROWS) > 0).float()
    if task == "multiclass":
        return number(ROWS, 3), torch.randint(0, 3, (ROWS,), generator=generator)
    if task == "regression":
        return number(ROWS, 1), number(ROWS)
    return torch.stack([torch.arange(ROWS) // 8, number(ROWS)], dim=1), number(ROWS) > 1


def measured(collective):
    """Every rank's values of each case and share, twice over (an epoch's rows do not count in the next)."""
    told, figures = {}, []
    for task, given in CASES.items():
        metrics = Metrics(given, task, collective)
        outputs, label = rows(task)
        for share, bounds in SHARES.items():
            for _ in range(2):
                mine = bounds[collective.world.rank] if collective.world.size > 1 else [0, ROWS]
                for start, stop in itertools.pairwise(mine):
                    metrics.add(outputs[start:stop], label[start:stop])
                told[task, share] = metrics.over_ranks()
                figures += told[task, share].values()
    every = collective.allgather(torch.tensor(figures, dtype=torch.float64))
    assert all(torch.equal(every[0].nan_to_num(-1), other.nan_to_num(-1)) for other in every)
    return told


@pytest.fixture(scope="module", params=STARTED)
def ranks(request):
    return STARTED[request.param](measured)


@pytest.fixture(scope="module")
def expected():
    return alone(measured)


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("task", CASES)
def test_ranks_give_what_one_object_gives_over_all_rows(ranks, expected, task, share):
    told = ranks[task, share]
    if share == "nobody has any":
        assert list(told) == list(CASES[task])
        assert all(math.isnan(value) for value in told.values())
    else:
        assert told == expected[task, share]


def test_one_process_gives_what_torchmetrics_gives(expected):
    for task in ("binary", "multiclass", "regression"):
        outputs, label = rows(task)
        outputs = {
            "binary": outputs[:, 0].sigmoid(),
            "multiclass": outputs.softmax(dim=1),
            "regression": outputs[:, 0],
        }[task]
        label = label if task == "regression" else label.long()
        for name, metric in CASES[task].items():
            if name in expected[task, "unequal"]:
                assert expected[task, "unequal"][name] == float(metric.clone()(outputs, label))
