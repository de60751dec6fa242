"""Handshakes: every way to ask for TLS, and the context that decides how one goes and ends."""

import asyncio
import contextlib
import logging
import socket
import ssl
import sys
import threading

import pytest

from support.certificates import (
    NAME,
    OTHER_NAME,
    PASSWORD,
    authority,
    careless_context,
    client_context,
    server_context,
)
from support.peers import PAIRS, Listener, turns, until
from support.protocols import Echo, Recorder
from support.tls import VERSIONS, peer_of, secured, wrapped

TIMEOUTS = ("ssl_handshake_timeout", "ssl_shutdown_timeout")


@contextlib.asynccontextmanager
async def serving(loop, context, factory=Echo, **options):
    """(host, port) of a TLS server on the loop."""
    server = await loop.create_server(factory, "127.0.0.1", 0, ssl=context, **options)
    try:
        yield server.sockets[0].getsockname()
    finally:
        server.close()


async def dialogue(transport, protocol, data=b"ping"):
    transport.write(data)
    await until(lambda: protocol.received == data)
    transport.close()
    await until(lambda: protocol.is_lost)
    assert protocol.lost_with == [None]


async def both_ends(loop, pair, side, contexts, **options):
    """(what the loop's end came to, what the peer's came to): exceptions are results.

    asyncio closes a connection that it refuses without the alert that says why.
    """
    near, far = pair
    peer = peer_of(far, side, contexts)

    def handshake():
        try:
            peer.handshake()
            return peer.receive()  # TLS 1.3: a refused client learns of it here
        finally:
            with contextlib.suppress(OSError):
                peer.sock.shutdown(socket.SHUT_WR)

    return await asyncio.gather(
        wrapped(loop, near, Recorder, side, contexts, **options),
        asyncio.to_thread(handshake),
        return_exceptions=True,
    )


class TestWays:
    def test_create_server_and_create_connection(self, loop, run):
        async def main():
            async with serving(loop, server_context()) as (host, port):
                transport, protocol = await loop.create_connection(
                    Recorder, host, port, ssl=client_context(), server_hostname=NAME
                )
                assert protocol.calls == ["made"]
                sock = transport.get_extra_info("socket")
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                await dialogue(transport, protocol)

        run(main())

    def test_unix_sockets(self, loop, run, tmp_path):
        path = str(tmp_path / "socket")

        async def main():
            server = await loop.create_unix_server(Echo, path, ssl=server_context())
            transport, protocol = await loop.create_unix_connection(
                Recorder, path, ssl=client_context(), server_hostname=NAME
            )
            await dialogue(transport, protocol)
            server.close()

        run(main())

    @pytest.mark.parametrize("family", PAIRS)
    def test_connect_accepted_socket(self, loop, run, family, side):
        near, far = PAIRS[family]()
        protocol = Recorder()

        async def main():
            transport, peer = await secured(loop, (near, far), protocol, side)
            await asyncio.to_thread(peer.send, b"data")
            await until(lambda: protocol.received == b"data")
            transport.abort()
            await until(lambda: protocol.is_lost)

        run(main())
        far.close()

    def test_create_server_with_a_listening_socket(self, loop, run):
        listener = socket.create_server(("127.0.0.1", 0))

        async def main():
            server = await loop.create_server(Echo, sock=listener, ssl=server_context())
            transport, protocol = await loop.create_connection(
                Recorder, *listener.getsockname(), ssl=client_context(), server_hostname=NAME
            )
            await dialogue(transport, protocol)
            server.close()

        run(main())

    def test_connection_made_of_the_server_after_the_handshake(self, loop, run):
        made = []

        class Noting(Recorder):
            def connection_made(self, transport):
                super().connection_made(transport)
                made.append(transport.get_extra_info("ssl_object").version())

        async def main():
            async with serving(loop, server_context(), Noting) as address:
                sock = socket.create_connection(address)
                await asyncio.sleep(0.02)
                assert made == []
                tls = await asyncio.to_thread(
                    client_context().wrap_socket, sock, server_hostname=NAME
                )
                await until(lambda: made)
                assert made == [tls.version()]
                tls.close()

        run(main())

    def test_a_blocking_server_as_peer(self, loop, run):
        context = server_context()

        def serve(conn):
            with context.wrap_socket(conn, server_side=True) as tls:
                tls.sendall(tls.recv(100).upper())
                tls.unwrap()

        async def main(address):
            transport, protocol = await loop.create_connection(
                Recorder, *address, ssl=client_context(), server_hostname=NAME
            )
            transport.write(b"hello")
            await until(lambda: protocol.is_lost)
            assert protocol.received == b"HELLO"
            assert protocol.calls == ["made", "data", "eof", "lost"]

        with Listener(serve) as listener:
            run(main(listener.address))

    def test_many_at_once(self, loop, run):
        async def one(host, port):
            transport, protocol = await loop.create_connection(
                Recorder, host, port, ssl=client_context(), server_hostname=NAME
            )
            await dialogue(transport, protocol)

        async def main():
            async with serving(loop, server_context()) as (host, port):
                await asyncio.gather(*[one(host, port) for _ in range(40)])

        run(main())

    def test_a_byte_at_a_time(self, loop, run, pair, side, version):
        contexts = server_context(version=version), client_context(version=version)
        near, far = pair
        peer = peer_of(far, side, contexts)

        def dribble():
            while data := peer.outgoing.read():
                for byte in data:
                    far.sendall(bytes([byte]))

        peer.flush = dribble
        far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        async def main():
            (transport, protocol), _ = await asyncio.gather(
                wrapped(loop, near, Recorder, side, contexts), asyncio.to_thread(peer.handshake)
            )
            transport.write(b"done")
            assert await asyncio.to_thread(peer.receive_exactly, 4) == b"done"
            transport.abort()
            await until(lambda: protocol.is_lost)

        run(main())

    def test_handshakes_of_many_packets(self, loop, run, pair, side):
        """Certificate requests with a thousand names need more than one record."""
        server = server_context(clients=ssl.CERT_OPTIONAL)
        certificate = authority().issue(NAME)
        padding = "".join(
            ssl.DER_cert_to_PEM_cert(authority(f"padding {i}").issue(NAME).der) for i in range(3)
        )
        server.load_verify_locations(cadata=padding)
        contexts = server, client_context(certificate=certificate)
        protocol = Recorder()

        async def main():
            transport, peer = await secured(loop, pair, protocol, side, contexts)
            transport.write(b"done")
            assert await asyncio.to_thread(peer.receive_exactly, 4) == b"done"
            transport.abort()
            await until(lambda: protocol.is_lost)

        run(main())


