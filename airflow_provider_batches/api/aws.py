"""Claude Platform on AWS: its base URL, and requests that are signed with SigV4."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx

from airflow_provider_batches.api.auth import SecretAuth, require
from airflow_provider_batches.api.errors import CredentialsError
from airflow_provider_batches.api.evidence import Proof

if TYPE_CHECKING:
    from airflow_provider_batches.api.settings import ClientSettings

SERVICE = "aws-external-anthropic"
#: Headers that are set after signing, or by the signer.
_UNSIGNED = frozenset({"authorization", "connection", "user-agent", "x-amz-date", "x-amz-security-token"})
_SIGNED = ("Authorization", "X-Amz-Date", "X-Amz-Security-Token")


def aws_base_url(region: str) -> str:
    """Return the base URL of a region."""
    return f"https://{SERVICE}.{region}.api.aws"


def default_credentials() -> Any:
    """Return the credentials that botocore's own chain finds, None if there are none."""
    from botocore.session import Session

    return Session().get_credentials()


@dataclass(frozen=True)
class AwsIdentity:
    """Who calls the API on AWS.

    :param region: The AWS region.
    :param credentials: Returns credentials of `botocore`, None if there are none. May block. Default: botocore's chain.
    """

    region: str
    credentials: Callable[[], Any] = default_credentials

    def auth(self, settings: ClientSettings) -> SigV4Auth:
        """Return what signs the requests of a client."""
        return SigV4Auth(self)


class SigV4Auth(SecretAuth):
    """Signs requests with SigV4, each attempt again.

    :param identity: Who calls.
    """

    def __init__(self, identity: AwsIdentity) -> None:
        self._identity = identity
        self._secrets: tuple[str, ...] = ()

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Sign a request of the sync client."""
        self._sign(request)
        self._check((yield request))

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Sign a request of the async client."""
        # In a thread: botocore takes 0.5 s to import, and its chain may ask the network.
        await asyncio.to_thread(self._sign, request)
        self._check((yield request))

    def secrets(self) -> Iterator[str]:
        """Iterate over the values that logs and errors must not show."""
        yield from self._secrets

    def _check(self, response: httpx.Response) -> None:
        if response.status_code in (401, 403):
            # They may have been replaced where they come from.
            _credentials.pop(self._identity, None)

    def _sign(self, request: httpx.Request) -> None:
        require("botocore", "'airflow-provider-batches[aws]'")
        from botocore.auth import SigV4Auth as Signer
        from botocore.awsrequest import AWSRequest
        from botocore.exceptions import BotoCoreError

        try:
            # Frozen, because key, secret and token belong together.
            keys = self._find().get_frozen_credentials()
        except BotoCoreError as error:
            # Not its text, which may quote an answer.
            raise CredentialsError(f"botocore returned no AWS credentials ({type(error).__name__}).") from None
        self._secrets = tuple(filter(None, (keys.secret_key, keys.token)))
        for name in _SIGNED:
            request.headers.pop(name, None)
        headers = {name: value for name, value in request.headers.items() if name not in _UNSIGNED}
        signed = AWSRequest(method=request.method, url=str(request.url), headers=headers)
        signer = Signer(keys, SERVICE, self._identity.region)
        # The body itself is streamed.
        signer.payload = lambda _: request.extensions["call"].body_sha256
        signer.add_auth(signed)
        request.headers.update({name: signed.headers[name] for name in _SIGNED if name in signed.headers})

    def _find(self) -> Any:
        with _lock:
            if self._identity not in _credentials:
                found = self._identity.credentials()
                if found is None:
                    raise CredentialsError(
                        "no AWS credentials were found. Give this machine a role, or configure its credentials.",
                        proof=Proof.KEY_REFUSED,
                    )
                _credentials[self._identity] = found
            return _credentials[self._identity]


#: Credentials refresh themselves, so all clients of a process share them.
_credentials: dict[AwsIdentity, Any] = {}
_lock = threading.Lock()


def _after_fork() -> None:
    # A lock that another thread of the parent held would never be free, including those of the credentials.
    global _lock
    _lock = threading.Lock()
    _credentials.clear()


os.register_at_fork(after_in_child=_after_fork)
