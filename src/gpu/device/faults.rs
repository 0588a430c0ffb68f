//! Errors that a device reports by itself.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};

/// The first error that a device reported outside a call's own result.
#[derive(Clone, Default)]
pub(in crate::gpu) struct Faults(Arc<Mutex<Option<String>>>);

impl Faults {
    /// Collects the errors of a device from now on.
    pub fn of(device: &wgpu::Device) -> Self {
        let faults = Faults::default();
        let of_errors = faults.clone();
        device.on_uncaptured_error(Arc::new(move |error| {
            of_errors.store(match &error {
                wgpu::Error::OutOfMemory { .. } => "out of memory".to_string(),
                error => one_line(error),
            });
        }));
        let of_loss = faults.clone();
        device.set_device_lost_callback(move |reason, message| {
            let why = match message.split_whitespace().collect::<Vec<_>>().join(" ") {
                why if why.is_empty() => format!("{reason:?}").to_lowercase(),
                why => why,
            };
            of_loss.store(format!("lost: {why}: load the model again"));
        });
        faults
    }

    fn store(&self, text: String) {
        log::error!("{text}");
        lock(&self.0).get_or_insert(text);
    }

    /// The first error, if any.
    pub fn check(&self) -> Result<()> {
        lock(&self.0).as_ref().map_or(Ok(()), |fault| Err(Error::Device(fault.clone())))
    }
}

/// An error and its causes on one line.
pub(in crate::gpu) fn one_line(error: &dyn std::error::Error) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

pub(in crate::gpu) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
