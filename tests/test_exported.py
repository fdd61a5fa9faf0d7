"""The names that the package offers, and that clients in the field import."""

from __future__ import annotations

import pickle

import pytest

import ndstream
from ndstream import errors

IN_THE_FIELD = (
    *("open", "RemoteDirectory", "RemoteFile", "RemoteGroup", "RemoteDataset", "SoftLink", "HardLink"),
    *("HDFStreamRequestError", "Config", "get_config", "set_config", "verify_cert", "disable_progress"),
    *("set_progress_delay", "StreamingDecoder", "LocalOrRemoteFile"),
)


def test_the_list_of_names_is_sorted_and_complete() -> None:
    # Constants, classes, functions: as ruff sorts them.
    assert ndstream.__all__ == sorted(ndstream.__all__, key=lambda name: (not name.isupper(), name.islower(), name))
    assert set(IN_THE_FIELD) <= set(ndstream.__all__)
    assert set(ndstream.__all__) <= set(dir(ndstream))


@pytest.mark.parametrize("name", ndstream.__all__)
def test_every_name_is_there_and_documented(name: str) -> None:
    found = getattr(ndstream, name)
    assert found.__doc__
    assert getattr(ndstream, name) is found


def test_no_other_name_is_there() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        getattr(ndstream, "no_such_name")  # noqa: B009 - mypy would see the other spelling


def test_the_error_that_stock_clients_catch_is_the_base_of_all() -> None:
    assert ndstream.HDFStreamRequestError is errors.NDStreamError


def test_functions_are_pickled_by_their_name() -> None:
    assert pickle.loads(pickle.dumps(ndstream.open)) is ndstream.open
