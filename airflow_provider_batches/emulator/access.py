"""Who may call the emulator: a key, an access token, or a request that is signed for AWS."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import secrets
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from hmac import compare_digest
from typing import Any
from urllib.parse import parse_qs, quote, unquote

from airflow_provider_batches.emulator.asgi import Scope
from airflow_provider_batches.emulator.settings import Settings
from airflow_provider_batches.emulator.validation import Refusal, read_json

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:jwt-bearer"
#: Flags that an exchange and a call with an access token need.
TOKEN_BETA, EXCHANGE_BETA = "oauth-2025-04-20", "oidc-federation-2026-04-01"
#: Seconds by which the clock of a signer may differ.
MAX_SKEW = 300
_SIGNATURE = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8}/[a-z0-9-]+/aws-external-anthropic/aws4_request), "
    r"SignedHeaders=([a-z0-9;-]+), Signature=([0-9a-f]{64})\Z"
)


class OAuthRefusal(Refusal):
    """A refusal of a token endpoint, in OAuth's format."""

    def __init__(self, error: str, description: str, status: int = 400) -> None:
        super().__init__(status, description)
        self.error = error


class Access:
    """Issues access tokens, and decides which requests are accepted.

    Tokens expire by real time, because a test's clock is that of the batches.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        #: Access token: when it expires, and whether it is one of Google's.
        self._tokens: dict[str, tuple[float, bool]] = {}

    def revoke(self) -> int:
        """Refuse all tokens issued so far, and return their number."""
        count = len(self._tokens)
        self._tokens.clear()
        return count

    def exchange(self, headers: Mapping[str, str], body: bytes | bytearray, google: bool) -> dict[str, Any]:
        """Return an access token for an identity token (a JWT), whose signature is not verified."""
        if google:
            content: Any = {name: values[0] for name, values in parse_qs(body.decode("latin-1")).items()}
        else:
            content = read_json(body)
            flags = headers.get("anthropic-beta", "").split(",")
            if not {TOKEN_BETA, EXCHANGE_BETA} <= set(flags):
                raise OAuthRefusal("invalid_request", f"anthropic-beta: must have {TOKEN_BETA} and {EXCHANGE_BETA}")
        if not isinstance(content, dict) or content.get("grant_type") != GRANT_TYPE:
            raise OAuthRefusal("unsupported_grant_type", f"grant_type: must be {GRANT_TYPE}")
        for name in ("assertion", *(() if google else ("federation_rule_id", "organization_id"))):
            if not isinstance(content.get(name), str) or not content[name]:
                raise OAuthRefusal("invalid_request", f"{name}: is required")
        rule = content.get("federation_rule_id")
        if not google and self._settings.federation_rule_id not in (None, rule):
            raise OAuthRefusal("invalid_grant", "No federation rule accepts this identity.", 401)
        if _expires_at(content["assertion"]) < time.time():
            raise OAuthRefusal("invalid_grant", "The assertion has expired.", 401)
        token = f"{'ya29.' if google else 'sk-ant-oat01-'}emulator-{secrets.token_hex(16)}"
        self._tokens[token] = time.time() + self._settings.token_seconds, google
        return {"access_token": token, "token_type": "Bearer", "expires_in": self._settings.token_seconds}

    def check(self, scope: Scope, headers: Mapping[str, str], body: bytes | bytearray) -> None:
        """Raise Refusal unless the request may be answered."""
        authorization, google = headers.get("authorization", ""), bool(scope["root_path"])
        if authorization.startswith("AWS4-"):
            self._check_signature(scope, headers, body)
            return
        bearer = authorization[7:].strip() if authorization[:7].lower() == "bearer " else ""
        if bearer in self._tokens:
            expires_at, of_google = self._tokens[bearer]
            if expires_at < time.time():
                raise Refusal(401, "The access token has expired.")
            if of_google != google:
                raise Refusal(401, "This access token is for another platform.")
            if not google and TOKEN_BETA not in headers.get("anthropic-beta", "").split(","):
                raise Refusal(401, f"OAuth tokens require anthropic-beta: {TOKEN_BETA}.")
            return
        key, expected = headers.get("x-api-key") or bearer, self._settings.api_key
        if google or not key or (expected is not None and not compare_digest(key.encode(), expected.encode())):
            raise Refusal(401, "invalid x-api-key" if key else "x-api-key header is required")

    def _check_signature(self, scope: Scope, headers: Mapping[str, str], body: bytes | bytearray) -> None:
        """Verify SigV4: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html."""
        found = _SIGNATURE.match(headers.get("authorization", ""))
        if not found:
            raise Refusal(403, "The Authorization header is not a valid SigV4 signature for aws-external-anthropic.")
        key_id, about, names, signature = found.groups()
        secret = (self._settings.aws_keys or {}).get(key_id)
        if secret is None:
            raise Refusal(403, "The security token included in the request is invalid.")
        if "anthropic-workspace-id" not in headers:
            raise Refusal(400, "anthropic-workspace-id: header is required")
        date = headers.get("x-amz-date", "")
        try:
            signed_at = datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc).timestamp()
        except ValueError:
            raise Refusal(403, "x-amz-date: is required, as in 20261125T120000Z") from None
        if abs(time.time() - signed_at) > MAX_SKEW or not about.startswith(date[:8]):
            raise Refusal(403, f"Signature expired: {date}.")
        if not {"host", "x-amz-date"} <= set(names.split(";")):
            raise Refusal(403, "host and x-amz-date must be signed.")
        path, sent = (scope[name].decode("latin-1") for name in ("raw_path", "query_string"))
        pairs = sorted(part.partition("=")[::2] for part in sent.split("&") if part)
        query = "&".join(f"{_escape(name)}={_escape(value)}" for name, value in pairs)
        lines = "".join(f"{name}:{' '.join(headers.get(name, '').split())}\n" for name in names.split(";"))
        # SigV4 encodes the path once more.
        parts = (scope["method"], quote(path, safe="/-_.~"), query, lines, names, hashlib.sha256(body).hexdigest())
        digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()
        signing_key = f"AWS4{secret}".encode()
        for part in about.split("/"):
            signing_key = hmac.new(signing_key, part.encode(), "sha256").digest()
        text = "\n".join(("AWS4-HMAC-SHA256", date, about, digest))
        if not compare_digest(hmac.new(signing_key, text.encode(), "sha256").hexdigest(), signature):
            raise Refusal(403, "The request signature we calculated does not match the signature you provided.")


def _escape(text: str) -> str:
    return quote(unquote(text), safe="-_.~")


def _expires_at(jwt: str) -> float:
    """Return when a JWT expires, in seconds since the epoch; infinity if it does not say."""
    try:
        part = jwt.split(".")[1]
        return float(json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))["exp"])
    except (LookupError, ValueError, TypeError):
        return float("inf")
