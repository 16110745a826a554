//! How the process is told to stop or to read its configuration again: by signals and by HTTP.
//!
//! ```text
//! SIGINT, SIGTERM, PUT /v1/agent/leave ──> stop    (a second signal exits at once)
//! SIGHUP, PUT /v1/agent/reload ──────────> reload
//! ```

use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Mutex, mpsc, oneshot, watch};

use crate::config::{ConfigError, RuntimeConfig, Sources};

/// Requests for a reload that may wait; more than a few at once say nothing new.
const RELOADS_WAITING_MAX: usize = 8;

/// Whether the cluster is left before the process stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// Stop; come back later as the same member.
    No,
    /// Leave, then stop.
    Yes,
}

/// A new configuration, and where to answer whether it could be taken over.
#[derive(Debug)]
pub struct Reload {
    /// The configuration as it is now on disk, complete and valid.
    pub config: RuntimeConfig,
    /// Takes the outcome; it reaches whoever asked over HTTP.
    pub done: oneshot::Sender<Result<(), String>>,
}

/// What the agent listens to. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Control {
    stop: watch::Receiver<Option<Leave>>,
    reloads: Arc<Mutex<mpsc::Receiver<Reload>>>,
    handle: Handle,
}

/// Asks the agent to stop or reload. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    stop: Arc<watch::Sender<Option<Leave>>>,
    reload: mpsc::Sender<Reload>,
    sources: Arc<Sources>,
}

impl Control {
    /// A control that nobody has asked anything yet.
    pub fn new(sources: Sources) -> Self {
        let (stop, stopped) = watch::channel(None);
        let (reload, reloads) = mpsc::channel(RELOADS_WAITING_MAX);
        let handle = Handle {
            stop: Arc::new(stop),
            reload,
            sources: Arc::new(sources),
        };
        Self {
            stop: stopped,
            reloads: Arc::new(Mutex::new(reloads)),
            handle,
        }
    }

    /// For those who ask.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Waits until the agent is to stop. May be dropped and called again.
    pub async fn stop_requested(&self) -> Leave {
        let mut stop = self.stop.clone();
        match stop.wait_for(Option::is_some).await {
            Ok(leave) => leave.unwrap_or(Leave::No),
            // This very value holds a sender.
            Err(_) => std::future::pending().await,
        }
    }

    /// Waits for the next request to take over a new configuration. May be dropped and called again; one caller
    /// at a time is served.
    pub async fn reload_requested(&self) -> Reload {
        match self.reloads.lock().await.recv().await {
            Some(reload) => reload,
            // This very value holds a sender.
            None => std::future::pending().await,
        }
    }
}

impl Handle {
    /// Asks the agent to stop. The first request counts.
    pub fn stop(&self, leave: Leave) {
        self.stop.send_if_modified(|stop| {
            let first = stop.is_none();
            if first {
                *stop = Some(leave);
            }
            first
        });
    }

    /// Reads the configuration again, hands it to the agent, and waits for its answer.
    ///
    /// # Errors
    /// What is wrong with the configuration, or why the agent did not take it over.
    pub async fn reload(&self) -> Result<(), ConfigError> {
        let sources = Arc::clone(&self.sources);
        let config = tokio::task::spawn_blocking(move || sources.load())
            .await
            .map_err(|_| ConfigError::Invalid("reload: the server is shutting down".to_owned()))??;
        let (done, outcome) = oneshot::channel();
        let refused = || ConfigError::Invalid("reload: the server is shutting down".to_owned());
        self.reload
            .send(Reload { config, done })
            .await
            .map_err(|_| refused())?;
        outcome
            .await
            .map_err(|_| refused())?
            .map_err(ConfigError::Invalid)
    }
}

/// Turns signals into requests, until the process ends.
///
/// # Errors
/// When the system does not let signals be caught.
pub(crate) fn watch_signals(handle: Handle, config: &RuntimeConfig) -> std::io::Result<()> {
    let interrupt = signal(SignalKind::interrupt())?;
    let terminate = signal(SignalKind::terminate())?;
    let hangup = signal(SignalKind::hangup())?;
    let on_interrupt = if config.skip_leave_on_interrupt {
        Leave::No
    } else {
        Leave::Yes
    };
    let on_terminate = if config.leave_on_terminate {
        Leave::Yes
    } else {
        Leave::No
    };
    tokio::spawn(stop_on(interrupt, "SIGINT", on_interrupt, handle.clone()));
    tokio::spawn(stop_on(terminate, "SIGTERM", on_terminate, handle.clone()));
    tokio::spawn(reload_on(hangup, handle));
    Ok(())
}

async fn stop_on(mut signal: Signal, name: &'static str, leave: Leave, handle: Handle) {
    while signal.recv().await.is_some() {
        if handle.stop.borrow().is_some() {
            tracing::warn!(signal = name, "asked to stop again: exiting at once");
            std::process::exit(1);
        }
        tracing::info!(signal = name, "stopping; a second signal exits at once");
        handle.stop(leave);
    }
}

async fn reload_on(mut hangup: Signal, handle: Handle) {
    while hangup.recv().await.is_some() {
        match handle.reload().await {
            Ok(()) => tracing::info!("configuration reloaded"),
            Err(error) => tracing::error!(%error, "configuration not reloaded; the old one stays"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control() -> Control {
        Control::new(Sources {
            dev: true,
            ..Sources::default()
        })
    }

    fn run<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime")
            .block_on(future)
    }

    #[test]
    fn the_first_request_to_stop_counts_and_everyone_hears_it() {
        run(async {
            let control = control();
            let other = control.clone();

            control.handle().stop(Leave::Yes);
            control.handle().stop(Leave::No);

            assert_eq!(control.stop_requested().await, Leave::Yes);
            assert_eq!(other.stop_requested().await, Leave::Yes);
        });
    }

    #[test]
    fn a_reload_brings_the_new_configuration_and_takes_the_agents_answer_back() {
        run(async {
            let control = control();
            let handle = control.handle();
            let asked = tokio::spawn(async move { handle.reload().await.map_err(|error| error.to_string()) });

            let reload = control.reload_requested().await;
            assert!(reload.config.dev);
            reload
                .done
                .send(Err("port in use".to_owned()))
                .expect("somebody waits");

            assert_eq!(asked.await.expect("no panic"), Err("port in use".to_owned()));
        });
    }

    #[test]
    fn a_broken_configuration_never_reaches_the_agent() {
        run(async {
            let sources = Sources {
                dev: true,
                fragments: vec!["nope = 1".to_owned()],
                ..Sources::default()
            };

            let error = Control::new(sources)
                .handle()
                .reload()
                .await
                .expect_err("unknown key");

            assert_eq!(error.to_string(), "-hcl: unknown configuration key \"nope\"");
        });
    }
}
