"""What inspect, unittest.mock and isinstance say of loops, servers and transports."""

import asyncio
import functools
import inspect
import os
import ssl
import sys
from unittest import mock

import pytest

from support.certificates import careless_context, server_context
from support.peers import shut, until
from support.programs import output_of
from support.protocols import Echo, Recorder


def methods_of(kind):
    """Names of the public methods."""
    return [it for it in dir(kind) if not it.startswith("_") and callable(getattr(kind, it))]


PUBLIC = methods_of(asyncio.SelectorEventLoop)
COROUTINES = [
    name for name in PUBLIC if inspect.iscoroutinefunction(getattr(asyncio.SelectorEventLoop, name))
]
#: Parameters that every Python has here, and asyncio from this version on; docs/compatibility.md
#: has them among what is more than the running Python has.
LATER = {
    ("create_connection", "all_errors"): (3, 12),
    ("create_server", "keep_alive"): (3, 13),
    ("create_task", "kwargs"): (3, 13, 3),
    ("create_unix_server", "cleanup_socket"): (3, 13),
    ("shutdown_default_executor", "timeout"): (3, 12),
}


def plain(signature):
    """Tell the names, kinds and defaults; annotations are ours alone."""
    parameters = signature.parameters.values()
    return [(it.name, it.kind, it.default) for it in parameters]


@pytest.fixture
def run(loop):
    return loop.run_until_complete


async def serving(loop, **options):
    return await loop.create_server(Echo, "127.0.0.1", 0, **options)


class TestCoroutineMethods:
    def test_there_are_many(self):
        assert {"create_connection", "sock_recv", "start_tls", "getaddrinfo"} < set(COROUTINES)

    @pytest.mark.parametrize("name", PUBLIC)
    def test_are_told_from_the_others(self, loop, name):
        expected = name in COROUTINES
        assert inspect.iscoroutinefunction(getattr(loop, name)) is expected
        assert inspect.iscoroutinefunction(getattr(type(loop), name)) is expected

    @pytest.mark.parametrize("name", ["serve_forever", "start_serving", "wait_closed"])
    def test_of_servers(self, loop, run, name):
        server = run(serving(loop))
        assert inspect.iscoroutinefunction(getattr(server, name))
        assert not inspect.iscoroutinefunction(server.close)
        run(shut(server))

    def test_bound_to_something(self, loop):
        assert inspect.iscoroutinefunction(functools.partial(loop.sock_recv, None))

    def test_are_methods(self, loop):
        method = loop.create_connection
        assert inspect.ismethod(method)
        assert method.__self__ is loop
        assert method.__name__ == "create_connection"
        assert method.__qualname__.endswith("EventLoop.create_connection")
        assert method == loop.create_connection
        assert hash(method) == hash(loop.create_connection)

    def test_called_through_the_class(self, loop, run):
        found = run(type(loop).getaddrinfo(loop, "127.0.0.1", 1))
        assert found[0][4] == ("127.0.0.1", 1)

    def test_refuse_another_self(self, loop):
        with pytest.raises((TypeError, AttributeError)):
            type(loop).getaddrinfo(object(), "127.0.0.1", 1).send(None)

    def test_with_keywords(self, loop, run):
        found = run(loop.getaddrinfo(host="127.0.0.1", port=1))
        assert found[0][4] == ("127.0.0.1", 1)

    def test_wrong_arguments(self, loop):
        with pytest.raises(TypeError):
            loop.sock_recv()

    def test_super_reaches_them(self, loop_factory):
        first = loop_factory()
        kind = type(first)
        first.close()

        class Loop(kind):
            async def getaddrinfo(self, *args, **kwargs):
                return ["ours", *await super().getaddrinfo(*args, **kwargs)]

        loop = Loop()
        try:
            found = loop.run_until_complete(loop.getaddrinfo("127.0.0.1", 1))
        finally:
            loop.close()
        assert found[0] == "ours"
        assert len(found) > 1


