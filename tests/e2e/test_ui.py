"""What a person does in the UI, in a real browser, each test a step that builds on those before it.

For the UI of Airflow 3.3: in older versions, pages and forms are built in other ways.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, expect

from airflow_provider_batches.emulator import Emulator
from airflow_provider_batches.hooks.form import FIELDS
from airflow_provider_batches.links.batches import CONSOLE_URL
from scripts.real_airflow import RealAirflow
from tests.canary import KEY, TOKEN, found_in

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

Shot = Callable[[str], None]
RUN_TIMEOUT = 300_000


def test_a_connection_is_made_in_its_form(page: Page, api: Emulator, shot: Shot) -> None:
    page.goto("/connections")
    page.get_by_role("button", name="Add Connection").click()
    form = page.get_by_role("dialog")
    form.get_by_label("Connection ID").fill("anthropic_default")
    form.get_by_role("combobox", name="Connection Type").fill("Anthropic Message")
    page.get_by_role("option", name="Anthropic Message Batches", exact=True).click()
    key = form.get_by_role("textbox", name="API key")
    expect(key).to_have_attribute("placeholder", "sk-ant-...")
    expect(form.get_by_label("Base URL")).to_have_attribute("placeholder", "https://api.anthropic.com")
    expect(form.get_by_label("Port")).to_have_attribute("placeholder", "443")
    for hidden in ("Login", "Schema", "Password", "Host"):
        expect(form.get_by_label(hidden, exact=True)).to_have_count(0)
    key.fill(KEY)
    expect(key).to_have_attribute("type", "password")
    shot("connection-form")
    host, _, port = api.url.rpartition(":")
    form.get_by_label("Base URL").fill(host)
    form.get_by_label("Port").fill(port)

    form.get_by_role("button", name="Extra Fields", exact=True).click()
    for label, _, description in FIELDS.values():
        expect(field(form, label)).to_contain_text(description)
    headers = field(form, "More headers").get_by_role("textbox")
    headers.fill(f'{{"x-gateway-token": "{TOKEN}"}}')
    expect(headers).to_have_attribute("type", "password")

    form.get_by_role("button", name="Save").click()
    expect(form).to_be_hidden()
    expect(page.get_by_role("row", name="anthropic_default")).to_contain_text("anthropic_batches")


def test_the_secrets_cannot_be_read_afterwards(page: Page) -> None:
    answers: list[str] = []
    page.on("response", lambda response: answers.append(response.text()) if "/api/v2/" in response.url else None)
    page.goto("/connections")
    page.get_by_role("row", name="anthropic_default").get_by_role("button", name="Edit Connection").click()
    form = page.get_by_role("dialog")
    form.get_by_role("button", name="Show value").click()
    key = form.get_by_role("textbox", name="API key")
    expect(key).to_have_attribute("type", "text")
    expect(key).to_have_value("***")
    form.get_by_role("button", name="Extra Fields", exact=True).click()
    headers = field(form, "More headers")
    headers.get_by_role("button", name="Show value").click()
    expect(headers.get_by_role("textbox")).to_have_value("***")
    assert any("anthropic_default" in answer for answer in answers)
    assert found_in(page.content() + "".join(answers)) == []


def test_a_connection_is_edited_without_its_secrets(page: Page) -> None:
    page.goto("/connections")
    row = page.get_by_role("row", name="anthropic_default")
    row.get_by_role("button", name="Edit Connection").click()
    form = page.get_by_role("dialog")
    form.get_by_label("Description").fill("Of the data team")
    form.get_by_role("button", name="Save").click()
    expect(row).to_contain_text("Of the data team")


def test_the_test_button_says_that_the_key_is_still_there_and_works(page: Page, api: Emulator) -> None:
    batch_id = api.add_batch(status="in_progress")
    page.goto("/connections")
    row = page.get_by_role("row", name="anthropic_default")

    row.get_by_role("button", name="Test Connection").click()

    expect(page.get_by_role("status").filter(has_text="Test Connection Successful")).to_contain_text(
        f"{api.url} accepts the key; the newest batch is {batch_id}."
    )
    assert dict(api.requests[-1].headers).get("x-gateway-token") == TOKEN


def test_the_test_button_says_what_is_wrong_with_a_key(page: Page, api: Emulator, airflow: RealAirflow) -> None:
    host, _, port = api.url.rpartition(":")
    wrong = {"connection_id": "anthropic_wrong", "conn_type": "anthropic_batches", "password": "sk-ant-wrong"}
    airflow.api("POST", "/connections", json={**wrong, "host": host, "port": int(port)})
    page.goto("/connections")

    page.get_by_role("row", name="anthropic_wrong").get_by_role("button", name="Test Connection").click()

    failed = page.get_by_role("status").filter(has_text="Test Connection Failed")
    expect(failed).to_contain_text("401 authentication_error: invalid x-api-key (GET http://127.0.0.1:")
    expect(failed).to_contain_text("Check password of this connection")


def test_a_malformed_id_is_refused_by_the_form(page: Page, airflow: RealAirflow) -> None:
    form = trigger_form(page, airflow, "teardown_batch")
    batch_id = field(form, "Batch ID")
    expect(batch_id).to_contain_text("This field is required")
    expect(form.get_by_role("button", name="Trigger")).to_be_disabled()
    expect(field(form, "What to do")).to_contain_text("This cannot be undone.")
    expect(field(form, "Connection").get_by_role("textbox")).to_have_value("anthropic_default")

    batch_id.get_by_role("textbox").fill("../messages")
    form.get_by_role("button", name="Trigger").click()

    expect(form.get_by_text("Invalid input for param batch_id: '../messages' does not match")).to_be_visible()
    assert airflow.api("GET", "/dags/teardown_batch/dagRuns")["total_entries"] == 0


def test_a_batch_is_torn_down_from_the_form(
    page: Page, api: Emulator, airflow: RealAirflow, shot: Shot, tmp_path: Path
) -> None:
    batch_id = api.add_batch(requests=100, status="in_progress")
    form = trigger_form(page, airflow, "teardown_batch")
    field(form, "Batch ID").get_by_role("textbox").fill(batch_id)
    folder = field(form, "Folder for the results").get_by_role("textbox")
    folder.fill("s3://aws_default@my-bucket/results")
    shot("trigger-form")
    folder.fill(tmp_path.as_uri())
    form.get_by_role("button", name="Trigger").click()
    expect(form).to_be_hidden()

    run_id = newest_run(airflow, "teardown_batch")
    page.goto(f"/dags/teardown_batch/runs/{run_id}")
    for task_id in ("cancel", "wait", "save", "delete"):
        row = page.get_by_role("row", name=re.compile(rf"^{task_id}\b"))
        expect(row).to_contain_text("Success", timeout=RUN_TIMEOUT)
        expect(page.get_by_test_id(f"grid-{run_id}-{task_id}")).to_be_visible()
    expect(page.get_by_test_id("state-badge").first).to_have_text("Success")
    # Each part of the page asks for its news at times of its own.
    page.reload()
    expect(page.get_by_role("row", name=re.compile(r"^delete\b"))).to_contain_text("Success")
    shot("grid")
    assert api.batch(batch_id) is None


def test_the_log_tells_how_the_wait_went_and_no_secret(page: Page, airflow: RealAirflow, shot: Shot) -> None:
    run_id = newest_run(airflow, "teardown_batch")
    page.goto(f"/dags/teardown_batch/runs/{run_id}/tasks/wait")
    log = page.get_by_role("code").first
    for line in ("is canceling (100 requests, created", "The wait continues in the triggerer", "has ended: "):
        expect(log).to_contain_text(line)
    # Wraps the lines.
    page.keyboard.press("w")
    shot("log")
    assert found_in(page.content()) == []


def test_the_console_link_leads_to_the_console(page: Page, context: BrowserContext, airflow: RealAirflow) -> None:
    run_id = newest_run(airflow, "teardown_batch")
    page.goto(f"/dags/teardown_batch/runs/{run_id}/tasks/delete/details")
    with context.expect_page() as opened:
        page.get_by_role("link", name="Message Batches console").click()
    expect(opened.value.get_by_role("heading", name="The console")).to_be_visible()
    assert opened.value.url == CONSOLE_URL.format("default")
    opened.value.close()


def test_scheduled_teardown_started_by_hand_reports_only(page: Page, api: Emulator, airflow: RealAirflow) -> None:
    old = api.add_batch(status="ended", age_seconds=9 * 86_400)
    young = api.add_batch(status="ended", age_seconds=3_600)
    calls = api.count("delete") + api.count("cancel")
    form = trigger_form(page, airflow, "scheduled_teardown")
    expect(form.get_by_role("checkbox", name="Report only")).to_be_checked()
    expect(form.get_by_role("spinbutton", name="Older than (days)")).to_have_value("7")
    form.get_by_role("button", name="Trigger").click()
    expect(form).to_be_hidden()

    run_id = newest_run(airflow, "scheduled_teardown")
    page.goto(f"/dags/scheduled_teardown/runs/{run_id}")
    expect(page.get_by_role("row", name=re.compile(r"^teardown\b"))).to_contain_text("Success", timeout=RUN_TIMEOUT)
    page.goto(f"/dags/scheduled_teardown/runs/{run_id}/tasks/teardown")
    log = page.get_by_role("code").first
    expect(log).to_contain_text("This is a report only")
    expect(log).to_contain_text(old)
    expect(log).not_to_contain_text(young)
    # The form has unpaused the DAG, so that Airflow makes up for the scheduled run that was missed.
    scheduled = newest_run(airflow, "scheduled_teardown", run_type="scheduled")
    assert airflow.wait_for_run("scheduled_teardown", scheduled) == "success"
    airflow.api("PATCH", "/dags/scheduled_teardown", json={"is_paused": True})
    assert api.batch(old)
    assert api.count("delete") + api.count("cancel") == calls


def field(form: Locator, label: str) -> Locator:
    """Return a field of a form, with its description; Airflow ties no label to most of what params become."""
    return form.get_by_role("group").filter(has_text=re.compile(rf"^{re.escape(label)}(?!\w)"))


def trigger_form(page: Page, airflow: RealAirflow, dag_id: str) -> Locator:
    """Return the opened form that asks for a run's params."""
    airflow.wait_for_dag(dag_id)
    page.goto(f"/dags/{dag_id}")
    page.get_by_role("button", name="Trigger Dag").click()
    form = page.get_by_role("dialog")
    expect(form.get_by_role("button", name="Run Parameters")).to_be_visible()
    return form


def newest_run(airflow: RealAirflow, dag_id: str, run_type: str = "manual") -> str:
    """Return the ID of the run that was started last."""
    path, params = f"/dags/{dag_id}/dagRuns", {"order_by": "-id", "limit": 1, "run_type": run_type}
    runs = airflow.wait_until(
        lambda: airflow.api("GET", path, params=params)["dag_runs"], what=f"a {run_type} run of {dag_id}"
    )
    return str(runs[0]["dag_run_id"])
