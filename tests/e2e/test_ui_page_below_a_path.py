"""The page in an Airflow that is served below a path, as behind a proxy. No DAG is needed, and none is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from airflow_provider_batches.emulator import Emulator
from scripts.real_airflow import RealAirflow

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


class ApiServer(RealAirflow):
    """An Airflow of an API server alone."""

    components = {"api-server": RealAirflow.components["api-server"]}  # noqa: RUF012

    def wait_until_healthy(self) -> None:
        """Without a scheduler, it never reports that it is."""


@pytest.fixture
def served(tmp_path: Path, api: Emulator) -> Iterator[ApiServer]:
    env = {"AIRFLOW_CONN_ANTHROPIC_DEFAULT": api.connection_json}
    with ApiServer(dags_folder=tmp_path, env=env, base_path="/team/airflow", log=print) as airflow:
        yield airflow


def test_it_works_below_a_path_and_says_that_its_dag_is_missing(
    served: ApiServer, browser: Browser, api: Emulator
) -> None:
    batch_id = api.add_batch(status="in_progress")
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{served.url}/")
    page.get_by_label("Username").fill(served.username)
    page.locator("input[name=password]").fill(served.password)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(re.compile(rf"^{re.escape(served.url)}/$"))
    page.get_by_role("button", name="Browse").click()
    page.get_by_role("menuitem", name="Message Batches").click()
    frame = page.frame_locator("iframe")

    expect(frame.get_by_role("row").filter(has_text=batch_id)).to_be_visible()
    expect(frame.get_by_role("alert")).to_contain_text("The DAG teardown_selected does not exist. Copy example_dags/")
    frame.get_by_label(f"Select {batch_id}").check()
    expect(frame.get_by_role("button", name="Tear down…")).to_be_disabled()
    context.close()
