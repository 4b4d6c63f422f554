from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from airflow_provider_batches.emulator import Emulator
from airflow_provider_batches.links.batches import CONSOLE_URL
from scripts.real_airflow import RealAirflow
from tests.canary import KEY, TOKEN

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "e2e"
#: Milliseconds that something may take to appear, on a machine that has other things to do.
PATIENCE = 90_000
FERNET_KEY = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="


@pytest.fixture(scope="session")
def chromium() -> str:
    """The system's Chromium: a browser that playwright downloads would be another one on each machine."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.exit("make e2e needs Chromium, and there is none in PATH: apt-get install chromium", returncode=1)
    return path


@pytest.fixture(scope="session")
def api() -> Iterator[Emulator]:
    with Emulator(api_key=KEY, cancel_seconds=8) as api:
        yield api


@pytest.fixture(scope="session")
def lineage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file to which the OpenLineage provider writes an event in each line."""
    return tmp_path_factory.mktemp("lineage") / "events.jsonl"


@pytest.fixture(scope="session")
def airflow(
    chromium: str, api: Emulator, lineage: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RealAirflow]:
    """One real Airflow for all tests in here, with the example DAGs and one that fails in many ways."""
    dags = tmp_path_factory.mktemp("dags")
    for folder in (ROOT / "example_dags", Path(__file__).parent / "dags"):
        for path in folder.glob("*.py"):
            shutil.copy(path, dags)
    connection = {**json.loads(api.connection_json), "extra": {"headers": {"x-gateway-token": TOKEN}}}
    env = {
        "AIRFLOW__CORE__FERNET_KEY": FERNET_KEY,
        "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
        "AIRFLOW_CONN_ANTHROPIC_ENV": json.dumps(connection),
        "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps({"type": "file", "log_file_path": str(lineage), "append": True}),
    }
    kind = FabAirflow if os.environ.get("E2E_AUTH") == "fab" else RealAirflow
    with kind(dags_folder=dags, env=env, roles=("viewer", "user", "op"), log=print) as airflow:
        yield airflow


class FabAirflow(RealAirflow):
    """An Airflow whose users are those of the FAB auth manager."""

    @property
    def env(self) -> dict[str, str]:
        """The environment of all components."""
        manager = "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager"
        return {**super().env, "AIRFLOW__CORE__AUTH_MANAGER": manager}

    def _migrate(self) -> None:
        super()._migrate()
        for name, role in self._users.items():
            who = ("--username", name, "--role", role.capitalize(), "--password", self.password)
            about = ("--firstname", name, "--lastname", name, "--email", f"{name}@example.com")
            command = [sys.executable, "-m", "airflow", "users", "create", *who, *about]
            subprocess.run(command, env=self.env, cwd=self.home, check=True, capture_output=True)


def log_in(context: BrowserContext, airflow: RealAirflow, username: str) -> None:
    """Log a browser in, as the login page of each auth manager does: with a cookie."""
    token = airflow.authorization(username).removeprefix("Bearer ")
    context.add_cookies([{"name": "_token", "value": token, "url": airflow.url}])


@pytest.fixture
def default_connection(airflow: RealAirflow, api: Emulator) -> None:
    """Create the default connection, unless the test of the form has created it."""
    if not any(
        each["connection_id"] == "anthropic_default" for each in airflow.api("GET", "/connections")["connections"]
    ):
        connection = {**json.loads(api.connection_json), "connection_id": "anthropic_default"}
        airflow.api("POST", "/connections", json=connection)


@pytest.fixture(scope="session")
def browser(chromium: str) -> Iterator[Browser]:
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        args = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=chromium, args=args, timeout=PATIENCE)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def context(browser: Browser, airflow: RealAirflow) -> Iterator[BrowserContext]:
    """A browser in which the administrator is logged in, and which reaches this machine only."""
    context = browser.new_context(base_url=airflow.url, viewport={"width": 1280, "height": 800}, timezone_id="UTC")
    context.set_default_timeout(PATIENCE)
    context.route(f"{CONSOLE_URL.format('default')}**", lambda route: route.fulfill(body="<h1>The console</h1>"))
    if isinstance(airflow, FabAirflow):
        log_in(context, airflow, airflow.username)
    else:
        page = context.new_page()
        page.goto("/")
        page.get_by_label("Username").fill(airflow.username)
        page.locator("input[name=password]").fill(airflow.password)
        page.get_by_role("button", name="Sign in").click()
        # From its beginning: the login page's own URL ends with this one.
        page.wait_for_url(re.compile(rf"^{re.escape(airflow.url)}/$"))
        page.close()
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A tab of its own for each test; of a test that fails, what it showed is kept."""
    page = context.new_page()
    yield page
    page.close()


@pytest.fixture
def shot(page: Page) -> Callable[[str], None]:
    """Take a picture, into build/e2e and into the folder that SCREENSHOTS names."""

    def shot(name: str) -> None:
        # What has just been done is reported in a corner for some seconds.
        expect(page.get_by_role("status")).to_have_count(0)
        page.mouse.move(640, 795)
        BUILD.mkdir(parents=True, exist_ok=True)
        path = BUILD / f"{name}.png"
        page.screenshot(path=path, animations="disabled", caret="hide")
        if folder := os.environ.get("SCREENSHOTS"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, folder)

    return shot


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[Any]:
    report = yield
    page = getattr(item, "funcargs", {}).get("page")
    if report.when == "call" and report.failed and page:
        folder = BUILD / "failed"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{item.name}.png"
        page.screenshot(path=path)
        path.with_suffix(".txt").write_text(f"{page.url}\n\n{page.locator('body').aria_snapshot()}\n")
        report.sections.append(("What the page showed", f"{path}\n{path.with_suffix('.txt')}"))
    return report
