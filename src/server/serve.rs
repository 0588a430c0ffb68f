//! Answering connections, and the orderly end.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::app::App;
use super::router::router;

/// The time that streams have to send their last event after the deadline.
const LAST_EVENTS: Duration = Duration::from_secs(1);

/// Answers connections until `shutdown`. Then it takes no more requests, and finishes those under
/// way within `drain`. What is left then ends with an error.
///
/// Errors: the listener fails.
pub async fn serve(
    app: Arc<App>,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
    drain: Duration,
) -> io::Result<()> {
    let listener = listener.tap_io(|stream| {
        // Events are small, and each should leave at once.
        if let Err(error) = stream.set_nodelay(true) {
            log::debug!("a connection delays small packets: {error}");
        }
    });
    let (begun, begins) = oneshot::channel();
    let engine = app.engine.clone();
    let server = axum::serve(listener, router(&app)).with_graceful_shutdown(async move {
        shutdown.await;
        engine.drain();
        // Without a receiver the server has ended already.
        let _ = begun.send(());
    });
    let deadline = async {
        if begins.await.is_err() {
            // The server ends by itself.
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(drain).await;
        app.engine.abort();
        tokio::time::sleep(LAST_EVENTS).await;
    };
    tokio::select! {
        outcome = server => outcome,
        () = deadline => Ok(()),
    }
}
