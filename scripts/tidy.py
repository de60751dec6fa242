"""House rules that no formatter or linter knows, checked over every file of the repository.

    python scripts/tidy.py [ROOT]

Prints one `path:line: what is wrong` a finding, and ends with status 1 if there are any. What a
rule asks for and why stands in the docstring of its function; `RATCHET` lists the files that may
stay longer than the limit, each with the length it may not exceed any more.
"""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70
LINE_COLUMNS_MAX = 100
SAFETY_DISTANCE_MAX = 8  # lines between an unsafe block and the comment that defends it

RATCHET: dict[str, int] = {}

UNSAFE_DIRS = ("crates/oxloop/src/py/", "crates/reactor/src/sys/", "crates/tls/src/sys/")
UNSAFE_IN_BENCHES = ("benches/floor/src/tls_sys.rs", "benches/load/src/sys.rs")
PYTHONLESS = ("crates/reactor/Cargo.toml", "crates/tls/Cargo.toml")
FFI_DIR = "crates/oxloop/src/py/"
LONG_DIRS = ("tests", "benches")

# The rooms of each crate, from the bottom up: each imports only what stands before it, and its own.
# A room is a file or folder of `src`; where a folder's files stand apart, each is a room.
ROOMS: dict[str, tuple[tuple[str, ...], ...]] = {
    "crates/oxloop/src/": (
        ("py",),
        ("error",),
        ("address", "config", "file"),
        ("event_loop",),
        ("dns", "transport"),
        ("sock", "tls"),
        ("server",),
        ("create",),
        ("lib",),
    ),
    "crates/reactor/src/": (
        ("addr",),
        ("sys",),
        ("clock", "file", "notifier", "resolver", "socket", "timer", "token"),
        ("datagram", "poller"),
        ("busy_poll",),
        ("lib",),
    ),
    "crates/tls/src/": (
        ("outcome", "outgoing"),
        ("sys::cursor", "sys::incoming", "sys::symbols"),
        ("sys::bio",),
        ("library",),
        ("sys::borrowed",),
        ("kept_buffers",),
        ("session",),
        ("sys::contexts",),
        ("lib", "sys"),
    ),
}
BANNED_NAMES = frozenset(
    {"common", "core", "fast", "helper", "helpers", "misc", "new", "util", "utils", "v2"}
)
TEXT_SUFFIXES = frozenset({".md", ".py", ".pyi", ".rs", ".sh", ".toml", ".txt", ".yml", ""})
SKIPPED_NAMES = frozenset({"Cargo.lock", "LICENSE-APACHE", "LICENSE-MIT"})

