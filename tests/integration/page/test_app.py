"""The page's server side, with Airflow's own auth manager and database."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_batches._compat import HAS_PAGE
from airflow_provider_batches.emulator import Emulator, Fault
from tests.canary import KEY, found_in

if not HAS_PAGE:
    pytest.skip("This Airflow's UI cannot show the page.", allow_module_level=True)

from airflow.api_fastapi.app import init_auth_manager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from airflow.api_fastapi.core_api.security import get_user
from fastapi.testclient import TestClient

pytestmark = pytest.mark.feature("page")
ROLES = {"admin": 200, "op": 200, "user": 403, "viewer": 403}


@pytest.fixture
def api() -> Iterator[Emulator]:
    with Emulator(api_key=KEY) as api:
        yield api


@pytest.fixture
def page(airflow_db: None, api: Emulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module of the app, with a connection to the emulator."""
    from airflow_provider_batches.page import app as module
    from airflow_provider_batches.page.reader import Reader

    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    monkeypatch.setenv("AIRFLOW_CONN_ANTHROPIC_DEFAULT", api.connection_json)
    monkeypatch.setattr(module, "reader", Reader())
    init_auth_manager()
    yield module
    module.app.dependency_overrides.clear()


@pytest.fixture
def get(page: Any) -> Callable[..., Any]:
    """Answer a request of a user with a role; of None, without a login."""
    client = TestClient(page.app, raise_server_exceptions=False)

    def request(path: str, role: str | None = "op", **query: Any) -> Any:
        page.app.dependency_overrides.clear()
        if role:
            user = SimpleAuthManagerUser(username=role, role=role)
            page.app.dependency_overrides[get_user] = lambda: user
        return client.get(path, params=query)

    return request


@pytest.mark.parametrize(("role", "status"), ROLES.items())
def test_who_may_read_the_connection_sees_its_batches(
    role: str, status: int, get: Callable[..., Any], api: Emulator
) -> None:
    batch_id = api.add_batch(status="in_progress")
    answer = get("/api/batches", role, conn_id="anthropic_default")

    assert answer.status_code == status
    assert (batch_id in answer.text) == (status == 200)
    # Whether a connection exists is not to be seen either.
    assert get("/api/batches", role, conn_id="no_such").status_code == (404 if status == 200 else 403)
    assert get("/api/connections", role).json()["conn_ids"] == (["anthropic_default"] if status == 200 else [])


@pytest.mark.parametrize(
    "path", ["/", "/static/page.js", "/api/connections", "/api/batches?conn_id=anthropic_default", "/api/task?dag_id=a"]
)
def test_nobody_sees_anything_without_a_login(path: str, get: Callable[..., Any], api: Emulator) -> None:
    answer = get(path, None)

    assert answer.status_code == 401
    assert api.count() == 0
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_each_route_reads_and_has_a_login(page: Any) -> None:
    for route in page.app.routes:
        assert route.methods <= {"GET", "HEAD"}, route.path
        found, left = set(), [route.dependant]
        while left:
            each = left.pop()
            found.add(each.call)
            left += each.dependencies
        assert get_user in found, route.path


@pytest.mark.parametrize("path", ["/", "/static/page.css", "/static/no_such", "/static/..%2fapp.py", "/no_such"])
def test_each_answer_has_the_headers(path: str, get: Callable[..., Any]) -> None:
    answer = get(path)

    assert answer.status_code == (200 if path in ("/", "/static/page.css") else 404)
    assert "frame-ancestors 'self'" in answer.headers["content-security-policy"]
    assert (answer.headers["x-content-type-options"], answer.headers["cache-control"]) == ("nosniff", "no-store")


def test_named_fields_only_are_shown(get: Callable[..., Any], api: Emulator) -> None:
    api.add_batch(status="ended", age_seconds=86_400)
    (batch,) = get("/api/batches", conn_id="anthropic_default").json()["batches"]

    assert set(batch) == {
        *("id", "processing_status", "request_counts", "created_at", "expires_at", "ended_at", "archived_at"),
        *("results_until", "created_by"),
    }
    created, until = (
        datetime.fromisoformat(batch[name].replace("Z", "+00:00")) for name in ("created_at", "results_until")
    )
    assert (until - created).days == 29


