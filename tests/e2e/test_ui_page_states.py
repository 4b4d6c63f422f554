"""What the page says while it cannot show or do something: it claims nothing that it does not know."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from airflow_provider_batches.emulator import Emulator, Fault
from scripts.real_airflow import RealAirflow
from tests.e2e.conftest import log_in
from tests.e2e.test_ui_page import open_page, row

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600), pytest.mark.usefixtures("default_connection")]

NONE = "There are no batches."


@pytest.fixture
def batch_id(api: Emulator, airflow: RealAirflow) -> str:
    airflow.wait_for_dag("teardown_selected")
    airflow.api("PATCH", "/dags/teardown_selected", json={"is_paused": False})
    api.clear_faults()
    return api.add_batch(10, status="in_progress", batch_seconds=3600)


@pytest.fixture
def connect(airflow: RealAirflow) -> Iterator[Callable[[str, Emulator], None]]:
    """Create connections that are removed at the end."""
    made: list[str] = []

    def connect(conn_id: str, api: Emulator) -> None:
        airflow.api("POST", "/connections", json={**json.loads(api.connection_json), "connection_id": conn_id})
        made.append(conn_id)

    yield connect
    for conn_id in made:
        airflow.api("DELETE", f"/connections/{conn_id}")


def test_another_connection_is_shown_at_once_while_one_is_slow(
    page: Page, batch_id: str, api: Emulator, connect: Callable[[str, Emulator], None]
) -> None:
    with Emulator() as other:
        theirs = other.add_batch(status="ended")
        connect("anthropic_other", other)
        frame = open_page(page)
        expect(row(frame, batch_id)).to_be_visible()
        page.wait_for_timeout(5500)
        api.fault(Fault("list", times=1, delay=4.0))
        frame.get_by_role("button", name="Refresh").click()
        frame.get_by_label("Connection").select_option("anthropic_other")

        expect(row(frame, theirs)).to_be_visible(timeout=3000)
        page.wait_for_timeout(5000)
        expect(row(frame, theirs)).to_be_visible()
        expect(row(frame, batch_id)).to_have_count(0)


def test_a_list_that_was_not_read_is_not_empty(
    page: Page, batch_id: str, connect: Callable[[str, Emulator], None]
) -> None:
    with Emulator() as other:
        connect("anthropic_other", other)
        frame = open_page(page)
        expect(row(frame, batch_id)).to_be_visible()
        other.fault(Fault("list", times=1, delay=1.0, status=500))
        frame.get_by_label("Connection").select_option("anthropic_other")
        expect(frame.get_by_text("Loading…")).to_be_visible()
        expect(frame.get_by_role("alert")).to_contain_text("500")
        expect(frame.get_by_text(NONE)).to_have_count(0)
        page.wait_for_timeout(5500)
        frame.get_by_role("button", name="Refresh").click()

        expect(frame.get_by_text(NONE)).to_be_visible()
        expect(frame.get_by_role("alert")).to_be_hidden()


def test_a_dag_that_is_paused_meanwhile_is_noticed(page: Page, batch_id: str, airflow: RealAirflow) -> None:
    frame = open_page(page)
    frame.get_by_label(f"Select {batch_id}").check()
    expect(frame.get_by_role("button", name="Tear down…")).to_be_enabled()
    for is_paused in (True, False):
        airflow.api("PATCH", "/dags/teardown_selected", json={"is_paused": is_paused})
        frame.get_by_role("button", name="Refresh").click()
        expect(frame.get_by_text("The DAG teardown_selected is paused.")).to_have_count(int(is_paused))
        expect(frame.get_by_role("button", name="Tear down…")).to_be_enabled(enabled=not is_paused)


def test_a_connection_that_the_dag_refuses_is_not_offered_to_it(
    page: Page, batch_id: str, connect: Callable[[str, Emulator], None]
) -> None:
    with Emulator() as other:
        theirs = other.add_batch(status="ended")
        connect("research", other)
        frame = open_page(page)
        expect(row(frame, batch_id)).to_be_visible()
        frame.get_by_label("Connection").select_option("research")
        frame.get_by_label(f"Select {theirs}").check()

        expect(frame.get_by_role("alert")).to_contain_text("does not accept the connection research")
        expect(frame.get_by_role("button", name="Cancel…")).to_be_disabled()


def test_a_run_that_could_not_be_started_stays_named_and_the_selection_stays(page: Page, batch_id: str) -> None:
    def refuse(route: Route) -> None:
        if route.request.method == "POST":
            route.fulfill(status=409, json={"detail": "no more runs"})
        else:
            route.continue_()

    page.route("**/dags/teardown_selected/dagRuns*", refuse)
    frame = open_page(page)
    frame.get_by_label(f"Select {batch_id}").check()
    frame.get_by_role("button", name="Cancel…").click()
    frame.get_by_role("button", name="Cancel the batches").click()
    for _ in range(2):
        expect(frame.get_by_role("alert")).to_contain_text("teardown_selected has not started: no more runs")
        expect(frame.get_by_text("1 selected")).to_be_visible()
        frame.get_by_role("button", name="Refresh").click()


def test_a_refresh_leaves_the_keyboard_where_it_is(page: Page, batch_id: str) -> None:
    frame = open_page(page)
    frame.get_by_label(f"Select {batch_id}").focus()
    updated = frame.get_by_text(re.compile("^Updated"))
    before = updated.inner_text()
    expect(updated).not_to_have_text(before, timeout=40_000)

    expect(frame.get_by_label(f"Select {batch_id}")).to_be_focused()


def test_a_hidden_page_does_not_refresh(browser: Browser, batch_id: str, api: Emulator, airflow: RealAirflow) -> None:
    context = browser.new_context(base_url=airflow.url)
    log_in(context, airflow, airflow.username)
    page = context.new_page()
    page.clock.install()
    page.goto(f"{airflow.url}/message-batches/")
    expect(page.get_by_text(batch_id).first).to_be_visible()
    visibility = "state => Object.defineProperty(document, 'visibilityState', {get: () => state, configurable: true})"
    page.evaluate(visibility, "hidden")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))

    page.clock.run_for(60_000)
    page.wait_for_timeout(500)
    assert asked == []
    page.evaluate(visibility, "visible")
    with page.expect_request("**/api/batches?*"):
        page.clock.run_for(16_000)
    context.close()


def test_who_may_read_no_connection_is_told_so_for_as_long_as_it_lasts(browser: Browser, airflow: RealAirflow) -> None:
    context = browser.new_context(base_url=airflow.url)
    log_in(context, airflow, "viewer")
    page = context.new_page()
    page.goto(f"{airflow.url}/message-batches/")
    for _ in range(2):
        expect(page.get_by_role("alert")).to_have_text("There is no connection to Anthropic that you may read.")
        page.wait_for_timeout(16_000)
    context.close()
