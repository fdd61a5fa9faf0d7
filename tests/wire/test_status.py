from __future__ import annotations

import pytest

from ndstream import errors
from ndstream.wire.status import error_class, status_of


def classes() -> list[type[errors.NDStreamError]]:
    public = vars(errors).values()
    return [cls for cls in public if isinstance(cls, type) and issubclass(cls, errors.NDStreamError)]


@pytest.mark.parametrize("cls", classes(), ids=lambda cls: cls.code)
def test_every_error_has_a_status_of_failure(cls: type[errors.NDStreamError]) -> None:
    assert 400 <= status_of(cls.code) < 600


@pytest.mark.parametrize("cls", classes()[1:], ids=lambda cls: cls.code)
def test_a_code_that_travelled_leads_back_to_its_class(cls: type[errors.NDStreamError]) -> None:
    assert error_class(status_of(cls.code), cls.code) is cls


@pytest.mark.parametrize(
    ("status", "cls"),
    [
        (400, errors.InvalidRequest),
        (401, errors.NotAuthenticated),
        (403, errors.Forbidden),
        (404, errors.NotFound),
        (405, errors.RequestError),
        (413, errors.TooLarge),
        (415, errors.UnsupportedMediaType),
        (429, errors.Busy),
        (500, errors.ServiceError),
        (502, errors.ServiceError),
        (503, errors.Busy),
        (504, errors.TimedOut),
        (302, errors.ProtocolError),
    ],
)
def test_a_bare_status_has_a_class_too(status: int, cls: type[errors.NDStreamError]) -> None:
    assert error_class(status) is cls


def test_a_code_of_a_later_version_falls_back_on_the_status() -> None:
    assert error_class(404, "something-new") is errors.NotFound
