//! The one thread on which MLX runs. MLX's streams belong to the thread that made them. An
//! evaluation may wait for the device, but submitting a step must not wait.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use crate::error::{Error, Result};

type Job = Box<dyn FnOnce() + Send>;

/// Evaluating a deep graph needs a large stack.
const STACK_BYTES: usize = 16 << 20;

/// Queues `job` for the thread.
pub(super) fn submit(job: impl FnOnce() + Send + 'static) -> Result<()> {
    static JOBS: OnceLock<Option<Sender<Job>>> = OnceLock::new();
    let jobs = JOBS.get_or_init(|| {
        let (sender, receiver) = channel();
        let thread = thread::Builder::new().name("mlx".into()).stack_size(STACK_BYTES);
        thread.spawn(move || work(&receiver)).ok().map(|_| sender)
    });
    let ended = || Error::Device("the thread of MLX could not be started".into());
    jobs.as_ref().ok_or_else(ended)?.send(Box::new(job)).map_err(|_| ended())
}

/// Queues `job` and waits for its result.
pub(super) fn call<R: Send + 'static>(
    job: impl FnOnce() -> Result<R> + Send + 'static,
) -> Result<R> {
    let (sender, receiver) = channel();
    submit(move || _ = sender.send(job()))?;
    receiver.recv().map_err(|_| Error::Device("a call of MLX failed".into()))?
}

fn work(jobs: &Receiver<Job>) {
    for job in jobs {
        // A job that panics has printed its message on stderr. Its waiting caller finds the channel
        // closed.
        let _ = catch_unwind(AssertUnwindSafe(job));
    }
}