class TestSharedContexts:
    def test_of_loops_in_threads(self, loop_factory):
        """Two contexts, four loops that shake hands at once."""
        server, client = server_context(), client_context()
        done = []

        async def visits():
            loop = asyncio.get_running_loop()
            async with serving(loop, server) as address:
                for number in range(10):
                    transport, protocol = await loop.create_connection(
                        Recorder, *address, ssl=client, server_hostname=NAME
                    )
                    await dialogue(transport, protocol, b"visit %d" % number)
                    done.append(number)

        def thread():
            loop = loop_factory()
            try:
                loop.run_until_complete(asyncio.wait_for(visits(), 20))
            finally:
                loop.close()

        threads = [threading.Thread(target=thread) for _ in range(4)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        assert sorted(done) == sorted(list(range(10)) * 4)

    def test_errors_of_others_in_the_same_thread(self, loop, run, pair):
        """What OpenSSL remembers of other calls' failures is not taken for this connection's."""

        class Failing(Recorder):
            def data_received(self, data):
                with pytest.raises(ssl.SSLError):
                    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata="no PEM")
                with pytest.raises(ssl.SSLError):
                    peer_of(None, "client").tls.write(b"no handshake yet")
                super().data_received(data)
                self.transport.write(data)

        protocol = Failing()

        async def main():
            _, peer = await secured(loop, pair, protocol)
            for number in range(10):
                await asyncio.to_thread(peer.send, b"%d" % number)
                assert await asyncio.to_thread(peer.receive) == b"%d" % number
            protocol.transport.abort()
            await until(lambda: protocol.is_lost)

        run(main())

    def test_changed_while_connected(self, loop, run, pair, side):
        """A context's new settings, and another context, concern later connections only."""
        protocol = Recorder()

        async def main():
            transport, peer = await secured(loop, pair, protocol, side)
            tls = transport.get_extra_info("ssl_object")
            tls.context.minimum_version = tls.context.maximum_version = VERSIONS["1.2"]
            tls.context = server_context(OTHER_NAME) if side == "server" else careless_context()
            transport.write(b"hello")
            assert await asyncio.to_thread(peer.receive_exactly, 5) == b"hello"
            await asyncio.to_thread(peer.send, b"hello")
            await until(lambda: protocol.received == b"hello")
            assert tls.version() == "TLSv1.3"
            transport.abort()
            await until(lambda: protocol.is_lost)

        run(main())


