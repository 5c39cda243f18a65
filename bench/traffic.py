"""Bytes of UDP on loopback by process: what a capture of packets on `lo` saw. Linux, and root."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import Counter
from collections.abc import Collection

import psutil

_ETH_P_IP = 0x0800
_LARGEST = 64  # bytes: only headers are read
_IP, _UDP = 14, 17
"""Bytes of an Ethernet header; UDP's number in IP."""


class Capture:
    """Counts until it is closed. Bytes are those of IP packets, as a provider bills them.

    Raises:
        PermissionError: this process may not capture packets.
        AttributeError: this system has no packet sockets.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_IP))
        self._socket.bind(("lo", 0))
        self._socket.setblocking(False)
        self._bytes: Counter[tuple[int, int]] = Counter()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._read)

    def close(self) -> None:
        self._loop.remove_reader(self._socket)
        self._socket.close()

    def _read(self) -> None:
        try:
            while True:
                data, address = self._socket.recvfrom(_LARGEST)
                if address[2] != socket.PACKET_OUTGOING:  # each packet comes twice
                    self._take(data)
        except BlockingIOError:
            return

    def _take(self, data: bytes) -> None:
        header = _IP + (data[_IP] & 15) * 4
        if data[_IP + 9] == _UDP:
            [length] = struct.unpack_from("!H", data, _IP + 2)
            self._bytes[struct.unpack_from("!HH", data, header)] += length

    def of(self, pids: Collection[int]) -> tuple[int, int]:
        """Bytes that these processes have received, and sent. Only of sockets that they have now,
        and of one that they have not shared."""
        ports = {
            connection.laddr.port
            for pid in pids
            for connection in psutil.Process(pid).net_connections("udp")
            if connection.laddr
        }
        received = sum(n for (_, to), n in self._bytes.items() if to in ports)
        sent = sum(n for (by, _), n in self._bytes.items() if by in ports)
        return received, sent

    def forget(self) -> None:
        """Begin to count anew."""
        self._bytes.clear()
