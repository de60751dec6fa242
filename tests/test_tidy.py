"""The house rules: each finds what it forbids, and leaves alone what looks like it."""

import subprocess
import sys
from pathlib import Path

import pytest

from scripts import tidy

TIDY = Path(tidy.__file__)
HOME = "/" + "home/someone"  # in two pieces: this file is checked too
MARKER = "TO" + "DO"


def findings(rule, path, text):
    return list(rule(tidy.Source(path, text)))


def rust_function(lines):
    return "//! Doc.\nfn long() {\n" + "    work();\n" * lines + "}\n"


def python_function(lines):
    return "def long():\n" + "    work()\n" * lines


BROKEN = {
    "file_length": [
        ("crates/reactor/src/timer.rs", "x\n" * 601),
        ("python/oxloop/_runner.py", "x\n" * 601),
    ],
    "function_length": [
        ("crates/reactor/src/timer.rs", rust_function(69)),
        ("python/oxloop/_runner.py", python_function(70)),
        ("scripts/a.py", "class A:\n    async def f(self):\n" + "        x()\n" * 70),
    ],
    "line_length": [("crates/reactor/src/timer.rs", "x" * 101), ("tests/test_a.py", "#" * 101)],
    "unsafe_place": [
        ("crates/oxloop/src/server.rs", "// SAFETY: no\nunsafe { f() }"),
        ("crates/reactor/src/poller.rs", "unsafe impl Send for A {}"),
        ("benches/floor/src/main.rs", "unsafe fn f() {}"),
    ],
    "unsafe_reason": [
        ("crates/oxloop/src/py/a.rs", "let a = unsafe { f() };"),
        ("crates/oxloop/src/py/a.rs", "unsafe impl Send for A {}"),
        ("crates/oxloop/src/py/a.rs", "// SAFETY: far away" + "\n" * 9 + "unsafe { f() }"),
    ],
    "ffi_place": [
        ("crates/oxloop/src/server.rs", "use pyo3::ffi;"),
        ("crates/oxloop/src/server.rs", "use pyo3::{\n    ffi,\n    prelude::*,\n};"),
        ("crates/oxloop/src/handle/mod.rs", "let a = ffi::PyObject_Call(b);"),
    ],
    "room_order": [
        ("crates/oxloop/src/py/a.rs", "use crate::event_loop::State;"),
        ("crates/oxloop/src/event_loop/turn.rs", "fn a() { crate::transport::b() }"),
        ("crates/oxloop/src/transport/base.rs", "use crate::dns::Wanted;"),
        ("crates/oxloop/src/sock/mod.rs", "use crate::tls::options::TlsOptions;"),
        ("crates/oxloop/src/server/mod.rs", "use crate::{py, create};"),
        ("crates/oxloop/src/error.rs", "use crate::event_loop::turn;"),
        ("crates/oxloop/src/attic/mod.rs", "//! Doc."),
        ("crates/oxloop/src/transport/stream/read.rs", "use crate::{py, tls};"),
        ("crates/reactor/src/sys/datagram.rs", "use crate::datagram::Message;"),
        ("crates/reactor/src/token.rs", "use crate::poller::Events;"),
        ("crates/reactor/src/attic.rs", "//! Doc."),
        ("crates/tls/src/sys/symbols.rs", "use crate::library::Unavailable;"),
        ("crates/tls/src/sys/bio.rs", "use super::borrowed::BorrowedSsl;"),
        ("crates/tls/src/library.rs", "use crate::sys::borrowed::BorrowedSsl;"),
    ],
    "crates_without_python": [
        ("crates/reactor/Cargo.toml", '[dependencies]\npyo3 = "0.30"  # no'),
        ("crates/reactor/Cargo.toml", '[dependencies]\noxloop = { path = "../oxloop" }'),
        ("crates/tls/Cargo.toml", '[dependencies]\npyo3 = "0.30"  # no'),
    ],
    "file_name": [
        ("crates/reactor/src/utils.rs", ""),
        ("python/oxloop/helpers/a.py", ""),
        ("tests/common.py", ""),
    ],
    "leftovers": [
        ("crates/reactor/src/timer.rs", f"// {MARKER}: later"),
        ("Makefile", f"# {MARKER} later"),
        ("crates/reactor/src/timer.rs", "to" + "do!()"),
    ],
    "machine_paths": [
        ("docs/a.md", f"see {HOME}/notes"),
        ("benches/setup-peers", f"cd {HOME}"),
    ],
    "one_title": [("docs/a.md", "# One\n\n# Two\n"), ("docs/a.md", "## None\n")],
    "module_doc": [
        ("crates/reactor/src/timer.rs", "use std::io;\n"),
        ("crates/reactor/src/timer.rs", "// Timer.\n"),
        ("crates/reactor/src/timer.rs", ""),
    ],
    "dependency_reason": [
        ("crates/reactor/Cargo.toml", '[dependencies]\nlibc = "0.2"\n'),
        ("crates/reactor/Cargo.toml", "[target.'cfg(unix)'.dev-dependencies]\nlibc = '0.2'\n"),
        ("tests/requirements.txt", "pytest==9\n"),
        ("pyproject.toml", '[build-system]\nrequires = ["maturin"]\n'),
    ],
}