class TestMocks:
    @pytest.mark.parametrize("name", COROUTINES)
    def test_of_a_coroutine_method(self, loop, run, name):
        with mock.patch.object(loop, name) as mocked:
            assert isinstance(mocked, mock.AsyncMock)
            mocked.return_value = "mocked"
            assert run(getattr(loop, name)()) == "mocked"

    def test_of_a_plain_method(self, loop):
        with mock.patch.object(loop, "call_later") as mocked:
            assert not isinstance(mocked, mock.AsyncMock)

    def test_of_the_class(self, loop, run):
        with mock.patch.object(type(loop), "create_server") as mocked:
            mocked.return_value = "mocked"
            assert run(loop.create_server(Echo)) == "mocked"
        server = run(serving(loop))
        assert server.sockets
        run(shut(server))

    def test_with_the_same_signature(self, loop, run):
        with mock.patch.object(loop, "create_connection", autospec=True) as mocked:
            mocked.return_value = "mocked"
            assert run(loop.create_connection(Echo, host="localhost", port=1)) == "mocked"
            with pytest.raises(TypeError):
                run(loop.create_connection(Echo, no_such=1))

    def test_of_a_whole_loop(self, loop, run):
        whole = mock.create_autospec(loop)
        whole.getaddrinfo.return_value = []
        assert run(whole.getaddrinfo("localhost", 1)) == []


class TestPatchedTransports:
    """What is patched on asyncio's classes has its effect on the transports that inherit it."""

    def test_get_extra_info_of_streams(self, loop, run):
        async def main():
            server = await serving(loop)
            address = server.sockets[0].getsockname()
            transport, protocol = await loop.create_connection(Recorder, *address)
            with mock.patch("asyncio.Transport.get_extra_info") as mocked:
                mocked.return_value = "mocked"
                assert transport.get_extra_info("peername") == "mocked"
                assert transport.get_extra_info("socket", 1) == "mocked"
            assert mocked.call_args_list == [mock.call("peername"), mock.call("socket", 1)]
            assert transport.get_extra_info("peername") == address
            transport.close()
            await until(lambda: protocol.is_lost)
            await shut(server)

        run(main())

    def test_get_extra_info_of_everything(self, loop, run):
        async def main():
            server = await serving(loop)
            address = server.sockets[0].getsockname()
            stream, protocol = await loop.create_connection(Recorder, *address)
            datagram, _ = await loop.create_datagram_endpoint(
                asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
            )
            reading, writing = os.pipe()
            pipe, _ = await loop.connect_read_pipe(asyncio.Protocol, os.fdopen(reading, "rb"))
            base = asyncio.BaseTransport
            with mock.patch.object(base, "get_extra_info", autospec=True) as mocked:
                for transport in (stream, datagram, pipe):
                    transport.get_extra_info("socket")
                    mocked.assert_called_with(transport, "socket")
            assert datagram.get_extra_info("sockname")[0] == "127.0.0.1"
            assert pipe.get_extra_info("pipe").fileno() == reading
            for transport in (stream, datagram, pipe):
                transport.close()
            os.close(writing)
            await until(lambda: protocol.is_lost)
            await shut(server)

        run(main())


REPLACES = """
import asyncio
import functools

started = False
called = []


class Wrapper:
    def __init__(self, original, function):
        self.original = original
        self.function = function

    def __get__(self, instance, owner):
        return self if instance is None else functools.partial(self.function, instance)

    def __call__(self, *args):
        return self.function(*args)

    def __getattr__(self, name):
        return getattr(self.original, name)


def replace(kind, name, by_wrapper):
    original = getattr(kind, name)

    @functools.wraps(original)
    def function(self, *args, **kwargs):
        called.append(name)
        return original(self, *args, **kwargs)

    setattr(kind, name, Wrapper(original, function) if by_wrapper else function)
"""
USES = """
    import socket
    import replaces

    print(replaces.started)
    if not replaces.started:
        replaces.start()

    async def main():
        near, far = socket.socketpair()
        with far:
            reader, writer = await asyncio.open_connection(sock=near)
            far.send(b"x")
            await reader.readexactly(1)
            writer.get_extra_info("peername")
            writer.close()
            await writer.wait_closed()
        await asyncio.sleep(0.001)

    loop = new_event_loop()
    loop.run_until_complete(main())
    loop.close()
    print(*sorted(set(replaces.called)))
"""


