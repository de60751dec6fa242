"""What audit hooks hear of sockets, and what happens to those that they refuse."""

import pytest

from support.programs import output_of

#: An audit hook stays for good, so each program has an interpreter of its own.
HEARD = """
    import os
    import socket
    import tempfile

    heard = []


    def hook(event, arguments):
        if event == "socket.__new__":
            heard.append((event, *map(int, arguments[1:])))
        elif event in ("socket.bind", "socket.connect"):
            heard.append((event, arguments[0].family.name))
        elif event == "subprocess.Popen":
            heard.append((event, arguments[0]))


    sys.addaudithook(hook)


    class Accepted(asyncio.Protocol):
        def connection_made(self, transport):
            accepted.set_result(transport)


    async def heard_of(coroutine):
        heard.clear()
        result = await coroutine
        print(*heard)
        return result
"""


def lines(loop_name, body):
    return output_of(loop_name, "    import sys\n" + HEARD + body).splitlines()


def test_of_tcp(loop_name):
    body = """
    async def main():
        global accepted
        loop = asyncio.get_running_loop()
        accepted = loop.create_future()
        server = await heard_of(loop.create_server(Accepted, "127.0.0.1", 0))
        address = server.sockets[0].getsockname()
        transport, _ = await heard_of(connect(loop, address))
        transport.close()
        (await accepted).close()
        server.close()

    async def connect(loop, address):
        pair = await loop.create_connection(asyncio.Protocol, *address)
        await accepted
        return pair

    loop = new_event_loop()
    loop.run_until_complete(main())
    loop.close()
    """
    made = "('socket.__new__', 2, 1, 6)"
    assert lines(loop_name, body) == [
        f"{made} ('socket.bind', 'AF_INET')",
        f"{made} ('socket.connect', 'AF_INET') {made}",
    ]


def test_of_unix_sockets(loop_name):
    body = """
    async def main():
        global accepted
        loop = asyncio.get_running_loop()
        accepted = loop.create_future()
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "socket")
            server = await heard_of(loop.create_unix_server(Accepted, path))
            transport, _ = await heard_of(connect(loop, path))
            transport.close()
            (await accepted).close()
            server.close()

    async def connect(loop, path):
        pair = await loop.create_unix_connection(asyncio.Protocol, path)
        await accepted
        return pair

    loop = new_event_loop()
    loop.run_until_complete(main())
    loop.close()
    """
    made = "('socket.__new__', 1, 1, 0)"
    assert lines(loop_name, body) == [
        f"{made} ('socket.bind', 'AF_UNIX')",
        f"{made} ('socket.connect', 'AF_UNIX') {made}",
    ]


def test_of_the_programs_own_sockets(loop_name):
    body = """
    async def main():
        loop = asyncio.get_running_loop()
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        near = socket.socket()
        near.setblocking(False)
        await heard_of(loop.sock_connect(near, listener.getsockname()))
        far, _ = await heard_of(loop.sock_accept(listener))
        for sock in (near, far, listener):
            sock.close()

    loop = new_event_loop()
    loop.run_until_complete(main())
    loop.close()
    """
    assert lines(loop_name, body) == [
        "('socket.connect', 'AF_INET')",
        "('socket.__new__', 2, 1, 0)",
    ]


def test_of_datagrams_and_processes(loop_name):
    body = """
    async def main():
        loop = asyncio.get_running_loop()
        endpoint = loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
        )
        transport, _ = await heard_of(endpoint)
        transport.close()
        process = await heard_of(asyncio.create_subprocess_exec("true"))
        await process.wait()

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(main())
    """
    datagrams, process = lines(loop_name, body)
    assert datagrams == "('socket.__new__', 2, 2, 17) ('socket.bind', 'AF_INET')"
    assert "('subprocess.Popen', 'true')" in process


@pytest.mark.parametrize("error", ["RuntimeError", "PermissionError"])
def test_refused_connection_is_reported(loop_name, error):
    body = f"""
    def refuse(event, arguments):
        if armed and event == "socket.__new__":
            raise {error}("refused")

    armed = []
    sys.addaudithook(refuse)

    async def main():
        global accepted
        loop = asyncio.get_running_loop()
        accepted = loop.create_future()
        reported = loop.create_future()
        loop.set_exception_handler(lambda loop, context: reported.set_result(context))
        server = await loop.create_server(Accepted, "127.0.0.1", 0)
        near = socket.socket()
        armed.append(True)
        near.connect(server.sockets[0].getsockname())
        print(repr((await reported)["exception"]))
        armed.clear()
        near.close()
        with socket.create_connection(server.sockets[0].getsockname()):
            (await accepted).close()
        server.close()
        print("goes on")

    loop = new_event_loop()
    loop.run_until_complete(main())
    loop.close()
    """
    assert lines(loop_name, body) == [f"{error}('refused')", "goes on"]