class TestArguments:
    @pytest.mark.parametrize("name", TIMEOUTS)
    @pytest.mark.parametrize("value", [0, -1, -0.5])
    def test_timeouts_are_positive(self, loop, run, pair, name, value):
        expected = rf"^{name} should be a positive number, got {value}$"

        async def main():
            near, _ = pair
            with pytest.raises(ValueError, match=expected):
                await loop.create_connection(
                    Recorder, sock=near, ssl=client_context(), server_hostname=NAME, **{name: value}
                )

        run(main())

    @pytest.mark.parametrize("name", TIMEOUTS)
    def test_timeouts_of_accepted_sockets(self, loop, run, pair, name):
        async def main():
            near, _ = pair
            with pytest.raises(ValueError, match=rf"^{name} should be a positive number, got 0$"):
                await loop.connect_accepted_socket(
                    Recorder, near, ssl=server_context(), **{name: 0}
                )

        run(main())

    def test_server_side_needs_a_context(self, loop, run, pair):
        async def main():
            near, _ = pair
            with pytest.raises(ValueError, match=r"^Server side SSL needs a valid SSLContext$"):
                await loop.connect_accepted_socket(Recorder, near, ssl=True)

        run(main())

    def test_tls_sockets_are_refused(self, loop, run, pair):
        near, _ = pair
        tls = client_context().wrap_socket(
            near, server_hostname=NAME, do_handshake_on_connect=False
        )

        async def main():
            with pytest.raises(TypeError, match=r"^Socket cannot be of type SSLSocket$"):
                await loop.create_connection(Recorder, sock=tls)
            with pytest.raises(TypeError, match=r"^Socket cannot be of type SSLSocket$"):
                await loop.create_server(Recorder, sock=tls)

        run(main())
        tls.close()

    def test_a_context_of_the_wrong_side(self, loop, run, pair):
        async def main():
            near, _ = pair
            with pytest.raises(ssl.SSLError, match="Cannot create a client socket"):
                await loop.create_connection(
                    Recorder, sock=near, ssl=server_context(), server_hostname=NAME
                )

        run(main())

    @pytest.mark.parametrize("name", ["1\0", ".dot.first"], ids=["null", "dot"])
    def test_bad_host_names(self, loop, run, pair, name):
        async def main():
            near, _ = pair
            context = client_context()
            with pytest.raises((ValueError, TypeError)) as expected:
                context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname=name)
            with pytest.raises(type(expected.value)) as caught:
                await loop.create_connection(Recorder, sock=near, ssl=context, server_hostname=name)
            assert str(caught.value) == str(expected.value)

        run(main())

    def test_host_of_the_address_is_the_name(self, loop, run):
        """Without server_hostname it is the host argument that is verified."""
        names = []
        context = server_context("localhost")
        context.sni_callback = lambda tls, name, ctx: names.append(name)

        async def main():
            async with serving(loop, context) as (_, port):
                transport, protocol = await loop.create_connection(
                    Recorder, "localhost", port, ssl=client_context(), family=socket.AF_INET
                )
                await dialogue(transport, protocol)

        run(main())
        assert names == ["localhost"]

    def test_ssl_true_verifies(self, loop, run, unhandled):
        """The default context does not know the test's authority."""

        async def main():
            async with serving(loop, server_context("localhost")) as (_, port):
                with pytest.raises(ssl.SSLCertVerificationError) as caught:
                    await loop.create_connection(
                        Recorder, "localhost", port, ssl=True, family=socket.AF_INET
                    )
                assert caught.value.reason == "CERTIFICATE_VERIFY_FAILED"
                await turns()

        run(main())

    def test_ssl_true_with_the_authority_trusted(self, loop, run, monkeypatch):
        monkeypatch.setenv("SSL_CERT_FILE", authority().file)

        async def main():
            async with serving(loop, server_context("localhost")) as (_, port):
                transport, protocol = await loop.create_connection(
                    Recorder, "localhost", port, ssl=True, family=socket.AF_INET
                )
                context = transport.get_extra_info("sslcontext")
                assert context.verify_mode == ssl.CERT_REQUIRED
                assert context.check_hostname
                await dialogue(transport, protocol)

        run(main())

    def test_no_name_at_all(self, loop, run, pair):
        """server_hostname="" turns the check of names off, if the context allows it."""
        names = []
        server = server_context()
        server.sni_callback = lambda tls, name, ctx: names.append(name)
        near, far = pair
        peer = peer_of(far, "client", (server, None))

        async def main():
            context = client_context()
            context.check_hostname = False
            (transport, protocol), _ = await asyncio.gather(
                loop.create_connection(Recorder, sock=near, ssl=context, server_hostname=""),
                asyncio.to_thread(peer.handshake),
            )
            assert transport.get_extra_info("ssl_object").server_hostname is None
            transport.abort()
            await until(lambda: protocol.is_lost)

        run(main())
        assert names == [None]


