//! Every bound of the core in one place. A number that a peer can push against stands here, with the
//! relations between bounds asserted at compile time.

/// Protocol version of everything this build writes. Other versions are ignored, never punished.
pub const VERSION: u8 = 1;

/// Longest key, in bytes.
pub const MAX_KEY: usize = 1024;
/// Largest value, in bytes.
pub const MAX_VALUE: usize = 1 << 20;
/// Longest element of a set or field of a map, in bytes.
pub const MAX_FIELD: usize = 1024;
/// Most writes of other logs that one operation may name. A write that would have to name more is refused.
pub const MAX_CTX: usize = 256;
/// Most parts of a counter that one operation may carry, and most that it may take away.
pub const MAX_PARTS: usize = 256;
/// Parts of one log that a write goes on naming as taken although no counter holds them any more.
pub const MAX_SPENT: usize = 8;
/// Most own slots that one operation may take out of the live set.
pub const MAX_FORGET: usize = 256;
/// Bytes of one context entry or counter part on the wire, at most.
const ENTRY: usize = 96;
/// Largest encoded operation.
pub const MAX_OP: usize = MAX_VALUE + MAX_KEY + MAX_FIELD + (MAX_CTX + 2 * MAX_PARTS) * ENTRY + 64;

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
/// Slots under one sum where live sets are compared, and bytes of their operations, unless one slot alone is
/// larger.
pub const BLOCK_SLOTS: usize = 64;
/// See [`BLOCK_SLOTS`].
pub const BLOCK_BYTES: usize = 16 * 1024;
/// Such sums in one frame.
pub const SUMS: usize = 64;
/// Names of slots in one frame where live sets are compared, and slots asked for in one.
pub const NAMES: usize = 4096;
/// Bytes of operations read for such a frame, unless one slot alone is larger.
pub const NAMES_BYTES: usize = 1 << 20;
/// Bytes of operations that are read for one such frame on the side that asks: of what is set aside and of every
/// history of the log.
pub const COMPARE_BYTES: usize = (MAX_BRANCHES + 2) * NAMES_BYTES;
/// Ranges of a log that are asked for in one frame.
pub const RANGES: usize = 256;
/// Ranges of one log noted as differing; those beyond are noted as one.
pub const MAX_DIFFERING: usize = 65_536;
/// Largest repair frame.
pub const MAX_FRAME: usize = 1280 * 1024;
/// Entries of a digest in one frame; more are told in several.
pub const DIGEST_ENTRIES: usize = 640;
/// Bytes of such a frame, at most, statements left out.
pub const DIGEST_BYTES: usize = 64 * 1024;
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
/// Bytes of slots read in such a step, unless one slot alone is larger.
pub const CHORE_BYTES: usize = 1 << 20;
/// Operations of a log after which its sums are written again; a start sums up those that came since.
pub const RECORD_OPS: u64 = 512;
/// Slots that such a log has replaced since, at most: they are kept until then.
pub const RECORD_REPLACED: usize = 128;
/// Operations of all logs together after which the sums of the one with most of them are written.
pub const RECORD_ALL_OPS: u64 = 16_384;

/// Logs that a replica can come to follow: bounded by what each member may have, not by who comes first.
pub const MAX_LOGS: usize = MAX_STATEMENTS * MAX_LOGS_PER_AUTHOR;
/// Logs of one author that count: those of the greatest epochs. An author keeps itself to one less, so that
/// it can write what lives in its oldest log again in its newest before that one goes.
pub const MAX_LOGS_PER_AUTHOR: usize = 5;
/// Logs of one author that a write goes on naming although they may count no more: those of the greatest
/// epochs. Too few and a replica that is that many epochs behind shows for a moment what was overwritten; too
/// many and a device that starts afresh often makes the others' writes long.
pub const MAX_NAMED_LOGS: usize = 8 + MAX_LOGS_PER_AUTHOR;
/// Histories of one author's that are kept although nothing of them is proven.
pub const MAX_UNPROVEN: usize = 2 * MAX_LOGS_PER_AUTHOR;
/// Histories kept of a log that its author forked.
pub const MAX_BRANCHES: usize = 4;
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
pub const MAX_CUTS: usize = 16;
/// Ends of its statements' chains that a revocation can name; there are several only after a fork.
pub const MAX_TIPS: usize = 16;
/// Largest signed header.
pub const MAX_HEADER: usize = 512;
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
/// How long a commit is held, in milliseconds.
pub const HELD_MS: u64 = 60_000;
/// How long what repair has set aside of a log is kept while nobody sends more of it, in milliseconds.
pub const STAGED_MS: u64 = 600_000;
/// Bytes that may be set aside of a log beyond the size last signed; its source announces it anew at half of
/// that.
pub const STAGE_SLACK: u64 = 2 << 20;

