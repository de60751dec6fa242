"""The entries of asyncio's "Low-level API Index", and what ties a test to those it is about.

A name that stands there more than once (every kind of transport has a ``close``) is told apart by
a word in front of it.
"""

import pytest

ENTRIES = tuple(
    line.strip()
    for line in """
        asyncio.get_running_loop
        asyncio.get_event_loop
        asyncio.set_event_loop
        asyncio.new_event_loop
        loop.run_until_complete
        loop.run_forever
        loop.stop
        loop.close
        loop.is_running
        loop.is_closed
        loop.shutdown_asyncgens
        loop.set_debug
        loop.get_debug
        loop.call_soon
        loop.call_soon_threadsafe
        loop.call_later
        loop.call_at
        loop.run_in_executor
        loop.set_default_executor
        loop.create_future
        loop.create_task
        loop.set_task_factory
        loop.get_task_factory
        loop.getaddrinfo
        loop.getnameinfo
        loop.create_connection
        loop.create_server
        loop.create_unix_connection
        loop.create_unix_server
        loop.connect_accepted_socket
        loop.create_datagram_endpoint
        loop.sendfile
        loop.start_tls
        loop.connect_read_pipe
        loop.connect_write_pipe
        loop.sock_recv
        loop.sock_recv_into
        loop.sock_sendall
        loop.sock_connect
        loop.sock_accept
        loop.sock_sendfile
        loop.add_reader
        loop.remove_reader
        loop.add_writer
        loop.remove_writer
        loop.add_signal_handler
        loop.remove_signal_handler
        loop.subprocess_exec
        loop.subprocess_shell
        loop.call_exception_handler
        loop.set_exception_handler
        loop.get_exception_handler
        loop.default_exception_handler
        transport.close
        transport.is_closing
        transport.get_extra_info
        transport.set_protocol
        transport.get_protocol
        transport.is_reading
        transport.pause_reading
        transport.resume_reading
        transport.write
        transport.writelines
        transport.can_write_eof
        transport.write_eof
        transport.abort
        transport.get_write_buffer_size
        transport.set_write_buffer_limits
        datagram transport.sendto
        datagram transport.abort
        subprocess transport.get_pid
        subprocess transport.get_pipe_transport
        subprocess transport.get_returncode
        subprocess transport.kill
        subprocess transport.send_signal
        subprocess transport.terminate
        subprocess transport.close
        protocol connection_made
        protocol connection_lost
        protocol pause_writing
        protocol resume_writing
        streaming protocol data_received
        streaming protocol eof_received
        buffered protocol get_buffer
        buffered protocol buffer_updated
        buffered protocol eof_received
        datagram protocol datagram_received
        datagram protocol error_received
        subprocess protocol pipe_data_received
        subprocess protocol pipe_connection_lost
        subprocess protocol process_exited
        asyncio.get_event_loop_policy
        asyncio.set_event_loop_policy
        AbstractEventLoopPolicy
    """.strip().splitlines()
)


def entry(*names):
    """Says which entries the test is about: they become part of its id."""
    unknown = set(names) - set(ENTRIES)
    if unknown:
        raise ValueError(f"not in the index: {', '.join(sorted(unknown))}")

    def mark(test):
        parametrized = pytest.mark.parametrize("entry", ["+".join(names)], indirect=True)
        return parametrized(pytest.mark.usefixtures("entry")(test))

    return mark
