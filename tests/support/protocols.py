"""Protocols that write down what the transport does with them."""

import asyncio


class _Recording:
    """The callbacks that Protocol and BufferedProtocol have in common."""

    keep_open = None

    def __init__(self):
        self.calls = []
        self.received = bytearray()
        self.transport = None
        self.loop = None
        self.lost_with = []
        self.paused = False

    def connection_made(self, transport):
        self.transport = transport
        self.loop = asyncio.get_running_loop()
        self.calls.append("made")

    def connection_lost(self, exc):
        self.lost_with.append(exc)
        self.calls.append("lost")

    def eof_received(self):
        self.calls.append("eof")
        return self.keep_open

    def pause_writing(self):
        self.paused = True
        self.calls.append("pause")

    def resume_writing(self):
        self.paused = False
        self.calls.append("resume")

    def _note_data(self):
        # How the kernel cuts the stream into reads is nobody's contract.
        if self.calls[-1:] != ["data"]:
            self.calls.append("data")

    @property
    def is_lost(self):
        return bool(self.lost_with)


class Recorder(_Recording, asyncio.Protocol):
    """A Protocol that keeps every byte and the order of its callbacks."""

    def data_received(self, data):
        assert type(data) is bytes
        self.received += data
        self._note_data()


class BufferedRecorder(_Recording, asyncio.BufferedProtocol):
    """A BufferedProtocol that keeps every byte and the order of its callbacks."""

    def __init__(self, size=4096):
        super().__init__()
        self.buffer = bytearray(size)
        self.hints = []

    def get_buffer(self, sizehint):
        self.hints.append(sizehint)
        return self.buffer

    def buffer_updated(self, nbytes):
        assert 0 < nbytes <= len(self.buffer)
        self.received += self.buffer[:nbytes]
        self._note_data()


RECORDERS = {"protocol": Recorder, "buffered": BufferedRecorder}


def noting_resumes(kind, variable, seen):
    """A kind of recorder that notes the variable in ``resume_writing``, and then sets it."""

    class Noting(kind):
        def resume_writing(self):
            super().resume_writing()
            seen.append(variable.get())
            variable.set("resumed")

    return Noting


class Pausable:
    """Knows whether it may write, and is never told the same twice in a row."""

    paused = False

    def pause_writing(self):
        assert not self.paused
        self.paused = True

    def resume_writing(self):
        assert self.paused
        self.paused = False


class Echo(asyncio.Protocol):
    """Sends back what it receives."""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)
