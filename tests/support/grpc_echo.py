"""A grpc.aio server and client as programs: ``python -m support.grpc_echo LOOP server|client ...``.

In processes of their own, because gRPC keeps threads and descriptors until its process ends.
"""

import asyncio
import sys

import grpc
import pytest

from support.loops import factory_of
from support.peers import pattern

SERVICE = "oxloop.Echo"


async def upper(request, context):
    if request == b"fail":
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "as asked")
    if request == b"wait":
        await asyncio.sleep(3600)
    return request.upper()


async def count(request, context):
    for number in range(int(request)):
        yield b"%d" % number


async def join(requests, context):
    return b",".join([request async for request in requests])


async def echo(requests, context):
    async for request in requests:
        yield request


async def loop_name(request, context):
    return type(asyncio.get_running_loop()).__module__.encode()


METHODS = {
    "Upper": grpc.unary_unary_rpc_method_handler(upper),
    "Count": grpc.unary_stream_rpc_method_handler(count),
    "Join": grpc.stream_unary_rpc_method_handler(join),
    "Echo": grpc.stream_stream_rpc_method_handler(echo),
    "Loop": grpc.unary_unary_rpc_method_handler(loop_name),
}


async def serve():
    """Serves until its standard input ends; says its port first."""
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, METHODS),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(grace=5)
    print("stopped", flush=True)


class Client:
    def __init__(self, channel):
        self.unary = channel.unary_unary(f"/{SERVICE}/Upper")
        self.counting = channel.unary_stream(f"/{SERVICE}/Count")
        self.joining = channel.stream_unary(f"/{SERVICE}/Join")
        self.echoing = channel.stream_stream(f"/{SERVICE}/Echo")
        self.loop_name = channel.unary_unary(f"/{SERVICE}/Loop")

    async def check_unary(self):
        for number in range(100):
            assert await self.unary(b"a%d" % number) == b"A%d" % number
        answers = await asyncio.gather(*(self.unary(b"a%d" % number) for number in range(300)))
        assert answers == [b"A%d" % number for number in range(300)]
        large = pattern(3_000_000).hex().encode()
        assert await self.unary(large) == large.upper()

    async def check_streams(self):
        numbers = [b"%d" % number for number in range(1000)]
        assert [answer async for answer in self.counting(b"1000")] == numbers
        assert await self.joining(iter(numbers)) == b",".join(numbers)

    async def check_bidirectional(self):
        call = self.echoing()
        for number in range(300):
            await call.write(b"%d" % number)
            assert await call.read() == b"%d" % number
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF

    async def check_failures(self):
        with pytest.raises(grpc.aio.AioRpcError, match="as asked") as caught:
            await self.unary(b"fail")
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.unary(b"wait", timeout=0.05)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        call = self.unary(b"wait")
        await asyncio.sleep(0.05)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert call.cancelled()
        assert await self.unary(b"after that") == b"AFTER THAT"

    async def check_loop_name(self):
        mine = type(asyncio.get_running_loop()).__module__.encode()
        assert await self.loop_name(b"") == mine
        print(mine.decode())


async def ask(port, check):
    options = [("grpc.max_receive_message_length", -1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options) as channel:
        await getattr(Client(channel), f"check_{check}")()
    print("done")


def main():
    name, role, *arguments = sys.argv[1:]
    part = serve() if role == "server" else ask(*arguments)
    with asyncio.Runner(loop_factory=factory_of(name)) as runner:
        runner.run(part)


if __name__ == "__main__":
    main()
