from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from airflow_provider_batches.emulator.messages import Answers
from airflow_provider_batches.emulator.requestlog import LoggedRequest


@dataclass
class Settings:
    """The settings of an emulator; see `Emulator`."""

    api_key: str | None = field(default="sk-ant-emulator", repr=False)
    batch_seconds: float = 3600.0
    cancel_seconds: float = 0.0
    requests_per_minute: int | None = None
    error_fraction: float = 0.0
    max_requests: int = 100_000
    max_bytes: int = 256 * 1024 * 1024
    log_size: int = 10_000
    body_seconds: float = 60.0
    workspace_id: str = "default"
    federation_rule_id: str | None = None
    token_seconds: float = 3600.0
    aws_keys: Mapping[str, str] | None = field(default=None, repr=False)
    answers: Answers | None = None
    outcomes: Mapping[str, str] | None = None
    on_request: Callable[[LoggedRequest], None] | None = None
