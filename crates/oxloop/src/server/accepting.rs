//! The object in `asyncio.all_tasks()` that stands for the connections that a server is accepting.
//!
//! asyncio has a task for each connection. Here a server registers one `oxloop._accepting` object
//! as a task. When somebody looks at the tasks, it counts as done if no connection is being
//! accepted; otherwise it becomes a task of those connections, and the next connection gets another
//! object.
//!
//! Cost: a count, and a check whether the object is there.

use super::{Server, ServerState};
use crate::py::imports;
use crate::transport::stream::StreamThis;
use pyo3::intern;
use pyo3::prelude::*;

/// A transport, if there is one yet, and a future that is done when it is accepted.
type Watched<'py> = (Option<Bound<'py, PyAny>>, Bound<'py, PyAny>);

impl ServerState {
    /// Registers an object as a task for the connections that are being accepted from now on.
    #[inline]
    pub(super) fn show_accepting(&self, this: &Bound<'_, Server>) -> PyResult<()> {
        if !self.shown.is_empty() {
            return Ok(());
        }
        let py = this.py();
        let shown = imports::accepting(py)?.call1((this,))?;
        imports::asyncio_tasks(py)?.call_method1(intern!(py, "_register_task"), (&shown,))?;
        self.shown.set(Some(shown.unbind()));
        Ok(())
    }
}

#[pymethods]
impl Server {
    /// The connections that are being accepted and that nobody watches yet, each with a future that
    /// is done when it is accepted. Empty if the loop is closed or runs in another thread.
    fn _watch_accepting<'py>(slf: &Bound<'py, Self>) -> PyResult<Vec<Watched<'py>>> {
        let py = slf.py();
        let inner = slf.get().inner(py)?;
        let state = inner.event_loop.get().state(py);
        let nothing = !inner.clients.are_accepting() && inner.incoming.borrow().is_empty();
        if nothing || state.check_closed().is_err() || state.runs_elsewhere(py)? {
            return Ok(Vec::new());
        }
        let incoming = inner.watch_incoming(py)?.into_iter();
        let mut watched: Vec<Watched<'py>> = incoming.map(|end| (None, end)).collect();
        for transport in inner.transports(py) {
            if let Some(stream) = StreamThis::of(&transport) {
                let pair = stream.watch_accept()?;
                watched.extend(pair.map(|(transport, end)| (Some(transport), end)));
            }
        }
        if !watched.is_empty() {
            inner.shown.set(None);
        }
        Ok(watched)
    }
}
