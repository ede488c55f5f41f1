//! Every bound of the core in one place. A number that a peer can push against stands here, with the
//! relations between bounds asserted at compile time.

/// Protocol version of everything this build writes. Other versions are ignored, never punished.
pub const VERSION: u8 = 1;

/// Longest key, in bytes.
pub const MAX_KEY: usize = 1024;
/// Largest value, in bytes.
pub const MAX_VALUE: usize = 1 << 20;
/// Most writes of other logs that one operation may name. More than that stay siblings for a while.
pub const MAX_CTX: usize = 256;
/// Bytes of one context entry on the wire, at most.
const CTX_ENTRY: usize = 72;
/// Largest encoded operation.
pub const MAX_OP: usize = MAX_VALUE + MAX_KEY + MAX_CTX * CTX_ENTRY + 64;

/// Operations that concurrent writers may share in one commit.
pub const GROUP_OPS: usize = 256;
/// Operation bytes that concurrent writers may share in one commit.
pub const GROUP_BYTES: usize = 48 * 1024;
/// Operations in one transaction.
pub const MAX_TX_OPS: usize = 4096;
/// Operation bytes in one transaction.
pub const MAX_TX_BYTES: usize = 8 << 20;
/// Local writes waiting to be committed.
pub const MAX_QUEUED_WRITES: usize = 8192;

/// Largest message handed to gossip; a larger commit is announced by its header and pulled.
pub const MAX_GOSSIP: usize = 60 * 1024;
/// Largest value that travels inside a gossip message.
pub const MAX_GOSSIP_VALUE: usize = 16 * 1024;

/// Bytes of slots that a repair session sends in one frame, unless one slot alone is larger.
pub const CHUNK_BYTES: usize = 128 * 1024;
/// Slots in one repair frame.
pub const CHUNK_SLOTS: usize = 4096;
/// Largest repair frame.
pub const MAX_FRAME: usize = 1280 * 1024;
/// Repair sessions served at once to all peers together.
pub const MAX_SERVED: usize = 32;
/// Repair sessions served at once to one peer.
pub const MAX_SERVED_PER_PEER: usize = 4;
/// Least pause between two sessions that close a gap in one log, in milliseconds.
pub const GAP_PAUSE_MS: u64 = 200;
/// Repair sessions that close gaps at once, one a peer.
pub const MAX_GAP_PULLS: usize = 4;
/// Slots tidied in one step after a log moved on.
pub const CHORE_SLOTS: usize = 1024;

/// Logs that a replica follows.
pub const MAX_LOGS: usize = 8192;
/// Of which one author may have this many; of more, those with the least ids are kept.
pub const MAX_LOGS_PER_AUTHOR: usize = 256;
/// Logs of one author of which nothing is proven yet.
pub const MAX_UNPROVEN_LOGS: usize = 32;
/// Histories kept of a log that its author forked.
pub const MAX_BRANCHES: usize = 8;
/// Statements in a roster that count.
pub const MAX_STATEMENTS: usize = 4096;
/// Statements of the owner that count.
pub const MAX_OWNER_STATEMENTS: usize = 2048;
/// Statements of one admin that count: no admin fills the roster alone.
pub const MAX_ADMIN_STATEMENTS: usize = 512;
/// Bytes of statements in one repair frame; the rest follow in the next session.
pub const MAX_STATEMENT_BYTES: usize = 512 * 1024;
/// Largest grant or genesis.
pub const MAX_STATEMENT: usize = 4096;
/// Largest revocation: it carries a header for each log of the revoked device.
pub const MAX_REVOKE: usize = 48 * 1024;
/// Logs that a revocation can end anywhere but at nothing.
pub const MAX_CUTS: usize = 112;
/// Ends of its statements' chains that a revocation can name; there are several only after a fork.
pub const MAX_TIPS: usize = 16;
/// Ranges of retired sequence numbers in one header.
pub const MAX_RANGES: usize = 1024;
/// Largest signed header.
pub const MAX_HEADER: usize = 512 + MAX_RANGES * 20;
/// Longest device label, in bytes.
pub const MAX_LABEL: usize = 64;
/// Open tickets.
pub const MAX_TICKETS: usize = 256;
/// Devices that wait for a person to compare their check words.
pub const MAX_KNOCKS: usize = 16;
/// Longest life of a ticket, in milliseconds: a week.
pub const MAX_TICKET_MS: u64 = 7 * 24 * 3_600_000;
/// Largest answer on the join protocol.
pub const MAX_JOIN_ANSWER: usize = 1 << 20;
/// Largest request on the join protocol: a stranger may send no more.
pub const MAX_JOIN_REQUEST: usize = 256 * 1024;

