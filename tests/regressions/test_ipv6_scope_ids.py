"""IPv6 scope ids survive.

Must hold: fe80::1%lo keeps its interface in getaddrinfo, and create_connection and sock_connect
pass it to the kernel, which refuses link-local addresses without one.
"""

import socket
from pathlib import Path

import pytest

from support.peers import until
from support.protocols import Echo, Recorder

INTERFACES = socket.if_nameindex()


@pytest.mark.parametrize(("index", "name"), INTERFACES, ids=[name for _, name in INTERFACES])
def test_getaddrinfo(loop, run, index, name):
    for host in (f"fe80::1%{name}", f"fe80::1%{index}"):
        found = run(loop.getaddrinfo(host, 80, type=socket.SOCK_STREAM))
        assert found == socket.getaddrinfo(host, 80, type=socket.SOCK_STREAM)
        assert found[0][4] == ("fe80::1", 80, 0, index)


def test_unknown_interface(loop, run):
    with pytest.raises(socket.gaierror) as caught:
        run(loop.getaddrinfo("fe80::1%nosuchdev", 80))
    with pytest.raises(socket.gaierror) as expected:
        socket.getaddrinfo("fe80::1%nosuchdev", 80)
    assert caught.value.args == expected.value.args


def test_create_connection_passes_it_to_the_kernel(loop, run):
    """Nobody answers there; what the kernel says differs with and without a scope."""
    address = socket.getaddrinfo("fe80::1%lo", 9, type=socket.SOCK_STREAM)[0][4]
    with socket.socket(socket.AF_INET6) as sock:
        expected = sock.connect_ex(address)
    with socket.socket(socket.AF_INET6) as sock:
        without_scope = sock.connect_ex(("fe80::1", 9, 0, 0))
    assert expected not in {0, without_scope}
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the number is compared
        run(loop.create_connection(Recorder, "fe80::1%lo", 9))
    assert caught.value.errno == expected


def test_sock_connect_passes_it_to_the_kernel(loop, run):
    address = socket.getaddrinfo("fe80::1%lo", 9, type=socket.SOCK_STREAM)[0][4]
    with socket.socket(socket.AF_INET6) as sock:
        expected = sock.connect_ex(address)
    for given in (address, ("fe80::1%lo", 9)):
        with socket.socket(socket.AF_INET6) as sock:
            sock.setblocking(False)
            with pytest.raises(OSError) as caught:  # noqa: PT011 - the number is compared
                run(loop.sock_connect(sock, given))
            assert caught.value.errno == expected


def link_local():
    """host%interface of every link-local address of this machine."""
    path = Path("/proc/net/if_inet6")
    lines = path.read_text().splitlines() if path.exists() else []
    found = [line.split() for line in lines]
    return [
        f"{socket.inet_ntop(socket.AF_INET6, bytes.fromhex(fields[0]))}%{fields[5]}"
        for fields in found
        if fields[3] == "20"
    ]


@pytest.mark.skipif(not link_local(), reason="no interface here has a link-local address")
def test_a_real_connection(loop, run):
    host = link_local()[0]

    async def main():
        server = await loop.create_server(Echo, host, 0, family=socket.AF_INET6)
        bound = server.sockets[0].getsockname()
        assert bound[3] != 0
        transport, protocol = await loop.create_connection(Recorder, host, bound[1])
        assert transport.get_extra_info("peername")[3] == bound[3]
        transport.write(b"x")
        await until(lambda: protocol.received == b"x")
        transport.close()
        await until(lambda: protocol.is_lost)
        server.close()
        await server.wait_closed()

    run(main())


def test_flow_info_and_scope_in_a_given_address(loop, run):
    """A four-tuple goes through local_addr and resolution unharmed."""
    found = run(loop.getaddrinfo("::1", 80, type=socket.SOCK_STREAM))
    assert found[0][4] == ("::1", 80, 0, 0)
