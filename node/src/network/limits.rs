//! Every bound of the network half. Nothing here is configurable: changing one is a code change
//! that a reader can judge.

use std::time::Duration;

/// Largest gossip message, in bytes; larger ones are not published.
pub const MAX_GOSSIP: usize = 64 * 1024;
/// Largest frame of a repair session, in bytes.
pub const MAX_FRAME: usize = 1280 * 1024;
/// Largest request of the join protocol, in bytes.
pub const MAX_REQUEST: usize = 256 * 1024;
/// Largest response of the join protocol, in bytes.
pub const MAX_RESPONSE: usize = 1024 * 1024;

/// Commands that may wait for the task.
pub(super) const COMMAND_QUEUE: usize = 256;
/// Events that may wait for the driver; frames count, so this bounds memory too.
pub(super) const EVENT_QUEUE: usize = 32;
/// Events held behind a full channel before the swarm is no longer read.
pub(super) const BACKLOG: usize = 256;
/// Events held behind a full channel before commands are no longer taken.
pub(super) const BACKLOG_HARD: usize = 1024;
/// Session and join events held behind a full channel: they may be large.
pub(super) const BACKLOG_STREAMS: usize = 4;
/// Events that stream tasks may hold ready for the loop.
pub(super) const STREAM_QUEUE: usize = 4;

/// Gossip taken from one peer, in bytes a second, and how much may come at once. What is beyond is
/// dropped without blame: repair brings it, in larger pieces and at this side's own pace.
pub(super) const GOSSIP_PER_SECOND: f64 = 1_048_576.0;
pub(super) const GOSSIP_BURST: f64 = 262_144.0;

/// Gossipsub's transmit and control limits: its decoder counts its whole receive buffer, so they
/// stand well above [`MAX_GOSSIP`].
pub(super) const GOSSIP_TRANSMIT: usize = 256 * 1024;

/// Streams on one connection.
pub(super) const STREAMS_PER_CONNECTION: usize = 64;
/// Inbound streams of one connection still negotiating their protocol.
pub(super) const NEGOTIATING_STREAMS: usize = 32;
/// Streams that one handler holds ready for its behaviour, and opens it keeps in hand.
pub(super) const STREAMS_IN_HAND: usize = 16;

/// Established connections in all, for one peer, and of strangers.
pub(super) const CONNECTIONS: usize = 256;
pub(super) const CONNECTIONS_PER_PEER: usize = 4;
pub(super) const STRANGER_CONNECTIONS: usize = 16;
/// Half-open connections, each way.
pub(super) const PENDING_CONNECTIONS: usize = 64;
/// A stranger's connection ends after this long, whatever it does.
pub(super) const STRANGER_LIFETIME: Duration = Duration::from_secs(30);
/// A connection that nobody keeps ends after being idle this long.
pub(super) const IDLE_CONNECTION: Duration = Duration::from_secs(10);
/// A dial or handshake that takes longer fails.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Repair sessions: inbound per peer, inbound in all, outbound in all.
pub(super) const INBOUND_SESSIONS_PER_PEER: usize = 4;
pub(super) const INBOUND_SESSIONS: usize = 64;
pub(super) const OUTBOUND_SESSIONS: usize = 64;
/// A session that moves no byte for this long is closed.
pub(super) const SESSION_IDLE: Duration = Duration::from_secs(30);
/// How often it is told that more of a frame has come that is not whole yet.
pub(super) const FRAME_NEWS_EVERY: Duration = Duration::from_secs(5);
/// After a write failed, how long what the peer sent before is still read.
pub(super) const SESSION_LINGER: Duration = Duration::from_secs(1);

