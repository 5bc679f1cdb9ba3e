"""Certificates for a test, made by openssl."""
import os
import subprocess

from support import PATIENCE


def openssl(*words, **more):
    return subprocess.run(["openssl", *words], check=True, capture_output=True, timeout=PATIENCE, **more)


def make(m, name, subject, ca=None, days="30", kind="serverAuth", more=()):
    """name.key and name.pem, signed by the authority, or by itself as one."""
    key, pem = m.path(name + ".key"), m.path(name + ".pem")
    words = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out", pem, "-subj", subject,
             "-days", days, *more]
    if ca is None:
        openssl(*words)
    else:
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out", m.path(name + ".csr"), "-subj", subject)
        with open(m.path(name + ".ext"), "w", encoding="ascii") as f:
            f.write(f"subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage={kind}\nbasicConstraints=CA:FALSE\n")
        openssl("x509", "-req", "-in", m.path(name + ".csr"), "-CA", m.path(ca + ".pem"), "-CAkey", m.path(ca + ".key"), "-set_serial",
                str(int.from_bytes(os.urandom(8), "big")), "-days", days, "-extfile", m.path(name + ".ext"), "-out", pem)
    os.chmod(key, 0o600)


def install(m, name):
    """Make a pair the one that the gateway reads."""
    for end in ("pem", "key"):
        with open(m.path(f"{name}.{end}"), "rb") as source, open(m.path("new"), "wb") as to:
            to.write(source.read())
        os.chmod(m.path("new"), 0o600)
        os.rename(m.path("new"), m.path("live." + end))