def test_an_api_that_quotes_the_key_shows_no_key(get: Callable[..., Any], api: Emulator) -> None:
    api.fault(Fault("list", times=None, status=403, body=json.dumps({"error": f"key: {KEY}"})))
    answer = get("/api/batches", conn_id="anthropic_default")

    assert answer.status_code == 502
    assert "Could not list batches: 403" in answer.json()["detail"]
    assert found_in(answer.text) == []


def test_a_connection_that_is_wrong_is_explained(get: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_ANTHROPIC_DEFAULT", '{"conn_type": "anthropic_batches", "password": "a b"}')
    answer = get("/api/batches", conn_id="anthropic_default")

    assert answer.status_code == 502
    assert "password of connection 'anthropic_default': must be an API key" in answer.json()["detail"]


def test_connections_that_no_database_has_are_configured(
    get: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__MESSAGE_BATCHES__CONN_IDS", "one, two")
    monkeypatch.setenv("AIRFLOW__MESSAGE_BATCHES__TEARDOWN_DAG_ID", "mine")

    assert get("/api/connections").json() == {
        "conn_ids": ["one", "two"],
        "teardown": {"dag_id": "mine", "may_trigger": True},
    }


class TestTasks:
    """The tasks that created batches, and the batches of a task."""

    @pytest.fixture
    def ran(
        self, page: Any, run_dag: Callable[..., Any], api: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Any:
        """A run of a DAG that submitted a batch, which is still running."""
        monkeypatch.setenv("AIRFLOW_CONN_ANTHROPIC_DEFAULT", api.connection_json)
        dag = (
            "from airflow.sdk import DAG\n"
            "from airflow_provider_batches.operators.submit import SubmitBatchesOperator\n"
            "from airflow_provider_batches.operators.batches import CancelBatchOperator\n"
            "from airflow_provider_batches.operators.teardown import TeardownBatchesOperator\n"
            "class Mine(CancelBatchOperator): pass\n"
            "from airflow.providers.standard.operators.empty import EmptyOperator\n"
            "PARAMS = {'model': 'm', 'max_tokens': 5, 'messages': [{'role': 'user', 'content': 'x'}]}\n"
            "with DAG('submitting'):\n"
            f"    submit = SubmitBatchesOperator(task_id='submit', path='{tmp_path.as_uri()}',\n"
            "        requests=[{'custom_id': 'a', 'params': PARAMS}, {'custom_id': 'b', 'params': PARAMS}],\n"
            "        requests_per_batch=1)\n"
            "    EmptyOperator(task_id='other')\n"
            "    submit >> Mine(task_id='cancel', batch_id='{{ ti.xcom_pull(\"submit\")[0] }}')\n"
            "    BATCH_IDS = [f'msgbatch_{number:04}' for number in range(1000)]\n"
            "    TeardownBatchesOperator(task_id='tear_down', batch_ids=BATCH_IDS, report_only=True)\n"
        )
        (tmp_path / "submitting.py").write_text(dag)
        monkeypatch.setattr("airflow.settings.DAGS_FOLDER", str(tmp_path))
        return run_dag("submitting")

    def test_a_batch_names_the_task_that_created_it(self, ran: Any, get: Callable[..., Any], api: Emulator) -> None:
        api.add_batch()
        found = get("/api/batches", conn_id="anthropic_default").json()["batches"]
        by = [batch["created_by"] and batch["created_by"]["task_id"] for batch in found]

        assert sorted(by, key=str) == [None, "submit", "submit"]

    def test_a_task_has_its_batches_for_whoever_may_read_the_dag(
        self, ran: Any, get: Callable[..., Any], api: Emulator
    ) -> None:
        query = {"dag_id": "submitting", "run_id": ran._which["run_id"], "task_id": "submit"}
        for role in ROLES:
            answer = get("/api/task", role, **query)
            assert {batch["id"] for batch in answer.json()["batches"]} == set(api.ids()), role
        nothing = {"batches": [], "missing": [], "partial": False}
        assert get("/api/task", "op", **{**query, "task_id": "other"}).json() == nothing
        assert get("/api/task", "op", **{**query, "run_id": "no_such"}).json() == nothing

    def test_an_operator_derived_from_ours_has_its_batches_too(
        self, ran: Any, get: Callable[..., Any], api: Emulator
    ) -> None:
        batch_id = api.ids()[-1]
        query = {"dag_id": "submitting", "run_id": ran._which["run_id"], "task_id": "cancel"}
        (found,) = get("/api/task", "viewer", **query).json()["batches"]

        assert found["id"] == batch_id

    def test_a_field_that_airflow_has_cut_gives_the_ids_that_it_still_has(
        self, ran: Any, get: Callable[..., Any], api: Emulator
    ) -> None:
        query = {"dag_id": "submitting", "run_id": ran._which["run_id"], "task_id": "tear_down"}
        answer = get("/api/task", "op", **query).json()

        assert answer["partial"]
        assert answer["missing"][:2] == ["msgbatch_0000", "msgbatch_0001"]
        assert all(re.fullmatch(r"msgbatch_\d{4}", batch_id) for batch_id in answer["missing"])

    def test_a_dag_that_a_user_may_not_read_is_not_named(
        self, ran: Any, get: Callable[..., Any], page: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(page, "readable_dags", lambda user: set())
        monkeypatch.setattr(page, "may_read_xcoms", lambda dag_id, user: False)
        found = get("/api/batches", conn_id="anthropic_default").json()["batches"]

        assert [batch["created_by"] for batch in found] == [None, None]
        query = {"dag_id": "submitting", "run_id": ran._which["run_id"], "task_id": "submit"}
        assert get("/api/task", **query).status_code == 403

    def test_the_official_operators_xcom_counts_too(self, page: Any, ran: Any, api: Emulator) -> None:
        from airflow.models.xcom import XComModel

        from airflow_provider_batches.page.origin import creators

        other = api.add_batch()
        XComModel.set(key="batch_id", value=other, dag_id="submitting", task_id="other", run_id=ran._which["run_id"])
        found = creators([other], datetime.now(timezone.utc), {"submitting"})

        assert found[other]["task_id"] == "other"


@pytest.mark.parametrize(
    ("value", "ids"),
    [
        ("msgbatch_1", ["msgbatch_1"]),
        ('"msgbatch_1"', ["msgbatch_1"]),
        ('["a", "b"]', ["a", "b"]),
        ("['a', 'b']", ["a", "b"]),
        (["a"], ["a"]),
        (None, []),
        ({"id": "a"}, []),
        ([1, None, ["a"]], []),
        ("<script>alert(1)</script>", ["<script>alert(1)</script>"]),
        ("a\nb", []),
        ("x" * 257, []),
    ],
)
def test_ids_are_texts(value: Any, ids: list[str]) -> None:
    from airflow_provider_batches.page.origin import _ids

    assert _ids(value) == ids


class TestThePlugin:
    def test_offers_the_app_in_the_api_server_only(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from airflow_provider_batches.page.plugin import MessageBatchesPlugin

        monkeypatch.delenv("_AIRFLOW_PROCESS_CONTEXT", raising=False)
        assert MessageBatchesPlugin().fastapi_apps == []
        monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
        (found,) = MessageBatchesPlugin().fastapi_apps
        assert found["url_prefix"] == "/message-batches"

    def test_is_small(self) -> None:
        from airflow_provider_batches.page import app

        assert sum(path.stat().st_size for path in app.FILES.values()) < 40_000

    def test_names_no_other_host_and_makes_no_html_of_texts(self) -> None:
        from airflow_provider_batches.page import app

        for name, path in app.FILES.items():
            text = path.read_text().replace("http://www.w3.org/2000/svg", "")
            assert "http" not in text.replace("https.", ""), name
            assert not any(word in text for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "eval(")), name
