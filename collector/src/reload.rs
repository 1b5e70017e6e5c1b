//! SIGHUP: the configuration is read again, and what of it can change while the
//! collector runs is followed.  What cannot be used changes nothing.
//!
//! Certificates and the tokens that were given out are followed without it.

use std::{path::PathBuf, sync::Arc};

use settings::{CommandLine, Setting};

use store::Writer;

use crate::{
    args::run_args,
    auth::Access,
    config::{Config, ConfigError},
    http::Names,
    problems::Judgement,
};

/// Flags that are followed; all others need a restart.
const FOLLOWED: [&str; 6] = [
    "accept-clock",
    "allow-host",
    "problem-threshold",
    "retention-age",
    "retention-bytes",
    "token-file",
];

/// What is reached while the collector runs.
#[derive(Debug)]
pub(crate) struct Reload {
    pub(crate) line: CommandLine,
    /// As they count now.
    pub(crate) settings: Vec<Setting>,
    /// The one in use: another needs a restart, and nothing is made in it before.
    pub(crate) data_dir: PathBuf,
    pub(crate) access: Arc<Access>,
    pub(crate) names: Names,
    pub(crate) judgement: Judgement,
    pub(crate) writer: Writer,
}

impl Reload {
    /// Reads everything again, and says what came of it.
    pub(crate) async fn run(&mut self) {
        match self.reread() {
            Ok((config, restart)) => {
                self.access.replace(config.access);
                self.names.replace(config.allow_host);
                self.judgement.replace(config.thresholds);
                self.writer.keep(config.retention).await;
                let restart = restart.join(", ");
                if restart.is_empty() {
                    tracing::info!("configuration reloaded");
                } else {
                    tracing::warn!(
                        restart,
                        "configuration reloaded: restart the collector to apply the settings under \
                         restart"
                    );
                }
            }
            Err(error) => tracing::error!(
                error = error.trim(),
                "invalid configuration: the old one stays in effect"
            ),
        }
    }

    /// The new configuration, and which of its changes need a restart.
    fn reread(&mut self) -> Result<(Config, Vec<String>), String> {
        let told = |error: ConfigError| daemon::error_chain(&error);
        let (mut args, settings) = run_args(&self.line).map_err(|error| told(error.into()))?;
        args.data_dir.clone_from(&self.data_dir);
        let config = Config::try_new(&args, &settings).map_err(told)?;
        // They are compared with what the start had: until the restart it counts.
        let mut restart = Setting::differing(&self.settings, &settings);
        restart.retain(|key| !FOLLOWED.contains(&key.as_str()));
        Ok((config, restart))
    }
}
