//! One swarmkv peer on 127.0.0.1, embedded: speaks the line protocol of `../run.py`.
//! `peer-swarmkv <role a|b> <dir> <value size>`
//!
//! Every write that is counted is on the writer's disk, every arrival on the receiver's disk.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bench_common::{dump, key, now_ns, read_command, say, value};
use swarmkv_node::api::wire::{InviteRequest, WriteOp};
use swarmkv_node::{Config, Handle, Node, Ticket};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Keys from 0 on that have arrived, in order, each with the moment when it was first seen.
#[derive(Default)]
struct Seen {
    log: Vec<(u64, u64)>,
    watched: bool,
}

struct Peer {
    role: String,
    dir: PathBuf,
    size: usize,
    node: Option<Node>,
    seen: Arc<Mutex<Seen>>,
}

impl Peer {
    async fn start(&mut self, dial: Vec<String>) -> Result<Handle, Failure> {
        if self.node.is_none() {
            let mut config = Config::new(&self.dir);
            config.listen = vec!["/ip4/127.0.0.1/tcp/0".into()];
            config.mdns = false;
            config.dial = dial;
            let node = Node::start(config).await?;
            tokio::spawn(watch(node.handle(), Arc::clone(&self.seen)));
            self.node = Some(node);
        }
        Ok(self.node.as_ref().ok_or("no node")?.handle())
    }

    async fn handle(&mut self) -> Result<Handle, Failure> {
        self.start(Vec::new()).await
    }

    async fn info(&mut self) -> Result<String, Failure> {
        let handle = self.handle().await?;
        let addrs = handle.wait_listening().await;
        let request = InviteRequest::writer(Duration::from_secs(3600));
        let ticket = handle.invite(request).await?.ticket;
        Ok(format!("{{\"join\":\"{ticket},{}\"}}", addrs[0]))
    }

    async fn connect(&mut self, join: &str) -> Result<String, Failure> {
        let (ticket, addr) = join.split_once(',').ok_or("no address")?;
        let t0 = now_ns();
        if !self.dir.join("device.key").exists() {
            let ticket = Ticket::parse(ticket)?;
            swarmkv_node::join(&self.dir, &ticket, "b", Duration::from_secs(10)).await?;
        }
        self.start(vec![addr.to_owned()]).await?;
        Ok(format!("{{\"t0\":{t0}}}"))
    }

