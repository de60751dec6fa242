"""accept at EMFILE: reported, tried again after a second, without a spin and without a loss.

Must hold: clients that knock while the process has no descriptor left are served once it has;
connections that stand go on meanwhile; the processor is not kept busy.
"""

import socket
import time

from support.programs import start_program

PROGRAM = """
import contextlib, os, resource, time

reports = []
fillers = []

class Protocol(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        if data == b"fill":
            highest = max(map(int, os.listdir("/proc/self/fd"))) + 8
            _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (highest, hard))
            with contextlib.suppress(OSError):
                while True:
                    fillers.append(os.open("/dev/null", os.O_RDONLY))
            self.began = time.process_time(), time.monotonic()
        elif data == b"free":
            for fd in fillers:
                os.close(fd)
            busy = time.process_time() - self.began[0]
            seconds = time.monotonic() - self.began[1]
            share = busy / seconds
            print(len(reports), f"{seconds:.3f} {share:.3f}", sorted(set(reports)), flush=True)
        self.transport.write(data)

def handler(loop, context):
    reports.append((context["message"], type(context["exception"]).__name__,
                    context["exception"].errno, sorted(context) ==
                    ["exception", "message", "socket"]))

async def main():
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(handler)
    server = await loop.create_server(Protocol, "127.0.0.1", 0, backlog=5)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

loop = new_event_loop()
loop.run_until_complete(main())
"""


def ask(sock, data):
    sock.sendall(data)
    return sock.recv(100)


def test_clients_are_served_when_descriptors_are_there_again(loop_name):
    program = start_program(loop_name, PROGRAM)
    try:
        address = ("127.0.0.1", int(program.stdout.readline()))
        first = socket.create_connection(address, 15)
        assert ask(first, b"fill") == b"fill"
        late = [socket.create_connection(address, 15) for _ in range(3)]
        for number, sock in enumerate(late):
            sock.sendall(b"late %d" % number)
        deadline = time.monotonic() + 1.3
        while time.monotonic() < deadline:
            assert ask(first, b"still here") == b"still here"
            time.sleep(0.05)
        assert ask(first, b"free") == b"free"
        for number, sock in enumerate(late):
            assert sock.recv(100) == b"late %d" % number
        count, seconds, share, kinds = program.stdout.readline().split(" ", 3)
    finally:
        program.kill()
        program.communicate()
    for sock in (first, *late):
        sock.close()
    assert kinds.strip() == "[('socket.accept() out of system resource', 'OSError', 24, True)]"
    # asyncio says it once for every place in the backlog, at each attempt: there is one a second.
    assert 1 <= int(count) <= 6 * (float(seconds) + 2)
    assert float(share) < 0.5
