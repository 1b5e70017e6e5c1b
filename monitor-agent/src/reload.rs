//! What a running agent reads again when it is told to (SIGHUP): the configuration
//! file, the token, certificates and names.

use std::sync::Arc;

use delivery::Destination;
use sd_notify::NotifyState;
use tokio::sync::watch;

use crate::{config::Config, names::FollowedFiles, run::notify, sampler::SamplerHandle};

/// What is told of a change.
#[derive(Debug)]
pub(crate) struct Reload {
    /// As it is in force.
    pub(crate) config: Config,
    pub(crate) destination: watch::Sender<Destination>,
    pub(crate) names: Arc<FollowedFiles>,
    pub(crate) sampler: SamplerHandle,
}

impl Reload {
    /// Reads all of it again.  What cannot be used leaves what was.
    pub(crate) async fn again(&mut self) {
        if let Ok(now) = NotifyState::monotonic_usec_now() {
            notify(&[NotifyState::Reloading, now]);
        }
        self.names.read_again();
        match self.config.again() {
            Ok(config) => self.take(config).await,
            Err(error) => {
                let error = daemon::error_chain(&error);
                tracing::warn!(
                    error,
                    "the configuration is not reloaded: what was read before holds"
                );
            }
        }
        notify(&[NotifyState::Ready]);
    }

    async fn take(&mut self, config: Config) {
        let needs_restart = self.config.needs_restart(&config);
        if config.level != self.config.level {
            match self.sampler.set_level(config.level).await {
                Ok(()) => self.config.level = config.level,
                Err(error) => {
                    let error = daemon::error_chain(&error);
                    tracing::warn!(error, "the level stays as it is");
                }
            }
        }
        // The files may have changed where the settings have not.
        let destination = config.collector_destination();
        destination.token.keep_of(&self.destination.borrow().token);
        if let Some(error) = destination.token.missing() {
            let error = daemon::error_chain(&error);
            tracing::warn!(error, "{}", delivery::token::MISSING);
        }
        self.destination.send_replace(destination);
        self.config.report_interval = config.report_interval;
        if needs_restart.is_empty() {
            tracing::info!("reloaded");
        } else {
            let keys = needs_restart.join(", ");
            tracing::warn!(keys, "reloaded, but for what needs a restart of the agent");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use super::*;
    use crate::{cli::command_line, control::tests::sampler};

    #[tokio::test]
    async fn a_reload_while_the_token_file_is_missing_takes_no_token_away() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, "one\n").unwrap();
        let given = ["speedmimi-agent", "run", "--whole-host", "--token-file"];
        let given = given.into_iter().map(Into::into);
        let line = command_line(given.chain([path.clone().into()]).collect());
        let config = Config::load(line).unwrap();
        let sampler = sampler(Duration::from_secs(3_600));
        let (destination, is) = watch::channel(config.collector_destination());
        let mut reload = Reload {
            config,
            destination,
            names: Arc::default(),
            sampler: sampler.handle(),
        };
        let sent = || is.borrow().token.authorization().unwrap();
        fs::remove_file(&path).unwrap();
        for _ in 0..2 {
            reload.again().await;
            assert_eq!(sent(), "Bearer one");
        }
        fs::write(&path, "two\n").unwrap();
        reload.again().await;
        assert_eq!(sent(), "Bearer two");
    }
}