class TestVerification:
    def check_client(self, run, loop, pair, contexts, text, code):
        async def main():
            ours, theirs = await both_ends(loop, pair, "client", contexts)
            assert type(ours) is ssl.SSLCertVerificationError
            assert ours.reason == "CERTIFICATE_VERIFY_FAILED"
            assert ours.library == "SSL"
            assert text in ours.verify_message
            assert ours.verify_code == code
            assert isinstance(theirs, OSError)
            await turns()

        run(main())

    def test_unknown_authority(self, loop, run, pair, version):
        contexts = server_context(version=version), client_context(trust=False)
        self.check_client(run, loop, pair, contexts, "unable to get local issuer", 20)

    def test_expired(self, loop, run, pair):
        contexts = server_context(age_days=100), client_context()
        self.check_client(run, loop, pair, contexts, "expired", 10)

    def test_another_host(self, loop, run, pair, version):
        contexts = server_context(OTHER_NAME, version=version), client_context()
        text = f"Hostname mismatch, certificate is not valid for '{NAME}'."
        self.check_client(run, loop, pair, contexts, text, 62)

    def test_the_loop_as_server_learns_of_it(self, loop, run, pair, version, caplog, unhandled):
        """It is the client who refuses; the server has its alert."""
        contexts = server_context(version=version), client_context(trust=False)

        async def main():
            near, far = pair
            peer = peer_of(far, "server", contexts)

            def refuse():
                with pytest.raises(ssl.SSLCertVerificationError):
                    peer.handshake()

            ours, _ = await asyncio.gather(
                wrapped(loop, near, Recorder, "server", contexts),
                asyncio.to_thread(refuse),
                return_exceptions=True,
            )
            assert type(ours) is ssl.SSLError
            assert "ALERT_UNKNOWN_CA" in ours.reason
            await turns()

        run(main())

    def test_nothing_is_verified(self, loop, run, pair):
        contexts = server_context(OTHER_NAME, age_days=100), careless_context()
        protocol = Recorder()

        async def main():
            transport, _ = await secured(loop, pair, protocol, "client", contexts)
            assert transport.get_extra_info("peercert") == {}
            der = transport.get_extra_info("ssl_object").getpeercert(True)
            assert der == authority().issue(OTHER_NAME, 100).der
            transport.abort()
            await until(lambda: protocol.is_lost)

        run(main())

    def test_create_connection_closes_what_it_refused(self, loop, run):
        """Through an address: the error of the handshake, not one of connecting."""

        async def main():
            async with serving(loop, server_context(OTHER_NAME)) as (host, port):
                for _ in range(5):
                    with pytest.raises(ssl.SSLCertVerificationError):
                        await loop.create_connection(
                            Recorder, host, port, ssl=client_context(), server_hostname=NAME
                        )
                await turns()

        run(main())


