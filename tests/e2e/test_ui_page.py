"""The page *Message Batches* in Airflow's UI, in a real browser."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, FrameLocator, Locator, Page, expect

from airflow_provider_batches.emulator import Emulator, Fault
from scripts.real_airflow import RealAirflow
from tests.canary import found_in
from tests.e2e.conftest import log_in

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900), pytest.mark.usefixtures("default_connection")]

Shot = Callable[[str], None]


@pytest.fixture(scope="module")
def batches(airflow: RealAirflow, api: Emulator) -> dict[str, str]:
    """Batches in each state."""
    airflow.api("PATCH", "/dags/teardown_selected", json={"is_paused": False})
    api.clear_faults()
    return {
        "running": api.add_batch(1000, status="in_progress", age_seconds=6 * 3600, batch_seconds=20 * 3600),
        "old": api.add_batch(200, status="ended", age_seconds=27 * 86_400, outcomes={"succeeded": 150, "errored": 50}),
        "ended": api.add_batch(400, status="ended", age_seconds=7200, outcomes={"succeeded": 390, "expired": 10}),
        "costly": api.add_batch(5000, status="in_progress", age_seconds=600, batch_seconds=20 * 3600),
    }


@pytest.fixture
def traffic(page: Page) -> list[str]:
    """What the page's own server side answers."""
    texts: list[str] = []

    def keep(response: Any) -> None:
        if "/message-batches/api/" in response.url:
            texts.append(response.text())

    page.on("response", keep)
    return texts


def open_page(page: Page, query: str = "") -> FrameLocator:
    page.goto(f"/plugin/message-batches{query}")
    return page.frame_locator("iframe")


def row(frame: FrameLocator, batch_id: str) -> Locator:
    return frame.get_by_role("row").filter(has_text=batch_id)


def contrast(text: Locator) -> float:
    """Return the contrast of a text with the page's background, as WCAG defines it."""

    def luminance(color: str) -> float:
        channels = [int(part) / 255 for part in re.findall(r"\d+", color)[:3]]
        red, green, blue = (each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in channels)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    colors = text.evaluate("each => [getComputedStyle(each).color, getComputedStyle(document.body).backgroundColor]")
    dark, light = sorted(map(luminance, colors))
    return (light + 0.05) / (dark + 0.05)


def test_the_menu_leads_to_all_batches(
    page: Page, batches: dict[str, str], airflow: RealAirflow, traffic: list[str], shot: Shot
) -> None:
    page.goto("/")
    page.get_by_role("button", name="Browse").click()
    page.get_by_role("menuitem", name="Message Batches").click()
    frame = page.frame_locator("iframe")

    expect(row(frame, batches["running"])).to_contain_text("In progress")
    expect(row(frame, batches["running"])).to_contain_text("6 of at most 24 hours")
    expect(row(frame, batches["old"])).to_contain_text("150 succeeded, 50 errored")
    expect(row(frame, batches["old"]).locator(".warn")).to_contain_text("in 2 days")
    assert contrast(row(frame, batches["old"]).locator(".warn")) >= 4.5
    expect(frame.get_by_text(re.compile("^Of all batches: "))).to_be_visible()
    page.set_viewport_size({"width": 1440, "height": 700})
    shot("page")
    page.set_viewport_size({"width": 1280, "height": 800})
    assert len(traffic) >= 2
    assert found_in("".join(traffic)) == []


def test_it_is_dark_if_airflow_is(page: Page, batches: dict[str, str], shot: Shot) -> None:
    frame = open_page(page)
    expect(row(frame, batches["running"])).to_be_visible()
    before = frame.locator("body").evaluate("each => getComputedStyle(each).backgroundColor")
    page.evaluate("document.documentElement.classList.replace('light', 'dark')")
    expect(frame.locator("html")).to_have_class(re.compile("dark"))
    after = frame.locator("body").evaluate("each => getComputedStyle(each).backgroundColor")

    assert before != after
    assert contrast(row(frame, batches["old"]).locator(".warn")) >= 4.5
    shot("page-dark")