KEPT = {
    "file_length": [
        ("crates/reactor/src/timer.rs", "x\n" * 600),
        ("tests/test_a.py", "x\n" * 900),
        ("docs/a.md", "x\n" * 900),
    ],
    "function_length": [
        ("crates/reactor/src/timer.rs", rust_function(68)),
        ("crates/reactor/src/timer.rs", rust_function(60) * 2),
        ("crates/reactor/src/timer.rs", "trait A {\n    fn a(b: [u8; 4]);\n}\n" + "// x\n" * 90),
        ("crates/reactor/src/timer.rs", 'fn a() { b("{") }\n' + "use c;\n" * 90),
        ("crates/reactor/src/timer.rs", "fn a<'a>(b: &'a C) { d('{') }\n" + "use c;\n" * 90),
        ("crates/reactor/src/timer.rs", 'fn a() { b(r#"{"{"#) }\n' + "use c;\n" * 90),
        ("python/oxloop/_runner.py", python_function(69)),
        ("tests/test_a.py", python_function(200)),
    ],
    "line_length": [
        ("crates/reactor/src/timer.rs", "x" * 100),
        ("crates/reactor/src/timer.rs", "// https://example.org/" + "x" * 100),
        ("docs/a.md", "x" * 300),
    ],
    "unsafe_place": [
        ("crates/oxloop/src/py/a.rs", "unsafe { f() }"),
        ("crates/reactor/src/sys/epoll.rs", "unsafe { f() }"),
        ("crates/oxloop/src/server.rs", "#![forbid(unsafe_code)]\n// unsafe is elsewhere"),
        ("crates/oxloop/src/server.rs", 'panic("unsafe { }")'),
    ],
    "unsafe_reason": [
        ("crates/oxloop/src/py/a.rs", "// SAFETY: it lives.\nlet a = unsafe { f() };"),
        ("crates/oxloop/src/py/a.rs", "/// # Safety\n/// Be attached.\nunsafe fn f() {}"),
        ("crates/oxloop/src/py/a.rs", 'let a = "unsafe { f() }";'),
    ],
    "ffi_place": [
        ("crates/oxloop/src/py/a.rs", "use pyo3::ffi;"),
        ("crates/oxloop/src/server.rs", "use std::ffi::CStr;\nuse pyo3::{Bound, Python};"),
        ("crates/oxloop/src/server.rs", "// pyo3::ffi is not named here"),
    ],
    "room_order": [
        ("crates/oxloop/src/event_loop/turn.rs", "use crate::py::handle::HandleRef;"),
        ("crates/oxloop/src/event_loop/turn.rs", "use crate::event_loop::state;"),
        ("crates/oxloop/src/server/mod.rs", "use crate::{error::os_error, tls::{create, b}};"),
        ("crates/oxloop/src/py/a.rs", "// as crate::create has it"),
        ("crates/oxloop/src/lib.rs", "use crate::create;"),
        ("crates/oxloop/src/tls/read.rs", "use crate::transport::delivery::Delivery;"),
        ("crates/reactor/src/timer.rs", "use crate::event_loop;"),
        ("crates/reactor/src/datagram.rs", "pub use crate::sys::datagram::Message;"),
        ("crates/reactor/src/sys/epoll.rs", "#[cfg(test)]\nmod tests {\n    use crate::poller;\n}"),
        ("crates/tls/src/sys/borrowed.rs", "use super::bio;\nuse crate::library::Library;"),
        ("crates/tls/src/sys/mod.rs", "pub(crate) mod bio;"),
    ],
    "crates_without_python": [
        ("crates/reactor/Cargo.toml", '[dependencies]\nlibc = "0.2"  # not pyo3'),
        ("crates/oxloop/Cargo.toml", '[dependencies]\npyo3 = "0.30"  # the binding'),
    ],
    "file_name": [
        ("crates/reactor/src/timer.rs", ""),
        ("docs/core-concepts.md", ""),
        ("tests/test_common.py", ""),
    ],
    "leftovers": [("docs/a.md", "mktemp " + "X" * 6), ("a.py", "a list of hacks to fix me up")],
    "machine_paths": [
        ("docs/a.md", "https://example.org" + HOME),
        ("a.py", "open('/proc/self/fd')"),
        ("a.py", "Path(root) / 'home/a'"),
    ],
    "one_title": [("docs/a.md", "# One\n\n```sh\n# a comment\n```\n"), ("a.py", "# a\n# b\n")],
    "module_doc": [("crates/reactor/src/timer.rs", "//! Timer.\n"), ("a.py", "import b\n")],
    "dependency_reason": [
        ("crates/reactor/Cargo.toml", '[dependencies]\nlibc = "0.2"  # system calls\n'),
        ("crates/reactor/Cargo.toml", '[dependencies]\n# system calls\nlibc = "0.2"\n'),
        ("crates/oxloop/Cargo.toml", '[dependencies]\nreactor = { path = "../reactor" }\n'),
        ("crates/oxloop/Cargo.toml", '[lib]\nname = "_oxloop"\n'),
        ("tests/requirements.txt", "-r a.txt\n# test\npytest==9  # the runner\n"),
        ("pyproject.toml", '[build-system]\nrequires = ["maturin"]  # builds\n'),
    ],
}