class TestNegotiation:
    @pytest.mark.parametrize("name", VERSIONS)
    def test_versions(self, loop, run, pair, side, name):
        contexts = server_context(version=VERSIONS[name]), client_context()
        protocol = Recorder()

        async def main():
            transport, _ = await secured(loop, pair, protocol, side, contexts)
            assert transport.get_extra_info("ssl_object").version() == f"TLSv{name}"
            assert transport.get_extra_info("cipher")[1].startswith("TLSv1.")
            transport.abort()
            await until(lambda: protocol.is_lost)

        run(main())

    def test_no_version_in_common(self, loop, run, pair, side):
        contexts = (
            server_context(version=VERSIONS["1.3"]),
            client_context(version=VERSIONS["1.2"]),
        )

        async def main():
            ours, theirs = await both_ends(loop, pair, side, contexts)
            own = {"server": "UNSUPPORTED_PROTOCOL", "client": "TLSV1_ALERT_PROTOCOL_VERSION"}
            assert type(ours) is ssl.SSLError
            assert ours.reason == own[side]
            assert isinstance(theirs, OSError)

        run(main())

    def test_no_cipher_in_common(self, loop, run, pair, side):
        server, client = (
            server_context(version=VERSIONS["1.2"]),
            client_context(version=VERSIONS["1.2"]),
        )
        server.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
        client.set_ciphers("ECDHE-ECDSA-AES256-GCM-SHA384")

        async def main():
            ours, theirs = await both_ends(loop, pair, side, (server, client))
            own = {"server": "NO_SHARED_CIPHER", "client": "HANDSHAKE_FAILURE"}
            assert type(ours) is ssl.SSLError
            assert own[side] in ours.reason
            assert isinstance(theirs, OSError)

        run(main())

    def test_ciphers(self, loop, run, pair, side):
        server, client = server_context(version=VERSIONS["1.2"]), client_context()
        server.set_ciphers("ECDHE-ECDSA-AES256-GCM-SHA384")
        protocol = Recorder()

        async def main():
            transport, _ = await secured(loop, pair, protocol, side, (server, client))
            cipher = transport.get_extra_info("cipher")
            assert cipher == ("ECDHE-ECDSA-AES256-GCM-SHA384", "TLSv1.2", 256)
            transport.abort()
            await until(lambda: protocol.is_lost)

        run(main())

    @pytest.mark.parametrize(
        ("offered", "accepted", "chosen"),
        [
            (["h2", "http/1.1"], ["http/1.1", "h2"], "http/1.1"),
            (["h2"], ["http/1.1"], None),
            ([], ["h2"], None),
        ],
    )
    def test_alpn(self, loop, run, pair, side, offered, accepted, chosen):
        server, client = server_context(), client_context()
        server.set_alpn_protocols(accepted)
        if offered:
            client.set_alpn_protocols(offered)
        protocol = Recorder()

        async def main():
            transport, _ = await secured(loop, pair, protocol, side, (server, client))
            tls = transport.get_extra_info("ssl_object")
            assert tls.selected_alpn_protocol() == chosen
            transport.abort()
            await until(lambda: protocol.is_lost)

        run(main())


class TestServerName:
    def test_callback_switches_the_context(self, loop, run, pair, version):
        other = server_context(OTHER_NAME, version=version)
        server, client = server_context(version=version), client_context(version=version)
        seen = []

        def choose(tls, name, context):
            seen.append((type(tls), name, context is server))
            if name == OTHER_NAME:
                tls.context = other

        server.sni_callback = choose
        near, far = pair

        async def main():
            def connect():
                tls = client.wrap_socket(far, server_hostname=OTHER_NAME)
                return tls, tls.getpeercert()["subjectAltName"]

            (transport, protocol), (tls, names) = await asyncio.gather(
                wrapped(loop, near, Recorder, "server", (server, client)),
                asyncio.to_thread(connect),
            )
            assert names == (("DNS", OTHER_NAME),)
            assert transport.get_extra_info("ssl_object").context is other
            assert transport.get_extra_info("sslcontext") is server
            tls.sendall(b"data")
            await until(lambda: protocol.received == b"data")
            transport.abort()
            await until(lambda: protocol.is_lost)
            tls.close()

        run(main())
        assert seen == [(ssl.SSLObject, OTHER_NAME, True)]

    def test_callback_refuses(self, loop, run, pair):
        server, client = server_context(), client_context()
        server.sni_callback = lambda tls, name, context: ssl.ALERT_DESCRIPTION_ACCESS_DENIED

        async def main():
            ours, theirs = await both_ends(loop, pair, "server", (server, client))
            assert type(ours) is ssl.SSLError
            assert ours.reason == "CALLBACK_FAILED"
            assert isinstance(theirs, OSError)
            await turns()

        run(main())

    def test_callback_raises(self, loop, run, pair, monkeypatch):
        """It is nobody's to catch: sys.unraisablehook has it, the client an alert."""
        unraisable = []
        monkeypatch.setattr(sys, "unraisablehook", lambda info: unraisable.append(info.exc_type))
        server, client = server_context(), client_context()

        def fail(tls, name, context):
            raise LookupError(name)

        server.sni_callback = fail

        async def main():
            ours, theirs = await both_ends(loop, pair, "server", (server, client))
            assert type(ours) is ssl.SSLError
            assert ours.reason == "CALLBACK_FAILED"
            assert isinstance(theirs, OSError)
            await turns()

        run(main())
        assert unraisable == [LookupError]

    def test_callback_may_use_the_loop(self, loop, run, pair):
        """It runs inside the handshake, and may write, close and schedule elsewhere."""
        server, client = server_context(), client_context()
        called = []

        def note(tls, name, context):
            asyncio.get_running_loop().call_soon(called.append, name)
            assert tls.version() is None or tls.version().startswith("TLSv1")
            assert tls.pending() == 0

        server.sni_callback = note
        protocol = Recorder()

        async def main():
            transport, _ = await secured(loop, pair, protocol, "server", (server, client))
            await until(lambda: called == [NAME])
            transport.abort()
            await until(lambda: protocol.is_lost)

        run(main())


