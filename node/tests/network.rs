//! The network half against itself and against a raw libp2p peer, over real loopback sockets.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::time::Duration;

use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use libp2p::swarm::SwarmEvent;
use swarmkv_node::network::{
    AskError, Command, Event, MAX_FRAME, Network, NetworkConfig, Source, Transport, Verdict,
    ask_once, peer_id_text,
};
use swarmkv_protocol::id::{DeviceId, SwarmId};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use zeroize::Zeroizing;

const PATIENCE: Duration = Duration::from_secs(60);
const SWARM: SwarmId = SwarmId::new([0x5a; 32]);

fn seed(n: u8) -> Zeroizing<[u8; 32]> {
    Zeroizing::new([n; 32])
}

fn device(n: u8) -> DeviceId {
    let key = libp2p::identity::Keypair::ed25519_from_bytes([n; 32]).unwrap();
    DeviceId::new(key.public().try_into_ed25519().unwrap().to_bytes())
}

fn members(all: &[u8]) -> BTreeSet<DeviceId> {
    all.iter().map(|n| device(*n)).collect()
}

fn config(n: u8, of: &[u8]) -> NetworkConfig {
    NetworkConfig {
        listen: vec!["/ip4/127.0.0.1/tcp/0".into()],
        mdns: false,
        members: members(of),
        ..NetworkConfig::new(seed(n), SWARM)
    }
}

/// A node and what it has said so far.
struct Node {
    net: Network,
    events: mpsc::Receiver<Event>,
    seen: Vec<Event>,
    addr: String,
}

impl Node {
    async fn start(config: NetworkConfig) -> Self {
        let (net, events) = Network::start(config).await.unwrap();
        let mut node = Self { net, events, seen: Vec::new(), addr: String::new() };
        node.addr = node
            .find("an address", |event| match event {
                Event::Listening { addr } => Some(addr.clone()),
                _ => None,
            })
            .await;
        node
    }

    fn id(&self) -> DeviceId {
        self.net.device()
    }

    /// Waits for an event that `pick` accepts; what came before it is kept.
    async fn find<T>(&mut self, what: &str, mut pick: impl FnMut(&Event) -> Option<T>) -> T {
        if let Some(at) = self.seen.iter().position(|event| pick(event).is_some()) {
            return pick(&self.seen.remove(at)).unwrap();
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            let next = tokio::time::timeout_at(deadline, self.events.recv()).await;
            let event = next.unwrap_or_else(|_| panic!("no {what}; seen: {:#?}", self.seen));
            let event = event.unwrap_or_else(|| panic!("ended before {what}"));
            if let Some(found) = pick(&event) {
                return found;
            }
            self.seen.push(event);
        }
    }

    async fn is(&mut self, what: &str, mut test: impl FnMut(&Event) -> bool) {
        self.find(what, |event| test(event).then_some(())).await;
    }

    async fn connected(&mut self, peer: DeviceId, as_member: bool) -> (Source, bool) {
        self.find("connection", |event| match event {
            Event::Connected { peer: p, member, source, dialer, .. }
                if *p == peer && *member == as_member =>
            {
                Some((*source, *dialer))
            }
            _ => None,
        })
        .await
    }

    async fn disconnected(&mut self, peer: DeviceId) {
        self.is(
            "disconnection",
            |event| matches!(event, Event::Disconnected { peer: p } if *p == peer),
        )
        .await;
    }

    async fn dial(&self, other: &Self) {
        let addr = format!("{}/p2p/{}", other.addr, other.net.peer_id_text());
        self.net.send(Command::Dial { addr, peer: None }).await;
    }

    async fn verdict(&self, gossip: &Gossip, verdict: Verdict) {
        self.net.send(Command::Verdict { token: gossip.token, verdict }).await;
    }

    /// Takes a gossip message if one is there within the given time.
    async fn gossip_within(&mut self, time: Duration) -> Option<Gossip> {
        let pick = |event: &Event| match event {
            Event::Gossip { from, token, bytes } => {
                Some(Gossip { from: *from, token: *token, bytes: bytes.clone() })
            }
            _ => None,
        };
        timeout(time, self.find("gossip", pick)).await.ok()
    }

    async fn ask(&self, peer: DeviceId, request: &[u8]) -> Result<Vec<u8>, AskError> {
        let (reply, answer) = oneshot::channel();
        self.net.send(Command::Ask { peer, request: request.to_vec(), reply }).await;
        timeout(PATIENCE, answer).await.unwrap().unwrap()
    }

