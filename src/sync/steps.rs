//! Named points between two effects, where a test can stop the world.
//!
//! In production a step is one comparison with `None`. The crash test stops
//! after the n-th step, opens the same files again and expects the same end.

use std::sync::Arc;

/// A step at which a test stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("stopped at {0}")]
pub struct Stopped(pub &'static str);

type Hook = dyn Fn(&'static str) -> Result<(), Stopped> + Send + Sync;

/// The points; without a hook nothing ever stops.
#[derive(Clone, Default)]
pub struct Steps(Option<Arc<Hook>>);

impl Steps {
    /// Calls `hook` at every step.
    pub fn with(hook: impl Fn(&'static str) -> Result<(), Stopped> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(hook)))
    }

    /// Passes a step.
    ///
    /// # Errors
    ///
    /// [`Stopped`] when the hook says so.
    pub fn pass(&self, name: &'static str) -> Result<(), Stopped> {
        self.0.as_ref().map_or(Ok(()), |hook| hook(name))
    }
}

impl std::fmt::Debug for Steps {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(if self.0.is_some() { "Steps(hook)" } else { "Steps" })
    }
}
