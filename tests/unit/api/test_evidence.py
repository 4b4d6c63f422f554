"""What an answer proves: a row for each kind of answer, a column for each call."""

from __future__ import annotations

import pytest

from airflow_provider_batches.api import endpoints
from airflow_provider_batches.api.evidence import Evidence, Proof, judge

CALLS = {
    "retrieve": endpoints.retrieve("b"),
    "list": endpoints.page(),
    "cancel": endpoints.cancel("b"),
    "delete": endpoints.delete("b"),
    "results": endpoints.results("b"),
    "create": endpoints.create([{"custom_id": "a", "params": {}}]),
}
THROUGH_A_GATEWAY = "create through a gateway"
COLUMNS = (*CALLS, THROUGH_A_GATEWAY)

NOTHING = Evidence(Proof.NOTHING)
IN_DOUBT = Evidence(Proof.NOTHING, in_doubt=True)
OUTAGE = Evidence(Proof.NOTHING, outage=True)
LOST = Evidence(Proof.NOTHING, outage=True, in_doubt=True)


def doubt(proof):
    return Evidence(proof, in_doubt=True)


def row(name, evidence, *, create=None, gateway=None, others=None, statuses=(None,), **answer):
    """Return the cells of a row.

    :param evidence: What the answer proves of a call, unless `others` says otherwise.
    :param create: What it proves of a create at the API's own host; `gateway`: of one through a gateway.
    """
    others = others or {}
    create = create or others.get("create", evidence)
    columns = {**dict.fromkeys(CALLS, evidence), **others, "create": create, THROUGH_A_GATEWAY: gateway or create}
    return [
        pytest.param(
            column,
            {"status": status, "own": False, "has_answered": True, **answer},
            columns[column],
            id=f"{title}-{column}",
        )
        for status in statuses
        for title in [f"{status} {name}".strip() if status else name]
        for column in COLUMNS
    ]


STATE = dict.fromkeys(("cancel", "delete", "results"), Evidence(Proof.DEPENDS_ON_STATE))
REFUSED, KEY, SPEND = (Evidence(proof) for proof in (Proof.REFUSED, Proof.KEY_REFUSED, Proof.SPEND_LIMIT))
RATE, LARGE, FOUND = (Evidence(proof) for proof in (Proof.RATE_LIMIT, Proof.TOO_LARGE, Proof.NOT_FOUND))

ROWS = [
    *row("of another shape", LOST, statuses=(200, 204, 299)),
    *row(
        "of the API",
        FOUND,
        statuses=(404,),
        own=True,
        create=REFUSED,
        gateway=doubt(Proof.REFUSED),
        others={"list": REFUSED},
    ),
    *row(
        "of somebody else, from an address that has answered",
        OUTAGE,
        statuses=(301, 307, 400, 401, 402, 403, 404, 405, 409, 410, 422, 451),
        create=LOST,
    ),
    *row(
        "of somebody else, from an address that has never answered",
        Evidence(Proof.WRONG_ADDRESS),
        statuses=(301, 307, 400, 401, 402, 403, 404, 405, 409, 410, 422, 451),
        has_answered=False,
        create=doubt(Proof.WRONG_ADDRESS),
    ),
    *row("of the API", KEY, statuses=(401,), own=True, gateway=doubt(Proof.KEY_REFUSED)),
    *row("of the API", KEY, statuses=(403,), own=True, gateway=doubt(Proof.KEY_REFUSED), others=STATE),
    *row("of the API", SPEND, statuses=(402,), own=True, gateway=doubt(Proof.SPEND_LIMIT)),
    *row(
        "of the API for an enforced spend limit",
        SPEND,
        statuses=(429,),
        own=True,
        error_code="enforced_spend_limit_reached",
        gateway=doubt(Proof.SPEND_LIMIT),
    ),
    *row(
        "of the API for a contract's spend limit",
        SPEND,
        statuses=(429,),
        own=True,
        error_code="contract_spend_limit_reached",
        gateway=doubt(Proof.SPEND_LIMIT),
    ),
    *row(
        "of the API", REFUSED, statuses=(400, 405, 410, 422, 499), own=True, gateway=doubt(Proof.REFUSED), others=STATE
    ),
    *row("of the API", NOTHING, statuses=(409,), own=True, create=IN_DOUBT, others=STATE),
    *row("of the API", RATE, statuses=(429,), own=True, gateway=doubt(Proof.RATE_LIMIT)),
    *row(
        "of the API for a ramp",
        RATE,
        statuses=(429,),
        own=True,
        error_code="ramp_limit_exceeded",
        gateway=doubt(Proof.RATE_LIMIT),
    ),
    *row("of somebody else", RATE, statuses=(429,), create=doubt(Proof.RATE_LIMIT)),
    *row(
        "of somebody else for a spend limit",
        RATE,
        statuses=(429,),
        error_code="enforced_spend_limit_reached",
        create=doubt(Proof.RATE_LIMIT),
    ),
    *row("of the API", LARGE, statuses=(413,), own=True, gateway=doubt(Proof.TOO_LARGE)),
    *row("of somebody else", LARGE, statuses=(413,), create=doubt(Proof.TOO_LARGE)),
    *row("of the API", IN_DOUBT, statuses=(408, 500, 501, 599), own=True),
    *row("of the API", LOST, statuses=(502, 503, 504, 529), own=True),
    *row("of somebody else", LOST, statuses=(408, 500, 502, 503, 504, 529, 599)),
    *row("no answer", LOST),
    *row("no connection", OUTAGE, sent=False),
]


@pytest.mark.parametrize(("column", "answer", "expected"), ROWS)
def test_an_answer_proves(column, answer, expected):
    call = CALLS["create" if column == THROUGH_A_GATEWAY else column]
    assert judge(call, **answer, direct=column != THROUGH_A_GATEWAY) == expected


@pytest.mark.parametrize("status", [400, 402, 403, 429])
@pytest.mark.parametrize(
    "code",
    ["contract_spend_limit_reached", "linked_organization_spend_limit_reached", "workspace_spend_limit_exceeded"],
)
def test_a_spend_limit_is_one_regardless_of_the_status_and_of_whose_limit_it_is(status, code):
    assert [judge(call, status, own=True, error_code=code).proof for call in CALLS.values()] == [
        Proof.SPEND_LIMIT
    ] * len(CALLS)


@pytest.mark.parametrize("code", [None, 5, ["enforced_spend_limit_reached"], {}])
def test_an_odd_error_code_is_not_a_spend_limit(code):
    assert judge(CALLS["list"], 429, own=True, error_code=code).proof is Proof.RATE_LIMIT


def test_every_proof_has_a_row():
    assert {param.values[2].proof for param in ROWS} == set(Proof)


def test_a_gateway_changes_only_what_a_create_proves():
    for name, call in CALLS.items():
        both = [judge(call, 400, own=True, direct=direct) for direct in (True, False)]
        assert (both[0] == both[1]) is (name != "create")
