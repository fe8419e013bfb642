"""Faults: switched on by name with checked parameters, used up, matched, kept in a file that processes share."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from devtools.errors import BadInput
from devtools.rehearsal.faults import FAULTS, Faults


@pytest.fixture
def faults(tmp_path):
    return Faults(tmp_path / "faults.json")


def test_one_happens_as_often_as_it_was_asked_for(faults):
    assert faults.take("no-quota") is None
    faults.refuse("no-quota", {"times": "2"})
    assert [faults.take("no-quota") is not None for _ in range(3)] == [True, True, False]


def test_zero_times_lasts_until_it_is_switched_off(faults):
    faults.refuse("image-pull", {"times": "0"})
    assert all(faults.take("image-pull") for _ in range(5))
    faults.allow("image-pull")
    assert faults.take("image-pull") is None


def test_parameters_have_defaults_and_reach_who_takes_it(faults):
    faults.refuse("throttled", {"seconds": "0.5", "match": "/JOBS/"})
    assert faults.take("throttled", "GET /subscriptions/s/models") is None
    assert faults.take("throttled", "PUT /subscriptions/s/jobs/j")["seconds"] == 0.5


@pytest.mark.parametrize("name", FAULTS)
def test_another_process_sees_it(faults, tmp_path, name):
    faults.refuse(name)
    assert Faults(tmp_path / "faults.json").take(name)
    assert faults.active() == {}


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("throtled", {}, "no fault is called throtled: did you mean throttled?"),
        ("throttled", {"time": "1"}, "throttled takes no time: did you mean times?"),
        ("throttled", {"times": "twice"}, "throttled: times is a number, not 'twice'"),
        ("throttled", {"seconds": "-1"}, "throttled: seconds is 0 or more, not -1"),
        ("throttled", {"seconds": "nan"}, "throttled: seconds is 0 or more, not nan"),
    ],
)
def test_what_is_not_known_is_refused_and_nothing_is_switched_on(faults, name, given, message):
    with pytest.raises(BadInput) as caught:
        faults.refuse(name, given)
    assert caught.value.findings == [message]
    assert faults.active() == {}


def test_all_can_be_switched_off(faults):
    for name in FAULTS:
        faults.refuse(name)
    faults.allow()
    assert faults.active() == {}
    with pytest.raises(BadInput):
        faults.allow("nothing")


def test_threads_use_up_exactly_its_times(faults):
    faults.refuse("unavailable", {"times": "20"})
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda _: faults.take("unavailable") is not None, range(50)))
    assert sum(taken) == 20
