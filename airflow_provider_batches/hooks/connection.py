"""Reads an Airflow connection as the client's settings. No I/O."""

from __future__ import annotations

import json
import platform as python_platform
from collections.abc import Mapping
from typing import Any, Protocol

from airflow_provider_batches import __version__
from airflow_provider_batches._compat import AIRFLOW_VERSION
from airflow_provider_batches.api import ClientSettings, InvalidArgumentError
from airflow_provider_batches.hooks.form import FIELDS

#: Settings of the client that a connection's extra holds under the same name.
EXTRA_FIELDS = (*FIELDS, "headers")
#: What the extra of the official provider's connection holds, and the setting it stands for.
_OFFICIAL_KWARGS = {
    "api_key": "api_key",
    "base_url": "base_url",
    "timeout": "timeout",
    "max_retries": "max_retries",
    "default_headers": "headers",
}
USER_AGENT = (
    f"airflow-provider-batches/{__version__} apache-airflow/{AIRFLOW_VERSION} python/{python_platform.python_version()}"
)


class ConnectionLike(Protocol):
    """The part of an Airflow connection that is read here."""

    conn_id: str
    conn_type: str
    host: str | None
    port: int | None
    password: str | None
    extra: str | None


def read_settings(connection: ConnectionLike, environment: Mapping[str, str]) -> ClientSettings:
    """Return the settings that a connection holds; empty fields count as absent.

    :param connection: Of type `anthropic_batches`, or of the official provider's type `anthropic`.
    :param environment: Where `ANTHROPIC_API_KEY` is looked up if the connection has no password.
    :raises InvalidArgumentError: A field is wrong; the message names the connection, the field and what is allowed.
    """
    where, name = f"Connection {connection.conn_id!r}", f"connection {connection.conn_id!r}"
    if connection.conn_type not in ("anthropic_batches", "anthropic"):
        # Or the password of any connection whose ID a person types into a form would be sent to the API.
        raise InvalidArgumentError(
            where, f"its type is {connection.conn_type!r}; it must be 'anthropic_batches' or 'anthropic'."
        )
    is_official = connection.conn_type == "anthropic"
    values = (_official_values if is_official else _values)(where, _extra(where, connection.extra))
    labels = {field: f"extra.{field} of {name}" for field in EXTRA_FIELDS}
    labels |= {"api_key": f"password of {name}", "base_url": f"host of {name}"}
    if is_official:
        # If the connection holds arguments for the official client, these win.
        keys = {field: key for key, field in _OFFICIAL_KWARGS.items() if field in values}
        labels |= {field: f"extra.anthropic_client_kwargs.{key} of {name}" for field, key in keys.items()}
    if "api_key" not in values and not connection.password:
        labels["api_key"] = "ANTHROPIC_API_KEY in the environment"
    values.setdefault("api_key", connection.password or environment.get("ANTHROPIC_API_KEY"))
    if not values["api_key"]:
        raise InvalidArgumentError(
            where,
            "it has no API key. Put it into the password, or set ANTHROPIC_API_KEY in the environment of the workers "
            "and the triggerer.",
        )
    if "base_url" not in values and (url := _url(where, connection)):
        values["base_url"] = url
    return ClientSettings.parse(user_agent=USER_AGENT, labels=labels, **values)


def _extra(where: str, text: str | None) -> dict[str, Any]:
    # Not `extra_dejson`: it answers broken JSON with an empty dictionary, and the settings would be lost silently.
    extra = _json(text) if text else {}
    if extra is None:
        raise InvalidArgumentError(where, "extra is not valid JSON. Expected an object, for example {}.")
    if not isinstance(extra, dict):
        raise InvalidArgumentError(where, f"extra must be a JSON object, not {type(extra).__name__}.")
    # Airflow's command line and environment may hold the form's long names.
    return {name.removeprefix("extra__anthropic_batches__"): value for name, value in extra.items()}


def _values(where: str, extra: dict[str, Any]) -> dict[str, Any]:
    unknown = ", ".join(map(repr, sorted(set(extra) - set(EXTRA_FIELDS))))
    if unknown:
        raise InvalidArgumentError(where, f"extra has unknown keys: {unknown}. Supported: {', '.join(EXTRA_FIELDS)}.")
    values = {name: value for name, value in extra.items() if value not in (None, "", {}, [])}
    for name in ("headers", "secret_headers"):
        if isinstance(text := values.get(name), str):
            values[name] = _json(text)
        if not isinstance(values.get(name, {}), dict):
            raise InvalidArgumentError(where, f"extra.{name} must be a JSON object of strings.")
    return values


def _json(text: str) -> Any:
    # The decoder's error holds the whole text, secrets included: no error raised from here may hold that one.
    try:
        return json.loads(text)
    except ValueError:
        return None


def _official_values(where: str, extra: dict[str, Any]) -> dict[str, Any]:
    platform = str(extra.get("platform") or "anthropic").lower()
    if platform != "anthropic":
        raise InvalidArgumentError(
            where, f"extra.platform is {platform!r}, which is not supported: use a connection of platform 'anthropic'."
        )
    if extra.get("workload_identity"):
        raise InvalidArgumentError(
            where,
            "extra.workload_identity is not supported: use a connection with an API key, or with a token and "
            "auth_scheme 'bearer'.",
        )
    kwargs = extra.get("anthropic_client_kwargs") or {}
    if not isinstance(kwargs, dict):
        raise InvalidArgumentError(where, "extra.anthropic_client_kwargs must be a JSON object.")
    return {name: kwargs[key] for key, name in _OFFICIAL_KWARGS.items() if kwargs.get(key) is not None}


def _url(where: str, connection: ConnectionLike) -> str | None:
    host = (connection.host or "").strip()
    if not host or connection.port is None:
        return host or None
    scheme, _, rest = host.rpartition("://")
    name, slash, path = rest.partition("/")
    if ":" not in name.rpartition("]")[2]:
        return f"{scheme or 'https'}://{name}:{connection.port}{slash}{path}"
    if name.rpartition(":")[2] != str(connection.port):
        raise InvalidArgumentError(where, f"host names another port than the field port ({connection.port}).")
    return host
