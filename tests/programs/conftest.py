"""Where the servers are, which ``scripts/services`` starts, and certificates for both ends."""

import os
import ssl

import pytest
import trustme


def _address(variable, server):
    value = os.environ.get(variable)
    if value is None:
        pytest.skip(f"no {server}: start it with scripts/services ({variable} is not set)")
    return value


@pytest.fixture
def postgres():
    """The URL of a PostgreSQL whose user may do everything."""
    return _address("OXLOOP_TEST_POSTGRES", "PostgreSQL")


@pytest.fixture
def postgres_socket():
    """The directory of that server's Unix socket."""
    return _address("OXLOOP_TEST_POSTGRES_SOCKET", "PostgreSQL")


@pytest.fixture
def redis_url():
    return _address("OXLOOP_TEST_REDIS", "Redis")


@pytest.fixture
def redis_tls_url():
    return _address("OXLOOP_TEST_REDIS_TLS", "Redis")


@pytest.fixture
def servers_certificate():
    """The file of the self-signed certificate of both servers."""
    return _address("OXLOOP_TEST_CERTIFICATE", "PostgreSQL")


class Certificates:
    """An authority of its own, a certificate for localhost by it, and contexts for both ends."""

    def __init__(self, directory):
        authority = trustme.CA()
        issued = authority.issue_cert("localhost", "127.0.0.1")
        self.authority = directory / "authority.pem"
        self.chain = directory / "chain.pem"
        self.key = directory / "key.pem"
        authority.cert_pem.write_to_path(self.authority)
        issued.private_key_pem.write_to_path(self.key)
        for pem in issued.cert_chain_pems:
            pem.write_to_path(self.chain, append=True)

    def server_context(self):
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.chain, self.key)
        return context

    def client_context(self):
        return ssl.create_default_context(cafile=self.authority)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    return Certificates(tmp_path_factory.mktemp("certificates"))
