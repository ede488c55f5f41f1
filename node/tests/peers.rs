//! Whole peers in one process: real sockets, real stores.

use std::path::Path;
use std::time::Duration;

use swarmkv_node::api::wire::InviteRequest;
use swarmkv_node::protocol::id::Version;
use swarmkv_node::{Config, Node, ReadError, Ticket};

const PATIENCE: Duration = Duration::from_secs(30);

fn config(dir: &Path, dial: Vec<String>) -> Config {
    Config { listen: vec!["/ip4/127.0.0.1/tcp/0".into()], dial, mdns: false, ..Config::new(dir) }
}

fn writer() -> InviteRequest {
    InviteRequest {
        role: "writer".into(),
        prefix: Default::default(),
        quota: None,
        expires_ms: 60_000,
        uses: 1,
        confirm: false,
    }
}

async fn start(dir: &Path, dial: Vec<String>) -> Node {
    let node = Node::start(config(dir, dial)).await.expect("starts");
    node.handle().wait_listening().await;
    node
}

async fn admit(node: &Node, dir: &Path, label: &str) {
    let ticket = node.handle().invite(writer()).await.expect("invited").ticket;
    let ticket = Ticket::parse(&ticket).expect("a ticket");
    swarmkv_node::join(dir, &ticket, label, PATIENCE).await.expect("joined");
}