class TestClientCertificates:
    @pytest.fixture
    def late_contexts(self):
        """Contexts of a server that asks for the certificate when it likes, and of its client."""
        server = server_context(clients=ssl.CERT_REQUIRED, version=VERSIONS["1.3"])
        client = client_context(certificate=authority().issue("client.test"))
        server.post_handshake_auth = client.post_handshake_auth = True
        return server, client

    def test_accepted(self, loop, run, pair, side, version):
        certificate = authority().issue("client.test")
        contexts = (
            server_context(clients=ssl.CERT_REQUIRED, version=version),
            client_context(certificate=certificate),
        )
        protocol = Recorder()

        async def main():
            transport, peer = await secured(loop, pair, protocol, side, contexts)
            if side == "server":
                names = transport.get_extra_info("peercert")["subjectAltName"]
            else:
                names = peer.tls.getpeercert()["subjectAltName"]
            assert names == (("DNS", "client.test"),)
            transport.abort()
            await until(lambda: protocol.is_lost)

        run(main())

    def test_missing(self, loop, run, pair, version):
        contexts = (
            server_context(clients=ssl.CERT_REQUIRED, version=version),
            client_context(version=version),
        )

        async def main():
            ours, theirs = await both_ends(loop, pair, "server", contexts)
            assert type(ours) is ssl.SSLError
            assert ours.reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE"
            assert isinstance(theirs, OSError)
            await turns()

        run(main())

    def test_of_an_unknown_authority(self, loop, run, pair, version):
        stranger = authority("a stranger").issue("client.test")
        contexts = (
            server_context(clients=ssl.CERT_REQUIRED, version=version),
            client_context(certificate=stranger, version=version),
        )

        async def main():
            ours, theirs = await both_ends(loop, pair, "server", contexts)
            assert type(ours) is ssl.SSLCertVerificationError
            assert isinstance(theirs, OSError)
            await turns()

        run(main())

    def test_the_loop_as_client_without_one(self, loop, run, pair):
        """TLS 1.3: the handshake succeeds at first, the refusal ends the connection."""
        version = VERSIONS["1.3"]
        contexts = server_context(clients=ssl.CERT_REQUIRED, version=version), client_context()
        near, far = pair
        peer = peer_of(far, "client", contexts)

        def refuse():
            with pytest.raises(ssl.SSLError, match=r"(?i)did not return a certificate"):
                peer.handshake()

        async def main():
            (_, protocol), _ = await asyncio.gather(
                wrapped(loop, near, Recorder, "client", contexts), asyncio.to_thread(refuse)
            )
            await until(lambda: protocol.is_lost)
            (exc,) = protocol.lost_with
            assert isinstance(exc, ssl.SSLError)
            assert "CERTIFICATE_REQUIRED" in exc.reason

        run(main())

    def test_encrypted_key(self, loop, run, pair, side):
        certificate = authority().issue(NAME)
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(certificate.chain, certificate.encrypted_key, lambda: PASSWORD)
        protocol = Recorder()

        async def main():
            transport, _ = await secured(loop, pair, protocol, side, (server, client_context()))
            transport.abort()
            await until(lambda: protocol.is_lost)

        run(main())

    def test_post_handshake_authentication(self, loop, run, pair, late_contexts):
        """The server, which is the peer here, asks for the certificate between two requests."""
        protocol = Recorder()

        async def main():
            transport, peer = await secured(loop, pair, protocol, "client", late_contexts)
            transport.write(b"one")
            assert await asyncio.to_thread(peer.receive_exactly, 3) == b"one"
            assert not peer.tls.getpeercert()
            peer.tls.verify_client_post_handshake()
            await asyncio.to_thread(peer.send, b"prove it")
            await until(lambda: protocol.received == b"prove it")
            transport.write(b"two")
            assert await asyncio.to_thread(peer.receive_exactly, 3) == b"two"
            assert peer.tls.getpeercert()["subjectAltName"] == (("DNS", "client.test"),)
            transport.abort()
            await until(lambda: protocol.is_lost)

        run(main())

    def test_post_handshake_authentication_by_the_loop(self, loop, run, pair, late_contexts):
        protocol = Recorder()

        async def main():
            transport, peer = await secured(loop, pair, protocol, "server", late_contexts)
            tls = transport.get_extra_info("ssl_object")
            assert not tls.getpeercert()
            tls.verify_client_post_handshake()
            transport.write(b"prove it")
            assert await asyncio.to_thread(peer.receive_exactly, 8) == b"prove it"
            await asyncio.to_thread(peer.send, b"here")
            await until(lambda: protocol.received == b"here")
            assert tls.getpeercert()["subjectAltName"] == (("DNS", "client.test"),)
            transport.abort()
            await until(lambda: protocol.is_lost)

        run(main())


