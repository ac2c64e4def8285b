"""TensorBoard's event files.

They are written here because the libraries that write them import PyTorch (tensorboardX, 1.9 s) or TensorFlow where
these are installed. An entry is its length, a checksum, a protobuf message, and another checksum.
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
    """An event file in a run directory; `add` returns once its numbers are in the file.

    Args:
      directory: The directory that TensorBoard shows.
      step: The step after which TensorBoard drops the events of earlier files; 0 to keep them all.
    """

    def __init__(self, directory: Path, step: int = 0) -> None:
        self._path = directory / f"events.out.tfevents.{int(time.time()):010}.{socket.gethostname()}.{os.getpid()}"
        self._write(_field(3, b"brain.Event:2"))
        if step:
            self._write(b"\x10" + _varint(step) + _field(7, b"\x08\x01"))  # SessionLog.START

    def add(self, scalars: Mapping[str, float], step: int) -> None:
        """Add the numbers of a step, by name."""
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
    """A length-delimited field of a protobuf message: bytes, a string or another message."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """An integer of 0 or more in protobuf's variable length."""
    parts = []
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])


def _checksum(content: bytes) -> bytes:
    """The masked CRC-32C of `content`, as TensorFlow's record files have it."""
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
