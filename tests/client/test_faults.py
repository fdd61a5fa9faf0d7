"""What goes wrong is a typed error that says where, never a wrong array."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from typing import Any

import msgpack
import numpy as np
import pytest

import ndstream
from ndstream import errors
from ndstream.client.settings import Config
from ndstream.core.limits import DEFAULT_LIMITS
from ndstream.testing.scripted import Answer, Asked

from .conftest import Field, StartField, array, dataset, directory, file_entry, group

FILE = "snap.hdf5"
VALUES = np.arange(100_000, dtype="f8")
DOCUMENTS = {(FILE, None): file_entry(), (FILE, "/"): group({"d": dataset(VALUES, with_data=False)})}


def answering(server: Field, answer: Answer) -> None:
    """Answer everything but the first GET with this."""
    before = server.script

    def script(asked: Asked) -> Answer:
        return before(asked) if asked.method == "GET" else answer

    server.script = script


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.InvalidRequest),
        (403, errors.Forbidden),
        (404, errors.NotFound),
        (413, errors.TooLarge),
        (415, errors.UnsupportedMediaType),
        (429, errors.Busy),
        (500, errors.ServiceError),
        (502, errors.ServiceError),
        (503, errors.Busy),
        (504, errors.TimedOut),
    ],
)
def test_a_status_is_a_class_of_error_with_the_text_of_the_server(
    field: StartField, status: int, kind: type[Exception]
) -> None:
    server = field(DOCUMENTS)
    answering(server, Answer(msgpack.packb({"error": "the reason"}), status))
    with pytest.raises(kind) as error:
        ndstream.open(server.url, FILE)
    assert type(error.value) is kind
    assert server.url in str(error.value)
    assert FILE in str(error.value)
    if status != 429:
        assert "the reason" in str(error.value)


@pytest.mark.parametrize(("status", "kind"), [(401, errors.NotAuthenticated), (429, errors.Busy)])
def test_pages_of_a_web_container_are_understood(field: StartField, status: int, kind: type[Exception]) -> None:
    server = field(DOCUMENTS)
    server.script = lambda asked: Answer(b"<html>go away</html>", status, "text/html")
    with pytest.raises(kind) as error:
        ndstream.open(server.url, FILE, user="me", password="wrong")
    assert "html" not in str(error.value)


def test_what_fails_on_the_way_to_a_directory_is_no_key_error(field: StartField) -> None:
    server = field({("", None): directory({}, {"Data": None})})
    root = ndstream.open(server.url)
    answering(server, Answer(status=401, content_type="text/html"))
    with pytest.raises(errors.NotAuthenticated):
        root["Data"]
    with pytest.raises(errors.NotAuthenticated):
        assert "Data/x" in root


def test_the_code_of_our_server_names_the_class(field: StartField) -> None:
    server = field(DOCUMENTS)
    data = ndstream.open(server.url, FILE)["d"]
    answering(server, Answer(msgpack.packb({"error": "torn"}), 404, headers={"ndstream-error": "corrupt"}))
    with pytest.raises(errors.Corrupt, match="torn"):
        data[:]


def test_a_page_of_another_server_is_a_protocol_error(field: StartField) -> None:
    server = field(DOCUMENTS)
    server.script = lambda asked: Answer(b"<html>welcome</html>", 200, "text/html; charset=utf-8")
    with pytest.raises(errors.ProtocolError, match="no hdfstream server"):
        ndstream.open(server.url)


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@pytest.mark.parametrize("cut", [3, 40, 5000])
def test_a_body_cut_short_is_never_an_array(field: StartField, framing: Any, cut: int) -> None:
    server = field(DOCUMENTS)
    data = ndstream.open(server.url, FILE)["d"]
    answering(server, Answer(msgpack.packb(array(VALUES)), framing=framing, cut=cut))
    with pytest.raises((errors.ConnectionLost, errors.ProtocolError)):
        data[:]


def test_a_cut_answer_is_asked_for_again(field: StartField) -> None:
    server = field(DOCUMENTS)
    data = ndstream.open(server.url, FILE)["d"]
    body = msgpack.packb(array(VALUES))
    answers = iter([Answer(body, cut=70_000), Answer(body)])
    server.script = lambda asked: next(answers)
    np.testing.assert_array_equal(data[:], VALUES)


WRONG_ARRAYS = [
    array(VALUES[:-1]),
    array(VALUES.astype("f4")) | {"type": "<f8", "nbytes": 400_000},
    array(VALUES) | {"nbytes": 1 << 60},
    array(VALUES) | {"nbytes": 799_992},
    array(VALUES) | {"shape": [1 << 40]},
    array(VALUES) | {"type": "O"},
    array(VALUES) | {"type": "<M8[s]"},
    array(VALUES) | {"data": [VALUES.tobytes(), b"more"]},
    array(VALUES) | {"data": ["text"]},
    {"vlen": True, "shape": [100_000], "data": ["a"]},
    {"error": "after all"},
    [1, 2],
]


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("wrong", range(len(WRONG_ARRAYS)))
def test_an_array_that_was_not_asked_for_is_refused(
    field: StartField, monkeypatch: pytest.MonkeyPatch, wrong: int, small: bool
) -> None:
    if small:
        monkeypatch.setattr("ndstream.protocols.hdfstream.flows._SMALL", 1 << 30)
    server = field(DOCUMENTS)
    data = ndstream.open(server.url, FILE)["d"]
    answering(server, Answer(msgpack.packb(WRONG_ARRAYS[wrong])))
    with pytest.raises((errors.ProtocolError, errors.UnsupportedDType), match=f"{FILE}::/d"):
        data[:]


def test_bytes_behind_an_array_are_refused(field: StartField) -> None:
    server = field(DOCUMENTS)
    data = ndstream.open(server.url, FILE)["d"]
    answering(server, Answer(msgpack.packb(array(VALUES)) + msgpack.packb({"error": "half way"})))
    with pytest.raises(errors.ProtocolError):
        data[:]


def test_a_description_longer_than_the_limit_is_refused(field: StartField) -> None:
    server = field({(FILE, None): file_entry(), (FILE, "/"): group({f"member{n}": None for n in range(2000)})})
    ndstream.set_config(Config(limits=replace(DEFAULT_LIMITS, document=10_000)))
    file = ndstream.open(server.url, FILE)
    with pytest.raises(errors.TooLarge, match="10000"):
        list(file)


@pytest.mark.parametrize(
    "document",
    [
        [],
        {"hdf5_object": "group"},
        {"hdf5_object": "group", "attributes": [], "members": {}},
        {"hdf5_object": "dataset", "attributes": {}, "type": "<f8", "kind": "", "shape": [-1]},
        {"hdf5_object": "dataset", "attributes": {}, "type": "<f8", "kind": "", "shape": "abc"},
        {},
    ],
)
def test_a_malformed_description_is_a_protocol_error(field: StartField, document: Any) -> None:
    server = field({(FILE, None): file_entry(), (FILE, "/"): document})
    with pytest.raises(errors.NDStreamError):
        list(ndstream.open(server.url, FILE))


def test_bytes_that_are_no_msgpack_are_a_protocol_error(field: StartField) -> None:
    server = field(DOCUMENTS)
    answering(server, Answer(b"\xc1\xc1\xc1"))
    with pytest.raises(errors.ProtocolError):
        ndstream.open(server.url, FILE)


def test_slices_that_cannot_be_are_refused_without_a_request(field: StartField) -> None:
    server = field(DOCUMENTS)
    data = ndstream.open(server.url, FILE)["d"]
    count = len(server.asked)
    for key in (100_000, (0, 0), "text", None, 1.5, [100_000]):
        with pytest.raises((IndexError, TypeError)):
            data[key]
    with pytest.raises(ValueError, match="no slices"):
        data.request_slices([])
    assert len(server.asked) == count


def test_more_axes_than_an_original_server_slices_come_with_the_description(field: StartField) -> None:
    values = np.arange(512).reshape((2,) * 9)
    whole = dataset(values)
    empty = dataset(values, with_data=False)
    server = field({(FILE, None): file_entry(), (FILE, "/"): group({"d": empty}), (FILE, "/d"): whole})
    before = server.script
    refusal = Answer(msgpack.packb({"error": "too many dimensions"}), 400)
    server.script = lambda asked: refusal if b"slice" in asked.body else before(asked)
    data = ndstream.open(server.url, FILE)["d"]
    np.testing.assert_array_equal(data[1, ..., ::-1], values[1, ..., ::-1])


def test_strings_longer_than_a_document_may_be_come_in_several_answers(field: StartField) -> None:
    texts = [f"{number}" * 50 for number in range(300)]
    described = {"hdf5_object": "dataset", "attributes": {}, "type": "str", "kind": "", "shape": [300]}

    def slices(name: str, descriptor: Any) -> Any:
        ((start, count),) = descriptor
        return {"vlen": True, "shape": [count], "data": texts[start : start + count]}

    server = field({(FILE, None): file_entry(), (FILE, "/"): group({"d": described})}, slices)
    ndstream.set_config(Config(limits=replace(DEFAULT_LIMITS, document=10_000)))
    data = ndstream.open(server.url, FILE)["d"]
    assert data.asstr()[:].tolist() == texts


def test_a_large_read_needs_no_memory_beside_its_destination(field: StartField) -> None:
    values = np.arange(4 << 20, dtype="f8")
    body = msgpack.packb(array(values))
    server = field({(FILE, None): file_entry(), (FILE, "/"): group({"d": dataset(values, with_data=False)})})
    data = ndstream.open(server.url, FILE)["d"]
    answering(server, Answer(body))
    destination = np.empty_like(values)
    tracemalloc.start()
    data.read_direct(destination)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(destination, values)
    assert peak < 8 << 20
