"""Reads an Airflow connection as the client's settings. No I/O."""

from __future__ import annotations

import json
import platform as python_platform
from collections.abc import Mapping
from typing import Any, Protocol

from airflow_provider_batches import __version__
from airflow_provider_batches._compat import AIRFLOW_VERSION
from airflow_provider_batches.api import ClientSettings, InvalidArgumentError

#: Settings of the client that a connection's extra holds under the same name.
EXTRA_FIELDS = (
    "auth_scheme",
    "anthropic_version",
    "anthropic_beta",
    "workspace_id",
    "headers",
    "secret_headers",
    "timeout",
    "max_retries",
    "proxy",
    "verify",
    "allow_http",
)
#: Our own, and the official provider's.
CONNECTION_TYPES = ("anthropic_batches", "anthropic")
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
    where = f"Connection {connection.conn_id!r}"
    if connection.conn_type not in CONNECTION_TYPES:
        # Without this, the password of any connection whose ID a person types into a form would be sent to the API.
        raise InvalidArgumentError(
            f"{where} is of type {connection.conn_type!r}; it must be {' or '.join(map(repr, CONNECTION_TYPES))}."
        )
    extra = _extra(where, connection.extra)
    official = connection.conn_type == "anthropic"
    values = _official_values(where, extra) if official else _values(where, extra)
    # Where the official provider's connection holds arguments for its client, these win.
    names = {"api_key": "password", "base_url": "host"}
    if official:
        names |= {
            name: f"extra.anthropic_client_kwargs.{key}" for key, name in _OFFICIAL_KWARGS.items() if name in values
        }
    values.setdefault("api_key", connection.password or environment.get("ANTHROPIC_API_KEY"))
    if not values["api_key"]:
        raise InvalidArgumentError(
            f"{where} has no API key: put it into the connection's password, or set ANTHROPIC_API_KEY in the "
            "environment of the workers and the triggerer."
        )
    if "base_url" not in values and (url := _url(where, connection)):
        values["base_url"] = url
    try:
        return ClientSettings.parse(user_agent=USER_AGENT, **values)
    except InvalidArgumentError as error:
        fields = str(error)
        for name, field in names.items():
            fields = fields.replace(f"{name}:", f"{field}:")
        raise InvalidArgumentError(f"{where} is not usable: {fields}.") from None


def _extra(where: str, text: str | None) -> dict[str, Any]:
    # Not `extra_dejson`: it answers broken JSON with an empty dictionary, and the settings would be lost silently.
    if not text:
        return {}
    extra = _json(text)
    if extra is None:
        raise InvalidArgumentError(f"{where}: extra is no JSON; it must be an object like {{}}.")
    if not isinstance(extra, dict):
        raise InvalidArgumentError(f"{where}: extra must be a JSON object, not {type(extra).__name__}.")
    # Airflow's command line and environment may hold the form's long names.
    return {name.removeprefix("extra__anthropic_batches__"): value for name, value in extra.items()}


def _values(where: str, extra: dict[str, Any]) -> dict[str, Any]:
    unknown = sorted(set(extra) - set(EXTRA_FIELDS))
    if unknown:
        raise InvalidArgumentError(
            f"{where}: extra has {', '.join(map(repr, unknown))}, which mean nothing here; "
            f"there are {', '.join(EXTRA_FIELDS)}."
        )
    values = {name: value for name, value in extra.items() if value not in (None, "", {}, [])}
    for name in ("headers", "secret_headers"):
        if isinstance(text := values.get(name), str):
            values[name] = _json(text)
        if not isinstance(values.get(name, {}), dict):
            raise InvalidArgumentError(f"{where}: extra.{name} must be a JSON object of strings.")
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
            f"{where}: extra.platform is {platform!r}, but message batches are served by Anthropic's own API alone: "
            "use a connection whose platform is 'anthropic'."
        )
    if extra.get("workload_identity"):
        raise InvalidArgumentError(
            f"{where}: extra.workload_identity is not supported here; use a connection with an API key, or with a "
            "token and auth_scheme 'bearer'."
        )
    kwargs = extra.get("anthropic_client_kwargs") or {}
    if not isinstance(kwargs, dict):
        raise InvalidArgumentError(f"{where}: extra.anthropic_client_kwargs must be a JSON object.")
    return {name: kwargs[key] for key, name in _OFFICIAL_KWARGS.items() if kwargs.get(key) is not None}


def _url(where: str, connection: ConnectionLike) -> str | None:
    host = (connection.host or "").strip()
    if not host or connection.port is None:
        return host or None
    scheme, _, rest = host.rpartition("://")
    name, slash, path = rest.partition("/")
    if ":" in name.rpartition("]")[2]:
        if name.rpartition(":")[2] != str(connection.port):
            raise InvalidArgumentError(f"{where}: host names another port than the field port ({connection.port}).")
        return host
    return f"{scheme or 'https'}://{name}:{connection.port}{slash}{path}"
