"""Models that take rows of varying length: exported for any number of rows and any length, refused if rows would
depend on the padding that their neighbours bring."""

import json

import models
import pytest
import torch
from making import signature, spec

from sparkdl.bundle import Bundle
from sparkdl.errors import BundleIntegrityError, SignatureError
from sparkdl.probe import example_inputs, lengthened, ragged_inputs, shortened
from sparkdl.signature import Signature, TensorSpec

TOKENS = spec("tokens", "int64", (-1,), type="array<long>")
MASK = TensorSpec("mask", "bool", (-1,), mask_of="tokens")
TEXTS = Signature((TOKENS, MASK))


def texts(lengths, width=None):
    """Token ids and their mask, padded to ``width``."""
    width = width or max(lengths)
    generator = torch.Generator().manual_seed(3)
    mask = torch.arange(width) < torch.tensor(lengths)[:, None]
    return torch.randint(1, 10, mask.shape, generator=generator) * mask, mask


@pytest.fixture(scope="module", params=["lstm", "gru", "transformer"])
def made(request):
    torch.manual_seed(0)
    module = models.Masked(request.param).eval()
    return module, Bundle.from_module(module, TEXTS)


@pytest.mark.parametrize("lengths", [(1,), (5,), (12, 3), (40, 7, 1), (2, 2, 2, 2, 2)])
def test_any_number_of_rows_of_any_length(made, lengths):
    module, bundle = made
    assert bundle.program.kind == "export"
    loaded = Bundle.from_files(bundle.files).module()
    arguments = texts(lengths)
    with torch.no_grad():
        torch.testing.assert_close(loaded(*arguments), module(*arguments))


def test_a_row_is_what_it_is_alone(made):
    module = Bundle.from_files(made[1].files).module()
    tokens, mask = texts((9, 4, 1))
    with torch.no_grad():
        together = module(tokens, mask)
        for row, length in enumerate((9, 4, 1)):
            alone = module(tokens[row : row + 1, :length], mask[row : row + 1, :length])
            torch.testing.assert_close(together[row], alone[0], rtol=1e-4, atol=1e-5)


def test_the_layer_is_kept_whole_and_not_unrolled(made):
    assert len(made[1].program.content) < 120_000


def test_it_is_format_2_and_no_less(made):
    files = dict(made[1].files)
    manifest = json.loads(files["manifest.json"])
    assert manifest["format"] == 2
    assert manifest["signature"]["inputs"][1]["mask_of"] == "tokens"
    files["manifest.json"] = json.dumps({**manifest, "format": 1}).encode()
    with pytest.raises(BundleIntegrityError, match="its format has no meaning"):
        Bundle.from_files(files)


def test_rows_of_vectors_and_two_inputs_that_vary_apart():
    steps = spec("steps", "float32", (-1, 3), type="array<array<float>>")
    bundle = Bundle.from_module(models.Summed(), Signature((steps, TensorSpec("m", "float32", (-1,), mask_of="steps"))))
    assert (bundle.program.kind, bundle.signature.outputs[0].shape) == ("export", (3,))
    two = Signature((TOKENS, MASK, spec("x", "float32", (-1,)), TensorSpec("n", "bool", (-1,), mask_of="x")))

    class Apart(torch.nn.Module):
        def forward(self, tokens, mask, x, n):
            return (tokens * mask).sum(dim=1) + (x * n).sum(dim=1)

    module = Bundle.from_module(Apart(), two).module()
    tokens, mask = texts((5, 2))
    returned = module(tokens, mask, torch.ones(2, 9), torch.ones(2, 9, dtype=torch.bool))
    torch.testing.assert_close(returned, (tokens * mask).sum(dim=1) + 9.0)


def test_a_shape_that_depends_on_the_padding_is_refused():
    with pytest.raises(SignatureError, match=r"shape .* 'prediction' depends on the length.*\(3, 12\).*\(3, 15\)"):
        Bundle.from_module(models.Padded("shape"), signature(TOKENS))


def test_values_that_depend_on_the_padding_are_refused():
    torch.manual_seed(0)
    with pytest.raises(SignatureError, match=r"'prediction' changes when a row is padded further.*mask_of"):
        Bundle.from_module(models.Padded("values"), signature(TOKENS))


def test_a_model_that_fixes_the_length_is_kept_as_code_with_the_reason():
    bundle = Bundle.from_module(models.Padded("fixed"), signature(TOKENS), trusted=True)
    assert bundle.program.kind == "pickle"
    assert "Constraints violated" in bundle.program.reason


def test_examples_of_our_own_are_padded_as_their_masks_say():
    x = spec("x", "float32", (-1, 2), type="array<array<float>>")
    tokens, mask, values, n = example_inputs(Signature((TOKENS, MASK, x, TensorSpec("n", "bool", (-1,), mask_of="x"))))
    assert mask.sum(dim=1).tolist() == [12, 10, 8]
    assert n.sum(dim=1).tolist() == [13, 11, 9]
    assert torch.equal(tokens, mask.long())
    assert values.shape == (*n.shape, 2)
    assert (values[~n] == 0).all()
    assert (values[n] != 0).all()


def test_two_inputs_of_one_length_by_an_example_of_it():
    kinds = spec("kinds", "int64", (-1,), type="array<long>")

    class Alike(torch.nn.Module):
        def forward(self, tokens, kinds):
            return (tokens * kinds).sum(dim=1)

    both = signature(TOKENS, kinds)
    with pytest.raises(SignatureError, match="must match the size"):
        Bundle.from_module(Alike(), both)
    bundle = Bundle.from_module(Alike(), both, example=[torch.ones(2, 6, dtype=torch.int64)] * 2)
    assert bundle.module()(torch.ones(3, 4), torch.ones(3, 4)).tolist() == [4.0, 4.0, 4.0]


def test_cutting_and_padding_touch_only_what_varies():
    given = Signature((TOKENS, spec("y", shape=(4,))))
    assert ragged_inputs(given) == (0,)
    arguments = example_inputs(given)
    assert [v.shape[1] for v in shortened(arguments, (0,))] == [9, 4]
    assert [v.shape[1] for v in lengthened(arguments, (0,))] == [15, 4]
