"""TensorBoard's event files.

They are written here because what else writes them imports PyTorch (tensorboardX, 1.9 s) or TensorFlow where they are
installed. A record is its length, a checksum, a message of protobuf, and a checksum.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

_POLYNOMIAL = 0x82F63B78  # of CRC-32C


class EventFile:
    """An event file in a run directory; after `add` returns, what was added is in the file.

    Args:
      directory: The directory, which TensorBoard is to show.
      step: The step after which events of earlier files no longer count; 0 for none.
    """

    def __init__(self, directory: Path, step: int = 0) -> None:
        self._path = directory / f"events.out.tfevents.{int(time.time()):010}.{socket.gethostname()}.{os.getpid()}"
        self._write(_field(3, b"brain.Event:2"))
        if step:
            self._write(b"\x10" + _varint(step) + _field(7, b"\x08\x01"))  # the beginning of a session

    def add(self, scalars: Mapping[str, float], step: int) -> None:
        """Add numbers by name."""
        with np.errstate(over="ignore"):  # a perplexity may be too large for 32 bits
            rows = np.asarray([*scalars.values()], "<f4")
        pairs = zip(scalars, rows, strict=True)
        values = [_field(1, _field(1, name.encode()) + b"\x15" + value.tobytes()) for name, value in pairs]
        self._write(b"\x10" + _varint(step) + _field(5, b"".join(values)))

    def _write(self, event: bytes) -> None:
        event = b"\x09" + struct.pack("<d", time.time()) + event
        length = struct.pack("<Q", len(event))
        with self._path.open("ab") as file:
            file.write(length + _checksum(length) + event + _checksum(event))


def _field(number: int, content: bytes) -> bytes:
    """A field of a message of protobuf that holds bytes, a text or another message."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    parts = []
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])


def _checksum(content: bytes) -> bytes:
    """The masked CRC-32C of some bytes."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc = _TABLE[(crc ^ byte) & 255] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _after_eight_bits(crc: int) -> int:
    for _ in range(8):
        crc = crc >> 1 ^ _POLYNOMIAL * (crc & 1)
    return crc


_TABLE = [_after_eight_bits(byte) for byte in range(256)]
