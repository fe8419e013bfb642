"""The service by itself, where only chance would bring a real server into the state that is tested."""

import asyncio

import pytest

from serving.call import Call, current
from serving.engine import Sampling
from serving.errors import Refused
from serving.metrics import Metrics
from serving.service import Prompt, Service
from serving.settings import Settings


class Engine:
    """One that is there, and has nothing to do."""

    slots = 1
    capacity = 100
    alive = True


def test_for_a_client_that_has_gone_nothing_is_begun():
    # as when it goes while MLflow, on a thread, still takes its request apart
    service = Service(Engine(), None, Settings(), Metrics())
    call = Call("POST", "/invocations")
    current.set(call)
    call.end()
    with pytest.raises(Refused, match="the client has gone"):
        service.open([Prompt([1], Sampling(max_tokens=1))])
    assert (service.running, service.waiting, call.generations) == (0, 0, [])


def test_an_engine_that_still_warms_up_is_not_asked():
    asked = []

    class Warming(Engine):
        def start(self, deliver) -> None:
            # it lives already, and its first tokens are nobody's
            asked.append((self.alive, service.ready, service.dead))

    service = Service(Warming(), None, Settings(), Metrics())
    asyncio.run(service.start())
    assert asked == [(True, False, False)]
    assert (service.ready, service.dead) == (True, False)
    service.engine.alive = False
    assert (service.ready, service.dead) == (False, True)
