"""Claude on Google Cloud: its base URL, and access tokens of Google credentials."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timezone
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow_provider_batches.api.auth import require
from airflow_provider_batches.api.errors import CredentialsError
from airflow_provider_batches.api.evidence import Proof
from airflow_provider_batches.api.tokens import Token, TokenAuth

if TYPE_CHECKING:
    from airflow_provider_batches.api.settings import ClientSettings

HOST = "claude.googleapis.com"
SCOPE = "https://www.googleapis.com/auth/cloud-platform"
#: Seconds that a token lasts, if Google's library does not say.
_LIFE = 3600.0


def google_base_url(project: str, location: str, workspace_id: str) -> str:
    """Return the base URL of a workspace on Google Cloud."""
    parts = {"projects": project, "locations": location, "workspaces": workspace_id}
    path = "/".join(f"{name}/{quote(value, safe=':')}" for name, value in parts.items())
    return f"https://{HOST}/v1/{path}/invoke"


def default_credentials() -> Any:
    """Return Google's application default credentials."""
    import google.auth

    return google.auth.default(scopes=[SCOPE])[0]


@dataclass(frozen=True)
class GoogleIdentity:
    """Who calls the API on Google Cloud.

    :param credentials: Returns credentials of `google-auth`. May block. Default: the application default credentials.
    """

    credentials: Callable[[], Any] = default_credentials

    def auth(self, settings: ClientSettings) -> TokenAuth:
        """Return what signs the requests of a client."""
        return TokenAuth(self, on_token=settings.on_token)

    def fetch(self) -> Token:
        """Return a new token. Blocks."""
        require("google.auth.transport.requests", "'airflow-provider-batches[google]'")
        from google.auth.exceptions import GoogleAuthError
        from google.auth.transport.requests import Request

        try:
            credentials = self.credentials()
            credentials.refresh(Request())
        except GoogleAuthError as error:
            # Not its text: a refused exchange quotes the answer.
            kind = type(error).__name__
            raise CredentialsError(
                f"Google's library returned no access token ({kind}). Check the account and its credentials.",
                proof=Proof.NOTHING if error.retryable or kind == "TransportError" else Proof.KEY_REFUSED,
            ) from None
        now, expires_at = time.time(), credentials.expiry
        end = expires_at.replace(tzinfo=timezone.utc).timestamp() if expires_at else now + _LIFE
        return Token(credentials.token, now, end)