    /// Answers one question with its reverse.
    async fn answer_one(&mut self) -> DeviceId {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match tokio::time::timeout_at(deadline, self.events.recv()).await.unwrap().unwrap() {
                Event::Asked { peer, mut request, reply } => {
                    request.reverse();
                    reply.send(request).unwrap();
                    return peer;
                }
                other => self.seen.push(other),
            }
        }
    }

    async fn stop(mut self) {
        self.net.send(Command::Shutdown).await;
        while self.events.recv().await.is_some() {}
    }
}

struct Gossip {
    from: DeviceId,
    token: swarmkv_node::network::GossipToken,
    bytes: Vec<u8>,
}

async fn pair(a: u8, b: u8) -> (Node, Node) {
    let mut left = Node::start(config(a, &[a, b])).await;
    let mut right = Node::start(config(b, &[a, b])).await;
    left.dial(&right).await;
    left.connected(right.id(), true).await;
    right.connected(left.id(), true).await;
    (left, right)
}

/// Publishes fresh messages until one arrives: the first may come before subscriptions are known.
async fn gossip(from: &Node, to: &mut Node, tag: &str) -> Gossip {
    for n in 0..200 {
        from.net.send(Command::Publish(format!("{tag}-{n}").into_bytes())).await;
        if let Some(got) = to.gossip_within(Duration::from_millis(300)).await {
            return got;
        }
    }
    panic!("gossip {tag} never arrived");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_connect_by_dial_and_gossip_both_ways() {
    let (mut a, mut b) = pair(1, 2).await;
    let got = gossip(&a, &mut b, "from-a").await;
    assert!(got.from == a.id() && got.bytes.starts_with(b"from-a-"));
    b.verdict(&got, Verdict::Accept).await;
    let got = gossip(&b, &mut a, "from-b").await;
    assert!(got.from == b.id() && got.bytes.starts_with(b"from-b-"));
    a.verdict(&got, Verdict::Accept).await;
    // The dialler remembers the address, and the dialled one learns where the other listens.
    let addr = b.addr.clone();
    a.is("b's address", |e| matches!(e, Event::AddressLearned { addr: x, .. } if *x == addr)).await;
    let addr = a.addr.clone();
    b.is("a's address", |e| matches!(e, Event::AddressLearned { addr: x, .. } if *x == addr)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_passed_on_only_after_it_was_accepted() {
    // A and C are strangers to each other, so everything between them goes through B.
    let mut a = Node::start(config(3, &[3, 4])).await;
    let mut b = Node::start(config(4, &[3, 4, 5])).await;
    let mut c = Node::start(config(5, &[4, 5])).await;
    a.dial(&b).await;
    c.dial(&b).await;
    a.connected(b.id(), true).await;
    c.connected(b.id(), true).await;
    b.connected(a.id(), true).await;
    b.connected(c.id(), true).await;
    for n in 0..100 {
        a.net.send(Command::Publish(format!("refused-{n}").into_bytes())).await;
        a.net.send(Command::Publish(format!("wanted-{n}").into_bytes())).await;
        while let Some(got) = b.gossip_within(Duration::from_millis(200)).await {
            let wanted = got.bytes.starts_with(b"wanted");
            b.verdict(&got, if wanted { Verdict::Accept } else { Verdict::Ignore }).await;
        }
        if let Some(got) = c.gossip_within(Duration::from_millis(200)).await {
            assert!(got.bytes.starts_with(b"wanted") && got.from == b.id());
            return;
        }
    }
    panic!("nothing was passed on");
}

/// Sends `count` frames as leave comes and checks as many coming in.
async fn stream_frames(mut node: Node, session: u64, me: u8, other: u8, count: u32) -> Node {
    let frame = |who: u8, n: u32| {
        let mut bytes = vec![who; 64 * 1024];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        bytes
    };
    let (mut sent, mut got, mut flushed) = (0, 0, 0);
    while got < count || flushed < count + 1 {
        let event = node.seen.pop();
        let event = match event {
            Some(event) => event,
            None => timeout(PATIENCE, node.events.recv()).await.unwrap().unwrap(),
        };
        match event {
            Event::SessionReady { session: s } if s == session => {
                flushed += 1;
                if sent < count {
                    node.net.send(Command::Send { session, frame: frame(me, sent) }).await;
                    sent += 1;
                }
            }
            Event::SessionFrame { session: s, frame: bytes } if s == session => {
                assert!(bytes == frame(other, got), "frame {got} is damaged");
                got += 1;
            }
            Event::SessionClosed { .. } => panic!("closed after {sent} sent and {got} received"),
            _ => {}
        }
    }
    node
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_carries_a_thousand_frames_both_ways() {
    for quic in [false, true] {
        let (x, y) = if quic { (8, 9) } else { (6, 7) };
        let mut one = config(x, &[x, y]);
        let mut two = config(y, &[x, y]);
        if quic {
            one.listen = vec!["/ip4/127.0.0.1/udp/0/quic-v1".into()];
            two.listen = one.listen.clone();
        }
        let mut a = Node::start(one).await;
        let mut b = Node::start(two).await;
        a.dial(&b).await;
        let transport = a
            .find("connection", |e| match e {
                Event::Connected { transport, .. } => Some(*transport),
                _ => None,
            })
            .await;
        assert_eq!(transport, if quic { Transport::Quic } else { Transport::Tcp });
        a.net.send(Command::Open { session: 2, peer: b.id() }).await;
        let theirs = b
            .find("session", |e| match e {
                Event::SessionOpened { session, .. } => Some(*session),
                _ => None,
            })
            .await;
        assert_eq!(theirs % 2, 1);
        let start = Instant::now();
        let (mut a, mut b) =
            tokio::join!(stream_frames(a, 2, 1, 2, 1000), stream_frames(b, theirs, 2, 1, 1000));
        println!("quic {quic}: 2 x 1000 frames of 64 KiB in {:?}", start.elapsed());
        a.net.send(Command::Close { session: 2 }).await;
        a.is("own end", |e| matches!(e, Event::SessionClosed { session: 2, .. })).await;
        b.is("end", |e| matches!(e, Event::SessionClosed { session, .. } if *session == theirs))
            .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_can_ask_and_nothing_else() {
    // 12 counts itself and 10 as members; 10 and 11 do not know it.
    let mut victim = Node::start(config(10, &[10, 11])).await;
    let friend = Node::start(config(11, &[10, 11])).await;
    let mut stranger = Node::start(config(12, &[10, 12])).await;
    stranger.dial(&victim).await;
    friend.dial(&victim).await;
    stranger.connected(victim.id(), true).await;
    victim.connected(stranger.id(), false).await;
    victim.connected(friend.id(), true).await;

    let (answer, asker) = tokio::join!(stranger.ask(victim.id(), b"abc"), victim.answer_one());
    assert_eq!((answer, asker), (Ok(b"cba".to_vec()), stranger.id()));

    stranger.net.send(Command::Open { session: 4, peer: victim.id() }).await;
    let refused = stranger
        .find("refusal", |e| match e {
            Event::SessionClosed { session: 4, refused } => Some(*refused),
            Event::SessionReady { session: 4 } => Some(false),
            _ => None,
        })
        .await;
    assert!(refused);

    // Fences: a later question and a member's gossip arrive, the stranger's gossip does not.
    for n in 0..20 {
        stranger.net.send(Command::Publish(format!("evil-{n}").into_bytes())).await;
    }
    let (answer, _) = tokio::join!(stranger.ask(victim.id(), b"fence"), victim.answer_one());
    assert!(answer.is_ok());
    let got = gossip(&friend, &mut victim, "good").await;
    assert_eq!(got.from, friend.id());
    assert!(!victim.seen.iter().any(|event| matches!(
        event,
        Event::Gossip { .. } | Event::SessionOpened { .. } | Event::AddressLearned { .. }
    )
        && !format!("{event:?}").contains(&format!("{:?}", friend.id()))));
    // The victim, for its part, does not open sessions with strangers.
    victim.net.send(Command::Open { session: 6, peer: stranger.id() }).await;
    victim.is("own refusal", |e| matches!(e, Event::SessionClosed { session: 6, .. })).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_question_needs_no_swarm_and_the_right_peer() {
    let mut a = Node::start(config(13, &[13])).await;
    let other = Node::start(config(14, &[14])).await;
    let wait = Duration::from_secs(20);
    let caller = seed(15);
    let (id, addrs) = (a.id(), [a.addr.clone()]);
    let ask = ask_once(&caller, id, &addrs, b"hello".to_vec(), wait);
    let (answer, asker) = tokio::join!(ask, a.answer_one());
    assert_eq!((answer, asker), (Ok(b"olleh".to_vec()), device(15)));

    // Another device's address alone is a clear failure; beside the right one it does no harm.
    let wrong = ask_once(&caller, id, std::slice::from_ref(&other.addr), b"x".to_vec(), wait).await;
    assert_eq!(wrong, Err(AskError::WrongPeer { addr: other.addr.clone() }));
    let both = [other.addr.clone(), a.addr.clone()];
    let ask = ask_once(&caller, id, &both, b"ab".to_vec(), wait);
    let (answer, _) = tokio::join!(ask, a.answer_one());
    assert_eq!(answer, Ok(b"ba".to_vec()));
    let named = format!("{}/p2p/{}", a.addr, peer_id_text(&other.id()));
    let wrong = ask_once(&caller, id, &[named], b"x".to_vec(), wait).await;
    assert!(matches!(wrong, Err(AskError::WrongPeer { .. })), "{wrong:?}");

    let nobody = ["/ip4/127.0.0.1/tcp/1".to_string()];
    let gone = ask_once(&caller, id, &nobody, b"x".to_vec(), wait).await;
    assert!(matches!(gone, Err(AskError::Unreachable(_))), "{gone:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_that_becomes_a_member_is_connected_as_one() {
    let mut a = Node::start(config(16, &[16])).await;
    let mut b = Node::start(config(17, &[17])).await;
    b.dial(&a).await;
    b.connected(a.id(), false).await;
    a.connected(b.id(), false).await;
    a.net.send(Command::SetMembers(members(&[16, 17]))).await;
    b.net.send(Command::SetMembers(members(&[16, 17]))).await;
    a.connected(b.id(), true).await;
    b.connected(a.id(), true).await;
    let got = gossip(&a, &mut b, "welcome").await;
    assert_eq!(got.from, a.id());
    // And out again.
    a.net.send(Command::SetMembers(members(&[16]))).await;
    a.disconnected(b.id()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_peer_is_back_soon_whoever_knows_the_address() {
    let (mut a, mut b) = pair(18, 19).await;
    let (id, addr, b_addr) = (a.id(), a.addr.clone(), b.addr.clone());
    // A dialled; B can only dial back once A has identified itself.
    b.is("a's address", |e| matches!(e, Event::AddressLearned { .. })).await;
    for told in [false, true] {
        a.stop().await;
        b.disconnected(id).await;
        let mut again = config(18, &[18, 19]);
        again.listen = vec![addr.clone()];
        if told {
            again.known = vec![(b.id(), b_addr.clone())];
        }
        let start = Instant::now();
        a = Node::start(again).await;
        a.connected(b.id(), true).await;
        b.connected(id, true).await;
        println!("told {told}: back after {:?}", start.elapsed());
        assert!(start.elapsed() < Duration::from_secs(10));
    }
    gossip(&a, &mut b, "again").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_is_found_through_another() {
    let mut a = Node::start(config(20, &[20, 21, 22])).await;
    let mut b = Node::start(config(21, &[20, 21, 22])).await;
    let mut c = Node::start(config(22, &[20, 21, 22])).await;
    b.dial(&a).await;
    a.connected(b.id(), true).await;
    // A knows B's address once B has identified itself.
    let id = b.id();
    a.is("b's address", |e| matches!(e, Event::AddressLearned { peer, .. } if *peer == id)).await;
    c.dial(&a).await;
    let (source, dialer) = c.connected(b.id(), true).await;
    let (back, back_dialer) = b.connected(c.id(), true).await;
    // Whoever dialled found the other through A.
    assert!(dialer || back_dialer);
    assert!((dialer && source == Source::Kad) || (back_dialer && back == Source::Kad));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_without_a_name_is_dialled_until_somebody_is_there() {
    let placeholder = Node::start(config(23, &[23])).await;
    let addr = placeholder.addr.clone();
    placeholder.stop().await;
    let mut early = config(24, &[23, 24]);
    early.dial = vec![addr.clone()];
    let mut b = Node::start(early).await;
    let mut late = config(23, &[23, 24]);
    late.listen = vec![addr];
    let mut a = Node::start(late).await;
    assert_eq!(b.connected(a.id(), true).await, (Source::Direct, true));
    assert_eq!(a.connected(b.id(), true).await, (Source::Direct, false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_oversize_frame_ends_its_session_and_nothing_else() {
    let mut victim = Node::start(config(25, &[25, 26, 27])).await;
    let mut friend = Node::start(config(26, &[25, 26])).await;
    friend.dial(&victim).await;
    friend.connected(victim.id(), true).await;
    friend.net.send(Command::Open { session: 2, peer: victim.id() }).await;
    let friendly = session_from(&mut victim, friend.id()).await;

    for announced in [u32::MAX, u32::try_from(MAX_FRAME).unwrap() + 1] {
        let mut stream = raw_repair_stream(27, &victim).await;
        let hostile = session_from(&mut victim, device(27)).await;
        stream.write_all(&announced.to_be_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        let ended =
            |e: &Event| matches!(e, Event::SessionClosed { session, .. } if *session == hostile);
        victim.is("end of the hostile session", ended).await;
        let mut rest = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.unwrap();
    }

    friend.is("leave", |e| matches!(e, Event::SessionReady { session: 2 })).await;
    let frame = vec![7; MAX_FRAME];
    friend.net.send(Command::Send { session: 2, frame: frame.clone() }).await;
    let got = victim
        .find("frame", |e| match e {
            Event::SessionFrame { session, frame } if *session == friendly => Some(frame.clone()),
            _ => None,
        })
        .await;
    assert!(got == frame);
    assert!(!victim.seen.iter().any(|e| matches!(e, Event::Disconnected { .. })));
}

async fn session_from(node: &mut Node, from: DeviceId) -> u64 {
    node.find("session", |e| match e {
        Event::SessionOpened { session, peer } if *peer == from => Some(*session),
        _ => None,
    })
    .await
}

/// A repair stream of a peer that is not our code; its swarm lives on in a task.
async fn raw_repair_stream(n: u8, to: &Node) -> libp2p::swarm::Stream {
    let key = libp2p::identity::Keypair::ed25519_from_bytes([n; 32]).unwrap();
    let mut swarm = libp2p::SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_tcp(
            libp2p::tcp::Config::default(),
            libp2p::noise::Config::new,
            libp2p::yamux::Config::default,
        )
        .unwrap()
        .with_behaviour(|_| libp2p_stream::Behaviour::new())
        .unwrap()
        .build();
    let mut control = swarm.behaviour().new_control();
    swarm.dial(to.addr.parse::<libp2p::Multiaddr>().unwrap()).unwrap();
    let peer = loop {
        if let SwarmEvent::ConnectionEstablished { peer_id, .. } = swarm.select_next_some().await {
            break peer_id;
        }
    };
    tokio::spawn(async move {
        loop {
            swarm.select_next_some().await;
        }
    });
    let name = libp2p::StreamProtocol::new("/swarmkv/5a5a5a5a5a5a5a5a/repair/1");
    control.open_stream(peer, name).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_driver_that_does_not_read_is_waited_for_but_can_still_command() {
    let (mut a, mut b) = pair(28, 29).await;
    a.net.send(Command::Open { session: 2, peer: b.id() }).await;
    let session = session_from(&mut b, a.id()).await;
    // B stops reading; A sends until it gets no leave for a while.
    let mut sent = 0u32;
    loop {
        let ready = a.is("leave", |e| matches!(e, Event::SessionReady { session: 2 }));
        if timeout(Duration::from_secs(2), ready).await.is_err() {
            break;
        }
        let mut frame = vec![0; 256 * 1024];
        frame[..4].copy_from_slice(&sent.to_be_bytes());
        a.net.send(Command::Send { session: 2, frame }).await;
        sent += 1;
        assert!(sent < 500, "nothing holds the sender back");
    }
    // A reads on, or B's gossip would hold A's connection back in turn.
    let a_net = a.net.clone();
    tokio::spawn(async move { while a.events.recv().await.is_some() {} });
    // Far more commands than its queue holds.
    for n in 0..600 {
        let publish = b.net.send(Command::Publish(format!("still here {n}").into_bytes()));
        timeout(PATIENCE, publish).await.unwrap();
    }
    for expected in 0..sent {
        let got = b
            .find("frame", |e| match e {
                Event::SessionFrame { session: s, frame } if *s == session => {
                    Some(frame[..4].to_vec())
                }
                _ => None,
            })
            .await;
        assert_eq!(got, expected.to_be_bytes());
    }
    a_net.send(Command::Shutdown).await;
}
