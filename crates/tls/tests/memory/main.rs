//! What connections leave behind, in a process where nothing else goes on.

#[path = "../engine/support.rs"]
mod support;

use std::fs;
use std::rc::Rc;

use support::{Pair, fill, states};
use tls::KeptBuffers;
use tls::contexts::Context;

/// Pages that the process has in memory.
fn resident_pages() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").expect("the kernel shows memory");
    let pages = statm
        .split_whitespace()
        .nth(1)
        .expect("the second field is the resident set");
    pages.parse().expect("a number")
}

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

/// Connects pairs that echo a message and are then left alone.
fn idle_pairs<'a>(context: &'a Context, kept: Option<&Rc<KeptBuffers>>) -> Vec<Pair<'a>> {
    let connect = |_| {
        let mut pair = Pair::new(context);
        if let Some(kept) = kept {
            pair.client.keep_buffers(kept);
            pair.server.keep_buffers(kept);
        }
        pair.shake_hands();
        pair.client.session().write(&fill(1, 1000));
        let (message, _) = pair.deliver_to_server();
        pair.server.session().write(&message);
        pair.deliver_to_client();
        pair
    };
    (0..500).map(connect).collect()
}

/// How many pages idle connections take, and those connections.
fn pages_of<T>(connect: impl FnOnce() -> T) -> (usize, T) {
    let before = resident_pages();
    let connections = connect();
    (resident_pages().saturating_sub(before), connections)
}

fn idle_sessions_have_no_buffers_but_a_few() {
    let contexts = support::versions().map(support::context);
    // Freed memory would be used again and hide what is taken: all stay until the end.
    let mut connections = Vec::new();
    for context in &contexts {
        let (released, pairs) = pages_of(|| idle_pairs(context, None));
        connections.push(pairs);
        let kept = Rc::default();
        let (shared, pairs) = pages_of(|| idle_pairs(context, Some(&kept)));
        connections.push(pairs);
        let more = shared.saturating_sub(released);
        // 64 of 1,000 sessions keep 34 KiB: some 550 pages. All of them would take 8,500.
        assert!(more < 1500, "{shared} pages instead of {released}");
    }
}

/// One after the other, as each looks at the memory of the process.
#[test]
fn memory() {
    idle_sessions_have_no_buffers_but_a_few();
    nothing_is_left_behind();
}
