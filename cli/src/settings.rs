//! What a command works with: where the data lives, how long to wait, this device's name.
//! Precedence: flag, environment, default.

use std::path::{Path, PathBuf, absolute};
use std::time::Duration;

use etcetera::{BaseStrategy, choose_base_strategy};
use swarmkv_node::protocol::limits::MAX_LABEL;

use crate::args::Common;
use crate::error::Failure;

/// Settings of one run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where this device's key and data live; absolute.
    pub data_dir: PathBuf,
    /// Longest wait for an answer.
    pub timeout: Duration,
    /// How much to log, from the count of `-v`.
    pub verbose: u8,
}

impl Settings {
    /// Resolves the common options.
    pub fn resolve(common: &Common) -> Result<Self, Failure> {
        let given = common.data_dir.clone().filter(|dir| !dir.as_os_str().is_empty());
        let dir = match given {
            Some(dir) => dir,
            None => platform_data_dir()?,
        };
        let data_dir = absolute(&dir).map_err(|e| Failure::io(dir.display(), &e))?;
        Ok(Self { data_dir, timeout: common.timeout, verbose: common.verbose })
    }

    /// The data directory.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }
}

fn platform_data_dir() -> Result<PathBuf, Failure> {
    let strategy = choose_base_strategy().map_err(|_| {
        Failure::failed("This user has no home directory to keep data in.")
            .hint("Choose a place with: --data-dir DIR, or SWARMKV_DATA_DIR")
    })?;
    Ok(strategy.data_dir().join("swarmkv"))
}

/// This device's name: as given, else the host's, cut to what a label may be.
pub fn label(given: Option<String>) -> String {
    given.unwrap_or_else(|| label_from_host(&gethostname::gethostname().to_string_lossy()))
}

fn label_from_host(host: &str) -> String {
    let short = host.split('.').next().unwrap_or_default();
    let mut label: String = short.chars().filter(|c| !c.is_control()).collect();
    while label.len() > MAX_LABEL {
        label.pop();
    }
    if label.is_empty() { "device".into() } else { label }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_name_becomes_a_label_that_is_allowed() {
        assert_eq!(label_from_host("laptop.lan"), "laptop");
        assert_eq!(label_from_host(""), "device");
        assert_eq!(label_from_host(&"ä".repeat(60)).len(), MAX_LABEL);
    }
}