async fn arrives(node: &Node, version: &Version) {
    node.handle().wait_for(version, PATIENCE).await.expect("arrives");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_peer_writes_another_reads() {
    let (a, b) = (tempfile::tempdir().expect("dir"), tempfile::tempdir().expect("dir"));
    swarmkv_node::init(a.path(), "home", "a").expect("made");
    let node_a = start(a.path(), vec![]).await;
    admit(&node_a, b.path(), "b").await;
    let early = node_a.handle().put(b"early", b"before b").await.expect("written");
    let node_b = start(b.path(), vec![]).await;
    node_b.handle().caught_up(PATIENCE).await.expect("whole");
    arrives(&node_b, &early).await;
    assert_eq!(node_b.handle().get(b"early").expect("read").as_deref(), Some(&b"before b"[..]));

    let live = node_b.handle().put(b"live", b"from b").await.expect("written");
    arrives(&node_a, &live).await;
    assert_eq!(node_a.handle().get(b"live").expect("read").as_deref(), Some(&b"from b"[..]));

    let gone = node_a.handle().delete(b"live").await.expect("written");
    arrives(&node_b, &gone).await;
    assert_eq!(node_b.handle().get(b"live").expect("read"), None);
    node_a.stop().await;
    node_b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_was_away_catches_up_and_concurrent_values_stay_readable() {
    let (a, b) = (tempfile::tempdir().expect("dir"), tempfile::tempdir().expect("dir"));
    swarmkv_node::init(a.path(), "home", "a").expect("made");
    let node_a = start(a.path(), vec![]).await;
    admit(&node_a, b.path(), "b").await;
    let node_b = start(b.path(), vec![]).await;
    node_b.handle().caught_up(PATIENCE).await.expect("whole");
    let both = node_a.handle().put(b"key", b"both").await.expect("written");
    arrives(&node_b, &both).await;

    node_b.stop().await;
    for i in 0..500u32 {
        node_a
            .handle()
            .put(format!("k{}", i % 100).as_bytes(), &i.to_be_bytes())
            .await
            .expect("ok");
    }
    let from_a = node_a.handle().put(b"key", b"from a").await.expect("written");
    node_a.stop().await;
    let node_b = start(b.path(), vec![]).await;
    let from_b = node_b.handle().put(b"key", b"from b").await.expect("written");
    let addr = node_b.handle().listening()[0].clone();
    let node_a = start(a.path(), vec![addr]).await;
    arrives(&node_b, &from_a).await;
    arrives(&node_a, &from_b).await;
    assert_eq!(node_b.handle().get(b"k7").expect("read"), Some(407u32.to_be_bytes().to_vec()));
    let seen: Vec<_> = [&node_a, &node_b]
        .map(|node| node.handle().siblings(b"key").expect("read"))
        .into_iter()
        .collect();
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[0].len(), 2);

    let merged = node_a.handle().put(b"key", b"merged").await.expect("written");
    arrives(&node_b, &merged).await;
    assert_eq!(node_b.handle().siblings(b"key").expect("read").len(), 1);
    node_a.stop().await;
    node_b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newcomer_that_reaches_nobody_says_that_it_is_catching_up() {
    let (a, b) = (tempfile::tempdir().expect("dir"), tempfile::tempdir().expect("dir"));
    swarmkv_node::init(a.path(), "home", "a").expect("made");
    let node_a = start(a.path(), vec![]).await;
    admit(&node_a, b.path(), "b").await;
    node_a.stop().await;
    let node_b = start(b.path(), vec![]).await;
    assert_eq!(node_b.handle().get(b"x"), Err(ReadError::CatchingUp));
    node_b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outsider_cannot_write() {
    let a = tempfile::tempdir().expect("dir");
    swarmkv_node::init(a.path(), "home", "a").expect("made");
    let node = start(a.path(), vec![]).await;
    let handle = node.handle();
    let addr = handle.listening()[0].clone();
    let attempt = swarmkv_node::stranger::try_to_write(
        &addr,
        handle.device_id(),
        handle.swarm_id(),
        b"forged",
        b"value",
    );
    attempt.await.expect("turned away everywhere");
    assert_eq!(handle.get(b"forged").expect("read"), None);
    assert_eq!(handle.status().await.expect("runs").counters.strangers_refused, 1);
    node.stop().await;
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("made");
    for entry in std::fs::read_dir(from).expect("readable") {
        let entry = entry.expect("readable");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("known").is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copied");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copied_directory_writes_to_a_new_log_even_if_its_first_start_wrote_nothing() {
    let (a, b) = (tempfile::tempdir().expect("dir"), tempfile::tempdir().expect("dir"));
    swarmkv_node::init(a.path(), "home", "a").expect("made");
    let node = start(a.path(), vec![]).await;
    node.handle().put(b"key", b"before the copy").await.expect("written");
    node.stop().await;
    let clone = b.path().join("clone");
    copy(a.path(), &clone);

    start(&clone, vec![]).await.stop().await;
    let node = start(&clone, vec![]).await;
    node.handle().put(b"key", b"by the copy").await.expect("written");
    let logs = node.handle().status().await.expect("runs").logs;
    assert_eq!(logs.len(), 2, "{logs:?}");
    assert_eq!(node.handle().siblings(b"key").expect("read").len(), 1);
    node.stop().await;

    let node = start(a.path(), vec![]).await;
    node.handle().put(b"key", b"by the original").await.expect("written");
    assert_eq!(node.handle().status().await.expect("runs").logs.len(), 1);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_never_misses_a_key_that_is_being_overwritten() {
    let (a, b) = (tempfile::tempdir().expect("dir"), tempfile::tempdir().expect("dir"));
    swarmkv_node::init(a.path(), "home", "a").expect("made");
    let node_a = start(a.path(), vec![]).await;
    admit(&node_a, b.path(), "b").await;
    let node_b = start(b.path(), vec![]).await;
    node_b.handle().caught_up(PATIENCE).await.expect("whole");
    let mut last = node_a.handle().put(b"key", b"0").await.expect("written");
    arrives(&node_b, &last).await;
    let reader = node_b.handle();
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let reading = tokio::task::spawn_blocking(move || {
        let mut reads = 0u64;
        while stopped.try_recv() == Err(tokio::sync::oneshot::error::TryRecvError::Empty) {
            assert!(reader.get(b"key").expect("read").is_some(), "missing after {reads} reads");
            reads += 1;
        }
        reads
    });
    for i in 1..400u32 {
        let value = i.to_string();
        last = node_a.handle().put(b"key", value.as_bytes()).await.expect("written");
    }
    arrives(&node_b, &last).await;
    stop.send(()).expect("reading");
    assert!(reading.await.expect("never missing") > 0);
    node_a.stop().await;
    node_b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_peer_is_gone_and_its_directory_free() {
    let a = tempfile::tempdir().expect("dir");
    swarmkv_node::init(a.path(), "home", "a").expect("made");
    let node = start(a.path(), vec![]).await;
    let handle = node.handle();
    handle.put(b"key", b"value").await.expect("written");
    drop(node);
    tokio::time::timeout(PATIENCE, async {
        while handle.status().await.is_some() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("it ends");
    drop(handle);
    let node = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Ok(node) = Node::start(config(a.path(), vec![])).await {
                return node;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("the directory is free");
    assert_eq!(node.handle().get(b"key").expect("read").as_deref(), Some(&b"value"[..]));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_status_counts_as_there_can_be_read() {
    let (a, b) = (tempfile::tempdir().expect("dir"), tempfile::tempdir().expect("dir"));
    swarmkv_node::init(a.path(), "home", "a").expect("made");
    let node_a = start(a.path(), vec![]).await;
    admit(&node_a, b.path(), "b").await;
    let node_b = start(b.path(), vec![]).await;
    node_b.handle().caught_up(PATIENCE).await.expect("whole");
    let state = async |node: &Node| node.handle().status().await.expect("runs").state;
    for round in 0..100u32 {
        let value = round.to_be_bytes().to_vec();
        node_a.handle().put(b"key", &value).await.expect("written");
        let wanted = state(&node_a).await;
        let same = async { while state(&node_b).await != wanted {} };
        tokio::time::timeout(PATIENCE, same).await.expect("becomes equal");
        assert_eq!(node_b.handle().get(b"key").expect("read"), Some(value), "round {round}");
    }
    node_a.stop().await;
    node_b.stop().await;
}
