"""A stand-in for an Airflow connection."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Connection:
    """What the hook reads of a connection."""

    conn_id: str = "here"
    conn_type: str = "anthropic_batches"
    host: str | None = None
    port: int | None = None
    login: str | None = None
    schema: str | None = None
    password: str | None = None
    extra: str | None = None

    def get_uri(self) -> str:
        return f"{self.conn_type}://{self.password}"
