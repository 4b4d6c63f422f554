"""Cancel, wait for and delete Anthropic message batches from Apache Airflow."""

__version__ = "0.1.0"
