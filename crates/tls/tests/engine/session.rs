//! A connection between two sessions, from the handshake to the end.

use crate::support::{self, Pair, fill, versions};
use tls::Outcome;
use tls::contexts::Version;

#[test]
fn data_goes_both_ways() {
    for version in versions() {
        let context = support::context(version);
        let mut pair = Pair::established(&context);
        for (number, length) in [1, 1024, 16 * 1024, 16 * 1024 + 1, 1 << 20]
            .into_iter()
            .enumerate()
        {
            let message = fill(number as u64, length);
            assert_eq!(pair.client.session().write(&message), Outcome::Done(length));
            assert_eq!(
                pair.deliver_to_server(),
                (message.clone(), Outcome::WantRead),
                "{version:?} {length}"
            );
            assert_eq!(pair.server.session().write(&message), Outcome::Done(length));
            assert_eq!(
                pair.deliver_to_client(),
                (message, Outcome::WantRead),
                "{version:?} {length}"
            );
        }
    }
}

#[test]
fn version_is_what_the_context_allows() {
    let context = support::context(Version::Tls12);
    let pair = Pair::established(&context);
    assert_eq!(pair.client.version(), "TLSv1.2");
    assert_eq!(pair.server.borrowed().context(), context.as_ptr());
}