    /// put START N MODE VERSION: `one` (each awaited), `batch` (so many clients, 64 unless said).
    async fn put(
        &mut self,
        start: u64,
        n: u64,
        mode: &str,
        version: u64,
    ) -> Result<String, Failure> {
        let handle = self.handle().await?;
        let clients = match mode.strip_prefix("batch") {
            Some(clients) => clients.parse().unwrap_or(64),
            None => 1,
        };
        let next = Arc::new(std::sync::atomic::AtomicU64::new(start));
        let t0 = now_ns();
        let mut tasks = Vec::new();
        for _ in 0..clients {
            let (handle, next, size) = (handle.clone(), Arc::clone(&next), self.size);
            tasks.push(tokio::spawn(async move {
                loop {
                    let i = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if i >= start + n {
                        break;
                    }
                    let (key, value) = (key(i), value(i, version, size));
                    while handle.put(key.as_bytes(), value.as_bytes()).await.is_err() {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                }
            }));
        }
        for task in tasks {
            task.await?;
        }
        Ok(format!("{{\"t0\":{t0},\"t1\":{},\"n\":{n}}}", now_ns()))
    }

    /// load START N PER VERSION: transactions of so many keys, one after another.
    async fn load(
        &mut self,
        start: u64,
        n: u64,
        per: u64,
        version: u64,
    ) -> Result<String, Failure> {
        let handle = self.handle().await?;
        let t0 = now_ns();
        let mut running = tokio::task::JoinSet::new();
        for from in (start..start + n).step_by(usize::try_from(per)?) {
            if running.len() >= 4 {
                running.join_next().await.transpose()?.transpose()?;
            }
            let (handle, size) = (handle.clone(), self.size);
            running.spawn(async move {
                let op = |i: u64| WriteOp {
                    key: key(i).into_bytes().into(),
                    value: Some(value(i, version, size).into_bytes().into()),
                    ..WriteOp::default()
                };
                handle.write((from..(from + per).min(start + n)).map(op).collect()).await
            });
        }
        while let Some(done) = running.join_next().await {
            done??;
        }
        Ok(format!("{{\"t0\":{t0},\"t1\":{},\"n\":{n}}}", now_ns()))
    }

    async fn paced(&mut self, c: &[String]) -> Result<String, Failure> {
        let num = |k: usize| c.get(k).and_then(|w| w.parse::<u64>().ok()).unwrap_or(0);
        let handle = self.handle().await?;
        let mut tick = tokio::time::interval(Duration::from_nanos(1_000_000_000 / num(3).max(1)));
        let (mut log, mut acks) = (Vec::new(), Vec::new());
        for i in num(1)..num(1) + num(2) {
            tick.tick().await;
            let (key, value) = (key(i), value(i, num(5), self.size));
            let t = now_ns();
            handle.put(key.as_bytes(), value.as_bytes()).await?;
            log.push((i, t));
            acks.push((i, now_ns()));
        }
        dump(&c[4], &log);
        dump(&format!("{}.ack", c[4]), &acks);
        Ok("{\"ok\":1}".into())
    }

    /// wait N TIMEOUT LAST VERSION: until key LAST shows that version.
    async fn wait(
        &mut self,
        n: u64,
        limit: u64,
        last: u64,
        version: u64,
    ) -> Result<String, Failure> {
        let handle = self.handle().await?;
        let wanted = value(last, version, self.size).into_bytes();
        let mut watch = handle.watch();
        let until = tokio::time::sleep(Duration::from_secs(limit));
        tokio::pin!(until);
        let t = loop {
            if handle.get(key(last).as_bytes()).ok().flatten().as_ref() == Some(&wanted) {
                break now_ns();
            }
            tokio::select! {
                _ = watch.changed() => {}
                () = &mut until => break 0,
            }
        };
        Ok(format!("{{\"t\":{t},\"count\":{}}}", if t > 0 { n } else { 0 }))
    }

    async fn gets(&mut self, start: u64, n: u64, threads: u64) -> Result<String, Failure> {
        let handle = self.handle().await?;
        let threads = threads.max(1);
        let t0 = now_ns();
        let tasks = (0..threads).map(|thread| {
            let handle = handle.clone();
            tokio::task::spawn_blocking(move || {
                let mine = (start..start + n).skip(usize::try_from(thread).unwrap_or(0));
                let mine = mine.step_by(usize::try_from(threads).unwrap_or(1));
                mine.filter(|i| matches!(handle.get(key(*i).as_bytes()), Ok(Some(_)))).count()
            })
        });
        let mut found = 0;
        for task in tasks.collect::<Vec<_>>() {
            found += task.await?;
        }
        Ok(format!("{{\"t0\":{t0},\"t1\":{},\"n\":{found}}}", now_ns()))
    }

    async fn answer(&mut self, c: &[String]) -> Result<String, Failure> {
        let arg = |k: usize| c.get(k).map_or("", String::as_str);
        let num = |k: usize| arg(k).parse::<u64>().unwrap_or(0);
        match arg(0) {
            "info" => self.info().await,
            "connect" => self.connect(arg(1)).await,
            "put" => self.put(num(1), num(2), arg(3), num(4)).await,
            "load" => self.load(num(1), num(2), num(3), num(4)).await,
            "paced" => self.paced(c).await,
            "wait" => self.wait(num(1), num(2), num(3), num(4)).await,
            "reset" => {
                *self.seen.lock().map_err(|e| e.to_string())? =
                    Seen { log: Vec::new(), watched: true };
                Ok("{\"ok\":1}".into())
            }
            "dump" => {
                dump(arg(1), &self.seen.lock().map_err(|e| e.to_string())?.log);
                Ok("{\"ok\":1}".into())
            }
            "get" => {
                let t0 = now_ns();
                let got = self.handle().await?.get(key(num(1)).as_bytes())?;
                let ok = got.as_deref() == Some(value(num(1), num(2), self.size).as_bytes());
                Ok(format!("{{\"ok\":{ok},\"t0\":{t0},\"t1\":{}}}", now_ns()))
            }
            "gets" => self.gets(num(1), num(2), num(3)).await,
            "flush" => Ok("{\"ok\":1}".into()),
            other => Err(format!("unknown {other}").into()),
        }
    }
}

/// Notes keys as they arrive, in order from 0 on.
async fn watch(handle: Handle, seen: Arc<Mutex<Seen>>) {
    let mut watch = handle.watch();
    while watch.changed().await {
        let t = now_ns();
        let Ok(mut seen) = seen.lock() else { return };
        if !seen.watched {
            continue;
        }
        loop {
            let next = seen.log.len() as u64;
            if !matches!(handle.get(key(next).as_bytes()), Ok(Some(_))) {
                break;
            }
            seen.log.push((next, t));
        }
    }
}

fn main() -> Result<(), Failure> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if std::env::var_os("SINGLE").is_some() {
        runtime = tokio::runtime::Builder::new_current_thread();
    }
    runtime.enable_all().build()?.block_on(run())
}

async fn run() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().collect();
    let (role, dir, size) = (args[1].clone(), PathBuf::from(&args[2]), args[3].parse()?);
    let began = now_ns();
    if role == "a" && !dir.join("device.key").exists() {
        swarmkv_node::init(&dir, "rivals", "a")?;
    }
    let mut peer = Peer { role, dir, size, node: None, seen: Arc::default() };
    if peer.role == "a" {
        peer.handle().await?;
    }
    say(format!("{{\"ready\":{},\"boot_ns\":{}}}", now_ns(), now_ns() - began));
    while let Some(command) = tokio::task::spawn_blocking(read_command).await? {
        if command.first().is_some_and(|word| word == "quit") {
            break;
        }
        match peer.answer(&command).await {
            Ok(answer) => say(answer),
            Err(e) => say(format!("{{\"error\":\"{e}\"}}")),
        }
    }
    if let Some(node) = peer.node.take() {
        node.stop().await;
    }
    say("{\"bye\":1}".into());
    Ok(())
}
