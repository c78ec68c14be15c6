"""Row I7: with ``asyncCommunication`` a handler's requests run beside each other, and answers may overtake."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from pairs import PATIENCE, until
from rows import House

HANDLER = """
import asyncio

from ts.handler_utils.utils import send_intermediate_predict_response


class Meeting:
    def initialize(self, context):
        self.waiting = {}

    async def handle(self, data, context):
        asked = data[0]["body"]
        if asked == "wait":
            self.waiting[asked] = asyncio.Event()
            await self.waiting[asked].wait()
        if asked == "go" and "wait" in self.waiting:
            self.waiting["wait"].set()
        if asked == "pieces":
            for piece in ("one ", "two "):
                send_intermediate_predict_response([piece], context.request_ids, "going on", 200, context)
                await asyncio.sleep(0)
        return [f"{asked} {sorted(self.waiting)} {len(context.request_ids)}"]
"""
CONFIG = "minWorkers: 1\nmaxWorkers: 1\nasyncCommunication: true\n"
TEXT = {"Content-Type": "text/plain"}


@pytest.mark.row("I7")
def test_answers_may_overtake_each_other(house: House) -> None:
    server = house.start(house.archive("meeting", HANDLER, config=CONFIG))
    server.wait_for_workers("meeting", 1)

    def predict(text: str) -> str:
        return server.ask("/predictions/meeting", text, headers=TEXT).text

    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(predict, "wait")
        until("the request waits in the handler", lambda: predict("look") == "look ['wait'] 1")
        assert not waits.done()
        assert predict("go") == "go ['wait'] 1"
        assert waits.result(PATIENCE) == "wait ['wait'] 1"
    assert predict("pieces") == "one two pieces ['wait'] 1"
