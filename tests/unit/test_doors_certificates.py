"""Certificates from keystores and self-signed ones: two ends shake hands over them, in memory."""

import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    load_pem_private_key,
    pkcs12,
)
from cryptography.x509 import load_pem_x509_certificate

from marserve.doors.http.certificates import keystore_pem, self_signed_pem
from marserve.doors.http.tls import tls_context_of
from marserve.errors import ConfigError

TLS = Path(__file__).parent.parent / "contract" / "tls"


@pytest.fixture(scope="module")
def pem() -> bytes:
    """A key of strength that every OpenSSL takes, and its certificate."""
    return self_signed_pem(["api.example", "192.0.2.7", "0.0.0.0"])


def make_keystore(path: Path, pem: bytes, password: str, with_key: bool = True) -> Path:
    key = load_pem_private_key(pem, None) if with_key else None
    certificate = load_pem_x509_certificate(pem[pem.index(b"-----BEGIN CERTIFICATE") :])
    known, others = (certificate, None) if with_key else (None, [certificate])
    encryption = BestAvailableEncryption(password.encode())
    path.write_bytes(pkcs12.serialize_key_and_certificates(b"mykey", key, known, others, encryption))  # type: ignore[arg-type]
    return path


def shake_hands(context: ssl.SSLContext, trusted: bytes, host: str) -> str:
    """Return the protocol that a client, which trusts one certificate alone, and a server agree on."""
    authority = trusted[trusted.index(b"-----BEGIN CERTIFICATE") :].decode()
    ends = [ssl.MemoryBIO(), ssl.MemoryBIO()]
    client = ssl.create_default_context(cadata=authority).wrap_bio(ends[0], ends[1], server_hostname=host)
    server = context.wrap_bio(ends[1], ends[0], server_side=True)
    for _ in range(4):
        for end in (client, server):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                pass
    return str(client.version())


@pytest.mark.parametrize("host", ["api.example", "192.0.2.7", "localhost", "127.0.0.1", "::1"])
def test_a_self_signed_certificate_is_for_its_hosts_and_this_machine(pem: bytes, host: str) -> None:
    assert shake_hands(tls_context_of(pem, "x"), pem, host) == "TLSv1.3"


def test_a_self_signed_certificate_is_for_no_other_host(pem: bytes) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(tls_context_of(pem, "x"), pem, "other.example")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(tls_context_of(pem, "x"), pem, "0.0.0.0")


def test_a_keystore_serves_as_its_key_and_certificate_do(pem: bytes, tmp_path: Path) -> None:
    path = make_keystore(tmp_path / "store.p12", pem, "changeit")
    assert keystore_pem(path, "changeit") == pem
    assert shake_hands(tls_context_of(keystore_pem(path, "changeit"), "x"), pem, "api.example") == "TLSv1.3"


def test_keystores_that_cannot_be_used_are_named_with_what_to_do(pem: bytes, tmp_path: Path) -> None:
    path = make_keystore(tmp_path / "store.p12", pem, "secret")
    with pytest.raises(ConfigError, match=r"store.p12 cannot be opened.*keystore_pass is not its password"):
        keystore_pem(path, "changeit")
    with pytest.raises(ConfigError, match=r"missing cannot be read: no such file or directory"):
        keystore_pem(tmp_path / "missing", "changeit")
    (tmp_path / "no.p12").write_bytes(b"hello")
    with pytest.raises(ConfigError, match=r"it is no PKCS12 file"):
        keystore_pem(tmp_path / "no.p12", "changeit")
    (tmp_path / "old.jks").write_bytes(b"\xfe\xed\xfe\xed\x00\x00\x00\x02")
    with pytest.raises(ConfigError, match=r"keytool -importkeystore -srckeystore .*old.jks .* -deststoretype pkcs12"):
        keystore_pem(tmp_path / "old.jks", "changeit")
    keyless = make_keystore(tmp_path / "keyless.p12", pem, "changeit", with_key=False)
    with pytest.raises(ConfigError, match=r"keyless.p12 holds no key with its certificate"):
        keystore_pem(keyless, "changeit")


def test_a_key_that_is_not_the_certificates_is_told_under_the_name_of_the_keystore() -> None:
    mismatched = (TLS / "other-key.pem").read_bytes() + (TLS / "test-certificate.pem").read_bytes()
    with pytest.raises(ConfigError, match=r"keystore k cannot be used for TLS: .*KEY_VALUES_MISMATCH"):
        tls_context_of(mismatched, "keystore k")
