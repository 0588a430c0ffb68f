//! The thread that owns the scheduler, and its handle.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use tokio::sync::oneshot;

use super::error::ApiError;
use crate::error::Error;
use crate::generate::{Load, Refused, Scheduler, SequenceRequest, Tokens};

/// The pause of the engine while it waits for slow readers alone.
const READER_PAUSE: Duration = Duration::from_millis(5);
/// Failed steps in a row after which the engine ends.
const MOST_FAILURES: u32 = 3;

enum Command {
    Submit {
        request: SequenceRequest,
        reply: oneshot::Sender<Result<Tokens, Refused>>,
    },
    /// Finish what is there and end.
    Drain,
    /// End now.
    Abort,
}

#[derive(Default)]
struct Shared {
    load: Mutex<Load>,
    is_draining: AtomicBool,
    has_failed: AtomicBool,
}

/// The handle of an engine. Clones are the same engine.
#[derive(Clone)]
pub struct Engine {
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
}

/// The engine's own end: [`EngineLoop::run`] is its thread.
pub struct EngineLoop {
    commands: mpsc::Receiver<Command>,
    shared: Arc<Shared>,
}

impl Engine {
    /// An engine and the loop that its thread must run.
    pub fn new() -> (Engine, EngineLoop) {
        let (sender, receiver) = mpsc::channel();
        let shared = Arc::new(Shared::default());
        let engine = Engine { commands: sender, shared: Arc::clone(&shared) };
        (engine, EngineLoop { commands: receiver, shared })
    }

    /// Queues a request. Its answer is a stream; dropping that cancels the request.
    ///
    /// Errors: the queue is full, the request is invalid, or the server ends.
    pub async fn submit(&self, request: SequenceRequest) -> Result<Tokens, ApiError> {
        if let Some(reason) = self.unavailable() {
            return Err(reason);
        }
        let gone = || ApiError::unavailable("the engine has ended", 5);
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Submit { request, reply }).map_err(|_| gone())?;
        Ok(answer.await.map_err(|_| gone())??)
    }

    /// The reason why requests are refused, if they are.
    pub fn unavailable(&self) -> Option<ApiError> {
        if self.shared.is_draining.load(SeqCst) {
            return Some(ApiError::unavailable("the server is shutting down", 5));
        }
        let failed = || ApiError::unavailable("the device has failed", 5);
        self.shared.has_failed.load(SeqCst).then(failed)
    }

    /// Takes no more requests; the engine ends with the last answer.
    pub fn drain(&self) {
        self.shared.is_draining.store(true, SeqCst);
        // An engine that has ended needs no command.
        let _ = self.commands.send(Command::Drain);
    }

    /// Ends all answers and the engine.
    pub fn abort(&self) {
        self.shared.is_draining.store(true, SeqCst);
        let _ = self.commands.send(Command::Abort);
    }

    /// The scheduler's counts after its last step.
    pub fn load(&self) -> Load {
        *self.shared.load.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EngineLoop {
    /// Runs steps until the engine is drained or aborted, or no handle is left.
    ///
    /// Errors: several steps failed one after another.
    pub fn run(self, mut scheduler: Scheduler) -> Result<(), Arc<Error>> {
        let (mut drains, mut failures) = (false, 0);
        loop {
            if scheduler.is_idle() && !drains {
                match self.commands.recv() {
                    Ok(command) => drains |= self.obey(command, &mut scheduler),
                    Err(mpsc::RecvError) => return Ok(()),
                }
            }
            while let Ok(command) = self.commands.try_recv() {
                drains |= self.obey(command, &mut scheduler);
            }
            self.publish(&scheduler);
            if scheduler.is_idle() {
                if drains {
                    return Ok(());
                }
                continue;
            }
            match pollster::block_on(scheduler.step()) {
                Ok(true) => failures = 0,
                Ok(false) => {
                    if let Ok(command) = self.commands.recv_timeout(READER_PAUSE) {
                        drains |= self.obey(command, &mut scheduler);
                    }
                }
                Err(error) => {
                    log::error!("{error}");
                    failures += 1;
                    if failures == MOST_FAILURES {
                        self.shared.has_failed.store(true, SeqCst);
                        return Err(error);
                    }
                }
            }
            self.publish(&scheduler);
        }
    }

    /// Carries out a command. Returns whether the engine should end when it is idle.
    fn obey(&self, command: Command, scheduler: &mut Scheduler) -> bool {
        match command {
            Command::Submit { request, reply } => {
                // If the client is gone, the answer is dropped here, and so cancelled.
                let _ = reply.send(scheduler.submit(request));
                false
            }
            Command::Drain => true,
            Command::Abort => {
                scheduler.cancel_all();
                true
            }
        }
    }

    fn publish(&self, scheduler: &Scheduler) {
        *self.shared.load.lock().unwrap_or_else(PoisonError::into_inner) = scheduler.load();
    }
}