/// One exchange of the join protocol, from open to answer.
pub(super) const JOIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Its first part, from open to the whole question: enough for the largest on a slow link.
pub(super) const JOIN_REQUEST_TIMEOUT: Duration = Duration::from_secs(4);
/// Join exchanges served at once: strangers and members each have their own places, so that a
/// flood of strangers cannot keep a member from asking.
pub(super) const JOIN_SERVED: usize = 8;
/// Strangers' join requests a second, in all, and how many may come at once. A person types a
/// ticket a few times a minute; five a second lets fifty devices join within ten seconds while a
/// guesser of secrets gets nowhere.
pub(super) const STRANGER_ASKS_PER_SECOND: f64 = 5.0;
pub(super) const STRANGER_ASKS_BURST: f64 = 10.0;
/// Questions of ours under way at once.
pub(super) const ASKS: usize = 64;

/// Addresses kept for one peer, strangers kept, and configured addresses without a peer id.
pub(super) const ADDRESSES_PER_PEER: usize = 8;
pub(super) const STRANGERS_IN_BOOK: usize = 64;
pub(super) const MEMBERS_IN_BOOK: usize = 4096;
pub(super) const NAMELESS_ADDRESSES: usize = 64;
/// Addresses taken from one identify message or one Kademlia peer.
pub(super) const ADDRESSES_PER_REPORT: usize = 16;
/// Addresses reported for one inbound connection.
pub(super) const LEARNED_PER_CONNECTION: usize = 4;

/// mDNS: records kept before its list is thrown away, dials a second, question interval, and how
/// long our answers are good for (four questions).
pub(super) const MDNS_RECORDS: usize = 256;
pub(super) const MDNS_DIALS_PER_SECOND: f64 = 4.0;
pub(super) const MDNS_QUERY: Duration = Duration::from_secs(20);
pub(super) const MDNS_TTL: Duration = Duration::from_secs(90);

/// How long the side with the greater device id leaves the dialling to the other.
pub(super) const YIELD_DIAL: Duration = Duration::from_millis(1500);
/// Middle of the first pause after a failed dial (half to one and a half of it is drawn).
pub(super) const RETRY_FIRST: Duration = Duration::from_millis(400);
/// Longest pause between dials to a member.
pub(super) const RETRY_MAX: Duration = Duration::from_secs(30);
/// A connection that lived shorter than this does not reset the pause: a peer that takes us for
/// a stranger ends the connection within [`STRANGER_LIFETIME`].
pub(super) const STEADY: Duration = Duration::from_secs(40);
/// How long a peer that proved foreign is left alone.
pub(super) const LEAVE_ALONE: Duration = Duration::from_secs(600);
/// How long a connection outlives its peer's promotion from stranger to member: time for the answer
/// that admitted it. Then it is made anew with everything a member may speak.
pub(super) const PROMOTION_GRACE: Duration = Duration::from_millis(300);
/// How often due dials are looked for while some are about to be, and while none are: each look wakes the
/// processor.
pub(super) const TICK: Duration = Duration::from_millis(100);
pub(super) const QUIET_TICK: Duration = Duration::from_secs(1);

/// Pings: interval, timeout, and how many failures in a row end a connection.
pub(super) const PING_INTERVAL: Duration = Duration::from_secs(20);
pub(super) const PING_TIMEOUT: Duration = Duration::from_secs(15);
pub(super) const PING_FAILURES: u8 = 2;

/// Kademlia: a look-up this long after a member came, then at these intervals while members are
/// missing and while all are here.
pub(super) const LOOKUP_SOON: Duration = Duration::from_millis(250);
pub(super) const LOOKUP_MISSING: Duration = Duration::from_secs(60);
pub(super) const LOOKUP_QUIET: Duration = Duration::from_secs(300);

/// How long connections get to close on shutdown.
pub(super) const SHUTDOWN_GRACE: Duration = Duration::from_millis(500);

const _: () = assert!(MAX_GOSSIP * 4 <= GOSSIP_TRANSMIT);
const _: () = assert!(MDNS_TTL.as_secs() >= 4 * MDNS_QUERY.as_secs());
const _: () = assert!(STRANGER_CONNECTIONS < CONNECTIONS);
const _: () = assert!(STEADY.as_secs() > STRANGER_LIFETIME.as_secs());
const _: () = assert!(MAX_REQUEST <= MAX_RESPONSE && MAX_RESPONSE <= MAX_FRAME);
