"""The features that not every Airflow has, and some that every one must have.

A test that is marked with a feature is skipped, with the reason, on an Airflow without it; `make compat` writes the
table of `docs/compatibility.md` from them.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib.metadata import version

import pytest

official_provider = pytest.mark.skipif(sys.version_info < (3, 11), reason="the official provider requires Python 3.11+")

AIRFLOW = tuple(int(part) for part in version("apache-airflow").split("."))


@dataclass(frozen=True)
class Feature:
    """Something that works from an Airflow version on."""

    name: str
    since: tuple[int, ...] = (3, 0)
    #: What an older Airflow does instead.
    before: str = ""

    @property
    def reason(self) -> str:
        """Why a test of it is skipped on an older Airflow."""
        return f"{self.name}: Airflow {'.'.join(map(str, self.since))}+; {self.before}"


FEATURES = {
    "form": Feature("connection form with the provider's own fields"),
    "dag_test": Feature("`dag.test()`", (3, 0, 2), "an older one cannot run a DAG that was read from a file"),
    "end_from_trigger": Feature("`end_from_trigger`"),
    "start_from_trigger": Feature("`start_from_trigger`", (3, 3), "an older one starts the task on a worker"),
    "on_kill": Feature("`cancel_on_kill` of a wait that is deferred", (3, 3), "an older one does not tell the trigger"),
    "events": Feature("a DAG that starts when a batch ends, also after a killed triggerer (`BatchesEndedTrigger`)"),
    "acknowledged": Feature(
        "`BatchesEndedTrigger` stores what it has announced once Airflow has the event",
        (3, 3),
        "an older one confirms no event, so it is stored one look later",
    ),
    "alias_events": Feature(
        "a run that starts because of an asset alias receives the events",
        (3, 1),
        "an older one starts the run without them",
    ),
    "page": Feature("the page *Message Batches*", (3, 1, 1), "an older one shows nothing"),
    "proxy": Feature(
        "the `proxy` of a connection is masked",
        (3, 1, 6),
        "an older one shows it to whoever may see connections",
    ),
    "any_extra": Feature(
        "an `extra` that is not a JSON object is an error of the connection",
        (3, 2),
        "an older one treats such a connection as missing",
    ),
}


def skip_what_this_airflow_lacks(items: list[pytest.Item]) -> None:
    """Skip the tests of features that the installed Airflow lacks, and name each test's feature in the report."""
    for item in items:
        for mark in item.iter_markers("feature"):
            feature = FEATURES[mark.args[0]]
            item.user_properties.append(("feature", feature.name))
            if feature.since > AIRFLOW:
                item.add_marker(pytest.mark.skip(reason=feature.reason))