class TestMethodsOfAnotherModule:
    """A profiler of its own file has replaced a method of asyncio's, and perhaps more of them."""

    @pytest.mark.parametrize("when", ["before oxloop is imported", "after"])
    @pytest.mark.parametrize("how", ["alone", "with __init__", "by a wrapper"])
    @pytest.mark.parametrize(
        "method",
        [
            "Handle._run",
            "TimerHandle._run",
            "StreamReaderProtocol.data_received",
            "StreamReader.feed_data",
            "Transport.get_extra_info",
            "BaseTransport.get_extra_info",
        ],
    )
    def test_is_called(self, loop_name, tmp_path, method, how, when):
        kind, name = method.split(".")
        names = ["__init__", name] if how == "with __init__" else [name]
        lines = [f"replace(asyncio.{kind}, {it!r}, {how == 'by a wrapper'})" for it in names]
        start = "\n    ".join(["def start():", "global started", "started = True", *lines])
        (tmp_path / "replaces.py").write_text(f"{REPLACES}\n\n{start}\n")
        before = when == "before oxloop is imported"
        if before:
            (tmp_path / "sitecustomize.py").write_text("import replaces\nreplaces.start()\n")
        output = output_of(loop_name, USES, env={"PYTHONPATH": str(tmp_path)})
        started, called = output.splitlines()
        assert started == str(before)
        assert name in called.split()


class TestSignatures:
    @pytest.mark.parametrize("name", PUBLIC)
    def test_is_asyncios(self, loop, name):
        if sys.version_info[:3] == (3, 13, 3) and name == "create_task":
            pytest.skip("3.13.3 alone takes name and context among the other keywords")
        theirs = plain(inspect.signature(getattr(asyncio.SelectorEventLoop, name)))[1:]
        ours = plain(inspect.signature(getattr(loop, name)))
        later = [it for it in ours if sys.version_info < LATER.get((name, it[0]), (3, 0))]
        # On stock asyncio there is nothing to leave out.
        assert [it for it in ours if it in theirs or it not in later] == theirs

    @pytest.mark.parametrize("name", PUBLIC)
    def test_bound_has_no_self(self, loop, name):
        bound = inspect.signature(getattr(loop, name))
        unbound = inspect.signature(getattr(type(loop), name))
        assert plain(bound) == plain(unbound)[1:]
        assert plain(unbound)[0][0] == "self"

    @pytest.mark.parametrize("method", ["close", "get_loop", "serve_forever", "start_serving"])
    def test_of_servers(self, loop, run, method):
        server = run(serving(loop))
        assert not inspect.signature(getattr(server, method)).parameters
        run(shut(server))

    def test_of_transports(self, loop, run):
        async def main():
            server = await serving(loop)
            address = server.sockets[0].getsockname()
            transport, protocol = await loop.create_connection(Recorder, *address)
            for name in methods_of(asyncio.Transport):
                theirs = plain(inspect.signature(getattr(asyncio.Transport, name)))
                assert plain(inspect.signature(getattr(transport, name))) == theirs[1:]
            transport.close()
            await until(lambda: protocol.is_lost)
            await shut(server)

        run(main())


