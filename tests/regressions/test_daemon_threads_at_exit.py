"""A loop in a daemon thread does not keep a program from ending well.

Must hold: the interpreter shuts down while such a loop runs a callback, a task, a protocol, or
waits, and while a resolver's thread is inside of a Python function. Up to 3.13 CPython ends those
threads by unwinding their stacks as soon as they ask for the GIL.
"""

import textwrap

import pytest

from support.programs import run_program

# Each defines begin(loop), which says by `busy.set()` that it is where the end shall meet it.
IN_THE_THREAD = {
    "nothing": """
        def begin(loop):
            loop.call_soon(busy.set)
    """,
    "callbacks": """
        def begin(loop):
            busy.set()
            loop.call_soon(begin, loop)
    """,
    "a callback that waits": """
        def begin(loop):
            busy.set()
            time.sleep(0.0005)
            loop.call_soon(begin, loop)
    """,
    "a task": """
        def begin(loop):
            async def main():
                while True:
                    busy.set()
                    time.sleep(0.0005)
                    await asyncio.sleep(0)
            loop.task = loop.create_task(main())
    """,
    "a protocol": """
        def begin(loop):
            near, far = socket.socketpair()
            class Busy(asyncio.Protocol):
                def data_received(self, data):
                    busy.set()
                    far.send(data)
                    time.sleep(0.0005)
            loop.task = loop.create_task(loop.create_connection(Busy, sock=near))
            far.send(b"x")
    """,
    "a datagram": """
        def begin(loop):
            near, far = socket.socketpair(type=socket.SOCK_DGRAM)
            class Busy(asyncio.DatagramProtocol):
                def datagram_received(self, data, address):
                    busy.set()
                    far.send(data)
                    time.sleep(0.0005)
            loop.task = loop.create_task(loop.create_datagram_endpoint(Busy, sock=near))
            far.send(b"x")
    """,
    "an awaitable": """
        class Busy:
            def __await__(self):
                while True:
                    busy.set()
                    time.sleep(0.0005)
                    yield
        def begin(loop):
            async def getaddrinfo(*args, **kwargs):
                await Busy()
            loop.getaddrinfo = getaddrinfo
            loop.task = loop.create_task(loop.create_connection(asyncio.Protocol, "x", 1))
    """,
}
ENDS_MEANWHILE = """
import socket, threading, time
busy = threading.Event()
{begin}
def work():
    loop = new_event_loop()
    loop.call_soon(begin, loop)
    loop.run_forever()
threading.Thread(target=work, daemon=True).start()
busy.wait(20)
time.sleep(0.002)
print("ends")
"""


@pytest.mark.parametrize("what", IN_THE_THREAD)
def test_the_program_ends_well(loop_name, what):
    source = ENDS_MEANWHILE.format(begin=textwrap.dedent(IN_THE_THREAD[what]))
    done = run_program(loop_name, source)
    assert (done.returncode, done.stdout) == (0, "ends\n"), done.stderr
    assert done.stderr == ""
