//! Runs the real binary, with a data directory of its own and nothing of this machine's environment.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Longest wait for a peer to start or stop.
const PATIENCE: Duration = Duration::from_secs(20);

/// The binary, built once for the whole test run.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(build)
}

fn build() -> PathBuf {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "-p", "swarmkv", "--message-format=json"]);
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
    pub code: i32,
    pub out: Vec<u8>,
    pub err: String,
}

impl Ran {
    /// Standard output as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.out).expect("text")
    }

    /// Standard output as one JSON object.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.out).expect("one JSON object on standard output")
    }

    /// Demands success and silence on standard error.
    #[track_caller]
    pub fn quietly(self) -> Self {
        assert_eq!((self.code, self.err.as_str()), (0, ""), "{self:?}");
        self
    }

    /// Demands success.
    #[track_caller]
    pub fn well(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }

    /// Code, standard output and standard error as a snapshot shows them, `dir` named DIR.
    pub fn shown(&self, dir: &Path) -> String {
        let text = format!(
            "exit code: {}\n--- standard output\n{}--- standard error\n{}",
            self.code,
            String::from_utf8_lossy(&self.out),
            self.err
        );
        text.replace(dir.to_str().expect("a path of text"), "DIR")
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

/// A data directory, and the peer on it once it is up.
pub struct Device {
    _home: TempDir,
    dir: PathBuf,
    peer: Option<Child>,
}

impl Device {
    /// A directory with nothing in it.
    pub fn new() -> Self {
        Self::below("data")
    }

    /// A directory at a path of its own below a temporary one.
    pub fn below(path: impl AsRef<Path>) -> Self {
        let home = tempfile::Builder::new().prefix("swarmkv-cli-").tempdir().expect("a directory");
        let dir = home.path().join(path);
        Self { _home: home, dir, peer: None }
    }

    /// One that founded a swarm and is up.
    pub fn founded() -> Self {
        let mut device = Self::new();
        device.run(["init", "--name", "home", "--label", "laptop"]).well();
        device.up();
        device
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The binary on this directory, ready to run.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(binary());
        command.args(args).env_clear().env("SWARMKV_DATA_DIR", &self.dir).env("HOME", "/nowhere");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs it to its end.
    pub fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Ran {
        self.command(args).output().expect("the binary runs").into()
    }

    /// Runs it to its end with something on standard input.
    pub fn feed<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>, input: &[u8]) -> Ran {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn().expect("the binary runs");
        let mut stdin = child.stdin.take().expect("standard input is piped");
        let input = input.to_vec();
        let feeder = std::thread::spawn(move || {
            let _ = stdin.write_all(&input);
        });
        let output = child.wait_with_output().expect("the binary ends");
        feeder.join().expect("the feeder ends");
        output.into()
    }

    /// Starts the peer on loopback and waits until it answers.
    pub fn up(&mut self) {
        let args = ["up", "--quiet", "--no-mdns", "--listen", "/ip4/127.0.0.1/tcp/0"];
        let peer = self.command(args).stdout(Stdio::null()).stderr(Stdio::inherit()).spawn();
        self.peer = Some(peer.expect("the binary runs"));
        let end = Instant::now() + PATIENCE;
        while self.run(["status", "--json"]).code != 0 {
            assert!(Instant::now() < end, "the peer does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The peer's process id.
    pub fn pid(&self) -> u32 {
        self.peer.as_ref().expect("the peer runs").id()
    }

    /// Asks the peer to stop; answers its exit code.
    pub fn down(&mut self) -> Option<i32> {
        let mut peer = self.peer.take()?;
        signal("TERM", peer.id());
        peer.wait().expect("the peer ends").code()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if let Some(mut peer) = self.peer.take() {
            let _ = peer.kill();
            let _ = peer.wait();
        }
    }
}

/// Sends a signal to a process that this test started.
pub fn signal(name: &str, pid: u32) {
    let kill = Command::new("kill").args([format!("-{name}"), pid.to_string()]).status();
    assert!(kill.expect("kill runs").success());
}
