"""A private certificate authority, and the one certificate with which the emulator answers as every host it stands for.

    ensure(home)      # home/ca.pem for clients, home/server.pem and home/server.key for what serves

The authority's own key is thrown away once it has signed: nothing else can ever be made with it.
"""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from devtools.rehearsal import API_HOST, LOGIN_HOST, MANAGEMENT_HOST, PRICES_HOST, SCORING_SUFFIX

AUTHORITY = "ca.pem"
CERTIFICATE = "server.pem"
KEY = "server.key"
#: Everything that the emulator answers as.
HOSTS = (
    "localhost",
    LOGIN_HOST,
    MANAGEMENT_HOST,
    API_HOST,
    PRICES_HOST,
    "*.blob.core.windows.net",
    f"*.{SCORING_SUFFIX}",
)
#: Days that a certificate holds, and days before its end from which on a new one is made.
DAYS = 365
EARLY = 30


def ensure(home: Path) -> None:
    """Have the three files below `home`; those that are there and hold on are kept."""
    if not _hold(home):
        _make(home)


def _hold(home: Path) -> bool:
    try:
        found = x509.load_pem_x509_certificate((home / CERTIFICATE).read_bytes())
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, x509.ExtensionNotFound):
        return False
    lasts = found.not_valid_after_utc - datetime.now(UTC) > timedelta(days=EARLY)
    # (a CA file without its certificate, or the other way round, is of no use)
    whole = all((home / name).is_file() for name in (AUTHORITY, KEY))
    return lasts and whole and set(HOSTS) <= set(names.get_values_for_type(x509.DNSName))


def _make(home: Path) -> None:
    now = datetime.now(UTC)
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer, subject = _name("phikit rehearsal authority"), _name("phikit rehearsal")
    authority_id = x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key())

    def begin(name: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        # an hour back: for the clock of a virtual machine or a container that lags
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(issuer)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=DAYS))
        )

    authority = (
        begin(issuer, authority_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(authority_id, critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    names: list[x509.GeneralName] = [x509.DNSName(host) for host in HOSTS]
    names.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    certificate = (
        begin(subject, key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(authority_id), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    private = home / KEY
    private.touch(mode=0o600)
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    (home / AUTHORITY).write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    # last: whoever finds it finds the others
    (home / CERTIFICATE).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