class TestDocstrings:
    def test_are_there(self, loop, run):
        if isinstance(loop, asyncio.SelectorEventLoop):
            pytest.skip("asyncio's have none")

        async def main():
            server = await serving(loop)
            address = server.sockets[0].getsockname()
            stream, protocol = await loop.create_connection(Recorder, *address)
            datagram, _ = await loop.create_datagram_endpoint(
                asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
            )
            child, _ = await loop.subprocess_exec(asyncio.SubprocessProtocol, "cat")
            pipes = child.get_pipe_transport(0), child.get_pipe_transport(1)
            handles = loop.call_soon(print), loop.call_later(60, print)
            for made in (loop, server, stream, datagram, child, *pipes, *handles):
                assert type(made).__doc__, made
                for name in methods_of(type(made)):
                    assert getattr(made, name).__doc__, (made, name)
            for handle in handles:
                handle.cancel()
            child.close()
            await child._wait()
            datagram.close()
            stream.close()
            await until(lambda: protocol.is_lost)
            await shut(server)

        run(main())


class TestServers:
    def test_class(self, loop, run):
        server = run(serving(loop))
        assert isinstance(server, asyncio.Server)
        assert isinstance(server, asyncio.AbstractServer)
        run(shut(server))

    def test_attributes_without_tls(self, loop, run):
        server = run(serving(loop, backlog=7, start_serving=False))
        assert server._loop is loop
        assert server._protocol_factory is Echo
        assert server._backlog == 7
        assert server._ssl_context is None
        assert server._ssl_handshake_timeout is None
        assert server._ssl_shutdown_timeout is None
        assert server._serving is False
        assert server._serving_forever_fut is None
        assert server._waiters == []
        server._start_serving()
        assert server._serving is True
        server.close()
        assert server._sockets is None
        assert server._waiters is None

    def test_attributes_with_tls(self, loop, run):
        context = server_context()
        server = run(serving(loop, ssl=context, ssl_handshake_timeout=3, ssl_shutdown_timeout=4))
        assert server._ssl_context is context
        assert server._ssl_handshake_timeout == 3
        assert server._ssl_shutdown_timeout == 4
        run(shut(server))

    @pytest.mark.asyncio_since(3, 12)
    def test_a_foreign_connection_is_waited_for(self, loop, run):
        class Connection:
            pass

        mine = [Connection()] if sys.version_info >= (3, 13) else []
        server = run(serving(loop))
        server._attach(*mine)

        async def end():
            server.close()
            assert server._waiters is not None
            server._detach(*mine)
            assert server._waiters is None
            await server.wait_closed()

        run(end())


class TestTlsTransports:
    def test_context(self, loop, run):
        async def main():
            server = await serving(loop, ssl=server_context())
            context = careless_context()
            address = server.sockets[0].getsockname()
            transport, protocol = await loop.create_connection(Recorder, *address, ssl=context)
            assert transport._ssl_protocol._sslcontext is context
            assert isinstance(transport._ssl_protocol._sslcontext, ssl.SSLContext)
            transport.close()
            await until(lambda: protocol.is_lost)
            await shut(server)

        run(main())


class TestFileno:
    """What fileno() raises is not hidden, but for the errors that mean: no such thing."""

    METHODS = ("add_reader", "add_writer", "remove_reader", "remove_writer")

    class File:
        def __init__(self, answer):
            self.answer = answer

        def fileno(self):
            if isinstance(self.answer, BaseException):
                raise self.answer
            return self.answer

    def call(self, loop, method, answer):
        callback = (print,) if method.startswith("add") else ()
        return getattr(loop, method)(self.File(answer), *callback)

    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, OSError, RuntimeError])
    def test_comes_out(self, loop, method, kind):
        error = kind("from fileno")
        with pytest.raises(kind) as caught:
            self.call(loop, method, error)
        assert caught.value is error

    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("kind", [AttributeError, TypeError, ValueError])
    def test_becomes_a_value_error(self, loop, method, kind):
        with pytest.raises(ValueError, match="Invalid file object"):
            self.call(loop, method, kind("from fileno"))

    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("answer", [None, "text", ()])
    def test_is_no_number(self, loop, method, answer):
        with pytest.raises(ValueError, match="Invalid file object"):
            self.call(loop, method, answer)
