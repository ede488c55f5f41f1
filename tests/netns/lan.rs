//! Hosts, bridges and routers made of network namespaces and veth pairs; all removed when dropped, and
//! what an earlier run that was killed left behind is removed at the start.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};

use swarmkv_tests::Device;

/// Names begin with this; what follows is the process that made them and a number.
const PREFIX: &str = "skv";
const PLACES: [&str; 4] = ["/usr/sbin/ip", "/sbin/ip", "/usr/bin/ip", "/bin/ip"];

/// A network of namespaces. They share nothing with this machine's own network.
pub struct Lan {
    number: u32,
    namespaces: Mutex<Vec<String>>,
}

/// Makes a network, or says on standard error why this machine cannot. In CI that is a failure.
pub fn lan() -> Option<Lan> {
    static ALLOWED: OnceLock<Result<(), String>> = OnceLock::new();
    static NEXT: AtomicU32 = AtomicU32::new(0);
    match ALLOWED.get_or_init(|| try_out().inspect(|()| remove_stale())) {
        Ok(()) => {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            Some(Lan { number, namespaces: Mutex::default() })
        }
        Err(why) => {
            let ci = std::env::var_os("CI").is_some_and(|ci| !ci.is_empty() && ci != "false");
            assert!(!ci, "network namespaces cannot be used, and CI must not skip: {why}");
            eprintln!("SKIPPED: network namespaces cannot be used on this machine: {why}");
            None
        }
    }
}

/// Everything that the tests need of the machine, once.
fn try_out() -> Result<(), String> {
    let name = format!("{PREFIX}{}-try", std::process::id());
    ip(&["netns", "add", &name])?;
    let tried = ip(&["-n", &name, "link", "add", "v0", "type", "veth", "peer", "name", "v1"])
        .and_then(|_| ip(&["-n", &name, "link", "add", "b0", "type", "bridge"]))
        .and_then(|_| ip(&["netns", "exec", &name, binary_of_ip(), "link"]));
    ip(&["netns", "del", &name])?;
    tried.map(drop)
}

/// Removes the namespaces of processes that are gone. Interfaces go with them.
fn remove_stale() {
    let Ok(list) = ip(&["netns", "list"]) else { return };
    for name in list.lines().filter_map(|line| line.split_whitespace().next()) {
        let number = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if let Some(number) = number.filter(|n| n.parse::<u32>().is_ok())
            && !Path::new("/proc").join(number).exists()
        {
            let _ = ip(&["netns", "del", name]);
        }
    }
}

fn binary_of_ip() -> &'static str {
    PLACES.into_iter().find(|place| Path::new(place).exists()).unwrap_or("ip")
}

fn ip(args: &[&str]) -> Result<String, String> {
    let ran = Command::new(binary_of_ip()).args(args).output();
    let Output { status, stdout, stderr } = ran.map_err(|e| format!("ip (iproute2): {e}"))?;
    if status.success() {
        Ok(String::from_utf8_lossy(&stdout).into_owned())
    } else {
        Err(format!("ip {}: {}", args.join(" "), String::from_utf8_lossy(&stderr).trim()))
    }
}

#[track_caller]
fn must(args: &[&str]) -> String {
    ip(args).unwrap_or_else(|why| panic!("{why}"))
}

impl Lan {
    /// A namespace with nothing but loopback.
    pub fn host(&self, name: &str) -> Host {
        let namespace = format!("{PREFIX}{}-{}-{name}", std::process::id(), self.number);
        must(&["netns", "add", &namespace]);
        self.namespaces.lock().expect("nobody panicked").push(namespace.clone());
        must(&["-n", &namespace, "link", "set", "lo", "up"]);
        Host { namespace }
    }

    /// A switch: a namespace with a bridge.
    pub fn switch(&self, name: &str) -> Switch {
        let host = self.host(name);
        must(&[
            "-n",
            &host.namespace,
            "link",
            "add",
            "br0",
            "type",
            "bridge",
            "mcast_snooping",
            "0",
        ]);
        must(&["-n", &host.namespace, "link", "set", "br0", "up"]);
        Switch { namespace: host.namespace }
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        let namespaces = self.namespaces.lock().map(|all| all.clone()).unwrap_or_default();
        for namespace in namespaces {
            if let Err(why) = ip(&["netns", "del", &namespace]) {
                eprintln!("a namespace stays behind: {why}");
            }
        }
    }
}

/// The name of the switch's end of the cable to the machine at this address: 15 letters at most.
fn port(address: &str) -> String {
    address.chars().map(|c| if c == '/' { '-' } else { c }).take(15).collect()
}

/// A machine.
pub struct Host {
    namespace: String,
}

impl Host {
    /// A device on this machine that runs `up` with its defaults.
    pub fn device(&self, label: &str) -> Device {
        let words = [binary_of_ip(), "netns", "exec", &self.namespace];
        Device::new(label).options(&[]).launched_by(&words)
    }

    /// The same, run behind these words.
    pub fn device_behind(&self, label: &str, words: &[String]) -> Device {
        let mut all: Vec<String> =
            [binary_of_ip(), "netns", "exec", &self.namespace].map(str::to_owned).into();
        all.extend_from_slice(words);
        Device::new(label).options(&[]).launched_by(&all)
    }

    /// Lets no more than this rate leave the machine (`1024kbit`: 128 kB/s).
    pub fn shape(&self, name: &str, rate: &str) {
        let words = ["tc", "qdisc", "add", "dev", name, "root", "tbf", "rate", rate];
        let mut all = vec!["netns", "exec", &self.namespace];
        all.extend(words);
        all.extend(["burst", "32kbit", "latency", "400ms"]);
        must(&all);
    }

    /// Plugs this machine into a switch, at this address (`10.0.0.1/24`), as interface `name`.
    pub fn plug(&self, name: &str, switch: &Switch, address: &str) {
        let port = port(address);
        let (here, there) = (&self.namespace, &switch.namespace);
        must(&[
            "-n", here, "link", "add", name, "type", "veth", "peer", "name", &port, "netns", there,
        ]);
        must(&["-n", there, "link", "set", &port, "master", "br0", "up"]);
        must(&["-n", here, "addr", "add", address, "dev", name]);
        must(&["-n", here, "link", "set", name, "up"]);
    }

    /// Sends what is for elsewhere to this router.
    pub fn default_route(&self, router: &str) {
        must(&["-n", &self.namespace, "route", "add", "default", "via", router]);
    }

    /// Passes on packets that are for others.
    pub fn forward(&self) {
        self.set("net/ipv4/ip_forward", "1");
    }

    /// Has no IPv6, as some machines do.
    pub fn without_ipv6(&self) {
        self.set("net/ipv6/conf/all/disable_ipv6", "1");
    }

    fn set(&self, name: &str, value: &str) {
        let path = format!("/proc/sys/{name}");
        if !fs::exists(&path).unwrap_or(false) {
            return;
        }
        let line = format!("echo {value} > {path}");
        must(&["netns", "exec", &self.namespace, "/bin/sh", "-c", &line]);
    }
}

/// A switch that machines are plugged into.
pub struct Switch {
    namespace: String,
}

impl Switch {
    /// Cuts (or mends) the cable of the machine at this address.
    pub fn cable(&self, address: &str, whole: bool) {
        let port = port(address);
        let state = if whole { "up" } else { "down" };
        must(&["-n", &self.namespace, "link", "set", &port, state]);
    }
}