class TestSessions:
    def test_of_the_loops_client(self, loop, run, version):
        """`ssl_object.session` of one connection offered in a peer's next: the loop's server
        resumes it."""
        server, client = server_context(version=version), client_context()

        async def main():
            async with serving(loop, server) as address:
                transport, protocol = await loop.create_connection(
                    Recorder, *address, ssl=client, server_hostname=NAME
                )
                transport.write(b"x")
                await until(lambda: protocol.received)  # TLS 1.3: the tickets came before
                tls = transport.get_extra_info("ssl_object")
                session = tls.session
                assert type(session) is ssl.SSLSession
                assert session.has_ticket
                assert not tls.session_reused
                transport.close()
                await until(lambda: protocol.is_lost)
                assert await asyncio.to_thread(self._reuse, client, address, session)

        run(main())

    def _reuse(self, client, address, session):
        with (
            socket.create_connection(address, timeout=10) as sock,
            client.wrap_socket(sock, server_hostname=NAME, session=session) as tls,
        ):
            tls.sendall(b"x")
            tls.recv(1)
            return tls.session_reused

    def test_statistics_of_the_context(self, loop, run, version):
        server, client = server_context(version=version), client_context()

        async def main():
            async with serving(loop, server) as address:
                for _ in range(3):
                    transport, protocol = await loop.create_connection(
                        Recorder, *address, ssl=client, server_hostname=NAME
                    )
                    await dialogue(transport, protocol)

        run(main())
        assert server.session_stats()["accept_good"] == 3
        assert client.session_stats()["connect_good"] == 3
        assert server.session_stats()["hits"] == 0

    def test_no_tickets(self, loop, run, pair):
        server = server_context(version=VERSIONS["1.3"])
        server.num_tickets = 0
        protocol = Recorder()

        async def main():
            transport, peer = await secured(
                loop, pair, protocol, "server", (server, client_context())
            )
            transport.write(b"x")
            assert await asyncio.to_thread(peer.receive_exactly, 1) == b"x"
            assert not peer.tls.session.has_ticket
            transport.abort()
            await until(lambda: protocol.is_lost)

        run(main())


class TestObservers:
    def test_keylog(self, loop, run, pair, side, tmp_path):
        path = tmp_path / "keys"
        contexts = server_context(version=VERSIONS["1.3"]), client_context()
        contexts[0 if side == "server" else 1].keylog_filename = str(path)
        protocol = Recorder()

        async def main():
            transport, _ = await secured(loop, pair, protocol, side, contexts)
            transport.abort()
            await until(lambda: protocol.is_lost)

        run(main())
        labels = {line.split()[0] for line in path.read_text().splitlines() if line[0] != "#"}
        assert {"CLIENT_HANDSHAKE_TRAFFIC_SECRET", "SERVER_TRAFFIC_SECRET_0"} <= labels

    def test_message_callback(self, loop, run, pair, side):
        contexts = server_context(), client_context()
        seen = []

        def note(tls, direction, version, content_type, message_type, data):
            seen.append((type(tls), direction, message_type.name))

        contexts[0 if side == "server" else 1]._msg_callback = note
        protocol = Recorder()

        async def main():
            transport, _ = await secured(loop, pair, protocol, side, contexts)
            transport.abort()
            await until(lambda: protocol.is_lost)

        run(main())
        hello = "read" if side == "server" else "write"
        assert (ssl.SSLObject, hello, "CLIENT_HELLO") in seen
        assert {"read", "write"} == {direction for _, direction, _ in seen}

    def test_message_callback_that_raises(self, loop, run, pair, unhandled):
        """The handshake fails with that very exception, which is reported too."""
        contexts = server_context(), client_context()

        def fail(*args):
            raise LookupError("callback")

        contexts[1]._msg_callback = fail

        async def main():
            ours, theirs = await both_ends(loop, pair, "client", contexts)
            assert isinstance(ours, LookupError)
            assert isinstance(theirs, OSError)
            assert unhandled.take_one()["exception"] is ours

        run(main())


