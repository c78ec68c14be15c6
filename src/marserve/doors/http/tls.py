"""TLS contexts of the https addresses: from PEM in files or in memory; they answer clients that speak plain HTTP."""

from __future__ import annotations

import logging
import ssl
import tempfile

from marserve.errors import ConfigError

logger = logging.getLogger("marserve.http")

#: First bytes that are text, as those of every HTTP request are; a TLS record begins with a control byte.
_TEXT = range(0x20, 0x7F)


class TlsContext(ssl.SSLContext):
    """The server's side of TLS.

    Attributes:
        plain_answer: what a client gets that speaks plain HTTP: a whole answer, which says ``connection: close``.
    """

    plain_answer = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """See ``ssl.SSLContext``."""
        made = super().wrap_bio(incoming, outgoing, server_side, server_hostname, session)
        if isinstance(made, _Handshake):
            made.incoming, made.outgoing, made.plain_answer = incoming, outgoing, self.plain_answer
        return made


class _Handshake(ssl.SSLObject):
    """One connection's TLS, which looks at the first byte before OpenSSL does.

    The event loop drops a handshake that fails, and OpenSSL's buffers are all that is between the two: what lies in
    ``outgoing`` when a handshake asks for more is sent. So a client that speaks plain HTTP gets its answer, as if it
    were a part of the handshake, and is then waited for: it closes, or the loop's handshake timeout does.
    """

    incoming: ssl.MemoryBIO
    outgoing: ssl.MemoryBIO
    plain_answer: bytes
    _is_plain: bool | None = None  # None: nothing has come

    def do_handshake(self) -> None:
        """See ``ssl.SSLObject``."""
        if self._is_plain is None and self.incoming.pending:
            self._look()
        if self._is_plain:
            self.incoming.read()  # what it still sends: left unread, it would cost the client our answer
            raise ssl.SSLWantReadError("The client speaks plain HTTP.")
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            # In one line: the event loop drops it in silence, or writes a trace.
            logger.warning("A TLS handshake failed: %s.", error.reason or error)
            raise

    def _look(self) -> None:
        first = self.incoming.read()
        self._is_plain = first[0] in _TEXT
        if self._is_plain:
            logger.warning("A client spoke plain HTTP to an https address; it should use https://.")
            self.outgoing.write(self.plain_answer)
        else:
            self.incoming.write(first)


def _context() -> TlsContext:
    context = TlsContext(ssl.PROTOCOL_TLS_SERVER)
    context.sslobject_class = _Handshake
    context.set_alpn_protocols(["http/1.1"])
    return context


def tls_context_of(pem: bytes, origin: str) -> TlsContext:
    """Return the server's side of TLS from an unencrypted key and its certificate chain, PEM, in memory.

    Args:
        origin: what the errors name.

    Raises:
        ConfigError: the two do not belong together, or are too weak for this machine's OpenSSL.
    """
    # OpenSSL reads certificates from files alone. This one is readable by us alone, and gone at once.
    with tempfile.NamedTemporaryFile(prefix="marserve-") as file:
        file.write(pem)
        file.flush()
        context = _context()
        try:
            context.load_cert_chain(file.name)
        except ssl.SSLError as error:
            raise ConfigError(f"{origin} cannot be used for TLS: {error.reason or error}.") from error
    return context


def tls_context(certificate_file: str, private_key_file: str) -> TlsContext:
    """Return the server's side of TLS from a certificate (with its chain) and its unencrypted key, both PEM.

    Raises:
        ConfigError: a file is missing or is no PEM, or the two do not belong together.
    """
    for setting, path in (("certificate_file", certificate_file), ("private_key_file", private_key_file)):
        try:
            with open(path, "rb"):
                pass
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise ConfigError(
                f"{setting} {path} cannot be read: {reason}.", f"Set {setting} to a PEM file."
            ) from error
    context = _context()
    try:
        # Without a password OpenSSL would ask for one on the terminal, and the start would hang.
        context.load_cert_chain(certificate_file, private_key_file, password=lambda: "")
    except ssl.SSLError as error:
        raise ConfigError(
            f"certificate_file {certificate_file} and private_key_file {private_key_file} cannot be used: "
            f"{error.reason or error}.",
            "Both must be PEM, the key without a password, and the key must be the certificate's.",
        ) from error
    return context
