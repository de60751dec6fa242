"""Programs on a terminal: asyncio.create_subprocess_exec with a pty's slave as their stdio."""

import asyncio
import contextlib
import fcntl
import os
import pty
import signal
import struct
import sys
import termios

SIZES = """
import os, signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGWINCH])
print("terminal", *(os.isatty(fd) for fd in range(3)), *os.get_terminal_size(), flush=True)
signal.sigwait([signal.SIGWINCH])
print("resized", *os.get_terminal_size())
"""

LINES = """
import os, sys
print("foreground", os.tcgetpgrp(0) == os.getpgrp(), os.getsid(0) == os.getpid())
for line in iter(sys.stdin.readline, ""):
    print("line", repr(line), flush=True)
print("end of file", flush=True)
"""

# It waits by sigwait: an interrupt just before a blocking read(2) would wait for the next line.
INTERRUPTED = """
import signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
print("ready", flush=True)
signal.sigwait([signal.SIGINT])
print("interrupted", flush=True)
sys.exit(7)
"""

END_OF_FILE = b"\x04"
INTERRUPT = b"\x03"
QUIT = b"\x1c"
ERASE = b"\x7f"


def set_size(fd, columns, lines):
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))


class Terminal:
    """The master of a pty as a pair of streams, and a program on its slave."""

    @classmethod
    @contextlib.asynccontextmanager
    async def running(cls, *command):
        self = cls()
        loop = asyncio.get_running_loop()
        master, slave = pty.openpty()
        set_size(master, 90, 30)
        self.reader = asyncio.StreamReader()
        read_side = os.fdopen(master, "rb", 0)
        write_side = os.fdopen(os.dup(master), "wb", 0)
        read_transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(self.reader), read_side
        )
        self.writer, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, write_side)
        try:
            self.process = await asyncio.create_subprocess_exec(
                *command,
                stdin=slave,
                stdout=slave,
                stderr=slave,
                start_new_session=True,
                preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            )
        finally:
            os.close(slave)
        self.resize = lambda *size: set_size(master, *size)
        try:
            yield self
        finally:
            if self.process.returncode is None:
                self.process.kill()
                await self.process.wait()
            self.writer.close()
            read_transport.close()
            await asyncio.sleep(0)

    async def line(self):
        """The next line that the program, or the terminal's echo, has written."""
        return (await self.reader.readuntil(b"\r\n")).decode().rstrip("\r\n")

    async def rest(self):
        """All up to the program's end, where a master reads EIO: asyncio takes it for a failure."""
        data = bytearray()
        with contextlib.suppress(OSError):
            while chunk := await self.reader.read(1000):
                data += chunk
        return data.decode()


def test_size(loop, run):
    async def main():
        async with Terminal.running(sys.executable, "-c", SIZES) as terminal:
            assert await terminal.line() == "terminal True True True 90 30"
            terminal.resize(120, 40)
            assert await terminal.line() == "resized 120 40"

    run(main())


def test_lines_and_end_of_file(loop, run):
    async def main():
        async with Terminal.running(sys.executable, "-c", LINES) as terminal:
            assert await terminal.line() == "foreground True True"
            terminal.writer.write(b"he" + ERASE + b"ello\n")
            assert await terminal.line() == "he\x08 \x08ello"  # the echo rubs the e out
            assert await terminal.line() == "line 'hello\\n'"
            terminal.writer.write(END_OF_FILE)
            assert await terminal.line() == "end of file"
            assert await terminal.process.wait() == 0
            assert await terminal.rest() == ""

    run(main())


def test_interrupt(loop, run):
    async def main():
        async with Terminal.running(sys.executable, "-c", INTERRUPTED) as terminal:
            assert await terminal.line() == "ready"
            terminal.writer.write(b"half a line")
            assert await terminal.reader.readexactly(11) == b"half a line"
            terminal.writer.write(INTERRUPT)
            assert await terminal.line() == "^Cinterrupted"
            assert await terminal.process.wait() == 7

    run(main())


def test_quit(loop, run):
    async def main():
        async with Terminal.running("cat") as terminal:
            terminal.writer.write(b"line\n")
            assert [await terminal.line() for _ in range(2)] == ["line", "line"]
            terminal.writer.write(QUIT)
            assert await terminal.process.wait() == -signal.SIGQUIT

    run(main())


def test_hangup(loop, run):
    """Closing the master hangs the session up."""

    async def main():
        async with Terminal.running("sh", "-c", "echo ready; exec sleep 3600") as terminal:
            assert await terminal.line() == "ready"
            terminal.writer.close()
            terminal.reader._transport.close()
            assert await terminal.process.wait() == -signal.SIGHUP

    run(main())


def test_much_output(loop, run):
    async def main():
        command = "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done"
        async with Terminal.running("sh", "-c", command) as terminal:
            for number in range(20_000):
                assert await terminal.line() == f"line {number}"
            assert await terminal.process.wait() == 0

    run(main())