class TestTimeouts:
    def test_a_silent_peer(self, loop, run, pair, side, caplog):
        near, _ = pair
        expected = "SSL handshake is taking longer than 0.05 seconds: aborting the connection"

        async def main():
            with pytest.raises(ConnectionAbortedError) as caught:
                await wrapped(loop, near, Recorder, side, ssl_handshake_timeout=0.05)
            assert str(caught.value) == expected
            await turns()

        run(main())

    def test_a_peer_that_stops_in_between(self, loop, run, pair):
        near, far = pair
        peer = peer_of(far, "server")

        async def main():
            with pytest.raises(ssl.SSLWantReadError):
                peer.tls.do_handshake()
            peer.flush()
            with pytest.raises(ConnectionAbortedError):
                await wrapped(loop, near, Recorder, "server", ssl_handshake_timeout=0.1)

        run(main())

    def test_a_server_drops_a_silent_client(self, loop, run, caplog):
        """No protocol is told of it, and other connections go on."""
        made = []

        class Noting(Echo):
            def connection_made(self, transport):
                super().connection_made(transport)
                made.append(transport)

        async def main():
            context = server_context()
            # Enough for the one that is not silent, on a busy machine too.
            async with serving(loop, context, Noting, ssl_handshake_timeout=2) as address:
                silent = socket.create_connection(address, timeout=10)
                transport, protocol = await loop.create_connection(
                    Recorder, *address, ssl=client_context(), server_hostname=NAME
                )
                assert await asyncio.to_thread(silent.recv, 1) == b""
                silent.close()
                assert len(made) == 1
                await dialogue(transport, protocol)

        with caplog.at_level(logging.DEBUG, "asyncio"):
            run(main())
        assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []

    def test_a_timeout_that_is_not_needed(self, loop, run, pair):
        protocol = Recorder()

        async def main():
            transport, _ = await secured(loop, pair, protocol, ssl_handshake_timeout=2)
            await asyncio.sleep(2.05)
            assert not protocol.is_lost
            transport.abort()
            await until(lambda: protocol.is_lost)

        run(main())


class TestCancelling:
    @pytest.mark.parametrize("turns_before", [1, 3, 10])
    def test_of_a_client(self, loop, run, pair, turns_before):
        near, far = pair

        async def main():
            task = asyncio.ensure_future(wrapped(loop, near, Recorder, "client"))
            await turns(turns_before)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await turns()
            await until(lambda: near.fileno() == -1)

        run(main())
        with contextlib.suppress(ConnectionResetError):
            while far.recv(65536):
                pass

    def test_of_an_accepted_one(self, loop, run, pair):
        near, far = pair

        async def main():
            task = asyncio.ensure_future(wrapped(loop, near, Recorder, "server"))
            await turns(3)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: near.fileno() == -1)

        run(main())
        assert far.recv(1) == b""

    def test_server_closed_during_handshakes(self, loop, run):
        """Its accepted connections are not its own: the handshake goes on to its end."""

        async def main():
            context = client_context()
            server = await loop.create_server(Echo, "127.0.0.1", 0, ssl=server_context())
            sock = socket.create_connection(server.sockets[0].getsockname(), timeout=10)
            await asyncio.sleep(0.05)
            server.close()

            def finish():
                with context.wrap_socket(sock, server_hostname=NAME) as tls:
                    tls.sendall(b"ping")
                    return tls.recv(100)

            assert await asyncio.to_thread(finish) == b"ping"

        run(main())
