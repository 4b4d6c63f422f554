"""The Message Batches API as a local server, for demos and for tests of DAGs.

Nothing heavy is imported before an `Emulator` is made.
"""

from __future__ import annotations

from airflow_provider_batches.emulator.behavior import Behavior
from airflow_provider_batches.emulator.faults import Fault
from airflow_provider_batches.emulator.server import Emulator

__all__ = ["Behavior", "Emulator", "Fault"]