/// How far a received stamp may move the local clock ahead, in milliseconds.
pub const CLOCK_LEAD_MS: u64 = 5_000;
/// An own stamp further ahead of the clock than this opens a new epoch, in milliseconds.
pub const EPOCH_LEAD_MS: u64 = 3_600_000;

/// Pause between repair rounds with a random peer, in milliseconds (jittered by a half each way).
pub const REPAIR_EVERY_MS: u64 = 4_000;
/// How often that pause doubles while all connected members are equal and nothing moves.
pub const MAX_BACKOFF: u32 = 4;
/// Comparisons at once, with different members.
pub const MAX_COMPARISONS: usize = 3;
/// How long a comparison that is slower than a slow line keeps others waiting, in milliseconds.
pub const COMPARISON_TURN_MS: u64 = 120_000;
/// A repair session that brings less than [`PROGRESS_BYTES`] of what was announced in this time, in
/// milliseconds, is given up.
pub const PULL_STALLED_MS: u64 = 30_000;
/// See [`PULL_STALLED_MS`].
pub const PROGRESS_BYTES: u64 = 4 * 1024;
/// How long the logs that a peer offers are left to it alone before it begins to send, in milliseconds.
pub const PLAN_HOLD_MS: u64 = 4_000;
/// How long the logs that a session is bringing are left to it alone when nothing more of them comes, in
/// milliseconds: the longest pause between two frames on a slow line.
pub const LOG_HOLD_MS: u64 = 10_000;
/// What a slow line carries in a millisecond: 128 kbit/s.
pub const SLOW_LINE_BYTES_PER_MS: u64 = 16;
const _: () = assert!(CHUNK_BYTES as u64 / SLOW_LINE_BYTES_PER_MS <= LOG_HOLD_MS);
const _: () = assert!(LOG_HOLD_MS < PULL_STALLED_MS);
/// Longest pause before a member whose session was given up is asked again, in milliseconds; the first is a
/// repair round.
pub const MAX_PEER_PAUSE_MS: u64 = 600_000;
/// Bytes that one member is served at full speed, beside one and a half times what this replica holds. Who
/// has used that up, as one who asks for everything over and over, is served slowly.
pub const SERVE_BUDGET_BYTES: u64 = 4 << 20;
/// How fast that is given back, in bytes a millisecond.
pub const SERVE_SLOW_BYTES_PER_MS: u64 = 512;
/// Sessions that one member may open at once, one after the other.
pub const SESSION_BURST: u64 = 64;
/// One more comes after this, in milliseconds.
pub const SESSION_EVERY_MS: u64 = 50;
/// A comparison that has no plan after this, in milliseconds, holds no other up.
pub const PLAN_WAIT_MS: u64 = 1_000;
/// Pause before looking again whether mending can begin, while a session brings the same log, in milliseconds.
pub const MEND_WAIT_MS: u64 = 250;
/// How often what was held or set aside too long is looked for, in milliseconds.
pub const EXPIRE_EVERY_MS: u64 = 10_000;
/// Gaps of one member's that are noted.
pub const MAX_GAPS: usize = 1024;
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

const _: () = assert!(SUMS * BLOCK_SLOTS <= NAMES && SUMS * BLOCK_BYTES <= NAMES_BYTES);
const _: () = assert!(NAMES * 24 + RANGES * 24 + 64 <= MAX_FRAME);
const _: () = assert!(MAX_OP + 4096 <= MAX_FRAME);
const _: () = assert!(MAX_REVOKE + 64 <= MAX_GOSSIP && MAX_REVOKE < MAX_STATEMENT_BYTES);
const _: () = assert!(MAX_CUTS * (MAX_HEADER + 8) + MAX_TIPS * 40 + 256 <= MAX_REVOKE);
const _: () = assert!(MAX_OWNER_STATEMENTS + MAX_ADMIN_STATEMENTS <= MAX_STATEMENTS);
const _: () = assert!(MAX_STATEMENTS * 12 + MAX_STATEMENT_BYTES <= MAX_FRAME);
const _: () = assert!(MAX_LOGS_PER_AUTHOR <= MAX_CUTS && DIGEST_ENTRIES * 96 <= DIGEST_BYTES);
const _: () = assert!(GROUP_BYTES + MAX_HEADER / 2 < MAX_GOSSIP);
const _: () = assert!(MAX_GOSSIP_VALUE < GROUP_BYTES);
const _: () = assert!(GROUP_OPS <= MAX_TX_OPS && GROUP_BYTES <= MAX_TX_BYTES);
