"""The settings of a client, checked before anything is sent."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Annotated, Any, Literal
from urllib.parse import SplitResult, unquote, urlsplit

import httpx
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    model_validator,
)

from airflow_provider_batches.api import aws, google
from airflow_provider_batches.api.auth import KeyAuth, SecretAuth
from airflow_provider_batches.api.errors import InvalidArgumentError

BASE_URL = "https://api.anthropic.com"
ANTHROPIC_VERSION = "2023-06-01"

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+\Z")
_HEADER_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?\Z")
#: A name or an IP address. httpx and the loopback check could parse anything else as different hosts.
_HOST = re.compile(r"[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?\Z|[0-9A-Fa-f:.]+\Z")
_AWS_HOST = re.compile(rf"{aws.SERVICE}\.[a-z0-9-]+\.api\.aws\Z")
#: Headers that only the client sets: the key is a separate field, and httpx sets the rest.
_OWN_HEADERS = frozenset(
    ["x-api-key", "host", "content-length", "content-type", "transfer-encoding", "connection", "accept-encoding"]
)
_SECRET_HEADER_WORDS = ("auth", "key", "token", "secret", "cookie")
_SECRET_FIELDS = frozenset({"api_key", "headers", "secret_headers", "proxy", "base_url"})
#: Shorter header values are not redacted, because they occur in ordinary words. Airflow's default is the same.
_SHORTEST_SECRET = 5


def _header_value(value: str) -> str:
    if not _HEADER_VALUE.match(value):
        raise ValueError("must be printable ASCII without line breaks, not empty")
    return value


def _api_key(value: SecretStr) -> SecretStr:
    key = value.get_secret_value().strip()
    if not key or not _HEADER_VALUE.match(key) or " " in key:
        raise ValueError("must be an API key: printable ASCII, without blanks or line breaks, not empty")
    return SecretStr(key)


def _url(text: str, *schemes: str) -> SplitResult | None:
    """Return the parts of a URL; None if it is not valid or has no host."""
    try:
        url = urlsplit(text)
        host = url.hostname or ""
        # Raises ValueError if a label is empty or too long, as connecting would.
        valid = _HOST.match(host) and host.encode("idna") and httpx.URL(text).host and url.port != 0
    except (ValueError, httpx.InvalidURL):
        return None
    return url if valid and url.scheme in schemes and _HEADER_VALUE.match(text) and " " not in text else None


def _base_url(value: str) -> str:
    text = value.strip()
    text = (text if "://" in text else f"https://{text}").rstrip("/")
    url = _url(text, "http", "https")
    if url is None or url.netloc.endswith(":") or "\\" in text:
        raise ValueError("must be a URL like https://api.anthropic.com, or a host name with or without a port")
    if url.username is not None or url.password is not None:
        raise ValueError("must not contain a user or a password; the key is a separate setting")
    if "?" in text or "#" in text:
        raise ValueError("must not have a query or a fragment")
    if url.path.endswith("/v1") or "/v1/messages" in url.path:
        raise ValueError("must end before /v1: the client adds /v1/messages/batches itself")
    return text


def _flags(value: Any) -> Any:
    if isinstance(value, str):
        value = value.split(",")
    if not isinstance(value, (list, tuple)) or not all(isinstance(flag, str) for flag in value):
        return value  # pydantic reports what is wrong
    return tuple(flag.strip() for flag in value if flag.strip())


def _headers(value: dict[str, str]) -> dict[str, str]:
    for name, text in value.items():
        if not _HEADER_NAME.match(name) or not _HEADER_VALUE.match(text):
            raise ValueError(f"{name!r} is not a valid header name, or its value is not printable ASCII")
        if name.lower() in _OWN_HEADERS:
            raise ValueError(f"{name!r} is set by the client; the key is a separate setting")
    return value


def _proxy(value: str) -> str:
    if not _url(value, "http", "https", "socks5", "socks5h"):
        raise ValueError("must be a URL like http://proxy.example:3128")
    return value


def _verify(value: Any) -> bool | str:
    if isinstance(value, bool):
        return value
    lowered = str(value).strip().lower()
    if lowered in ("true", "false"):
        return lowered == "true"
    if not isinstance(value, str) or not os.path.exists(value):
        raise ValueError("must be true, false, or the path of a CA file that exists")
    return value


HeaderText = Annotated[str, AfterValidator(_header_value)]


class ClientSettings(BaseModel):
    """How a client reaches the API.

    :param api_key: The key, or the token if `auth_scheme` is `bearer`. Either this or `identity` is required.
    :param identity: Who calls, without a key: `Federation`, `AwsIdentity` or `GoogleIdentity`.
    :param base_url: The API's URL without `/v1`. Default `https://api.anthropic.com`.
    :param auth_scheme: `x-api-key` (default) or `bearer` (gateways, OAuth).
    :param anthropic_version: The `anthropic-version` header. Default `2023-06-01`.
    :param anthropic_beta: Flags of the `anthropic-beta` header, a list or comma-separated. Default none.
    :param workspace_id: The `anthropic-workspace-id` header, for keys that span workspaces. Default none.
    :param headers: More headers. They override the client's, except those of the key and of httpx.
    :param secret_headers: The same, with values that are redacted. They override `headers`.
    :param timeout: Seconds for connecting (10 at most), and for each read or write. Default 60.
    :param max_retries: How often a failed call is retried. Default 5.
    :param proxy: URL of a proxy. Default: the environment's.
    :param verify: Whether certificates are checked, or the path of a CA file. Default True.
    :param allow_http: Whether a plain `http://` URL may be used for a host other than this machine. Default False.
    :param user_agent: The `User-Agent` header.
    :param on_token: Called with each new access token of an `identity` by the sync client. Default: nothing.
    :param labels: Names of settings in error texts, by the names used here. Default: the same names.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    api_key: Annotated[SecretStr, AfterValidator(_api_key)] | None = None
    #: An `Identity`.
    identity: Any = None
    base_url: Annotated[str, AfterValidator(_base_url)] = BASE_URL
    auth_scheme: Literal["x-api-key", "bearer"] = "x-api-key"
    anthropic_version: HeaderText = ANTHROPIC_VERSION
    anthropic_beta: Annotated[tuple[HeaderText, ...], BeforeValidator(_flags)] = ()
    workspace_id: HeaderText | None = None
    headers: Annotated[dict[str, str], AfterValidator(_headers)] = Field(default={}, repr=False)
    secret_headers: Annotated[dict[str, str], AfterValidator(_headers)] = Field(default={}, repr=False)
    timeout: Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)] = 60.0
    max_retries: Annotated[int, Field(ge=0, le=20)] = 5
    proxy: Annotated[str, AfterValidator(_proxy)] | None = Field(default=None, repr=False)
    verify: Annotated[bool | str, BeforeValidator(_verify)] = True
    allow_http: bool = False
    user_agent: HeaderText = "airflow-provider-batches"
    on_token: Callable[[str], None] | None = Field(default=None, repr=False)
    labels: Mapping[str, str] = Field(default={}, repr=False)
    #: Modification time and size of the CA file, to notice that it was replaced.
    _ca_file: tuple[int, int] | None = PrivateAttr(default=None)

    def model_post_init(self, _: Any) -> None:
        """Record the version of the CA file."""
        if isinstance(self.verify, str):
            found = os.stat(self.verify)
            self._ca_file = (found.st_mtime_ns, found.st_size)

    @property
    def trust(self) -> tuple[bool | str, tuple[int, int] | None]:
        """The CA certificates to verify against, and the version of their file."""
        return self.verify, self._ca_file

    @model_validator(mode="after")
    def _consistent(self) -> ClientSettings:
        url = urlsplit(self.base_url)
        if (self.api_key is None) == (self.identity is None):
            both = "identity is also set. Remove one of them"
            raise ValueError(f"api_key: {'is required' if self.api_key is None else both}")
        if url.scheme == "http" and not self.is_loopback and (self.identity or not self.allow_http):
            allowed = "use https://" if self.identity else "use https://, or set allow_http"
            raise ValueError(f"base_url: http://{url.hostname} would send the credentials unencrypted; {allowed}")
        for field, headers in (("headers", self.headers), ("secret_headers", self.secret_headers)):
            if self.auth_scheme == "bearer" and any(name.lower() == "authorization" for name in headers):
                raise ValueError(f"{field}: 'Authorization' is set by the client if auth_scheme is bearer")
        return self

    @classmethod
    def parse(cls, **values: Any) -> ClientSettings:
        """Return checked settings.

        :raises InvalidArgumentError: A value is wrong. The message names each wrong field, its value unless it is
            secret, and what is allowed.
        """
        try:
            return cls(**values)
        except ValidationError as error:
            raise InvalidArgumentError("", "; ".join(_problems(error, values.get("labels", {})))) from None

    @cached_property
    def auth(self) -> SecretAuth:
        """Signs the requests."""
        if self.identity:
            signer: SecretAuth = self.identity.auth(self)
            return signer
        assert self.api_key is not None  # noqa: S101 - one of them is set
        return KeyAuth(self.api_key.get_secret_value(), self.auth_scheme)

    @property
    def is_loopback(self) -> bool:
        """Whether the base URL names this machine."""
        return _is_loopback(urlsplit(self.base_url).hostname or "")

    @property
    def is_direct(self) -> bool:
        """Whether the base URL is a known host of the API, not a gateway."""
        host = urlsplit(self.base_url).hostname or ""
        return self.is_loopback or host in (urlsplit(BASE_URL).hostname, google.HOST) or bool(_AWS_HOST.match(host))

    def label(self, field: str) -> str:
        """Return the name of a setting in error texts."""
        return self.labels.get(field, field)

    def request_headers(self) -> dict[str, str]:
        """Return the headers of every request, except those that sign it."""
        headers = {
            "accept": "application/json",
            "anthropic-beta": ",".join(self.anthropic_beta),
            "anthropic-version": self.anthropic_version,
            "anthropic-workspace-id": self.workspace_id or "",
            "user-agent": self.user_agent,
        }
        for more in (self.headers, self.secret_headers):
            headers |= {name.lower(): value for name, value in more.items()}
        return {name: value for name, value in headers.items() if value}

    def secrets(self) -> Iterator[str]:
        """Iterate over the secrets: the key, and the credentials in headers and proxy."""
        yield from self.auth.secrets()
        named = (value for name, value in self.headers.items() if any(w in name.lower() for w in _SECRET_HEADER_WORDS))
        for value in (*named, *self.secret_headers.values()):
            # For `Bearer token`, the token alone is a secret, too.
            yield from (text for text in dict.fromkeys((value, value.split()[-1])) if len(text) >= _SHORTEST_SECRET)
        if password := urlsplit(self.proxy or "").password:
            yield from (password, unquote(password))

    def redact(self, text: str) -> str:
        """Replace the secrets in a text by `***`."""
        # Longest first, because one secret may be part of another.
        for secret in sorted(self.secrets(), key=len, reverse=True):
            text = text.replace(secret, "***")
        return text


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _problems(error: ValidationError, labels: Mapping[str, str]) -> list[str]:
    found = []
    for item in error.errors(include_url=False, include_context=False):
        field = str(item["loc"][0]) if item["loc"] else ""
        text = item["msg"].removeprefix("Value error, ")
        if item["type"] == "missing":
            text = "is required"
        elif item["type"] == "extra_forbidden":
            text = f"is not a valid setting. Supported: {', '.join(ClientSettings.model_fields)}"
        elif field and field not in _SECRET_FIELDS:
            text = f"got {str(item['input'])[:80]!r}; {text[:1].lower()}{text[1:]}"
        elif not field:
            field, _, text = text.partition(": ")
        found.append(f"{labels.get(field, field)}: {text}")
    return found
