"""Certificates that do not come as PEM files: from a PKCS12 keystore, or self-signed and made on the spot."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from marserve.errors import ConfigError

#: The first bytes of a keystore in Java's old format of its own.
_JKS = b"\xfe\xed\xfe\xed"
_CONVERT = (
    "Convert it: keytool -importkeystore -srckeystore {path} -destkeystore NEW.p12 -deststoretype pkcs12; "
    "then set keystore to NEW.p12."
)
#: Hosts that stand for every network, which no certificate can name.
_EVERY_NETWORK = ("0.0.0.0", "::")
_RSA_BITS = 2048
_LIFETIME = timedelta(days=365)
#: How far the clock of a client may be behind ours.
_CLOCK_SLACK = timedelta(days=1)


def keystore_pem(path: Path, password: str) -> bytes:
    """Return the key and the certificate chain of a PKCS12 keystore as PEM, the key without a password.

    Raises:
        ConfigError: the file cannot be read, is no PKCS12, holds no key, or has another password.
    """
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, pkcs12

    try:
        raw = path.read_bytes()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigError(f"keystore {path} cannot be read: {reason}.", "Set keystore to a PKCS12 file.") from None
    if raw.startswith(_JKS):
        raise ConfigError(f"keystore {path} is in the JKS format, not PKCS12.", _CONVERT.format(path=path))
    try:
        found = pkcs12.load_pkcs12(raw, password.encode())
    except ValueError:
        raise ConfigError(
            f"keystore {path} cannot be opened: it is no PKCS12 file, or keystore_pass is not its password.",
            "Set keystore_pass; when it is not set, the password is changeit.",
        ) from None
    if found.key is None or found.cert is None:
        raise ConfigError(
            f"keystore {path} holds no key with its certificate.", "Put both into it, or take PEM files."
        )
    key = found.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    chain = [found.cert, *found.additional_certs]
    return key + b"".join(one.certificate.public_bytes(Encoding.PEM) for one in chain)


def self_signed_pem(hosts: Iterable[str]) -> bytes:
    """Return a new key and a certificate for it that nobody has vouched for, as PEM.

    Args:
        hosts: names and addresses that it is for, beside the names of this machine.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
    from cryptography.x509.oid import NameOID

    key = rsa.generate_private_key(65537, _RSA_BITS)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    known = dict.fromkeys((*hosts, "localhost", "127.0.0.1", "::1", socket.gethostname()))
    names: list[x509.GeneralName] = []
    for host in (host for host in known if host not in _EVERY_NETWORK):
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            names.append(x509.DNSName(host))
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SLACK)
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private + certificate.public_bytes(Encoding.PEM)
