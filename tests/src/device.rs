//! One device: a data directory of its own, the peer on it once it is up, and the commands on it.
//! A peer is killed by its own process id when its device is dropped, also by a failing test.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use serde_json::Value;
use tempfile::TempDir;

use crate::binary::{Ran, binary, signal};
use crate::wait::until;

/// Options of `up` that keep a peer on loopback, at a free port.
pub const LOOPBACK: &[&str] = &["--no-mdns", "--listen", "/ip4/127.0.0.1/tcp/0"];

/// What stands before the program's name, so that it runs on another host.
type Launcher = Vec<OsString>;

/// One of a key's undominated writes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sibling {
    /// Its value; `None`: a delete.
    pub value: Option<String>,
    /// Label of the device that wrote it.
    pub author: String,
}

/// A device.
#[derive(Debug)]
pub struct Device {
    home: Arc<TempDir>,
    dir: PathBuf,
    label: String,
    launcher: Launcher,
    options: Vec<String>,
    peer: Option<Child>,
}

impl Device {
    /// A device that belongs to no swarm, on loopback at a port that changes with each start.
    #[must_use]
    pub fn new(label: &str) -> Self {
        Self::below(label, "data")
    }

    /// One whose data directory lies at this path below a temporary one.
    #[must_use]
    pub fn below(label: &str, path: impl AsRef<Path>) -> Self {
        let home = tempfile::Builder::new().prefix("swarmkv-e2e-").tempdir();
        let home = Arc::new(home.expect("a temporary directory can be made"));
        let dir = home.path().join(path);
        let options = LOOPBACK.iter().map(|&option| option.to_owned()).collect();
        let (label, launcher) = (label.to_owned(), Launcher::new());
        Self { home, dir, label, launcher, options, peer: None }
    }

    /// The same, at a port that stays when the peer starts again.
    #[must_use]
    pub fn at_a_fixed_port(label: &str) -> Self {
        let listen = format!("/ip4/127.0.0.1/tcp/{}", free_port());
        Self::new(label).options(&["--no-mdns", "--listen", &listen])
    }

    /// Replaces the options of `up`.
    #[must_use]
    pub fn options(mut self, options: &[&str]) -> Self {
        self.options = options.iter().map(|&option| option.to_owned()).collect();
        self
    }

    /// Runs everything on this device behind these words, as in `ip netns exec HOST`.
    #[must_use]
    pub fn launched_by<S: AsRef<OsStr>>(mut self, words: &[S]) -> Self {
        self.launcher = words.iter().map(|word| word.as_ref().to_owned()).collect();
        self
    }

    /// Founds a swarm and goes up.
    #[must_use]
    pub fn founded(mut self) -> Self {
        let _ = self.run(["init", "--name", "home", "--label", &self.label]).well();
        self.up();
        self
    }

    /// Joins on a fresh ticket of `inviter`, made with these options, and stays down.
    #[must_use]
    pub fn admitted_by(self, inviter: &Self, options: &[&str]) -> Self {
        let _ = self.join(&inviter.invite(options)).well();
        self
    }

    /// A device whose data directory is a copy of this one's. No peer may be running.
    #[must_use]
    pub fn copied(&self, label: &str) -> Self {
        assert!(self.peer.is_none(), "only a stopped peer's directory is copied");
        let dir = self.home.path().join(label);
        let copy = Command::new("cp").arg("-r").args([&self.dir, &dir]).status();
        assert!(copy.expect("cp runs").success());
        let (home, launcher) = (Arc::clone(&self.home), self.launcher.clone());
        let (label, options) = (label.to_owned(), self.options.clone());
        Self { home, dir, label, launcher, options, peer: None }
    }

