//! A new configuration for a daemon that serves: SIGHUP.
//!
//! The same file, environment and flags are read as at the start. What the table of settings calls [`Applied::OnReload`] holds
//! from then on, and so does what stands in the token file; everything else that differs from what the daemon started with is
//! named in the log. It is all or nothing: with anything wrong in the configuration or the token file, the old ones hold on.

use super::config::{Admission, Level, Loaded, Refusal};
use super::serve::Daemon;
use super::settings::Applied;
use super::tokens::{self, TokenError};

/// Reads the configuration, and changes how much is logged.
pub struct Reloader<'a> {
    read: &'a dyn Fn() -> Result<Loaded, Refusal>,
    log_at: &'a dyn Fn(Level),
    started: Loaded,
    current: Loaded,
}

/// What a reload came to.
#[derive(Debug, PartialEq, Eq)]
struct Reload {
    /// Settings that hold from now on.
    applied: Vec<String>,
    /// Settings that differ from what the daemon was started with, and are applied when it is started again.
    restart: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
enum ReloadError {
    #[error(transparent)]
    Configuration(#[from] Refusal),
    #[error(transparent)]
    Tokens(#[from] TokenError),
}

impl<'a> Reloader<'a> {
    /// For a daemon that is started with `loaded`: `read` reads the same again, `log_at` has less or more logged.
    pub fn new(
        loaded: &Loaded,
        read: &'a dyn Fn() -> Result<Loaded, Refusal>,
        log_at: &'a dyn Fn(Level),
    ) -> Reloader<'a> {
        Reloader { read, log_at, started: loaded.clone(), current: loaded.clone() }
    }

    /// Reloads, says in the log what came of it, and in a few words what is not as the file says, if there is anything.
    pub fn reload(&mut self, daemon: &Daemon) -> Option<String> {
        match self.apply(daemon) {
            Ok(Reload { applied, restart }) => {
                let applied = if applied.is_empty() { "nothing new".into() } else { applied.join(", ") };
                tracing::info!("configuration reloaded: {applied}");
                if restart.is_empty() {
                    return None;
                }
                let names = restart.join(", ");
                tracing::warn!("needs a restart: {names}");
                Some(format!("needs a restart: {names}"))
            }
            Err(error) => {
                for line in error.to_string().lines() {
                    tracing::error!("{line}");
                }
                tracing::error!("the configuration was not reloaded: the old one still holds");
                Some("the configuration was not reloaded (see the log)".into())
            }
        }
    }

    fn apply(&mut self, daemon: &Daemon) -> Result<Reload, ReloadError> {
        let new = (self.read)()?;
        for warning in &new.warnings {
            tracing::warn!("{warning}");
        }
        let of = |changed: Vec<(String, Applied)>, wanted: Applied| -> Vec<String> {
            changed.into_iter().filter(|(_, applied)| *applied == wanted).map(|(name, _)| name).collect()
        };
        let mut applied = of(self.current.changes(&new), Applied::OnReload);
        let mut restart = of(self.started.changes(&new), Applied::AtStart);
        let mut rules = daemon.rules();
        match (&self.started.config.listen.admission, &new.config.listen.admission) {
            (Admission::Tokens(_), Admission::Tokens(path)) => {
                rules.credentials = tokens::read(path, rules.credentials.len())?;
                applied.push("tokens".into());
            }
            // Whether anybody may come depends on the address, too, and that stays what it is.
            (old, new) if old != new => {
                applied.retain(|name| name != TOKEN_FILE);
                restart.push(TOKEN_FILE.into());
            }
            _ => {}
        }
        rules.handshake = new.config.listen.handshake;
        rules.connections_per_second = new.config.listen.connections_per_second;
        daemon.set_rules(rules);
        (self.log_at)(new.config.log.level);
        self.current = new;
        Ok(Reload { applied, restart })
    }
}

const TOKEN_FILE: &str = "listen.token_file";
