"""What sparkdl.payloads refuses when it is written down; the rest needs Spark."""

import pytest

from sparkdl.errors import InvalidParamError
from sparkdl.payloads import JSON, Avro, Payload, Protobuf

RECORD = '{"type": "record", "name": "E", "fields": [{"name": "id", "type": "long"}]}'


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: JSON(""), "'schema' must be a text"),
        (lambda: JSON(None), "'schema' must be a text"),
        (lambda: JSON("id int", column=3), "'column' must be a text"),
        (lambda: JSON("id int", options={"MODE": "FAILFAST"}), "without"),
        (lambda: JSON("id int", options={"columnNameOfCorruptRecord": "c"}), "without"),
        (lambda: JSON("id int", options={"multiLine": True}), "a dict of texts"),
        (lambda: Avro("id int"), "'schema' cannot be used: it is no JSON"),
        (lambda: Avro('"long"'), "of type 'record' with fields is needed"),
        (lambda: Avro('{"type": "record", "name": "E", "fields": []}'), "with fields is needed"),
        (lambda: Avro(RECORD, options={"avroSchema": "x"}), "'options' cannot be used: it is no JSON"),
        (lambda: Avro(RECORD, options={"mode": "FAILFAST"}), "without"),
        (lambda: Protobuf("", b"x"), "'message' must be a text"),
        (lambda: Protobuf("p.E", b""), "'descriptor' must be the URI"),
        (lambda: Protobuf("p.E", None), "'descriptor' must be the URI"),
    ],
)
def test_arguments_that_cannot_be_used(make, said):
    with pytest.raises(InvalidParamError, match=said):
        make()


def test_a_payload_is_a_value():
    assert JSON("id int") == JSON("id int", column="value")
    assert all(issubclass(kind, Payload) for kind in (JSON, Avro, Protobuf))
    with pytest.raises(AttributeError):
        JSON("id int").schema = "x"