/// Commits held while their predecessors are on the way.
pub const MAX_HELD: usize = 1024;
/// Of which one author may have this many.
pub const MAX_HELD_PER_AUTHOR: usize = 128;
/// Bytes of such commits.
pub const MAX_HELD_BYTES: usize = 8 << 20;

/// How far a received stamp may move the local clock ahead, in milliseconds.
pub const CLOCK_LEAD_MS: u64 = 5_000;
/// An own stamp further ahead of the clock than this opens a new epoch, in milliseconds.
pub const EPOCH_LEAD_MS: u64 = 3_600_000;

/// Pause between repair rounds with a random peer, in milliseconds (jittered by a half each way).
pub const REPAIR_EVERY_MS: u64 = 4_000;
/// How often that pause doubles while all connected members are equal and nothing moves.
pub const MAX_BACKOFF: u32 = 4;
/// A repair session that brings nothing for this long is given up, in milliseconds.
pub const PULL_STALLED_MS: u64 = 10_000;
/// A peer whose offer for a log proved false is not asked for that log for this long, in milliseconds.
pub const PEER_COOLDOWN_MS: u64 = 60_000;
/// Slots read again in one step of scrubbing, and their bytes at most.
pub const SCRUB_SLOTS: usize = 128;
/// See [`SCRUB_SLOTS`].
pub const SCRUB_BYTES: usize = 256 * 1024;
/// Pause between steps of scrubbing, in milliseconds: 64 slots a second.
pub const SCRUB_EVERY_MS: u64 = 2_000;
/// Slots read again in one step when there is a reason for haste.
pub const SCRUB_FAST_SLOTS: usize = 512;
/// Pause between steps then, in milliseconds.
pub const SCRUB_FAST_MS: u64 = 10;
/// Pause after everything was read once, in milliseconds.
pub const SCRUB_REST_MS: u64 = 3_600_000;
/// Pause before introducing ourselves to one peer again, in milliseconds.
pub const INTRODUCE_EVERY_MS: u64 = 5_000;

const _: () = assert!(MAX_OP + 4096 <= MAX_FRAME);
const _: () = assert!(MAX_REVOKE + 64 <= MAX_GOSSIP && MAX_REVOKE < MAX_STATEMENT_BYTES);
const _: () = assert!(MAX_CUTS * 400 + MAX_TIPS * 40 + 256 <= MAX_REVOKE);
const _: () = assert!(MAX_OWNER_STATEMENTS + MAX_ADMIN_STATEMENTS <= MAX_STATEMENTS);
const _: () = assert!(MAX_LOGS * 96 <= MAX_FRAME);
const _: () = assert!(MAX_STATEMENTS * 12 + MAX_STATEMENT_BYTES <= MAX_FRAME);
const _: () = assert!(MAX_LOGS * 96 + MAX_STATEMENT_BYTES <= MAX_FRAME);
const _: () = assert!(GROUP_BYTES + MAX_HEADER / 2 < MAX_GOSSIP);
const _: () = assert!(MAX_GOSSIP_VALUE < GROUP_BYTES);
const _: () = assert!(GROUP_OPS <= MAX_TX_OPS && GROUP_BYTES <= MAX_TX_BYTES);
