"""The name of the machine that a component of the distributed Airflow believes to run on."""

import os


def name() -> str:
    return os.environ["MACHINE"]
