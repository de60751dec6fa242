"""What audit hooks hear of sockets."""

from support.programs import output_of

#: An audit hook stays for good, so each program has an interpreter of its own.
HEARD = """
    import socket

    heard = []


    def hook(event, arguments):
        if event == "socket.__new__":
            heard.append((event, *map(int, arguments[1:])))
        elif event in ("socket.bind", "socket.connect"):
            heard.append((event, arguments[0].family.name))
        elif event == "subprocess.Popen":
            heard.append((event, arguments[0]))


    sys.addaudithook(hook)


    async def heard_of(coroutine):
        heard.clear()
        result = await coroutine
        print(*heard)
        return result
"""


def lines(loop_name, body):
    return output_of(loop_name, "    import sys\n" + HEARD + body).splitlines()


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

    asyncio.Runner(loop_factory=new_event_loop).run(main())
    """
    datagrams, process = lines(loop_name, body)
    assert datagrams == "('socket.__new__', 2, 2, 17) ('socket.bind', 'AF_INET')"
    assert "('subprocess.Popen', 'true')" in process
