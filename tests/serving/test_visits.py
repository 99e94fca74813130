"""A request in the loop of a server, without HTTP."""

import asyncio

import pytest
from served import Gate, make_chat_team

from trl_teamtr.serving.desk import Desk
from trl_teamtr.serving.errors import APIError
from trl_teamtr.serving.orders import read_order
from trl_teamtr.serving.visits import Visit


@pytest.fixture(scope="module")
def team():
    return make_chat_team()


@pytest.fixture
def desk():
    desk = Desk(4, 4)
    desk.open()
    yield desk
    desk.close()


def make_visit(team, desk, **fields):
    body = {"model": "team", "messages": [{"role": "user", "content": "au"}], "seed": 1}
    return Visit(team, read_order(body | fields, 4), desk)


def gone(answer):
    async def is_gone():
        return answer

    return is_gone


def test_talks_come_in_the_order_of_the_choices(team, desk):
    async def visit():
        visit = make_visit(team, desk, n=3)
        heard = [event async for event in visit.hear(gone(False), 30)]
        return visit, heard

    made, heard = asyncio.run(visit())
    assert [made.talks[index] for index, _ in sorted(heard, key=lambda each: each[0])] == made.talks
    assert str(made.talks[0].transcript) == str(team.chat("au", seed=1)) and made.heading.seed == 1


@pytest.mark.parametrize("is_gone, timeout, status", [(True, 30, 499), (False, 0.05, 504)])
def test_who_is_gone_or_waits_too_long_frees_the_row(team, desk, is_gone, timeout, status):
    async def visit():
        visit = make_visit(team, desk)
        with pytest.raises(APIError) as caught:
            async for _ in visit.hear(gone(is_gone), timeout):
                pass
        return visit, caught.value.status

    with Gate(team):
        made, found = asyncio.run(visit())
    assert found == status and all(ticket.cancelled for ticket in made._tickets)
