from __future__ import annotations

import datetime
import importlib.util
import ipaddress
import json
import ssl
import subprocess
import sys

import httpx
import pytest

from airflow_provider_batches.emulator import Emulator

from .conftest import BATCHES, connect


def test_the_context_serves_and_then_frees_its_port():
    with Emulator() as api, connect(api) as http:
        assert http.get(BATCHES).status_code == 200
    with connect(api) as http, pytest.raises(httpx.ConnectError):
        http.get(BATCHES)


def test_it_can_be_stopped_and_started_again_with_all_its_batches(emulate):
    api = emulate()
    batch_id, url = api.add_batch(), api.url
    api.stop()
    api.stop()
    with connect(api) as http, pytest.raises(httpx.ConnectError):
        http.get(BATCHES)
    api.start()
    with connect(api) as http:
        assert http.get(f"{BATCHES}/{batch_id}").status_code == 200
    assert api.url == url


def test_the_connection_is_what_airflow_takes(api):
    connection = json.loads(api.connection_json)
    assert connection == {"conn_type": "anthropic_batches", "password": api.api_key, "host": api.url}


def test_a_taken_port_is_an_error(api):
    with pytest.raises(OSError, match="in use"), Emulator(port=api.port):
        pass


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.7", "example.com"])
def test_other_than_loopback_must_be_allowed(host):
    with pytest.raises(ValueError, match="loopback"):
        Emulator(host=host)
    assert Emulator(host=host, allow_remote=True).host == host


@pytest.mark.parametrize("host", ["localhost", "127.0.0.2", "::1"])
def test_every_loopback_address_will_do(emulate, host):
    try:
        api = emulate(host=host)
    except OSError:
        pytest.skip(f"this machine has no {host}")
    with connect(api) as http:
        assert http.get(BATCHES).status_code == 200


def test_it_works_with_h11_too(monkeypatch, emulate):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    api = emulate()
    batch_id = api.add_batch(50, status="ended")
    with connect(api) as http:
        assert http.get(f"{BATCHES}/{batch_id}/results").content.count(b"\n") == 50


def test_a_client_that_leaves_in_the_middle_of_its_request_is_forgotten(api):
    import socket

    with socket.create_connection(("127.0.0.1", api.port)) as raw:
        raw.sendall(b"POST /v1/messages/batches HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nhalf")
    with connect(api) as http:
        assert http.get(BATCHES).status_code == 200
    assert [r.endpoint for r in api.requests] == ["list"]


def test_https_is_served_with_a_certificate_of_ones_own(emulate, tmp_path):
    certificate = _certificate(tmp_path / "cert.pem")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate)
    api = emulate(tls=server)
    batch_id = api.add_batch(status="ended")
    trusting = ssl.create_default_context(cafile=certificate)
    headers = {"x-api-key": api.api_key, "anthropic-version": "2023-06-01"}
    found = httpx.get(f"{api.url}{BATCHES}/{batch_id}", headers=headers, verify=trusting).json()
    assert found["results_url"].startswith(f"https://127.0.0.1:{api.port}/")
    with pytest.raises(httpx.ConnectError, match=r"(?i)certificate"):
        httpx.get(api.url)


def _certificate(path):
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "emulator")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    return str(path)


def test_importing_it_imports_nothing_heavy():
    code = (
        "import sys, airflow_provider_batches.emulator; "
        "print([m for m in ('uvicorn', 'asyncio', 'airflow', 'httpx', 'pytest') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
