//! Prints what swarmkv does on this machine, with the real program and two peers on it: discovery,
//! latency, catch-up, rest. Run it in release: `cargo run --release -p swarmkv-tests --bin figures`.
//!
//! It moves into a network namespace of its own first, so that the bytes on `lo` are the peers' alone.
//! It prints figures and asserts nothing about speed.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use swarmkv_node::api::Client;
use swarmkv_node::api::wire::{Data, GetRequest, Status, WriteOp, WriteRequest};

type Failure = Box<dyn std::error::Error>;

const INSIDE: &str = "SWARMKV_FIGURES_INSIDE";
const ADDRESS: &str = "10.99.0.1";
const VALUE: usize = 256;

fn main() -> Result<(), Failure> {
    if std::env::var_os(INSIDE).is_none() {
        let script = format!(
            "ip link set lo up && ip link set lo multicast on && \
             ip addr add {ADDRESS}/32 dev lo && exec \"$0\" \"$@\""
        );
        let mut inside = Command::new("unshare");
        inside.args(["-Urn", "sh", "-c", &script]);
        inside.arg(std::env::current_exe()?).args(std::env::args_os().skip(1));
        return Err(inside.env(INSIDE, "1").exec().into());
    }
    let keys = std::env::args().nth(1).map_or(Ok(100_000), |n| n.parse())?;
    tokio::runtime::Runtime::new()?.block_on(measure(keys))
}

/// A running `swarmkv up`, killed when dropped.
struct Peer {
    child: Child,
    dir: PathBuf,
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn binary() -> Result<PathBuf, Failure> {
    let here = std::env::current_exe()?;
    let path = here.with_file_name("swarmkv");
    if path.is_file() {
        Ok(path)
    } else {
        Err("build the program first: cargo build --release -p swarmkv".into())
    }
}

fn run(dir: &Path, args: &[&str]) -> Result<String, Failure> {
    let out = Command::new(binary()?).arg("--data-dir").arg(dir).args(args).output()?;
    if out.status.success() {
        Ok(String::from_utf8(out.stdout)?.trim().to_owned())
    } else {
        Err(format!("{args:?}: {}", String::from_utf8_lossy(&out.stderr)).into())
    }
}

impl Peer {
    fn up(dir: &Path) -> Result<Self, Failure> {
        Self::up_with(dir, &[])
    }

    fn up_with(dir: &Path, more: &[&str]) -> Result<Self, Failure> {
        let mut command = Command::new(binary()?);
        command.arg("--data-dir").arg(dir).args(["up", "--quiet"]).args(more);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        Ok(Self { child, dir: dir.to_owned() })
    }

