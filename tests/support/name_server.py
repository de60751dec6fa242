"""A small authoritative DNS server on the loop under test: UDP, and TCP on the same port."""

import asyncio
import ipaddress
import struct

from support.ports import unused_port

TYPES = {1: "A", 28: "AAAA", 16: "TXT"}
QUERY_HEADER = struct.Struct("!6H")
ANSWER = 0x8580  # QR, AA, RD, RA
TRUNCATED = 0x0200
NO_SUCH_NAME = 3
DATAGRAM_SIZE_MAX = 512


class Query:
    """One question of the wire: its number, its name, its type."""

    def __init__(self, wire):
        self.number = QUERY_HEADER.unpack_from(wire)[0]
        labels, at = [], QUERY_HEADER.size
        while size := wire[at]:
            labels.append(wire[at + 1 : at + 1 + size].decode())
            at += 1 + size
        self.name = ".".join(labels).lower()
        self.type = TYPES.get(int.from_bytes(wire[at + 1 : at + 3]))
        self.question = wire[QUERY_HEADER.size : at + 5]

    def answer(self, code=0, records=(), flags=0):
        header = QUERY_HEADER.pack(self.number, ANSWER | flags | code, 1, len(records), 0, 0)
        return header + self.question + b"".join(map(self._record, records))

    def _record(self, value):
        type_number = next(number for number, name in TYPES.items() if name == self.type)
        data = (
            bytes([len(value)]) + value.encode()
            if self.type == "TXT"
            else ipaddress.ip_address(value).packed
        )
        # 0xc00c: the name of the question.
        return struct.pack("!HHHLH", 0xC00C, type_number, 1, 60, len(data)) + data


class NameServer(asyncio.DatagramProtocol):
    """Answers from ``records``, {(name, type): [value, ...]}; keeps what it was asked, and how."""

    def __init__(self, records):
        self.records = records
        self.asked = []
        self.silent = set()  # names that get no answer

    async def __aenter__(self):
        loop = asyncio.get_running_loop()
        self.port = unused_port()  # of both protocols
        self._streams = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self._transport, _ = await loop.create_datagram_endpoint(
            lambda: self, ("127.0.0.1", self.port)
        )
        return self

    async def __aexit__(self, *exc):
        self._transport.close()
        self._streams.close()
        await self._streams.wait_closed()

    def datagram_received(self, data, address):
        if (answer := self._answer_to(data, "UDP")) is None:
            return
        if len(answer) > DATAGRAM_SIZE_MAX:
            answer = Query(data).answer(flags=TRUNCATED)
        self._transport.sendto(answer, address)

    async def _serve(self, reader, writer):
        try:
            while True:
                size = int.from_bytes(await reader.readexactly(2))
                if (answer := self._answer_to(await reader.readexactly(size), "TCP")) is None:
                    continue
                writer.write(len(answer).to_bytes(2) + answer)
                await writer.drain()
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    def _answer_to(self, wire, way):
        query = Query(wire)
        self.asked.append((query.name, query.type, way))
        if query.name in self.silent:
            return None
        records = self.records.get((query.name, query.type), ())
        known = any(name == query.name for name, _ in self.records)
        return query.answer(0 if known else NO_SUCH_NAME, records)