# Character classes, so that this file does not contain what it looks for.
LEFTOVER = re.compile(r"\b(?:T[O]DO|FIX[M]E|X[X]X|HA[C]K)\b|\b(?:t[o]do|unimplemente[d])!")
MACHINE_PATH = re.compile(r"(?<![\w.~*}-])/(?:root|home|work|Users|tmp)/\w")
FFI_NAME = re.compile(r"\bpyo3::ffi\b|\bpyo3_ffi\b|\bffi::_?Py|\buse pyo3::\{[^;]*\bffi\b")
RUST_OPAQUE = re.compile(
    r"""
      //[^\n]*                                      # line comment
    | /\*.*?\*/                                     # block comment
    | \b(?:b|c)?r(?P<hashes>\#*)".*?"(?P=hashes)    # raw string
    | \b[bc]?"(?:\\.|[^"\\])*"                      # string
    | "(?:\\.|[^"\\])*"
    | \bb?'(?:\\(?:x..|u\{[^}]*\}|.)|[^\\'\n])'     # character
    | '(?:\\(?:x..|u\{[^}]*\}|.)|[^\\'\n])'
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True)
class Finding:
    """One place that breaks a rule."""

    path: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.message}"


@dataclass(frozen=True)
class Source:
    """A file of the repository."""

    path: str
    text: str

    @cached_property
    def lines(self) -> list[str]:
        """Its lines, without their ends."""
        return self.text.splitlines()

    @cached_property
    def code(self) -> str:
        """Rust without comments and literals: blanks in their place, so that positions hold."""
        return RUST_OPAQUE.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), self.text)

    @property
    def suffix(self) -> str:
        """The file name's extension with its dot."""
        return PurePosixPath(self.path).suffix

    @property
    def is_rust(self) -> bool:
        """Tell whether this is a Rust module."""
        return self.suffix == ".rs"

    @property
    def is_python(self) -> bool:
        """Tell whether this is a Python module or stub."""
        return self.suffix in {".py", ".pyi"}

    @property
    def may_be_long(self) -> bool:
        """Tell whether the length limits do not concern this file."""
        return any(part in LONG_DIRS for part in PurePosixPath(self.path).parts[:-1])

    def line_of(self, offset: int) -> int:
        """Turn an offset into the text into a line number."""
        return self.text.count("\n", 0, offset) + 1

    def finding(self, line: int, message: str) -> Finding:
        """Report a line of this file."""
        return Finding(self.path, line, message)


Rule = Callable[[Source], Iterator[Finding]]


def file_length(source: Source) -> Iterator[Finding]:
    """A file holds one noun; at 600 lines it holds two."""
    if not (source.is_rust or source.is_python) or source.may_be_long:
        return
    count, limit = len(source.lines), RATCHET.get(source.path, FILE_LINES_MAX)
    if count > limit:
        yield source.finding(limit, f"{count} lines, at most {limit}: split it by noun")
    elif source.path in RATCHET and count <= FILE_LINES_MAX:
        yield source.finding(1, "short enough now: take it off RATCHET")


def function_length(source: Source) -> Iterator[Finding]:
    """A function fits on a screen: 70 lines of code, comments and blank lines not counted."""
    if source.may_be_long:
        return
    lengths = python_functions if source.is_python else rust_functions
    if not (source.is_python or source.is_rust):
        return
    for name, line, count in lengths(source):
        if count > FUNCTION_LINES_MAX:
            yield source.finding(line, f"{name} has {count} lines, at most {FUNCTION_LINES_MAX}")


def python_functions(source: Source) -> Iterator[tuple[str, int, int]]:
    """Yield name, first line and lines of code of each function."""
    for node in ast.walk(ast.parse(source.text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = source.lines[node.lineno - 1 : node.end_lineno]
            count = sum(1 for line in lines if line.strip() and not line.lstrip().startswith("#"))
            yield node.name, node.lineno, count


def rust_functions(source: Source) -> Iterator[tuple[str, int, int]]:
    """Yield the same for Rust, by matching braces in what is not comment or literal."""
    code = source.code
    for match in re.finditer(r"\bfn\s+(\w+)", code):
        start = body_start(code, match.end())
        if start is None:
            continue
        lines = code[match.start() : block_end(code, start)].splitlines()
        count = sum(1 for line in lines if line.strip())
        yield match[1], source.line_of(match.start()), count


def body_start(code: str, offset: int) -> int | None:
    """Find the brace that opens a function's body, if it has one."""
    depth = 0
    for index in range(offset, len(code)):
        if code[index] in "([":
            depth += 1
        elif code[index] in ")]":
            depth -= 1
        elif depth == 0 and code[index] in "{;":
            return index if code[index] == "{" else None
    return None


def block_end(code: str, start: int) -> int:
    """Find the end of the block that opens at `start`."""
    depth = 0
    for index in range(start, len(code)):
        depth += {"{": 1, "}": -1}.get(code[index], 0)
        if depth == 0:
            return index + 1
    return len(code)


def line_length(source: Source) -> Iterator[Finding]:
    """Two files fit side by side; a line that holds a URL may be longer."""
    if not (source.is_rust or source.is_python):
        return
    for number, line in enumerate(source.lines, 1):
        if len(line) > LINE_COLUMNS_MAX and "://" not in line:
            yield source.finding(number, f"{len(line)} columns, at most {LINE_COLUMNS_MAX}")


def unsafe_place(source: Source) -> Iterator[Finding]:
    """Three folders may be unsafe, so that a reviewer of memory safety reads three folders."""
    if not source.is_rust or source.path.startswith(UNSAFE_DIRS):
        return
    if source.path in UNSAFE_IN_BENCHES:
        return
    for match in re.finditer(r"\bunsafe\b", source.code):
        line = source.line_of(match.start())
        yield source.finding(line, f"unsafe outside {', '.join(UNSAFE_DIRS)}")


def unsafe_reason(source: Source) -> Iterator[Finding]:
    """Each unsafe block and impl says which obligation is met, and by which fact."""
    if not source.is_rust:
        return
    for match in re.finditer(r"\bunsafe\s+(?:impl\b|\{)|\bunsafe\s*\{", source.code):
        line = source.line_of(match.start())
        above = source.lines[max(0, line - 1 - SAFETY_DISTANCE_MAX) : line]
        if not any("SAFETY:" in text for text in above):
            yield source.finding(line, "unsafe without a SAFETY: comment above it")


def ffi_place(source: Source) -> Iterator[Finding]:
    """The raw C API has one home; everything else uses what that home makes safe."""
    if not source.is_rust or source.path.startswith(FFI_DIR):
        return
    for match in FFI_NAME.finditer(source.code):
        yield source.finding(source.line_of(match.start()), f"pyo3::ffi outside {FFI_DIR}")


def room_order(source: Source) -> Iterator[Finding]:
    """Who reads a room needs to know only the rooms below it. Tests may import anything."""
    folder = next((it for it in ROOMS if source.path.startswith(it)), None)
    if not source.is_rust or folder is None:
        return
    floors = {room: floor for floor, rooms in enumerate(ROOMS[folder]) for room in rooms}
    path = PurePosixPath(source.path.removeprefix(folder)).with_suffix("")
    own = room_of("::".join(path.parts), floors)
    if own is None:
        yield source.finding(1, f"no room of tidy.py's ROOMS is named {path.parts[0]!r}")
        return
    code = re.split(r"^#\[cfg\(test\)\]\s*mod tests", source.code, maxsplit=1, flags=re.MULTILINE)[
        0
    ]
    above = "::".join(("crate", *path.parts[:-1]))
    pattern = r"\bcrate::(?:(\w+(?:::\w+)*)|\{([^;]*?)\};)|^use super::(\w+)"
    for match in re.finditer(pattern, code, re.MULTILINE):
        names = re.findall(r"(?:^|,)\s*(\w+)", match[2]) if match[2] else [match[1]]
        if match[3]:
            names = [f"{above}::{match[3]}".removeprefix("crate::")]
        for room in (room_of(name, floors) for name in names):
            if room and room != own and floors[room] >= floors[own]:
                line = source.line_of(match.start())
                yield source.finding(line, f"{own} imports {room}, which does not stand below it")


def room_of(name: str, floors: dict[str, int]) -> str | None:
    """Find the room that `name`, a path within the crate, belongs to, if any."""
    parts = name.split("::")
    paths = ("::".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((path for path in paths if path in floors), None)


def crates_without_python(source: Source) -> Iterator[Finding]:
    """The reactor knows the kernel, tls knows OpenSSL: both build and are tested without Python."""
    if source.path not in PYTHONLESS:
        return
    for number, line in enumerate(source.lines, 1):
        if re.search(r"\b(?:pyo3|oxloop)\b", line.partition("#")[0]):
            yield source.finding(number, "this crate may not depend on Python or on oxloop")


def file_name(source: Source) -> Iterator[Finding]:
    """A name that says nothing collects everything."""
    path = PurePosixPath(source.path)
    for name in (*path.parts[:-1], path.stem):
        if name in BANNED_NAMES:
            yield source.finding(1, f"{name!r} is no name: call it by the noun it holds")


def leftovers(source: Source) -> Iterator[Finding]:
    """Work that is left to do is an issue, not a comment."""
    for number, line in enumerate(source.lines, 1):
        if match := LEFTOVER.search(line):
            yield source.finding(number, f"{match[0]} left behind")


def machine_paths(source: Source) -> Iterator[Finding]:
    """What names a place on one machine works on that machine."""
    for number, line in enumerate(source.lines, 1):
        if match := MACHINE_PATH.search(line):
            yield source.finding(number, f"a path of one machine: {match[0]}...")


def one_title(source: Source) -> Iterator[Finding]:
    """A document has one title."""
    if source.suffix != ".md":
        return
    prose = re.sub(r"^```.*?^```", "", source.text, flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^# ", prose, flags=re.MULTILINE)
    if len(titles) != 1:
        yield source.finding(1, f"{len(titles)} first-level headings, not one")


def module_doc(source: Source) -> Iterator[Finding]:
    """A Rust module opens with what it is, what holds in it and what it costs."""
    if not source.is_rust:
        return
    first = next((line for line in source.lines if line.strip()), "")
    if not first.startswith("//!"):
        yield source.finding(1, "the module does not open with //! documentation")


def dependency_reason(source: Source) -> Iterator[Finding]:
    """A dependency is a decision: beside it stands what for."""
    name = PurePosixPath(source.path).name
    if name == "Cargo.toml":
        yield from cargo_dependencies(source)
    elif name == "pyproject.toml":
        yield from build_requirements(source)
    elif name.endswith("requirements.txt"):
        for number, line in enumerate(source.lines, 1):
            if line.strip() and not line.startswith(("-", "#")) and "#" not in line:
                yield source.finding(number, "a requirement without its reason")


def cargo_dependencies(source: Source) -> Iterator[Finding]:
    """Check the dependency tables of a Cargo manifest; members of the workspace need no reason."""
    table, above = "", ""
    for number, line in enumerate(source.lines, 1):
        if header := re.match(r"\[([^\]]+)\]", line):
            table = header[1]
        in_table = table.endswith("dependencies")
        if in_table and re.match(r"[\w-]+(?:\.\w+)?\s*=", line):
            excused = "#" in line or "path =" in line or above.startswith("#")
            if not excused:
                yield source.finding(number, "a dependency without its reason")
        above = line


def build_requirements(source: Source) -> Iterator[Finding]:
    """Check the build requirements of the Python project."""
    tomllib.loads(source.text)  # a manifest that does not parse has no rules to break
    for number, line in enumerate(source.lines, 1):
        if line.startswith("requires =") and "#" not in line:
            yield source.finding(number, "a build requirement without its reason")


FILE_RULES: tuple[Rule, ...] = (
    file_length,
    function_length,
    line_length,
    unsafe_place,
    unsafe_reason,
    ffi_place,
    room_order,
    crates_without_python,
    file_name,
    leftovers,
    machine_paths,
    one_title,
    module_doc,
    dependency_reason,
)


def unreachable_modules(sources: list[Source]) -> Iterator[Finding]:
    """Rust ignores a file that no `mod` names: nobody would notice that it is dead."""
    rust = {source.path: source for source in sources if source.is_rust}
    for path, source in rust.items():
        module = PurePosixPath(path)
        if "src" not in module.parts or module.stem in {"lib", "main"} or "bin" in module.parts:
            continue
        name, folder = module.stem, module.parent
        if name == "mod":
            name, folder = folder.name, folder.parent
        parents = ("lib.rs", "main.rs", "mod.rs", f"../{folder.name}.rs")
        candidates = (rust.get(normal(folder / parent)) for parent in parents)
        declared = re.compile(rf"\bmod\s+{name}\b")
        if not any(parent and declared.search(parent.code) for parent in candidates):
            yield source.finding(1, "no module declares this file")


def normal(path: PurePosixPath) -> str:
    """Resolve `a/b/../c.rs`."""
    parts = list(path.parts)
    while ".." in parts:
        index = parts.index("..")
        del parts[index - 1 : index + 1]
    return "/".join(parts)


def stale_ratchet(sources: list[Source]) -> Iterator[Finding]:
    """The list of exceptions names files that exist."""
    paths = {source.path for source in sources}
    for path in RATCHET:
        if path not in paths:
            yield Finding(path, 1, "listed in RATCHET but not there")


def repository_files(root: Path) -> list[str]:
    """List what git knows and what it would add."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if listing.returncode == 0:
        return sorted(path for path in listing.stdout.splitlines() if (root / path).is_file())
    ignored = re.compile(r"(?:^|/)(?:target|\.venv[^/]*|\.git|\.[a-z]+_cache|__pycache__)/")
    paths = (path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    return sorted(path for path in paths if not ignored.search(path))


def read_sources(root: Path) -> list[Source]:
    """Read every text file that a rule may concern."""
    paths = (PurePosixPath(path) for path in repository_files(root))
    wanted = (
        path for path in paths if path.suffix in TEXT_SUFFIXES and path.name not in SKIPPED_NAMES
    )
    return [Source(str(path), (root / path).read_text(encoding="utf-8")) for path in wanted]


def check(sources: list[Source]) -> list[Finding]:
    """Apply every rule to every file."""
    findings = [finding for source in sources for rule in FILE_RULES for finding in rule(source)]
    findings += unreachable_modules(sources)
    findings += stale_ratchet(sources)
    return findings


def main() -> int:
    """Check the repository that holds this file, or the one named."""
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent
    sources = read_sources(root)
    findings = check(sources)
    for finding in findings:
        print(finding)
    print(f"tidy: {len(sources)} files, {len(findings)} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
