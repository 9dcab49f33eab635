"""Texts as token numbers, by a tokenizer of Hugging Face's ``tokenizers`` that is trained on the rows, or given.

Sizes: B rows, L tokens of a row.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain, islice, repeat
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, field_validator

from sparkdl.columns import BadRows, bad_rows
from sparkdl.errors import EmptyDatasetError, InvalidParamError
from sparkdl.interop.common import content, needed
from sparkdl.preprocess.base import Preprocessor
from sparkdl.preprocess.cells import BadCell, together
from sparkdl.signature import quoted

if TYPE_CHECKING:
    from pyspark.sql import DataFrame
    from tokenizers import Encoding, Tokenizer

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")  # 0 to 3 of a trained tokenizer, as BERT calls them
_STEPS = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
PADDING = ("[PAD]", "<pad>")  # what token 0 of a tokenizer is called
LARGEST_ID = 10_000_000  # of a token: the model has a vector for each
PATTERNS = (" {2,}",)  # regular expressions that a tokenizer may have: XLM-R's and ALBERT's
CHARACTERS_A_TOKEN = 100  # a longer text is looked at no further: what a row costs has a bound
TRAINED_ON = 1_000_000  # rows, at most, that pass through the driver


class Text(Preprocessor):
    """One column of texts, or a pair of columns, as token numbers: int64 of shape ``(length,)``, zeros behind.

    Around and between the texts are the tokenizer's own marks, ``[CLS] question [SEP] context [SEP]``. What a text says of
    these marks itself is text. With ``offsets`` the shape is ``(length, 3)``: token, and where it starts and ends in the
    last text, in characters (Unicode code points, as Spark's and Python's strings count); -1 for tokens that are not of it.

    tokenizer: the JSON text of a tokenizer (``Tokenizer.to_str()``), or the path or URI of a ``tokenizer.json``, which
        ``fit`` reads; its token 0 must be the padding. If none is given ``fit`` trains one on the rows of the columns, the
        first million of them, which pass through the driver.
    length: tokens of a row, the marks among them. longer: ``cut`` what is too long, of a pair the last text only, or
        ``error``: it is a bad row. Of a text of more than ``100 * length`` characters the rest is not looked at.
    empty: ``error``: a text without a token, nothing but spaces say, is a bad row; or ``keep`` it, as marks alone.
    algorithm, vocabulary, minimum: of training: ``bpe`` (the same tokens for the same rows, whatever their order),
        ``wordpiece`` or ``unigram`` (whose trainers break ties by chance: a fit that is resumed may find another tokenizer,
        and is refused then); how many tokens at most; how often a token must
        be there (not ``unigram``). normal: Unicode's normal form; lowercase: letters as small ones.

    Raises InvalidParamError for JSON that is no tokenizer, and for one with a regular expression of its own: whoever made
    it could let a short text take for ever. The expressions of the library's own kinds (``ByteLevel``, say) may be.
    """

    kind: Literal["text"] = "text"
    tokenizer: str = ""
    length: int = Field(128, ge=4, le=65_536)
    longer: Literal["cut", "error"] = "cut"
    empty: Literal["error", "keep"] = "error"
    offsets: bool = False
    algorithm: Literal["bpe", "wordpiece", "unigram"] = "bpe"
    vocabulary: int = Field(8000, ge=100, le=1_000_000)
    minimum: int = Field(default=2, ge=1)
    normal: Literal["NFKC", "NFC"] = "NFKC"
    lowercase: bool = True
    takes: ClassVar[tuple[str, ...]] = ("string",)
    most: ClassVar[int | None] = 2

    @field_validator("tokenizer")
    @classmethod
    def _loads(cls, value: str) -> str:
        if _is_json(value):
            _loaded(value)
        return value

    @property
    def dtype(self) -> str:
        """Of token numbers and of places in a text."""
        return "int64"

    @property
    def shape(self) -> tuple[int, ...]:
        """``(length,)``, or ``(length, 3)`` with offsets."""
        return (self.length, 3) if self.offsets else (self.length,)

    @property
    def tokens(self) -> int:
        """How many different token numbers there are: rows of an embedding. Raises InvalidParamError before ``fit``."""
        return 1 + max(self._tokenizer().get_vocab().values())

    @property
    def marks(self) -> tuple[int, ...]:
        """The token numbers that are of no text: padding and marks. Raises InvalidParamError before ``fit``."""
        return tuple(number for number, token in self._tokenizer().get_added_tokens_decoder().items() if token.special)

    def fit(self, df: DataFrame, columns: Sequence[str]) -> Text:
        """See Preprocessor. Raises StoreError for a tokenizer that cannot be read, EmptyDatasetError without a text."""
        if _is_json(self.tokenizer):
            return self
        if self.tokenizer:
            found = content(self.tokenizer).decode(errors="replace")
            if not _is_json(found):
                raise InvalidParamError(
                    f"{self.tokenizer!r} is no tokenizer's JSON: it begins with {found[:20]!r}",
                    param="tokenizer",
                    value=self.tokenizer,
                )
            return self._with(found)
        texts = _texts(df, columns, CHARACTERS_A_TOKEN * self.length)
        first = next(texts, None)
        if first is None:
            raise EmptyDatasetError(columns[0])
        return self.trained(chain([first], texts))

    def read(self, columns: Mapping[str, pa.Array]) -> np.ndarray:
        """See Preprocessor. Raises BadRows for nulls (``null``), texts that are empty or, if that is wanted, too long
        (``value``), and those that the tokenizer itself fails on (``failed``)."""
        most = CHARACTERS_A_TOKEN * self.length
        for name, column in columns.items():
            if column.null_count:
                raise bad_rows("null", name, _places(pc.is_null(column)), "a text", repeat(None))
            long = _places(pc.greater(pc.utf8_length(column), most)) if self.longer == "error" else ()
            if len(long):
                raise bad_rows("value", name, long, f"at most {most:,} characters", repeat("more"))
        parts = [self._encoded(pc.utf8_slice_codeunits(column, 0, most).to_pylist()) for column in columns.values()]
        tensor = np.zeros((len(parts[0]), *self.shape), np.int64)
        problems: list[BadRows] = []
        for row, encoded in enumerate(zip(*parts, strict=True)):
            try:
                self._fill(tensor[row], dict(zip(columns, encoded, strict=True)))
            except BadCell as bad:
                problems.append(bad_rows(bad.kind, bad.column, [row], bad.expected, [bad.got]))
        if problems:
            error = together(problems)
            error.rest = np.delete(tensor, error.rows, axis=0)
            raise error
        return tensor

    def _encoded(self, texts: list[str]) -> list[Encoding | str]:
        """Each text as tokens, without marks; or what the tokenizer says, where it fails."""
        tokenizer = self._tokenizer()
        encode = tokenizer.encode_batch if self.offsets else tokenizer.encode_batch_fast

        def alone(text: str) -> Encoding | str:
            try:
                return encode([text], add_special_tokens=False)[0]
            except BaseException as error:
                return _of_library(error)

        try:
            return list(encode(texts, add_special_tokens=False))
        except BaseException as error:
            _of_library(error)
        return [alone(text) for text in texts]

    def _fill(self, values: np.ndarray, encoded: dict[str, Encoding | str]) -> None:
        """One row of the tensor. Raises BadCell."""
        tokenizer, found = self._tokenizer(), []
        for name, one in encoded.items():
            if isinstance(one, str):
                raise BadCell("failed", "a text that the tokenizer takes", one, name)
            if not one.ids and self.empty == "error":
                raise BadCell("value", "a text with at least one token", "none: an empty text, or only spaces", name)
            found.append(one)
        last, first, name = found[-1], found[:-1], list(encoded)[-1]
        room = self.length - tokenizer.num_special_tokens_to_add(bool(first)) - sum(len(one.ids) for one in first)
        if room < 1:
            expected = f"fewer of its {self.length} tokens, to leave one to {name!r}"
            raise BadCell("value", expected, f"{len(found[0].ids)} tokens", next(iter(encoded)))
        if len(last.ids) > room:
            if self.longer == "error":
                raise BadCell("value", f"at most {room} tokens", len(last.ids), name)
            last.truncate(room)
        whole = tokenizer.post_process(found[0], last if first else None)
        tokens = whole.ids
        if not self.offsets:
            values[: len(tokens)] = tokens
            return
        values[:, 1:] = -1
        values[: len(tokens), 0] = tokens
        of_last = np.array([part == len(first) for part in whole.sequence_ids], bool)
        values[: len(tokens), 1:][of_last] = np.array(whole.offsets, np.int64)[of_last]

    def _tokenizer(self) -> Tokenizer:
        """Raises InvalidParamError if there is none yet."""
        if not _is_json(self.tokenizer):
            raise InvalidParamError(
                "this Text has no tokenizer yet: fit trains or reads one (sparkdl.preprocess.learn)",
                param="tokenizer",
                value=self.tokenizer,
            )
        return _loaded(self.tokenizer)

    def _with(self, tokenizer: str) -> Text:
        return Text(**{**self.model_dump(exclude={"kind"}), "tokenizer": tokenizer})

    def trained(self, texts: Iterable[str]) -> Text:
        """One with a tokenizer trained on these texts: split at spaces and punctuation, as BERT's, and each digit alone;
        control characters are gone."""
        _library()
        from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

        model, trainer = {
            "bpe": (models.BPE, trainers.BpeTrainer),
            "wordpiece": (models.WordPiece, trainers.WordPieceTrainer),
            "unigram": (models.Unigram, trainers.UnigramTrainer),
        }[self.algorithm]
        settings: dict[str, Any] = {"vocab_size": self.vocabulary, "special_tokens": list(SPECIAL)}
        unknown = {"unk_token": SPECIAL[1]}
        settings |= unknown if self.algorithm == "unigram" else {"min_frequency": self.minimum}
        made = Tokenizer(model(**({} if self.algorithm == "unigram" else unknown)))
        clean = normalizers.BertNormalizer(strip_accents=False, lowercase=self.lowercase)
        made.normalizer = normalizers.Sequence([getattr(normalizers, self.normal)(), clean])
        digits = pre_tokenizers.Digits(individual_digits=True)
        made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.BertPreTokenizer(), digits])
        made.train_from_iterator(texts, trainer(show_progress=False, **settings))
        made.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[(token, SPECIAL.index(token)) for token in SPECIAL[2:]],
        )
        return self._with(made.to_str())


def _is_json(text: str) -> bool:
    return text.lstrip().startswith("{")


def _places(is_so: pa.Array) -> np.ndarray:
    return np.flatnonzero(is_so.to_numpy(zero_copy_only=False))


def _texts(df: DataFrame, columns: Sequence[str], most: int) -> Iterator[str]:
    """Those of the first rows that are not null, cut to so many characters, one after the other through the driver."""
    chosen = df.selectExpr(*(f"substring({quoted(name)}, 1, {most}) AS {quoted(name)}" for name in columns))
    for row in islice(chosen.toLocalIterator(), TRAINED_ON):
        yield from (text for text in row if text)


def _library() -> Any:
    """The package tokenizers, with as many threads as the task has cores."""
    import torch

    os.environ.setdefault("RAYON_NUM_THREADS", str(torch.get_num_threads()))  # read when it encodes its first batch
    return needed("tokenizers", "text")


@lru_cache(maxsize=16)
def _loaded(told: str) -> Tokenizer:
    """The tokenizer of this JSON, one a process. Raises ValueError for one that is none, or cannot be used."""
    _check_parts(told)
    try:
        made = _library().Tokenizer.from_str(told)
        made.no_padding()
        made.no_truncation()
        made.encode_special_tokens = True  # a text that says [SEP] says five letters
        made.encode_batch(["a", ("a", "\ufffd"), ("", "")])  # what its marks or unknown words would fail on
    except BaseException as error:
        raise ValueError(f"it is no tokenizer that can be used: {_of_library(error)}") from error
    if made.id_to_token(0) not in PADDING:
        raise ValueError(f"token 0 must be its padding, one of {list(PADDING)}, and is {made.id_to_token(0)!r}")
    return made


def _check_parts(told: str) -> None:
    """Raise ValueError for JSON that is not a tokenizer's, for numbers of tokens for which the library would reserve all
    memory, and for regular expressions."""
    try:
        found = json.loads(told)
        vocab, added = found["model"]["vocab"], found.get("added_tokens") or []
        numbers = [*(vocab.values() if isinstance(vocab, dict) else range(len(vocab))), *(one["id"] for one in added)]
        highest = max(numbers, default=0)
        pattern = next((one for part in _STEPS for one in _patterns(found.get(part)) if one not in PATTERNS), None)
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"it is no tokenizer's JSON: {type(error).__name__}: {error}") from error
    if not 0 <= highest < LARGEST_ID:
        raise ValueError(f"its token numbers must be below {LARGEST_ID:,}, and one is {highest:,}")
    if pattern is not None:
        raise ValueError(f"a tokenizer may have no regular expression of its own, and this one has {pattern!r:.100}")


def _patterns(part: Any) -> Iterator[Any]:
    """The regular expressions in a part of a tokenizer's JSON."""
    if isinstance(part, dict):
        yield from ([part["Regex"]] if "Regex" in part else ())
    for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from _patterns(inner)


def _of_library(error: BaseException) -> str:
    """What a failure of the library says; what is none goes on. A panic of its Rust is no Exception."""
    if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
        raise error
    return f"{error}"[:300]