def test_a_batch_leads_to_the_task_that_created_it_and_back(
    page: Page, batches: dict[str, str], airflow: RealAirflow, api: Emulator, shot: Shot
) -> None:
    airflow.api("PATCH", "/dags/submit_pipeline", json={"is_paused": False})
    run_id = airflow.trigger_dag("submit_pipeline", {})
    airflow.wait_for_task("submit_pipeline", run_id, "wait", "deferred")
    (batch_id,) = airflow.xcom("submit_pipeline", run_id, "submit")
    frame = open_page(page)
    row(frame, batch_id).get_by_role("link", name="submit_pipeline.submit").click()
    page.wait_for_url(re.compile(r"/dags/submit_pipeline/runs/.*/tasks/submit"))
    page.get_by_role("link", name="Message Batches").click()
    expect(row(page.frame_locator("iframe"), batch_id)).to_contain_text("In progress")
    expect(page.frame_locator("iframe").get_by_role("alert")).to_be_hidden()
    shot("page-tab")
    airflow.api("PATCH", f"/dags/submit_pipeline/dagRuns/{run_id}", json={"state": "failed"})
    airflow.wait_for_task("submit_pipeline", run_id, "tear_down", "success", timeout=240)


def test_filters_and_narrow_windows(page: Page, batches: dict[str, str], shot: Shot) -> None:
    frame = open_page(page)
    frame.get_by_label("State").select_option("ended")
    expect(row(frame, batches["running"])).to_have_count(0)
    expect(row(frame, batches["ended"])).to_be_visible()
    frame.get_by_label("Search").fill(batches["old"])
    expect(row(frame, batches["ended"])).to_have_count(0)
    frame.get_by_label("Search").fill("nothing like it")
    expect(frame.get_by_text("No loaded batch matches.")).to_be_visible()
    frame.get_by_label("Search").fill("")
    page.set_viewport_size({"width": 420, "height": 800})
    # Each row is a card whose cells have labels.
    expect(frame.locator("thead")).to_be_hidden()
    cell = row(frame, batches["old"]).locator("td[data-label='Results until']")
    assert "Results until" in cell.evaluate("each => getComputedStyle(each, '::before').content")
    shot("page-narrow")
    page.set_viewport_size({"width": 1280, "height": 800})


def test_batches_are_canceled_with_the_keyboard_alone(
    page: Page, batches: dict[str, str], airflow: RealAirflow, api: Emulator, shot: Shot
) -> None:
    frame = open_page(page)
    box = frame.get_by_label(f"Select {batches['running']}")
    box.focus()
    page.keyboard.press("Space")
    expect(frame.get_by_text("1 selected")).to_be_visible()
    frame.get_by_role("button", name="Cancel…").focus()
    page.keyboard.press("Enter")
    dialog = frame.get_by_role("dialog")
    expect(dialog).to_contain_text("Cancel this batch?")
    expect(dialog).to_contain_text(batches["running"])
    dialog.get_by_label("Note").fill("too expensive")
    shot("page-cancel")
    dialog.get_by_role("button", name="Cancel the batches").focus()
    page.keyboard.press("Enter")
    link = frame.get_by_text("teardown_selected has started: ").get_by_role("link")
    run_id = link.inner_text()

    assert airflow.wait_for_run("teardown_selected", run_id) == "success"
    assert (api.batch(batches["running"]) or {})["cancel_initiated_at"]
    run = airflow.api("GET", f"/dags/teardown_selected/dagRuns/{run_id}")
    assert (run["note"], run["conf"]["batch_ids"]) == ("too expensive", [batches["running"]])
    link.click()
    page.wait_for_url(re.compile(r"/dags/teardown_selected/runs/"))