    async fn client(&self) -> Client {
        loop {
            if let Ok(client) = Client::connect(&self.dir).await {
                return client;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn until(&self, wanted: impl Fn(&Status) -> bool) -> Result<Status, Failure> {
        let mut client = self.client().await;
        loop {
            let status = client.status().await?;
            if wanted(&status) {
                return Ok(status);
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Resident and peak memory in MB.
    fn memory(&self) -> Result<(f64, f64), Failure> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let field = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            line.split_whitespace().nth(1)?.parse::<f64>().ok()
        };
        Ok((field("VmRSS").unwrap_or(0.0) / 1024.0, field("VmHWM").unwrap_or(0.0) / 1024.0))
    }

    /// Processor time in seconds.
    fn cpu(&self) -> Result<f64, Failure> {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let after = text.rsplit(')').next().unwrap_or_default();
        let fields: Vec<&str> = after.split_whitespace().collect();
        let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
        Ok((ticks(11) + ticks(12)) / 100.0)
    }
}

/// Bytes that went over `lo`, headers counted.
fn wire() -> Result<u64, Failure> {
    let text = std::fs::read_to_string("/proc/self/net/dev")?;
    let line = text.lines().find(|line| line.trim_start().starts_with("lo:"));
    let bytes = line.and_then(|l| l.split_once(':')?.1.split_whitespace().next()?.parse().ok());
    Ok(bytes.unwrap_or(0))
}

fn percentile(sorted: &[Duration], p: f64) -> Duration {
    let last = sorted.len().saturating_sub(1);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
    #[expect(clippy::cast_precision_loss, reason = "few samples")]
    let at = (last as f64 * p).round() as usize;
    sorted.get(at).copied().unwrap_or_default()
}

fn key(i: u64) -> Vec<u8> {
    // Scattered over the key space, 24 bytes.
    let mixed = i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("{mixed:016x}{i:08x}").into_bytes()
}

fn put(i: u64, version: u8) -> WriteOp {
    let mut value = vec![b'a' + version; VALUE];
    value[..8].copy_from_slice(&i.to_be_bytes());
    WriteOp {
        key: Data(key(i)),
        value: Some(Data(value)),
        expires_at: None,
        if_absent: false,
        if_version: None,
    }
}

async fn measure(keys: u64) -> Result<(), Failure> {
    let base = tempfile::tempdir()?;
    let dirs = ["a", "b", "c"].map(|name| base.path().join(name));
    println!(
        "binary                      {:.1} MB",
        std::fs::metadata(binary()?)?.len() as f64 / 1e6
    );
    disk(base.path())?;
    run(&dirs[0], &["init", "--name", "figures", "--label", "a"])?;
    let a = Peer::up(&dirs[0])?;
    a.until(|status| !status.listen.is_empty()).await?;
    let ticket = run(&dirs[0], &["invite"])?;
    run(&dirs[1], &["join", &ticket, "--label", "b"])?;
    let b = Peer::up(&dirs[1])?;
    b.until(|status| status.peers.len() == 1 && status.caught_up).await?;

    latency(&a, &b, "lone").await?;
    drop((a, b));
    discovery(&dirs).await?;
    let a = Peer::up(&dirs[0])?;
    a.until(|status| !status.listen.is_empty()).await?;
    load(&a, keys).await?;
    let ticket = run(&dirs[0], &["invite"])?;
    run(&dirs[2], &["join", &ticket, "--label", "c"])?;
    let c = catch_up(&a, &dirs[2], keys).await?;
    latency(&a, &c, &format!("over {keys} keys")).await?;
    rest(&a, &c).await?;
    drop(c);
    start(&dirs[2], keys).await?;
    differences(&a, &dirs[2], keys).await
}

/// From `up` to a connection that only multicast DNS can have brought: both listen on new ports.
async fn discovery(dirs: &[PathBuf; 3]) -> Result<(), Failure> {
    let mut times = Vec::new();
    for round in 0..5 {
        let listen = [0, 1].map(|side| format!("/ip4/0.0.0.0/tcp/{}", 4101 + 2 * round + side));
        let a = Peer::up_with(&dirs[0], &["--listen", &listen[0]])?;
        a.until(|status| !status.listen.is_empty()).await?;
        let began = Instant::now();
        let b = Peer::up_with(&dirs[1], &["--listen", &listen[1]])?;
        let status = b.until(|status| status.peers.len() == 1).await?;
        times.push(began.elapsed());
        // Whoever did not dial calls the connection direct.
        let other = a.until(|status| status.peers.len() == 1).await?;
        let by_mdns = |status: &Status| status.peers[0].source.as_deref() == Some("mdns");
        if !by_mdns(&status) && !by_mdns(&other) {
            println!("note: a peer was found, but not by mDNS");
        }
    }
    times.sort_unstable();
    println!(
        "up → connected by mDNS      {:.0} ms (min {:.0}, max {:.0}, 5 runs)",
        ms(percentile(&times, 0.5)),
        ms(times[0]),
        ms(times[4])
    );
    Ok(())
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The machine's own limit, to hold the rest against: append 256 bytes and fdatasync.
fn disk(dir: &Path) -> Result<(), Failure> {
    use std::io::Write;
    let mut file = std::fs::File::create(dir.join("limit"))?;
    let mut times = Vec::new();
    for _ in 0..500 {
        let began = Instant::now();
        file.write_all(&[7; VALUE])?;
        file.sync_data()?;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    println!(
        "bare append + fdatasync     p50 {:.2} ms, p99 {:.2} ms",
        ms(percentile(&times, 0.5)),
        ms(percentile(&times, 0.99))
    );
    Ok(())
}

/// 1,000 puts on A at 100 a second, each until a get on the other side shows it; both on disk.
async fn latency(a: &Peer, b: &Peer, what: &str) -> Result<(), Failure> {
    let (mut on_a, mut on_b) = (a.client().await, b.client().await);
    let (mut acked, mut visible) = (Vec::new(), Vec::new());
    let (bytes, cpu) = (wire()?, a.cpu()? + b.cpu()?);
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    for i in 0..1_000 {
        ticks.tick().await;
        let began = Instant::now();
        let answer = on_a.write(&WriteRequest { ops: vec![put(1 << 40 | i, 0)] }).await?;
        acked.push(began.elapsed());
        let at_least = answer.versions.first().cloned();
        let request = GetRequest { key: Data(key(1 << 40 | i)), at_least, timeout_ms: 10_000 };
        if on_b.get(&request).await?.value.is_none() {
            return Err("a value that arrived is not shown".into());
        }
        visible.push(began.elapsed());
    }
    acked.sort_unstable();
    visible.sort_unstable();
    println!(
        "put → on A's disk, {what:<9} p50 {:.2} ms, p99 {:.2} ms",
        ms(percentile(&acked, 0.5)),
        ms(percentile(&acked, 0.99))
    );
    println!(
        "put → visible on B          p50 {:.2} ms, p99 {:.2} ms; {} wire bytes and {:.2} ms of CPU a put",
        ms(percentile(&visible, 0.5)),
        ms(percentile(&visible, 0.99)),
        (wire()? - bytes) / 1_000,
        (a.cpu()? + b.cpu()? - cpu)
    );
    Ok(())
}

async fn load(a: &Peer, keys: u64) -> Result<(), Failure> {
    let began = Instant::now();
    let mut clients = Vec::new();
    for part in 0..4 {
        let mut client = a.client().await;
        clients.push(tokio::spawn(async move {
            let mine: Vec<u64> = (0..keys).filter(|i| i % 4 == part).collect();
            for chunk in mine.chunks(128) {
                let ops = chunk.iter().map(|i| put(*i, 1)).collect();
                client.write(&WriteRequest { ops }).await.map_err(|e| e.to_string())?;
            }
            Ok::<(), String>(())
        }));
    }
    for client in clients {
        client.await??;
    }
    let rate = keys as f64 / began.elapsed().as_secs_f64();
    println!("durable writes              {rate:.0} keys/s (4 clients, 128 keys a transaction)");
    Ok(())
}

async fn catch_up(a: &Peer, dir: &Path, keys: u64) -> Result<Peer, Failure> {
    let (bytes, began) = (wire()?, Instant::now());
    let c = Peer::up(dir)?;
    let status = c.until(|status| status.caught_up).await?;
    let took = began.elapsed();
    let (got, wanted) = (status.slots, a.until(|_| true).await?.slots);
    if got != wanted {
        return Err(format!("whole with {got} of {wanted} slots").into());
    }
    println!(
        "catch-up of {keys} keys     {:.0} keys/s ({:.2} s from `up`), {:.0} wire bytes/key",
        got as f64 / took.as_secs_f64(),
        took.as_secs_f64(),
        (wire()? - bytes) as f64 / got as f64
    );
    let ((_, peak_a), (_, peak_c)) = (a.memory()?, c.memory()?);
    println!(
        "peak memory                 {peak_a:.0} MB at the source, {peak_c:.0} MB at the newcomer"
    );
    println!("store of the newcomer       {:.1} MB", status_disk(&c).await?);
    Ok(c)
}

async fn status_disk(peer: &Peer) -> Result<f64, Failure> {
    Ok(peer.until(|_| true).await?.disk_bytes as f64 / 1e6)
}

/// Two connected peers that have nothing to do.
async fn rest(a: &Peer, c: &Peer) -> Result<(), Failure> {
    tokio::time::sleep(Duration::from_secs(10)).await;
    let (bytes, cpu, began) = (wire()?, (a.cpu()?, c.cpu()?), Instant::now());
    tokio::time::sleep(Duration::from_secs(30)).await;
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "idle                        {:.2} % and {:.2} % CPU, {:.0} wire bytes/s, {:.0} MB and {:.0} MB",
        (a.cpu()? - cpu.0) / seconds * 100.0,
        (c.cpu()? - cpu.1) / seconds * 100.0,
        (wire()? - bytes) as f64 / seconds,
        a.memory()?.0,
        c.memory()?.0
    );
    Ok(())
}

/// A peer that was away while so many keys changed: from its start until both are equal. What two
/// equal peers exchange from start to rest is taken off.
async fn differences(a: &Peer, dir: &Path, keys: u64) -> Result<(), Failure> {
    let mut set_up = 0;
    for changed in [0_u64, 10, 1_000] {
        let mut client = a.client().await;
        for chunk in (0..changed).collect::<Vec<_>>().chunks(10) {
            let ops = chunk.iter().map(|i| put(i * (keys / changed), 2)).collect();
            client.write(&WriteRequest { ops }).await?;
        }
        let (bytes, began) = (wire()?, Instant::now());
        let wanted = a.until(|_| true).await?.state;
        let c = Peer::up(dir)?;
        let connected = c.until(|status| status.peers.iter().any(|peer| peer.connected)).await;
        connected?;
        let met = Instant::now();
        let status = c.until(|status| status.state == wanted).await?;
        let (took, since) = (began.elapsed(), met.elapsed());
        // The other side finds out in a session of its own.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let bytes = wire()? - bytes;
        if changed == 0 {
            set_up = bytes;
        }
        println!(
            "{changed:>5} of {keys} differ        {:.0} ms from `up`, {:.0} ms from connected; {} wire bytes, \
             {} beyond set-up; {} slots, {} sessions",
            ms(took),
            ms(since),
            bytes,
            bytes.saturating_sub(set_up),
            status.counters.slots_received,
            status.counters.repairs + status.counters.gap_repairs
        );
    }
    Ok(())
}

/// From starting the program to the first value read, after kill -9.
async fn start(dir: &Path, keys: u64) -> Result<(), Failure> {
    let began = Instant::now();
    let c = Peer::up(dir)?;
    let mut client = c.client().await;
    let request = GetRequest { key: Data(key(keys / 2)), ..GetRequest::default() };
    let found = client.get(&request).await?.value.is_some();
    println!(
        "start → first get           {:.0} ms after kill -9 (found: {found})",
        ms(began.elapsed())
    );
    Ok(())
}