    /// The data directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The binary on this directory, ready to run, with nothing of this machine's environment.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut words = self.launcher.iter().map(OsString::as_os_str);
        let mut command = match words.next() {
            Some(first) => {
                let mut command = Command::new(first);
                command.args(words).arg(binary());
                command
            }
            None => Command::new(binary()),
        };
        command.args(args).env_clear().env("SWARMKV_DATA_DIR", &self.dir);
        command.env("HOME", self.home.path()).env("TMPDIR", self.home.path());
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

    // ---- the peer -----------------------------------------------------------------------------

    /// Starts the peer and waits until it answers and listens.
    #[track_caller]
    pub fn up(&mut self) {
        self.up_with(&[]);
    }

    /// The same, with more options.
    #[track_caller]
    pub fn up_with(&mut self, more: &[&str]) {
        self.start(more);
        self.answers();
    }

    /// Waits until the peer answers and listens.
    #[track_caller]
    pub fn answers(&mut self) {
        until("the peer answers and listens", || {
            let ended = self.peer.as_mut().and_then(|peer| peer.try_wait().ok().flatten());
            assert!(ended.is_none(), "the peer of {} ended: {ended:?}", self.label);
            let status = self.run(["status", "--json"]);
            status.code == 0 && status.json()["listen"].as_array().is_some_and(|l| !l.is_empty())
        });
    }

    /// Starts the peer and does not wait.
    pub fn start(&mut self, more: &[&str]) {
        assert!(self.peer.is_none(), "{} is up already", self.label);
        let options = self.options.iter().map(String::as_str).chain(more.iter().copied());
        let mut command = self.command(["up", "--quiet"].into_iter().chain(options));
        let peer = command.stdout(Stdio::null()).stderr(Stdio::inherit()).spawn();
        self.peer = Some(peer.expect("the binary runs"));
    }