def test_several_batches_are_saved_and_deleted_in_one_run(
    page: Page, batches: dict[str, str], airflow: RealAirflow, api: Emulator, tmp_path: Path, shot: Shot
) -> None:
    frame = open_page(page)
    for name in ("old", "ended"):
        frame.get_by_label(f"Select {batches[name]}").check()
    frame.get_by_role("button", name="Tear down…").click()
    dialog = frame.get_by_role("dialog")
    expect(dialog).to_contain_text("Tear down these 2 batches?")
    dialog.get_by_label("Delete the batches with their results").check()
    expect(dialog).to_contain_text("The results are lost. This cannot be undone.")
    dialog.get_by_label("Save the results, then delete the batches").check()
    dialog.get_by_label("Folder").fill(tmp_path.as_uri())
    shot("page-teardown")
    dialog.get_by_role("button", name="Save and delete").click()
    run_id = frame.get_by_text("teardown_selected has started: ").get_by_role("link").inner_text()

    assert airflow.wait_for_run("teardown_selected", run_id) == "success"
    assert not {batches["old"], batches["ended"]} & set(api.ids())
    assert {path.stem for path in tmp_path.glob("*.jsonl")} == {batches["old"], batches["ended"]}


def test_a_failed_teardown_is_shown_at_its_batch(
    page: Page, batches: dict[str, str], airflow: RealAirflow, api: Emulator
) -> None:
    conf = {"batch_ids": [batches["costly"]], "action": "save_and_delete", "folder": "not a folder"}
    run_id = airflow.trigger_dag("teardown_selected", conf)
    airflow.wait_for_task("teardown_selected", run_id, "save_and_delete", "failed")
    airflow.wait_for_run("teardown_selected", run_id)
    frame = open_page(page)

    expect(row(frame, batches["costly"])).to_contain_text("save_and_delete: failed")


def test_an_api_that_is_down_is_named_and_the_table_stays(
    page: Page, batches: dict[str, str], api: Emulator, shot: Shot
) -> None:
    frame = open_page(page)
    expect(row(frame, batches["costly"])).to_be_visible()
    page.wait_for_timeout(5500)
    api.fault(Fault("list", times=None, html=True))
    frame.get_by_role("button", name="Refresh").click()
    notice = frame.get_by_role("alert")

    expect(notice).to_contain_text("Could not list batches: 502 Bad Gateway")
    expect(notice).to_contain_text(api.url)
    expect(row(frame, batches["costly"])).to_be_visible()
    shot("page-down")
    api.clear_faults()
    page.wait_for_timeout(5500)
    frame.get_by_role("button", name="Refresh").click()
    expect(notice).to_be_hidden()


def test_texts_of_others_are_texts(page: Page, batches: dict[str, str], airflow: RealAirflow, api: Emulator) -> None:
    hostile = "<img src=x onerror=alert(1)>"
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    with Emulator() as other:
        other.add_batch(id=hostile, status="ended")
        connection = {**json.loads(other.connection_json), "connection_id": "anthropic_hostile"}
        airflow.api("POST", "/connections", json=connection)
        frame = open_page(page, "?conn_id=anthropic_hostile")
        frame.get_by_label("Connection").select_option("anthropic_hostile")
        expect(row(frame, hostile)).to_be_visible()
        frame.get_by_label(f"Select {hostile}").check()
        frame.get_by_role("button", name="Tear down…").click()
        expect(frame.get_by_role("dialog")).to_contain_text(hostile)
        frame.get_by_role("button", name="Keep").click()
        page.wait_for_timeout(5500)
        other.fault(Fault("list", times=None, status=400, message=hostile))
        frame.get_by_role("button", name="Refresh").click()
        expect(frame.get_by_role("alert")).to_contain_text(hostile)
        airflow.api("DELETE", "/connections/anthropic_hostile")

    assert frame.locator("img").count() == 0
    assert dialogs == []


