"""The metadata for Airflow and pip describes what is in the package."""

from __future__ import annotations

import importlib
import pkgutil
from importlib.metadata import entry_points, metadata, version
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import BaseOperatorLink

import airflow_provider_batches
from airflow_provider_batches.get_provider_info import get_provider_info
from airflow_provider_batches.hooks.batches import BatchesHook

DISTRIBUTION = "airflow-provider-batches"
PACKAGE = Path(airflow_provider_batches.__file__).parent
INFO = get_provider_info()
ROOMS = ("hooks", "operators", "sensors", "triggers")


def load(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def modules_of(room: str) -> set[str]:
    return {name for section in INFO[room] for name in section["python-modules"]}


def test_the_entry_point_leads_to_the_provider_info() -> None:
    (entry_point,) = (
        point
        for point in entry_points(group="apache_airflow_provider")
        if point.dist is not None and point.dist.name == DISTRIBUTION
    )

    assert entry_point.load() is get_provider_info


def test_the_package_name_is_the_distribution_s_dash_form() -> None:
    assert INFO["package-name"] == metadata(DISTRIBUTION)["Name"] == DISTRIBUTION


def test_one_version_everywhere() -> None:
    assert INFO["versions"] == [airflow_provider_batches.__version__] == [version(DISTRIBUTION)]


def test_airflow_accepts_the_provider_info() -> None:
    from airflow.providers_manager import ProvidersManager

    found = ProvidersManager().providers[DISTRIBUTION]

    assert found.version == airflow_provider_batches.__version__
    assert found.data["connection-types"] == INFO["connection-types"]


@pytest.mark.parametrize("room", ROOMS)
def test_every_listed_module_imports(room: str) -> None:
    for name in modules_of(room):
        importlib.import_module(name)


@pytest.mark.parametrize("room", ROOMS)
def test_every_module_whose_classes_dags_import_is_listed(room: str) -> None:
    base = {
        "hooks": "BatchesHook",
        "operators": "BaseOperator",
        "sensors": "BaseSensorOperator",
        "triggers": "BaseTrigger",
    }[room]
    holding = set()
    for found in pkgutil.iter_modules([str(PACKAGE / room)]):
        name = f"airflow_provider_batches.{room}.{found.name}"
        classes = [each for each in vars(importlib.import_module(name)).values() if isinstance(each, type)]
        private = found.name.startswith("_")
        if not private and any(
            each.__module__ == name and base in (c.__name__ for c in each.__mro__) for each in classes
        ):
            holding.add(name)

    assert modules_of(room) == holding


def test_every_listed_integration_is_declared() -> None:
    declared = {integration["integration-name"] for integration in INFO["integrations"]}

    assert {section["integration-name"] for room in ROOMS for section in INFO[room]} == declared


def test_the_connection_type_is_the_hook_s() -> None:
    (connection,) = INFO["connection-types"]

    assert load(connection["hook-class-name"]) is BatchesHook
    assert connection["connection-type"] == BatchesHook.conn_type
    assert connection["hook-name"] == BatchesHook.hook_name


def test_the_form_is_the_same_for_old_and_new_airflows() -> None:
    (connection,) = INFO["connection-types"]
    behaviour = connection["ui-field-behaviour"]

    assert {name.replace("-", "_"): value for name, value in behaviour.items()} == BatchesHook.get_ui_field_behaviour()
    assert list(connection["conn-fields"]) == list(BatchesHook.get_connection_form_widgets())


def test_the_extra_links_are_those_of_the_operators() -> None:
    from airflow_provider_batches.operators.batches import CancelBatchOperator, DeleteBatchOperator
    from airflow_provider_batches.sensors.batches import BatchEndedSensor

    listed = {load(path) for path in INFO["extra-links"]}

    assert all(issubclass(link, BaseOperatorLink) for link in listed)
    for operator in (CancelBatchOperator, DeleteBatchOperator, BatchEndedSensor):
        assert {type(link) for link in operator.operator_extra_links} <= listed


def test_the_official_provider_keeps_its_connection_type() -> None:
    assert "anthropic" not in {connection["connection-type"] for connection in INFO["connection-types"]}
