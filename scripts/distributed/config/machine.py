"""Returns the host name that a component of the distributed Airflow uses."""

import os


def name() -> str:
    return os.environ["MACHINE"]
