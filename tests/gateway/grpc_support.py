"""Stubs made of the .proto files of kith-gateway, and its frames by hand."""
import os
import socket
import struct
import sys
import tempfile

import grpc
from grpc_tools import protoc

from support import PATIENCE

PROTOS = os.environ["KITH_TEST_PROTOS"]
_stubs = tempfile.TemporaryDirectory(prefix="kith-grpc-stubs-")
for _name in ("vectordb.proto", "health.proto", "reflection_v1.proto", "reflection_v1alpha.proto"):
    if protoc.main(["protoc", f"-I{PROTOS}", f"--python_out={_stubs.name}", f"--grpc_python_out={_stubs.name}", _name]):
        raise SystemExit(f"protoc takes no {_name}")
sys.path.insert(0, _stubs.name)

import health_pb2  # noqa: E402
import health_pb2_grpc  # noqa: E402
import reflection_v1_pb2  # noqa: E402
import reflection_v1_pb2_grpc  # noqa: E402
import reflection_v1alpha_pb2  # noqa: E402
import reflection_v1alpha_pb2_grpc  # noqa: E402
import vectordb_pb2 as pb  # noqa: E402
import vectordb_pb2_grpc  # noqa: E402

OPTIONS = [("grpc.enable_retries", 0), ("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1),
           ("grpc.use_local_subchannel_pool", 1)]


def channel(m, port=None):
    return grpc.insecure_channel(f"127.0.0.1:{port or m.grpc_port}", options=OPTIONS)


def stub(m, port=None):
    return vectordb_pb2_grpc.VectorSearchStub(channel(m, port))


def expect_code(code, call, *args, where=None, **more):
    """The call fails with this; its error."""
    more.setdefault("timeout", PATIENCE)
    try:
        answer = call(*args, **more)
    except grpc.RpcError as error:
        assert error.code() == code, f"{code} was expected: {error.code()} {error.details()}"
        assert error.details(), "an error without a sentence"
        assert where is None or where in error.details(), error.details()
        return error
    raise AssertionError(f"{code} was expected: {answer}")


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST, SETTINGS, PING, GOAWAY, WINDOW, CONTINUATION = 0, 1, 2, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS = 1, 4


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def literal(name, value):
    """A header without HPACK's tables."""
    def text(s):
        s = s.encode()
        return (bytes((len(s),)) if len(s) < 127 else bytes((127,)) + varint(len(s) - 127)) + s
    return b"\x00" + text(name) + text(value)


def varint(n):
    out = b""
    while n >= 0x80:
        out += bytes((n & 0x7f | 0x80,))
        n >>= 7
    return out + bytes((n,))


def headers(path, more=()):
    return b"".join(literal(n, v) for n, v in [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "localhost"),
                                                ("content-type", "application/grpc"), ("te", "trailers"), *more])


def message(body, flag=0, length=None):
    return struct.pack(">BI", flag, len(body) if length is None else length) + body


class Frames:
    """A connection of HTTP/2, by hand."""

    def __init__(self, m, settings=b"", port=None, patience=PATIENCE):
        self.s = socket.create_connection(("127.0.0.1", port or m.grpc_port), timeout=patience)
        self.s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.send(PREFACE + frame(SETTINGS, 0, 0, settings))

    def send(self, data):
        self.s.sendall(data)

    def call(self, stream, path, body=None, end=True, more=()):
        self.send(frame(HEADERS, END_HEADERS, stream, headers(path, more)))
        if body is not None:
            self.send(frame(DATA, END_STREAM if end else 0, stream, body))

    def next(self):
        """(kind, flags, stream, payload), or None at the end."""
        while len(self.buffer) < 9 or len(self.buffer) < 9 + int.from_bytes(self.buffer[:3], "big"):
            try:
                piece = self.s.recv(65536)
            except ConnectionResetError:
                piece = b""
            if not piece:
                return None
            self.buffer += piece
        n = int.from_bytes(self.buffer[:3], "big")
        out = (self.buffer[3], self.buffer[4], int.from_bytes(self.buffer[5:9], "big") & 0x7fffffff, self.buffer[9:9 + n])
        self.buffer = self.buffer[9 + n:]
        return out

    def until(self, kind, stream=None):
        while (f := self.next()) is not None:
            if f[0] == kind and stream in (None, f[2]):
                return f
        return None

    def close(self):
        self.s.close()
