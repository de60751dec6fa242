"""Mail: aiosmtplib, which upgrades by loop.start_tls, to aiosmtpd, which does it by SSLProtocol."""

import asyncio
import contextlib
import email.message
import ssl
import warnings

import aiosmtplib
import pytest

from support.peers import pattern

with warnings.catch_warnings():
    # It imports typing.ByteString, which Python 3.15 warns of.
    warnings.simplefilter("ignore", DeprecationWarning)
    from aiosmtpd.smtp import SMTP


class Mailbox:
    def __init__(self):
        self.mails = []

    async def handle_DATA(self, server, session, envelope):  # noqa: N802 (aiosmtpd's name)
        self.mails.append((session.ssl is not None, envelope.rcpt_tos, envelope.content))
        return "250 taken"


@contextlib.asynccontextmanager
async def smtp_server(certificates, mailbox):
    """The port of a server that takes mail only under TLS."""
    loop = asyncio.get_running_loop()
    context = certificates.server_context()
    server = await loop.create_server(
        lambda: SMTP(
            mailbox,
            hostname="localhost",
            tls_context=context,
            require_starttls=True,
            data_size_limit=None,
            loop=loop,
        ),
        "127.0.0.1",
        0,
    )
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


@pytest.fixture
def mail():
    message = email.message.EmailMessage()
    message["From"] = "one@example.test"
    message["To"] = "other@example.test"
    message["Subject"] = "over TLS"
    message.set_content("text")
    message.add_attachment(pattern(1_000_000), maintype="application", subtype="octet-stream")
    return message


@pytest.fixture(autouse=True)
def warnings_of_aiosmtpd():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Requiring AUTH while not requiring TLS")
        yield


def test_starttls(loop, run, certificates, mail):
    mailbox = Mailbox()

    async def main():
        async with smtp_server(certificates, mailbox) as port:
            client = aiosmtplib.SMTP(
                hostname="localhost",
                port=port,
                start_tls=False,
                tls_context=certificates.client_context(),
            )
            await client.connect()
            with pytest.raises(aiosmtplib.SMTPResponseException, match="STARTTLS"):
                await client.sendmail("one@example.test", ["other@example.test"], b"plain")
            await client.starttls()
            assert client.get_transport_info("cipher") is not None
            for _ in range(3):
                await client.send_message(mail)
            await client.quit()

    run(main())
    assert [taken[:2] for taken in mailbox.mails] == [(True, ["other@example.test"])] * 3
    received = email.message_from_bytes(mailbox.mails[0][2])
    assert received.get_payload()[1].get_payload(decode=True) == pattern(1_000_000)


def test_many_senders(loop, run, certificates, mail):
    mailbox = Mailbox()
    mail.clear_content()
    mail.set_content("short")

    async def main():
        async with smtp_server(certificates, mailbox) as port:
            await asyncio.gather(
                *(
                    aiosmtplib.send(
                        mail,
                        hostname="localhost",
                        port=port,
                        start_tls=True,
                        tls_context=certificates.client_context(),
                    )
                    for _ in range(20)
                )
            )

    run(main())
    assert len(mailbox.mails) == 20


def test_certificate_of_nobody(loop, run, certificates):
    async def main():
        async with smtp_server(certificates, Mailbox()) as port:
            client = aiosmtplib.SMTP(hostname="localhost", port=port, start_tls=True)
            with pytest.raises(ssl.SSLCertVerificationError):
                await client.connect()

    run(main())
