//! The binary under test: built once, run to its end, and what came of it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

/// The binary, built once for the whole test run with the profile of the tests.
#[must_use]
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(build)
}

fn build() -> PathBuf {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "-p", "swarmkv", "--message-format=json"]);
    // What the outer cargo tells this test of its own package would have build scripts run again that look
    // at it, and all that depends on them built anew, each time.
    let told = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in std::env::vars().filter(|(name, _)| told(name)) {
        cargo.env_remove(name);
    }
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let built = cargo.stderr(Stdio::inherit()).output().expect("cargo runs");
    let messages = String::from_utf8(built.stdout).expect("cargo writes text");
    let executable = |line: &str| {
        let message: Value = serde_json::from_str(line).ok()?;
        let ours = message["target"]["name"] == "swarmkv" && message["target"]["kind"][0] == "bin";
        ours.then(|| message["executable"].as_str().map(PathBuf::from))?
    };
    messages.lines().find_map(executable).expect("cargo build names the binary")
}

/// What a run of the binary came to.
#[derive(Debug)]
pub struct Ran {
    /// Its exit code; -1 when a signal ended it.
    pub code: i32,
    /// Its standard output.
    pub out: Vec<u8>,
    /// Its standard error.
    pub err: String,
}

impl Ran {
    /// Standard output as text, without the last newline.
    #[must_use]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.out).expect("standard output is text").trim_end_matches('\n')
    }

    /// Standard output as one JSON object.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.out).expect("standard output is one JSON object")
    }

    /// Standard output as one JSON object a line.
    #[must_use]
    pub fn json_lines(&self) -> Vec<Value> {
        let object = |line| serde_json::from_str(line).expect("each line is a JSON object");
        self.text().lines().map(object).collect()
    }

    /// Demands success.
    #[track_caller]
    #[must_use]
    pub fn well(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }

    /// Demands a failure with this exit code and these words on standard error.
    #[track_caller]
    pub fn fails(self, code: i32, words: &str) {
        assert!(
            self.code == code && self.err.contains(words),
            "wanted {code}, {words:?}: {self:?}"
        );
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: output.stdout,
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Sends a signal to a process that the caller started.
pub fn signal(name: &str, pid: u32) {
    let kill = Command::new("kill").args([format!("-{name}"), pid.to_string()]).status();
    assert!(kill.expect("kill runs").success(), "no process {pid} to signal");
}
