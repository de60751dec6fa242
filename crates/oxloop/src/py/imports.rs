//! The Python objects that the loop uses, each imported once, on first use.
//!
//! Nothing else in the crate imports by name. Names that programs and tests replace
//! (`socket.getaddrinfo`, `asyncio.StreamReader.feed_data`) are not cached here: they are looked up
//! at each use, in modules that are.
//!
//! They are fetched when the extension is imported, except for those that asyncio itself imports
//! late: a loop that is closed while the interpreter shuts down cannot import any more.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

macro_rules! imported {
    ($warm:ident: $($name:ident = $module:literal . $attribute:literal;)*) => {
        fn $warm(py: Python<'_>) -> PyResult<()> {
            $($name(py)?;)*
            Ok(())
        }
        imported! { $($name = $module . $attribute;)* }
    };
    ($($name:ident = $module:literal . $attribute:literal;)*) => {$(
        pub(crate) fn $name(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
            static CELL: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
            CELL.import(py, $module, $attribute)
        }
    )*};
}

macro_rules! modules {
    ($($name:ident = $module:literal;)*) => {
        fn warm_modules(py: Python<'_>) -> PyResult<()> {
            $($name(py)?;)*
            Ok(())
        }
        $(
        pub(crate) fn $name(py: Python<'_>) -> PyResult<&Bound<'_, PyModule>> {
            static CELL: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
            let module =
                CELL.get_or_try_init(py, || Ok::<_, PyErr>(py.import($module)?.unbind()))?;
            Ok(module.bind(py))
        }
        )*
    };
}

modules! {
    asyncio_events = "asyncio.events";
    asyncio_coroutines = "asyncio.coroutines";
    asyncio_constants = "asyncio.constants";
    asyncio_futures = "asyncio.futures";
    asyncio_tasks = "asyncio.tasks";
    ssl_module = "ssl";
    ssl_extension = "_ssl";
    logging = "logging";
    signal = "signal";
    subprocess = "subprocess";
    socket = "socket";
    sys = "sys";
    warnings = "warnings";
    weakref = "weakref";
    os = "os";
    threading = "threading";
}

imported! {
    warm_attributes:
    handle = "asyncio.events"."Handle";
    timer_handle = "asyncio.events"."TimerHandle";
    get_running_loop = "asyncio"."_get_running_loop";
    is_future = "asyncio"."isfuture";
    ensure_future = "asyncio"."ensure_future";
    gather = "asyncio"."gather";
    wrap_future = "asyncio"."wrap_future";
    run_until_complete_cb = "asyncio.base_events"."_run_until_complete_cb";
    is_coroutine = "asyncio.coroutines"."iscoroutine";
    is_debug_mode = "asyncio.coroutines"."_is_debug_mode";
    extract_stack = "asyncio.format_helpers"."extract_stack";
    format_callback_source = "asyncio.format_helpers"."_format_callback_source";
    logger = "asyncio.log"."logger";
    transport = "asyncio.transports"."Transport";
    read_transport = "asyncio.transports"."ReadTransport";
    subprocess_transport = "asyncio.transports"."SubprocessTransport";
    read_subprocess_pipe_proto = "asyncio.base_subprocess"."ReadSubprocessPipeProto";
    write_subprocess_pipe_proto = "asyncio.base_subprocess"."WriteSubprocessPipeProto";
    shield = "asyncio"."shield";
    datagram_transport = "asyncio.transports"."DatagramTransport";
    selector_datagram_transport = "asyncio.selector_events"."_SelectorDatagramTransport";
    protocol = "asyncio.protocols"."Protocol";
    buffered_protocol = "asyncio.protocols"."BufferedProtocol";
    transport_socket = "asyncio.trsock"."TransportSocket";
    stream_reader = "asyncio.streams"."StreamReader";
    stream_reader_protocol = "asyncio.streams"."StreamReaderProtocol";
    sendfile_mode = "asyncio.constants"."_SendfileMode";
    socket_class = "socket"."socket";
    native_socket_class = "_socket"."socket";
    file_io = "_io"."FileIO";
    buffered_reader = "_io"."BufferedReader";
    buffered_writer = "_io"."BufferedWriter";
    buffered_random = "_io"."BufferedRandom";
    text_io_wrapper = "_io"."TextIOWrapper";
    set_nodelay = "asyncio.base_events"."_set_nodelay";
    gaierror = "socket"."gaierror";
    format_handle = "asyncio.base_events"."_format_handle";
    timeout = "asyncio"."timeout";
    partial = "functools"."partial";
    format_list = "traceback"."format_list";
    sleep = "asyncio"."sleep";
    set_result_unless_cancelled = "asyncio.futures"."_set_result_unless_cancelled";
    wait = "asyncio"."wait";
    address_family = "socket"."AddressFamily";
    socket_kind = "socket"."SocketKind";
    ssl_socket = "ssl"."SSLSocket";
    ssl_context = "ssl"."SSLContext";
    ssl_object = "ssl"."SSLObject";
    ssl_error = "ssl"."SSLError";
    ssl_want_read_error = "ssl"."SSLWantReadError";
    ssl_syscall_error = "ssl"."SSLSyscallError";
    certificate_error = "ssl"."CertificateError";
    memory_bio = "ssl"."MemoryBIO";
    protocol_tls_client = "ssl"."PROTOCOL_TLS_CLIENT";
    exception_group = "builtins"."ExceptionGroup";
    cancelled_error = "asyncio"."CancelledError";
    weak_set = "weakref"."WeakSet";
    allocate_lock = "_thread"."allocate_lock";
}

imported! {
    concurrent_future = "concurrent.futures"."Future";
    thread_pool_executor = "concurrent.futures"."ThreadPoolExecutor";
    server = "oxloop._server"."Server";
    accepting = "oxloop._accepting"."Accepting";
    follow_accept = "oxloop._accepting"."follow";
}

/// Imports everything but the late ones; called once, at import.
pub(crate) fn warm(py: Python<'_>) -> PyResult<()> {
    warm_modules(py)?;
    warm_attributes(py)
}
