"""Converts an Airflow connection into the client's settings. No I/O."""

from __future__ import annotations

import json
import platform as python_platform
from collections.abc import Callable, Mapping
from contextlib import suppress
from difflib import get_close_matches
from ipaddress import IPv6Address
from typing import Any, Protocol

from airflow_provider_batches import __version__
from airflow_provider_batches._compat import AIRFLOW_VERSION
from airflow_provider_batches.api import ClientSettings, InvalidArgumentError
from airflow_provider_batches.hooks.form import FIELDS
from airflow_provider_batches.hooks.platforms import Reader, federation_of

#: This provider's type, and the official provider's.
CONN_TYPES = ("anthropic_batches", "anthropic")
#: Keys of the extra, which are the client's settings of the same names.
EXTRA_FIELDS = (*FIELDS, "headers", "workload_identity")
#: Keys of the official provider's `anthropic_client_kwargs`, and the corresponding settings.
_OFFICIAL_KWARGS = {
    "api_key": "api_key",
    "base_url": "base_url",
    "timeout": "timeout",
    "max_retries": "max_retries",
    "default_headers": "headers",
    "workspace_id": "workspace_id",
}
#: The same, on AWS.
_OFFICIAL_AWS_KWARGS = {
    **_OFFICIAL_KWARGS,
    **{key: key for key in ("aws_region", "aws_access_key", "aws_secret_key", "aws_session_token", "aws_profile")},
}
USER_AGENT = (
    f"airflow-provider-batches/{__version__} apache-airflow/{AIRFLOW_VERSION} python/{python_platform.python_version()}"
)


class ConnectionLike(Protocol):
    """The fields of an Airflow connection that this module reads."""

    conn_id: str
    conn_type: str
    host: str | None
    port: int | None
    login: str | None
    schema: str | None
    password: str | None
    extra: str | None


def read_settings(
    connection: ConnectionLike,
    environment: Mapping[str, str],
    name: str | None = None,
    get_connection: Callable[[str], Any] | None = None,
    on_token: Callable[[str], None] | None = None,
) -> ClientSettings:
    """Return the settings of a connection; empty fields count as absent.

    The credentials and the URL of the environment belong together: both are used, or neither.

    :param connection: Of type `anthropic_batches`, or of the official provider's type `anthropic`.
    :param environment: Provides credentials, if the connection has none.
    :param name: The connection's name in error texts. Default: its ID.
    :param get_connection: Returns another connection, for credentials of AWS, Google and Azure.
    :param on_token: Called with each new access token.
    :raises InvalidArgumentError: A field is wrong. The message names the connection, the field and what is allowed.
    """
    name = name or f"connection {connection.conn_id!r}"
    where, conn_type = name[:1].upper() + name[1:], (connection.conn_type or "").replace("-", "_")
    if conn_type not in CONN_TYPES:
        # Otherwise a wrong connection ID would send another service's password to the API.
        hint = "" if conn_type else " In a URI, write anthropic-batches://, since a scheme cannot contain '_'."
        raise InvalidArgumentError(
            where, f"type is {connection.conn_type!r}; it must be 'anthropic_batches' or 'anthropic'.{hint}"
        )
    is_official = conn_type == "anthropic"
    if connection.login and not is_official:
        raise InvalidArgumentError(
            where,
            "login is set, but is not used. Put the key into the password; in a URI, write a colon before it.",
        )
    values = (_official_values if is_official else _values)(where, _extra(where, connection.extra))
    labels = {field: f"extra.{field} of {name}" for field in EXTRA_FIELDS}
    labels |= {"api_key": f"password of {name}", "base_url": f"host of {name}"}
    if is_official:
        # Arguments for the official client take precedence over the connection's fields.
        keys = {field: key for key, field in _OFFICIAL_KWARGS.items() if field in values}
        labels |= {field: f"extra.anthropic_client_kwargs.{key} of {name}" for field, key in keys.items()}
    if connection.password:
        values.setdefault("api_key", connection.password)
    if url := _url(where, connection):
        values.setdefault("base_url", url)
    reader = Reader(where, name, values, environment, get_connection or _no_connection, is_official, labels)
    reader.read()
    return ClientSettings.parse(user_agent=USER_AGENT, on_token=on_token, labels=labels, **values)


