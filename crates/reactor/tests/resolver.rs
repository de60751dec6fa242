//! The pool and the lookups, without a name service: numbers, `localhost` and what must fail.

#![forbid(unsafe_code)]

use std::ffi::CString;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use reactor::addr::SocketAddress;
use reactor::resolver::{AddrInfo, Hints, Job, Resolver, SubmitError, getaddrinfo, getnameinfo};
use reactor::socket::{AF_INET, AF_INET6, SOCK_STREAM};

const SOON: Duration = Duration::from_secs(30);

fn received<T>(receiver: &Receiver<T>) -> T {
    receiver.recv_timeout(SOON).expect("a result")
}

/// A job that waits until the returned sender speaks or is dropped, and then delivers `result`.
fn held<T: Send + 'static>(result: T, to: &Sender<T>) -> (Job, Sender<()>) {
    let (release, released) = channel::<()>();
    let to = to.clone();
    let job = Job::new(
        move || {
            let _ = released.recv();
            result
        },
        move |result| to.send(result).expect("the test is listening"),
    );
    (job, release)
}

/// Waits until every thread of the pool is at work or gone, which only the pool's threads know.
fn wait_until(condition: impl Fn() -> bool) {
    for _ in 0..3000 {
        if condition() {
            return;
        }
        let (_never, wait) = channel::<()>();
        let _ = wait.recv_timeout(Duration::from_millis(10));
    }
    panic!("the condition never held");
}

#[test]
fn results_are_delivered_from_a_named_thread() {
    let resolver = Resolver::new(16);
    let (sender, receiver) = channel();
    let ticket = resolver
        .submit(Job::new(
            || thread::current().name().map(str::to_owned),
            move |name| sender.send(name).expect("the test is listening"),
        ))
        .expect("submit");
    assert_eq!(received(&receiver).as_deref(), Some("oxloop-resolver"));
    assert!(!ticket.cancel(), "too late");
    assert!(!ticket.is_cancelled());
}

#[test]
fn a_boxed_closure_is_a_job() {
    let resolver = Resolver::new(16);
    let (sender, receiver) = channel();
    let work: Box<dyn FnOnce() + Send> = Box::new(move || sender.send(7).expect("listening"));
    resolver.submit(Job::from(work)).expect("submit");
    assert_eq!(received(&receiver), 7);
}

#[test]
fn fifty_blocked_jobs_run_at_once() {
    let resolver = Resolver::new(64);
    let together = Arc::new(Barrier::new(51));
    for _ in 0..50 {
        let together = Arc::clone(&together);
        let work: Box<dyn FnOnce() + Send> = Box::new(move || {
            together.wait();
        });
        resolver.submit(work.into()).expect("submit");
    }
    together.wait();
    assert_eq!(resolver.threads(), 50);
    resolver.join();
}

#[test]
fn at_least_sixteen_threads_and_then_a_queue() {
    let resolver = Resolver::new(1);
    let (sender, receiver) = channel();
    let releases: Vec<_> = (0..20)
        .map(|number| {
            let (job, release) = held(number, &sender);
            resolver.submit(job).expect("submit");
            release
        })
        .collect();
    // Each thread that takes a job calls the next.
    wait_until(|| resolver.threads() == 16);
    assert!(receiver.try_recv().is_err());
    drop(releases);
    let mut numbers: Vec<_> = (0..20).map(|_| received(&receiver)).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..20).collect::<Vec<_>>());
}

#[test]
fn a_queued_job_that_is_cancelled_never_runs() {
    let resolver = Resolver::new(16);
    let (sender, receiver) = channel();
    let holds: Vec<_> = (0..16)
        .map(|number| {
            let (job, release) = held(number, &sender);
            resolver.submit(job).expect("submit");
            release
        })
        .collect();
    let ran = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&ran);
    let work = move || counter.fetch_add(1, Ordering::SeqCst);
    let queued = resolver.submit(Job::new(work, |_| {})).expect("submit");
    assert!(queued.cancel());
    assert!(queued.is_cancelled());
    assert!(!queued.cancel(), "once is enough");
    assert_eq!(Arc::strong_count(&ran), 1, "the job was dropped at once");
    drop(holds);
    for _ in 0..16 {
        received(&receiver);
    }
    resolver.join();
    assert_eq!(ran.load(Ordering::SeqCst), 0);
}

