"""A local server that emulates the Message Batches API, for demos and for tests of DAGs.

Heavy modules are imported only when an `Emulator` is created.
"""

from __future__ import annotations

from airflow_provider_batches.emulator.behavior import Behavior
from airflow_provider_batches.emulator.faults import Fault
from airflow_provider_batches.emulator.server import Emulator

__all__ = ["Behavior", "Emulator", "Fault"]