def test_times_are_in_the_time_zone_of_airflows_ui(page: Page, batches: dict[str, str]) -> None:
    page.goto("/")
    page.evaluate("localStorage.setItem('timezone', JSON.stringify('Asia/Tokyo'))")
    frame = open_page(page)
    expect(row(frame, batches["costly"]).locator("time").first).to_have_attribute("title", re.compile(r"GMT\+9"))
    page.evaluate("localStorage.removeItem('timezone')")


def test_10000_batches_load_a_page_at_a_time(page: Page, batches: dict[str, str], airflow: RealAirflow) -> None:
    with Emulator() as many:
        ids = [many.add_batch(1, status="ended", age_seconds=60.0 + number) for number in range(10_000)]
        connection = {**json.loads(many.connection_json), "connection_id": "anthropic_many"}
        airflow.api("POST", "/connections", json=connection)
        frame = open_page(page)
        expect(row(frame, batches["costly"])).to_be_visible()
        began = time.monotonic()
        frame.get_by_label("Connection").select_option("anthropic_many")
        expect(frame.get_by_role("row")).to_have_count(101)
        print(f"The first page of 10,000 batches appeared after {time.monotonic() - began:.2f} s.")
        frame.get_by_role("button", name="Load older batches").click()
        expect(frame.get_by_role("row")).to_have_count(201)
        expect(row(frame, ids[150])).to_be_visible()
        assert many.count("list") <= 2
        airflow.api("DELETE", "/connections/anthropic_many")


def test_the_tab_of_a_task_shows_its_batches(
    page: Page, batches: dict[str, str], airflow: RealAirflow, shot: Shot
) -> None:
    run_id = airflow.trigger_dag("teardown_selected", {"batch_ids": [batches["costly"]], "action": "discard"})
    airflow.wait_for_task("teardown_selected", run_id, "discard", "success")
    page.goto(f"/dags/teardown_selected/runs/{run_id}/tasks/discard")
    page.get_by_role("link", name="Message Batches").click()
    frame = page.frame_locator("iframe")

    expect(frame.get_by_text(f"Not found, most likely deleted: {batches['costly']}")).to_be_visible()
    page.goto(f"/dags/teardown_selected/runs/{run_id}/tasks/choose")
    page.get_by_role("link", name="Message Batches").click()
    expect(page.frame_locator("iframe").get_by_text("This task has no message batches")).to_be_visible()


@pytest.fixture
def as_role(browser: Browser, airflow: RealAirflow) -> Iterator[Callable[[str], Page]]:
    contexts: list[BrowserContext] = []

    def login(role: str) -> Page:
        context = browser.new_context(base_url=airflow.url)
        contexts.append(context)
        log_in(context, airflow, role)
        page = context.new_page()
        return page

    yield login
    for context in contexts:
        context.close()


@pytest.mark.parametrize(("role", "text"), [("op", "Of "), ("user", "no connection"), ("viewer", "no connection")])
def test_a_role_sees_what_it_may(
    role: str, text: str, as_role: Callable[[str], Page], batches: dict[str, str], airflow: RealAirflow
) -> None:
    page = as_role(role)
    frame = open_page(page)

    if role == "op" or "AIRFLOW__CORE__AUTH_MANAGER" not in airflow.env:
        # FAB offers plugins to Op and Admin only.
        expect(frame.get_by_text(re.compile(text)).first).to_be_visible()
    answer = page.request.get(f"{airflow.url}/message-batches/api/batches?conn_id=anthropic_default")
    assert answer.status == (200 if role == "op" else 403)
    assert page.request.get(f"{airflow.url}/message-batches/api/batches?conn_id=no_such").status == (
        404 if role == "op" else 403
    )


def test_nobody_sees_anything_without_a_login(browser: Browser, airflow: RealAirflow, batches: dict[str, str]) -> None:
    context = browser.new_context(base_url=airflow.url)
    for path in ("", "static/page.js", "api/connections", "api/batches?conn_id=anthropic_default"):
        answer = context.request.get(f"{airflow.url}/message-batches/{path}")
        assert answer.status == 401, path
        assert "default-src 'none'" in answer.headers["content-security-policy"]
    context.close()
