"""The service by itself, where only chance would bring a real server into the state that is tested."""

import asyncio

import pandas as pd
import pytest

from serving.call import Call, current
from serving.chat import Chat
from serving.engine import Sampling
from serving.errors import Refused
from serving.metrics import Metrics
from serving.mlflow_route import Predictor
from serving.model_folder import read
from serving.service import Prompt, Service
from serving.settings import Settings


class Engine:
    """One that is there, and has nothing to do."""

    slots = 1
    context = 100
    capacity = 100
    alive = True

    def start(self, deliver) -> None:
        pass


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


def test_a_fault_of_the_server_is_no_fault_of_who_asks_by_mlflow(exported_model, caplog):
    service = Service(Engine(), Chat(read(exported_model)), Settings(), Metrics())
    question = [{"role": "user", "content": "Who?"}]
    call = Call("POST", "/invocations")

    async def predicted() -> None:
        await service.start()
        # an engine that takes no sequence: none of the ways in which engines are meant to fail
        predictor = Predictor(service, asyncio.get_running_loop())
        current.set(call)
        await asyncio.to_thread(predictor.predict, pd.DataFrame({"messages": [question]}))

    with pytest.raises(AttributeError):
        asyncio.run(predicted())
    assert call.refusal.status == 500
    assert "an answer failed" in caplog.text
    assert "Who?" not in caplog.text
