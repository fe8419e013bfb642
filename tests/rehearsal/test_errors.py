"""Refusals on the wire: ARM's shape, read by azure-core's own parser."""

from unittest import mock

import pytest
from azure.core.exceptions import HttpResponseError

from devtools.rehearsal import errors


def parsed(error):
    """What a client's exception holds."""
    answer = error.response()
    response = mock.Mock(status_code=answer.status_code, reason="no", content_type="application/json")
    response.text.return_value = answer.body.decode()
    response.headers = answer.headers
    return HttpResponseError(response=response), answer


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (errors.not_found("/subscriptions/s/jobs/j"), 404, "ResourceNotFound"),
        (errors.bad_request("no such field", "properties.image"), 400, "UserError"),
        (errors.conflict("in use"), 409, "Conflict"),
        (errors.forbidden("no role"), 403, "AuthorizationFailed"),
        (errors.unauthorized("expired"), 401, "InvalidAuthenticationToken"),
        (errors.too_many(2), 429, "TooManyRequests"),
        (errors.unavailable(2), 503, "ServiceUnavailable"),
    ],
)
def test_clients_read_status_code_and_message(error, status, code):
    seen, answer = parsed(error)
    assert answer.status_code == status
    assert seen.error.code == code
    assert seen.error.message == error.message


def test_waiting_is_told_in_a_header():
    assert errors.too_many(2).response().headers["Retry-After"] == "2"
    assert errors.unavailable(0.5).response().headers["Retry-After"] == "0.5"


def test_the_target_names_the_field():
    seen, _ = parsed(errors.bad_request("no such field", "properties.image"))
    assert seen.error.target == "properties.image"