def cases(table):
    return [
        pytest.param(name, path, text, id=f"{name}-{number}")
        for name, samples in table.items()
        for number, (path, text) in enumerate(samples)
    ]


@pytest.mark.parametrize(("name", "path", "text"), cases(BROKEN))
def test_rule_finds_what_it_forbids(name, path, text):
    found = findings(getattr(tidy, name), path, text)
    assert len(found) == 1
    assert str(found[0]).startswith(f"{path}:")


@pytest.mark.parametrize(("name", "path", "text"), cases(KEPT))
def test_rule_leaves_alone_what_it_allows(name, path, text):
    assert findings(getattr(tidy, name), path, text) == []


def test_every_file_rule_has_a_sample_of_both_kinds():
    names = {rule.__name__ for rule in tidy.FILE_RULES}
    assert names == set(BROKEN) == set(KEPT)


def test_finding_names_the_line():
    text = "//! Doc.\n\nfn a() {}\n\nfn b() {\n    unsafe { c() }\n}\n"
    (found,) = findings(tidy.unsafe_place, "crates/oxloop/src/server.rs", text)
    assert found.line == 6


def test_module_that_nothing_declares_is_found():
    declared = [
        tidy.Source("crates/reactor/src/lib.rs", "mod timer;\npub mod sys;\n"),
        tidy.Source("crates/reactor/src/timer.rs", "mod heap;\n"),
        tidy.Source("crates/reactor/src/timer/heap.rs", ""),
        tidy.Source("crates/reactor/src/sys/mod.rs", "mod epoll;"),
        tidy.Source("crates/reactor/src/sys/epoll.rs", ""),
    ]
    assert list(tidy.unreachable_modules(declared)) == []
    dead = tidy.Source("crates/reactor/src/sys/kqueue.rs", "")
    mentioned = tidy.Source("crates/reactor/src/main.rs", "// mod kqueue;")
    (found,) = tidy.unreachable_modules([*declared, mentioned, dead])
    assert found.path == dead.path


def test_ratchet_allows_no_more_than_it_says(monkeypatch):
    path = "crates/reactor/src/timer.rs"
    monkeypatch.setitem(tidy.RATCHET, path, 700)
    assert findings(tidy.file_length, path, "x\n" * 700) == []
    assert len(findings(tidy.file_length, path, "x\n" * 701)) == 1
    assert "take it off" in findings(tidy.file_length, path, "x\n" * 600)[0].message
    assert [found.path for found in tidy.stale_ratchet([])] == [path]


@pytest.mark.parametrize("with_git", [True, False])
def test_command_reports_and_fails(tmp_path, with_git):
    if with_git:
        subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    (tmp_path / "README.md").write_text("# Title\n")
    assert run_tidy(tmp_path).returncode == 0
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "misc.md").write_text("no title\n")
    result = run_tidy(tmp_path)
    assert result.returncode == 1
    assert "docs/misc.md:1:" in result.stdout
    assert result.stdout.endswith("tidy: 2 files, 2 findings\n")


def run_tidy(root):
    command = [sys.executable, str(TIDY), str(root)]
    return subprocess.run(command, capture_output=True, text=True, check=False)