def _no_connection(conn_id: str) -> Any:
    raise LookupError(conn_id)


def _extra(where: str, text: str | None) -> dict[str, Any]:
    # Not `extra_dejson`, which silently returns an empty dictionary for invalid JSON.
    extra = _json(text) if text else {}
    if extra is None:
        raise InvalidArgumentError(where, "extra is not valid JSON. Expected an object, for example {}.")
    if not isinstance(extra, dict):
        raise InvalidArgumentError(where, f"extra must be a JSON object, not {type(extra).__name__}.")
    # Connections from the command line or the environment may use the form's long names.
    return {name.removeprefix("extra__anthropic_batches__"): value for name, value in extra.items()}


def _values(where: str, extra: dict[str, Any]) -> dict[str, Any]:
    if unknown := sorted(set(extra) - set(EXTRA_FIELDS)):
        hints = "".join(f" {_hint(key)}" for key in unknown)
        raise InvalidArgumentError(
            where,
            f"extra has unknown keys: {', '.join(map(repr, unknown))}.{hints} Supported: {', '.join(EXTRA_FIELDS)}.",
        )
    federation = dict(federation_of(where, extra))
    values = {name: value for name, value in extra.items() if value not in (None, "", {}, [])} | federation
    values.pop("workload_identity", None)
    for name in ("headers", "secret_headers"):
        if isinstance(text := values.get(name), str):
            values[name] = _json(text)
        if not isinstance(values.get(name, {}), dict):
            raise InvalidArgumentError(where, f"extra.{name} must be a JSON object of strings.")
    return values


def _hint(key: str) -> str:
    """Return a hint about an unknown key."""
    for names, field in (("api_key key token auth_token password", "password"), ("base_url url endpoint", "host")):
        if key.lower() in names.split():
            return f"Put {key!r} into the {field}."
    return "".join(f"Is {key!r} meant to be {close!r}?" for close in get_close_matches(key, EXTRA_FIELDS, 1))


def _json(text: str) -> Any:
    # Never chain or show the decoder's error, which contains the whole text with its secrets.
    try:
        return json.loads(text)
    except ValueError:
        return None


def _official_values(where: str, extra: dict[str, Any]) -> dict[str, Any]:
    kwargs = extra.get("anthropic_client_kwargs") or {}
    if not isinstance(kwargs, dict):
        raise InvalidArgumentError(where, "extra.anthropic_client_kwargs must be a JSON object.")
    platform = str(extra.get("platform") or "anthropic").lower()
    known = _OFFICIAL_AWS_KWARGS if platform == "aws" else _OFFICIAL_KWARGS
    values = {name: kwargs[key] for key, name in known.items() if kwargs.get(key) is not None}
    if platform == "aws" and extra.get("aws_region"):
        values.setdefault("aws_region", extra["aws_region"])
    if platform == "anthropic":
        values |= federation_of(where, extra)
    return values | {"platform": platform}


def _url(where: str, connection: ConnectionLike) -> str | None:
    host, port, path = (connection.host or "").strip(), connection.port, (connection.schema or "").strip("/ ")
    if not host:
        if path or port not in (None, 443):
            field = "schema" if path else "port"
            raise InvalidArgumentError(where, f"{field} is set, but host is not. Set the host, or leave {field} empty.")
        return None
    scheme, _, rest = host.rpartition("://")
    if path in ("http", "https") and not scheme:
        # Airflow's HTTP connections use `schema` for the scheme.
        scheme, path = path, ""
    name, slash, inner = rest.partition("/")
    with suppress(ValueError):
        name = f"[{IPv6Address(name)}]"
    if port is not None:
        _, colon, named = name.rpartition("]")[2].rpartition(":")
        if colon and named != str(port):
            raise InvalidArgumentError(where, f"host contains a port that differs from port ({port}). Set only one.")
        name = name if colon else f"{name}:{port}"
    url = f"{scheme or 'https'}://{name}{slash}{inner}"
    # A connection's URI has the path in `schema`.
    return f"{url.rstrip('/')}/{path}" if path else url
