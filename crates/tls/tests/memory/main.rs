//! What connections leave behind, in a process where nothing else goes on.

#[path = "../engine/support.rs"]
mod support;

use std::fs;

use support::{fill, states};

/// Pages that the process has in memory.
fn resident_pages() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").expect("the kernel shows memory");
    let pages = statm
        .split_whitespace()
        .nth(1)
        .expect("the second field is the resident set");
    pages.parse().expect("a number")
}

#[test]
fn nothing_is_left_behind() {
    let contexts = support::versions().map(support::context);
    let round = || {
        for mut pair in contexts.iter().flat_map(states) {
            pair.client.adopt_again();
            pair.server.session().write(&fill(7, 10_000));
            pair.deliver_to_client();
        }
    };
    (0..20).for_each(|_| round());
    let before = resident_pages();
    (0..200).for_each(|_| round());
    let grown = resident_pages().saturating_sub(before);
    // A leak of no more than the smallest buffer would be 2800 times 10 KB, which is 6800 pages.
    assert!(grown < 2000, "{grown} pages more");
}
