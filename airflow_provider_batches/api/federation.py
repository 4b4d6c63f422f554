"""Workload identity federation: exchanges the identity token (a JWT) of a workload for an access token of the API.

See https://platform.claude.com/docs/en/manage-claude/workload-identity-federation.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx

from airflow_provider_batches.api.errors import CredentialsError
from airflow_provider_batches.api.evidence import Proof
from airflow_provider_batches.api.tokens import Token, TokenAuth

if TYPE_CHECKING:
    from airflow_provider_batches.api.settings import ClientSettings

PATH = "/v1/oauth/token"
_GRANT_TYPE = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_CALL_BETA = "oauth-2025-04-20"
_EXCHANGE_BETA = f"{_CALL_BETA},oidc-federation-2026-04-01"
#: Seconds for each read or write of an exchange, and for connecting.
_TIMEOUT = httpx.Timeout(30.0, connect=10.0)
_MAX_JWT = 16 * 1024
#: A token that lasts longer is not plausible.
_MAX_LIFE = 366 * 86_400


@dataclass(frozen=True)
class TokenFile:
    """Reads an identity token from a file each time, because Kubernetes replaces the file."""

    path: str

    def __call__(self) -> str:
        """Return the content of the file. Raises CredentialsError if it cannot be read."""
        try:
            with open(self.path, "rb") as file:
                return file.read(_MAX_JWT + 1).decode("latin-1")
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise CredentialsError(f"{self} cannot be read: {reason}. Check the path and the volume.") from None

    def __str__(self) -> str:
        return f"the identity token in {self.path!r}"


@dataclass(frozen=True)
class Federation:
    """Who a workload is for the API.

    :param identity_token: Returns the JWT. May block. Its `str()` names it in error texts.
    :param federation_rule_id: The rule that accepts the identity.
    :param organization_id: The UUID of the organization.
    :param service_account_id: The service account to act as. Default: the rule's.
    :param workspace_id: The workspace, if the rule has several. Default: the rule's.
    """

    identity_token: Callable[[], str]
    federation_rule_id: str
    organization_id: str
    service_account_id: str | None = None
    workspace_id: str | None = None

    def auth(self, settings: ClientSettings) -> TokenAuth:
        """Return what signs the requests of a client."""
        exchange = _Exchange(self, settings.base_url, settings.proxy, settings.trust, settings.user_agent)
        return TokenAuth(exchange, _CALL_BETA, settings.on_token)


@dataclass(frozen=True)
class _Exchange:
    """Exchanges the identity token at the API."""

    identity: Federation
    base_url: str
    proxy: str | None
    trust: tuple[bool | str, tuple[int, int] | None]
    user_agent: str

    def fetch(self) -> Token:
        jwt = self._identity_token()
        body = {
            "grant_type": _GRANT_TYPE,
            "assertion": jwt,
            "federation_rule_id": self.identity.federation_rule_id,
            "organization_id": self.identity.organization_id,
            "service_account_id": self.identity.service_account_id,
            "workspace_id": self.identity.workspace_id,
        }
        headers = {"anthropic-beta": _EXCHANGE_BETA, "user-agent": self.user_agent}
        url = self.base_url + PATH
        try:
            with self._client() as http:
                response = http.post(url, headers=headers, json={name: each for name, each in body.items() if each})
        except (httpx.HTTPError, UnicodeError) as error:
            # Not httpx's error, which holds the request with the identity token.
            raise CredentialsError(
                f"no access token: no answer from {url} ({type(error).__name__}). Check the host and the proxy."
            ) from None
        return self._read(response, jwt)

    def _client(self) -> httpx.Client:
        from airflow_provider_batches.api.transport import tls_context

        plain = self.base_url.startswith("http://")
        return httpx.Client(
            timeout=_TIMEOUT,
            proxy=self.proxy,
            verify=tls_context(False) if plain else tls_context(*self.trust),
            # Plain HTTP is for this machine only, which no proxy reaches.
            trust_env=not plain,
        )

    def _identity_token(self) -> str:
        source = self.identity.identity_token
        jwt = source().strip()
        if not jwt:
            raise CredentialsError(f"{source} is empty. Check the volume's mount and the token's audience.")
        if len(jwt) > _MAX_JWT or not all("!" <= char <= "~" for char in jwt):
            what = f"{len(jwt)} characters" if len(jwt) > _MAX_JWT else "characters that a JWT never has"
            raise CredentialsError(f"{source} is not a JWT: it has {what}. Check what it names.", proof=Proof.REFUSED)
        expired = time.time() - _expires_at(jwt)
        if expired > 0:
            raise CredentialsError(f"{source} is a JWT that expired {expired:.0f} s ago. Check what renews it.")
        return jwt

    def _read(self, response: httpx.Response, jwt: str) -> Token:
        status, about = response.status_code, f"request-id {response.headers.get('request-id')}"
        content = _json_object(response)
        if status == 200:
            value, now = content.get("access_token"), time.time()
            life = _seconds(content.get("expires_in"))
            if isinstance(value, str) and value.isascii() and value.isprintable() and value.split() == [value] and life:
                return Token(value, now, now + life, jwt)
            # Not an excerpt, which could contain a token.
            raise CredentialsError(f"no access token: the answer of {response.url} has no valid token ({about}).")
        error = content.get("error")
        if isinstance(error, dict):
            found = (error.get("type"), error.get("message"))
        else:
            found = (error, content.get("error_description"))
        text = ": ".join(str(each) for each in found if each).replace(jwt, "***")[:200]
        text = f"no access token: {response.url} answered {status} {text or 'without a text'} ({about})."
        if content and status in (400, 401, 403):
            hint = (
                f" Check that federation rule {self.identity.federation_rule_id!r} accepts the issuer, audience and "
                "subject of the identity token"
            )
            hint += "" if self.identity.workspace_id else ", and set workspace_id if the rule has several workspaces"
            raise CredentialsError(f"{text}{hint}.", proof=Proof.KEY_REFUSED)
        raise CredentialsError(text, retry_after=_seconds(response.headers.get("retry-after")))


def _expires_at(jwt: str) -> float:
    """Return when a JWT expires, in seconds since the epoch; infinity if that cannot be read. Not verified."""
    try:
        part = jwt.split(".")[1]
        return float(json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))["exp"])
    except (LookupError, ValueError, TypeError, RecursionError):
        return float("inf")


def _seconds(value: Any) -> float | None:
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        return None
    return seconds if 0 < seconds < _MAX_LIFE else None


def _json_object(response: httpx.Response) -> dict[str, Any]:
    try:
        content = response.json()
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