#[test]
fn a_running_job_that_is_cancelled_delivers_nothing() {
    let resolver = Resolver::new(16);
    let (sender, receiver) = channel();
    let (started, has_started) = channel();
    let (release, released) = channel::<()>();
    let dropped = Arc::new(());
    let result = Arc::clone(&dropped);
    let work = move || {
        started.send(()).expect("listening");
        let _ = released.recv();
        result
    };
    let job = Job::new(work, move |result| sender.send(result).expect("listening"));
    let ticket = resolver.submit(job).expect("submit");
    received(&has_started);
    assert!(ticket.cancel());
    drop(release);
    resolver.join();
    assert!(receiver.try_recv().is_err());
    assert_eq!(Arc::strong_count(&dropped), 1, "the result was dropped");
}

#[test]
fn a_panic_ends_the_job_and_not_the_pool() {
    let resolver = Resolver::new(16);
    let (sender, receiver) = channel::<()>();
    let job = Job::new(
        || panic!("on purpose"),
        move |()| sender.send(()).expect("listening"),
    );
    let ticket = resolver.submit(job).expect("submit");
    assert!(
        receiver.recv_timeout(SOON).is_err(),
        "deliver was dropped without a call"
    );
    let (sender, receiver) = channel();
    let job = Job::new(|| 1, move |one| sender.send(one).expect("listening"));
    resolver.submit(job).expect("submit");
    assert_eq!(received(&receiver), 1);
    resolver.join();
    assert!(!ticket.cancel());
}

#[test]
fn closing_drops_what_is_queued_and_what_comes_later() {
    let resolver = Resolver::new(16);
    let (sender, receiver) = channel();
    let holds: Vec<_> = (0..20)
        .map(|number| {
            let (job, release) = held(number, &sender);
            (resolver.submit(job).expect("submit"), release)
        })
        .collect();
    resolver.close();
    resolver.close();
    assert!(holds.iter().all(|(ticket, _)| ticket.is_cancelled()));
    let (job, _release) = held(99, &sender);
    assert!(matches!(resolver.submit(job), Err(SubmitError::Closed)));
    drop(holds);
    resolver.join();
    resolver.join();
    assert_eq!(resolver.threads(), 0);
    drop(sender);
    assert!(
        receiver.recv().is_err(),
        "nothing was delivered, and nobody is left to deliver"
    );
}

#[test]
fn dropping_the_pool_does_not_wait() {
    let resolver = Resolver::new(16);
    let (sender, receiver) = channel();
    let (job, release) = held(1, &sender);
    let ticket = resolver.submit(job).expect("submit");
    drop(resolver);
    assert!(ticket.is_cancelled());
    drop((release, sender));
    assert!(receiver.recv_timeout(SOON).is_err());
}

#[test]
fn a_job_may_close_and_join_its_own_pool() {
    let resolver = Arc::new(Resolver::new(16));
    let (sender, receiver) = channel();
    let inner = Arc::clone(&resolver);
    let work: Box<dyn FnOnce() + Send> = Box::new(move || {
        inner.join();
        sender.send(()).expect("listening");
    });
    resolver.submit(work.into()).expect("submit");
    received(&receiver);
}

#[test]
fn signals_pass_the_threads_by() {
    let resolver = Resolver::new(16);
    let (sender, receiver) = channel();
    let work = || fs::read_to_string("/proc/thread-self/status").expect("status");
    let job = Job::new(work, move |status| sender.send(status).expect("listening"));
    resolver.submit(job).expect("submit");
    let blocked = |status: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
        u64::from_str_radix(line.expect("SigBlk").trim(), 16).expect("a hexadecimal number")
    };
    let theirs = blocked(&received(&receiver));
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGCHLD, libc::SIGALRM] {
        assert_ne!(theirs & 1 << (signal - 1), 0);
    }
    assert_eq!(theirs & 1 << (libc::SIGSEGV - 1), 0);
    let ours = blocked(&fs::read_to_string("/proc/thread-self/status").expect("status"));
    assert_eq!(
        ours & 1 << (libc::SIGINT - 1),
        0,
        "the starting thread has its mask back"
    );
}

#[test]
fn cancelling_races_with_running() {
    let resolver = Resolver::new(16);
    let delivered = Arc::new(AtomicUsize::new(0));
    let mut cancelled = 0;
    for round in 0..5000 {
        let counter = Arc::clone(&delivered);
        let deliver = move |one| {
            counter.fetch_add(one, Ordering::SeqCst);
        };
        let ticket = resolver.submit(Job::new(|| 1, deliver)).expect("submit");
        if round % 3 == 0 {
            thread::yield_now();
        }
        cancelled += usize::from(ticket.cancel());
    }
    wait_until(|| delivered.load(Ordering::SeqCst) + cancelled >= 5000);
    resolver.join();
    assert_eq!(delivered.load(Ordering::SeqCst) + cancelled, 5000);
}