    /// The peer's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.peer.as_ref().expect("the peer runs").id()
    }

    /// Kills the peer, as a power cut would: it has no say in it.
    pub fn kill(&mut self) {
        let mut peer = self.peer.take().expect("the peer runs");
        peer.kill().expect("the peer can be killed");
        peer.wait().expect("the peer ends");
    }

    /// Takes leave of a peer that the caller has killed.
    pub fn reap(&mut self) {
        let mut peer = self.peer.take().expect("the peer ran");
        peer.wait().expect("the peer ends");
    }

    /// Asks the peer to stop; its exit code.
    pub fn stop(&mut self) -> Option<i32> {
        let mut peer = self.peer.take().expect("the peer runs");
        signal("TERM", peer.id());
        peer.wait().expect("the peer ends").code()
    }

    /// The largest memory that the peer has had resident, in kilobytes.
    #[must_use]
    pub fn peak_memory_kb(&self) -> u64 {
        let path = format!("/proc/{}/status", self.pid());
        let status = std::fs::read_to_string(path).expect("the system tells of the peer");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.and_then(|text| text.trim().trim_end_matches(" kB").parse().ok());
        peak.expect("the system tells of the peer's memory")
    }

    // ---- what it says -------------------------------------------------------------------------

    /// What `status --json` says.
    #[track_caller]
    #[must_use]
    pub fn status(&self) -> Value {
        self.run(["status", "--json"]).well().json()
    }

    /// This device's id.
    #[track_caller]
    #[must_use]
    pub fn id(&self) -> String {
        self.status()["device_id"].as_str().expect("a device id").to_owned()
    }

    /// A hash of everything the replica has.
    #[track_caller]
    #[must_use]
    pub fn state(&self) -> String {
        self.status()["state"].as_str().expect("a state").to_owned()
    }

    /// One of the counters of `status --json`.
    #[track_caller]
    #[must_use]
    pub fn counter(&self, name: &str) -> u64 {
        self.status()["counters"][name].as_u64().expect("a counter")
    }

    /// The first address that the peer listens on over this transport: `tcp` or `udp`.
    #[track_caller]
    #[must_use]
    pub fn address(&self, transport: &str) -> String {
        let part = format!("/{transport}/");
        let status = self.status();
        let mut addrs = status["listen"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let addr = addrs.find(|addr| addr.contains(&part) && !addr.contains("/127."));
        let mut all = status["listen"].as_array().into_iter().flatten().filter_map(Value::as_str);
        addr.or_else(|| all.find(|addr| addr.contains(&part))).expect("an address").to_owned()
    }

    /// What `peers --json` says of each other member.
    #[track_caller]
    #[must_use]
    pub fn peers(&self) -> Vec<Value> {
        self.run(["peers", "--json"]).well().json_lines()
    }

    /// What `peers --json` says of one other member.
    #[track_caller]
    #[must_use]
    pub fn peer(&self, label: &str) -> Option<Value> {
        self.peers().into_iter().find(|peer| peer["device"] == label)
    }

    /// Ids of the members that the peer is connected to.
    #[track_caller]
    #[must_use]
    pub fn linked(&self) -> Vec<String> {
        let peers = self.peers().into_iter().filter(|peer| peer["connected"] == true);
        peers.filter_map(|peer| peer["device_id"].as_str().map(str::to_owned)).collect()
    }

    // ---- what it does -------------------------------------------------------------------------

    /// A ticket, made with these options.
    #[track_caller]
    #[must_use]
    pub fn invite(&self, options: &[&str]) -> String {
        let args = ["invite", "--quiet"].into_iter().chain(options.iter().copied());
        self.run(args).well().text().to_owned()
    }

    /// Joins on a ticket.
    pub fn join(&self, ticket: &str) -> Ran {
        self.run(["join", "--timeout", "30s", "--label", &self.label, ticket])
    }

    /// Writes; the version that names the write.
    #[track_caller]
    pub fn put(&self, key: &str, value: &str) -> String {
        self.run(["put", "--print-version", key, value]).well().text().to_owned()
    }

    /// Deletes.
    #[track_caller]
    pub fn del(&self, keys: &[&str]) {
        let _ = self.run(["del"].iter().chain(keys)).well();
    }

    /// Reads; `None` where the key shows nothing.
    #[track_caller]
    #[must_use]
    pub fn get(&self, key: &str) -> Option<String> {
        let ran = self.run(["get", "--quiet", key]);
        if ran.code == 3 { None } else { Some(ran.well().text().to_owned()) }
    }

    /// Waits until this write has arrived, then reads.
    #[track_caller]
    #[must_use]
    pub fn get_at_least(&self, key: &str, version: &str) -> String {
        let args = ["get", "--quiet", "--at-least", version, "--timeout", "60s", key];
        self.run(args).well().text().to_owned()
    }

    /// All undominated writes on a key, the shown one first.
    #[track_caller]
    #[must_use]
    pub fn siblings(&self, key: &str) -> Vec<Sibling> {
        let got = self.run(["get", "--siblings", "--json", key]).well().json();
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let sibling = |one: &Value| Sibling {
            value: text(&one["value"]),
            author: text(&one["author"]).expect("an author"),
        };
        got["siblings"].as_array().into_iter().flatten().map(sibling).collect()
    }

    /// Every key with its value, as JSON lines.
    #[track_caller]
    #[must_use]
    pub fn export(&self) -> Vec<u8> {
        self.run(["ls", "--json", "--timeout", "60s"]).well().out
    }

    /// Writes lines of JSON.
    #[track_caller]
    pub fn import(&self, lines: &str) {
        let _ = self.feed(["import", "--timeout", "60s", "-"], lines.as_bytes()).well();
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

/// A port on loopback that nobody listens on, out of the range from which the system draws the ports
/// of outgoing connections, so that none takes it while its peer is down.
#[must_use]
pub fn free_port() -> u16 {
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 12_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() * 97 % u32::from(COUNT)).expect("below COUNT");
    let candidates = std::iter::repeat_with(|| {
        FIRST + (start + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT
    });
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    candidates.take(usize::from(COUNT)).find(free).expect("a port is free")
}