fn numeric(host: &str, service: Option<&str>, hints: Hints) -> Vec<AddrInfo> {
    let host = CString::new(host).expect("no NUL");
    let service = service.map(|service| CString::new(service).expect("no NUL"));
    let hints = Hints {
        flags: hints.flags | libc::AI_NUMERICHOST,
        ..hints
    };
    getaddrinfo(Some(&host), service.as_deref(), hints).expect("numbers always resolve")
}

#[test]
fn numbers_resolve_to_themselves() {
    let stream = Hints {
        socktype: SOCK_STREAM,
        ..Hints::default()
    };
    let answers = numeric("127.0.0.5", Some("80"), stream);
    assert_eq!(
        answers,
        [AddrInfo {
            family: AF_INET,
            socktype: SOCK_STREAM,
            protocol: libc::IPPROTO_TCP,
            canonname: None,
            address: SocketAddress::V4(SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 5), 80)),
        }]
    );
    assert!(
        numeric("127.0.0.5", None, Hints::default()).len() >= 2,
        "one for each socket type"
    );
}

#[test]
fn scope_ids_survive() {
    let answers = numeric("fe80::1%lo", Some("443"), Hints::default());
    assert_eq!(answers[0].family, AF_INET6);
    let SocketAddress::V6(address) = answers[0].address else {
        panic!("{:?} is no IPv6 address", answers[0].address);
    };
    assert_eq!((address.scope_id(), address.port()), (1, 443));
}

#[test]
fn the_canonical_name_is_given_when_asked_for() {
    let hints = Hints {
        flags: libc::AI_CANONNAME,
        ..Hints::default()
    };
    assert_eq!(
        numeric("127.0.0.1", None, hints)[0].canonname.as_deref(),
        Some(b"127.0.0.1".as_slice())
    );
}

#[test]
fn localhost_is_a_loopback_address() {
    let answers = getaddrinfo(Some(c"localhost"), Some(c"http"), Hints::default());
    let answers = answers.expect("localhost");
    assert!(
        answers
            .iter()
            .all(|answer| answer.address.ip().is_some_and(|ip| ip.is_loopback()))
    );
    assert!(
        answers
            .iter()
            .all(|answer| answer.address.port() == Some(80))
    );
}

#[test]
fn a_passive_lookup_is_the_any_address() {
    let hints = Hints {
        family: AF_INET,
        socktype: SOCK_STREAM,
        flags: libc::AI_PASSIVE,
        protocol: 0,
    };
    let answers = getaddrinfo(None, Some(c"0"), hints).expect("the any address");
    assert_eq!(
        answers[0].address.ip(),
        Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
    );
}

#[test]
fn failures_carry_the_code_and_the_c_library_s_text() {
    let hints = Hints {
        flags: libc::AI_NUMERICHOST,
        ..Hints::default()
    };
    let error = getaddrinfo(Some(c"no number"), None, hints).expect_err("no number");
    assert_eq!((error.code, error.errno), (libc::EAI_NONAME, None));
    assert_eq!(error.message(), "Name or service not known");
    assert_eq!(error.to_string(), "[Errno -2] Name or service not known");
    let error = getaddrinfo(None, None, Hints::default()).expect_err("neither");
    assert_eq!(error.code, libc::EAI_NONAME);
    let hints = Hints {
        family: 12345,
        ..Hints::default()
    };
    let error = getaddrinfo(Some(c"127.0.0.1"), None, hints).expect_err("no such family");
    assert_eq!(error.code, libc::EAI_FAMILY);
}

#[test]
fn names_of_addresses_are_found() {
    let address = SocketAddress::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 80));
    let numbers = libc::NI_NUMERICHOST | libc::NI_NUMERICSERV;
    assert_eq!(
        getnameinfo(&address, numbers),
        Ok((b"127.0.0.1".to_vec(), b"80".to_vec()))
    );
    let (_, service) = getnameinfo(&address, libc::NI_NUMERICHOST).expect("a service");
    assert_eq!(service, b"http");
    let other = SocketAddress::Other {
        family: libc::AF_NETLINK,
        bytes: vec![0; 10],
    };
    assert_eq!(
        getnameinfo(&other, numbers).expect_err("no names").code,
        libc::EAI_FAMILY
    );
}

#[test]
fn lookups_run_in_the_pool() {
    let resolver = Resolver::new(16);
    let (sender, receiver) = channel();
    let work = || getaddrinfo(Some(c"127.0.0.1"), Some(c"1"), Hints::default());
    let deliver = move |answers| sender.send(answers).expect("listening");
    resolver.submit(Job::new(work, deliver)).expect("submit");
    assert_eq!(
        received(&receiver).expect("answers")[0].address.port(),
        Some(1)
    );
}
