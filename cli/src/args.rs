//! What can be typed: commands, options, their help. Values that have a form of their own are read in
//! `parse.rs`; nothing here knows what a command does.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::parse;

const ROOT_HELP: &str = "\
Exit codes (and the `kind` of errors printed with --json):
  0  done
  1  failed               failed
  2  usage                usage
  3  not found            not_found
  4  no peer reachable    unreachable
  5  not allowed          not_allowed
  6  condition not met    condition
  7  timed out            timeout      (also: still catching up)
  8  stream interrupted   interrupted
  9  already running      already_running

Standard output is data, standard error is talk. With --json, data is one JSON
object, or one per line; errors are one {\"kind\",\"message\",\"hint\"} on standard
error. Keys and values are text, or {\"base64\": \"...\"} where they are not UTF-8.

The main job:
  here$   swarmkv init && swarmkv up --detach && swarmkv invite
  there$  swarmkv join TICKET && swarmkv up --detach
  here$   swarmkv put greeting hello
  there$  swarmkv get greeting

Environment: SWARMKV_DATA_DIR, RUST_LOG, NO_COLOR. Flags win over it.";

/// A key-value store without a server: your devices keep one copy each and agree.
#[derive(Debug, Parser)]
#[command(name = "swarmkv", version, max_term_width = 80, after_help = ROOT_HELP)]
#[command(arg_required_else_help = true)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub common: Common,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options that every command takes, before or after its name.
#[derive(Debug, Args)]
#[command(next_help_heading = "Common options")]
pub struct Common {
    /// Where this device's key and data live [default: the platform's place for data]
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "SWARMKV_DATA_DIR",
        hide_env_values = true
    )]
    pub data_dir: Option<PathBuf>,
    /// Longest wait for an answer: 500ms, 10s, 2m
    #[arg(long, global = true, value_name = "TIME", default_value = "10s", value_parser = parse::duration)]
    pub timeout: Duration,
    /// Print data and errors as JSON, and no talk
    #[arg(long, global = true)]
    pub json: bool,
    /// Print data and errors, and no talk
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Log what happens inside, on standard error (-vv: more)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show it all on this machine: three peers, a cut, a rogue turned away
    #[command(after_help = DEMO_HELP)]
    Demo,
    /// Make this device's key and a new swarm
    #[command(after_help = INIT_HELP)]
    Init(Init),
    /// Run the peer, in the foreground unless told otherwise
    #[command(after_help = UP_HELP)]
    Up(Up),
    /// Print a ticket that admits another device
    #[command(after_help = INVITE_HELP)]
    Invite(Invite),
    /// Become a member of the swarm that a ticket invites to
    #[command(after_help = JOIN_HELP)]
    Join(Join),
    /// Write one key; when it returns, the value is on this device's disk
    #[command(after_help = PUT_HELP)]
    Put(Put),
    /// Print the value of one key, its bytes and nothing else
    #[command(after_help = GET_HELP)]
    Get(Get),
    /// Delete keys
    #[command(after_help = DEL_HELP)]
    Del(Del),
    /// List keys in ascending order of their bytes
    #[command(after_help = LS_HELP)]
    Ls(Ls),
    /// Write many keys from JSON lines
    #[command(after_help = IMPORT_HELP)]
    Import(Import),
    /// Tell at a glance how this peer is
    #[command(after_help = STATUS_HELP)]
    Status,
    /// List the other members, connected or not
    #[command(after_help = PEERS_HELP)]
    Peers,
    /// List all members of the swarm, and who no longer is one
    #[command(after_help = MEMBERS_HELP)]
    Members,
    /// Take a device out of the swarm, for ever
    #[command(after_help = REVOKE_HELP)]
    Revoke(Revoke),
    /// Leave the swarm, for ever
    #[command(after_help = LEAVE_HELP)]
    Leave(Leave),
    /// Check everything stored here against what was signed
    #[command(after_help = SCRUB_HELP)]
    Scrub,
    /// Measure how fast this device and its swarm are
    #[command(after_help = BENCH_HELP)]
    Bench(Bench),
}

const BENCH_HELP: &str = "\
Measures, on the running peer: writes by 1, 16 and 256 clients and reads, all
through the local API as other programs use it; and, while another device runs
`swarmkv bench --answer`, how long a write takes to be seen there (half of there
and back). Then, with two throw-away peers beside the data directory: how long a
write takes from one to the other, and how fast an empty one catches up.

A write counts when it is on this device's disk (fdatasync). It writes under
.swarmkv-bench/ and deletes that again; what it deletes leaves tombstones, as any
delete does. Ctrl-C ends it, and it cleans up then too.

Examples:
  swarmkv bench
  swarmkv bench --seconds 1 --json
  there$  swarmkv bench --answer
  here$   swarmkv bench --only peers";

/// See [`Command::Bench`].
#[derive(Debug, Args)]
pub struct Bench {
    /// Seconds for each measurement of writes and reads
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub seconds: u64,
    /// Bytes of a value
    #[arg(long, value_name = "BYTES", default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..=65536))]
    pub size: u64,
    /// Keys that the empty peer catches up with
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub keys: u64,
    /// Measure only one part: local, peers or pair
    #[arg(long, value_enum, value_name = "PART", hide_possible_values = true)]
    pub only: Option<BenchPart>,
    /// Answer the bench of another device until Ctrl-C
    #[arg(long, conflicts_with_all = ["seconds", "size", "keys", "only"])]
    pub answer: bool,
}

/// A part of the bench.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum BenchPart {
    /// Writes and reads on the running peer.
    Local,
    /// Writes seen by other devices that answer.
    Peers,
    /// Two throw-away peers.
    Pair,
}

const MEMBERS_HELP: &str = "\
DATA: what the device has written, as it counts here. WROTE: its last write, by
its own clock.

Examples:
  swarmkv members
  swarmkv members --json";

const REVOKE_HELP: &str = "\
DEVICE is a label, or the first characters of an id (see: swarmkv members).

What connected members have of the device is pulled first. What it wrote up to
there stays; what it wrote later, and nobody here has, is lost to the swarm.
Connected members turn it away at once, others as soon as they hear of it. It
keeps its own copy, and whatever it has read; its key can never return. Only a
higher rank revokes; among admins, the one who was admitted first.

Without --yes it asks on a terminal, and elsewhere only says what it would do
(exit code 2).

Examples:
  swarmkv revoke phone
  swarmkv revoke phone --yes
  swarmkv revoke awv7c3hq --yes --timeout 1m --json";

/// See [`Command::Revoke`].
#[derive(Debug, Args)]
pub struct Revoke {
    /// The device: its label, or the start of its id
    pub device: String,
    /// Do it without asking
    #[arg(short, long)]
    pub yes: bool,
}

const LEAVE_HELP: &str = "\
What this device wrote stays with the swarm; its own copy stays readable here.
The key can never return: to come back, join again from a new data directory.
The owner cannot leave.

It is refused while no connected member has everything that this device wrote,
unless forced. Without --yes it asks on a terminal, and elsewhere only says what
it would do (exit code 2).

Examples:
  swarmkv leave
  swarmkv leave --yes";

/// See [`Command::Leave`].
#[derive(Debug, Args)]
pub struct Leave {
    /// Do it without asking
    #[arg(short, long)]
    pub yes: bool,
    /// Leave even if what only this device has is lost
    #[arg(long)]
    pub force: bool,
}

const SCRUB_HELP: &str = "\
A running peer reads everything it stores again, little by little and for ever;
this command has it done now. What does not match what its author signed is
fetched afresh from the other members; what nobody else has of this device's own
writes is kept and written again. Exit code 0 if all is sound or was mended, 1 if
something is still to be mended after --timeout. Ctrl-C ends the waiting only.

Examples:
  swarmkv scrub
  swarmkv scrub --json
  swarmkv scrub --timeout 10m";

const DEMO_HELP: &str = "\
Starts three peers on this machine's loopback, checks what swarmkv promises and
says what it saw. Touches no other data, leaves nothing behind, and exits with 1
if anything was not as promised.

Examples:
  swarmkv demo
  swarmkv demo --json";

const INIT_HELP: &str = "\
Run it once, on the first device only; the others join with a ticket.

Examples:
  swarmkv init
  swarmkv init --name home --label laptop";

/// See [`Command::Init`].
#[derive(Debug, Args)]
pub struct Init {
    /// The swarm's name, for people
    #[arg(long, default_value = "home")]
    pub name: String,
    /// This device's name, for people [default: the host name]
    #[arg(long)]
    pub label: Option<String>,
}

const UP_HELP: &str = "\
Says on standard error who connects and what happens. Ctrl-C stops it cleanly.
With --json these events are JSON lines on standard output. With --detach the
talk goes to up.log in the data directory and the process id is printed.

Examples:
  swarmkv up
  swarmkv up --detach
  swarmkv up --listen /ip4/0.0.0.0/tcp/4001 /ip4/0.0.0.0/udp/4001/quic-v1
  swarmkv up --peer /ip4/192.0.2.7/tcp/4001";

/// See [`Command::Up`].
#[derive(Debug, Args)]
pub struct Up {
    /// Listen here [default: every interface, TCP and QUIC, free ports]
    #[arg(long, value_name = "MULTIADDR", num_args = 1..)]
    pub listen: Vec<String>,
    /// Also connect to the member at this address; through it the others are found
    #[arg(long, value_name = "MULTIADDR", num_args = 1..)]
    pub peer: Vec<String>,
    /// Neither look for peers on the local network nor announce this device there
    #[arg(long)]
    pub no_mdns: bool,
    /// Keep data in memory only: gone when the peer stops, except where other members have it
    #[arg(long)]
    pub memory: bool,
    /// Run in the background; return when the peer answers
    #[arg(long)]
    pub detach: bool,
    /// Set by --detach for the process that it starts.
    #[arg(long, hide = true, conflicts_with = "detach")]
    pub background: bool,
}

const INVITE_HELP: &str = "\
The ticket alone is on standard output. Whoever has it can join, once: send it
over a channel you trust. This device must be up and reachable for the join.
With --confirm the command stays and asks, for each device that comes, whether
it shows the same two words; no answer is no admission.

Examples:
  swarmkv invite
  swarmkv invite --role reader --expires 1h
  swarmkv invite --prefix photos/ --quota 100000000
  swarmkv invite --confirm
  swarmkv invite --qr";

/// See [`Command::Invite`].
#[derive(Debug, Args)]
pub struct Invite {
    /// What the new device may do
    #[arg(long, default_value = "writer", value_parser = ["reader", "writer", "admin"])]
    pub role: String,
    /// Let it write only keys that begin with this
    #[arg(long, value_name = "PREFIX")]
    pub prefix: Option<OsString>,
    /// Let it hold this many bytes at most
    #[arg(long, value_name = "BYTES")]
    pub quota: Option<u64>,
    /// How long the ticket is good, a week at most
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = parse::duration)]
    pub expires: Duration,
    /// How many devices it admits
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub uses: u32,
    /// Stay, and admit a device only after a person here has compared the check words
    #[arg(long)]
    pub confirm: bool,
    /// Also draw the ticket as a QR code, on standard error
    #[arg(long)]
    pub qr: bool,
}

const JOIN_HELP: &str = "\
White space that a chat program put into the ticket does no harm. Both sides
show the same two check words. If the ticket was made with --confirm, it waits
up to ten minutes for the other side to confirm them. `-` reads the ticket from standard input, which
keeps it out of the shell's history.

Examples:
  swarmkv join swarmkv-aea...
  swarmkv join --label phone - < ticket.txt";

/// See [`Command::Join`].
#[derive(Debug, Args)]
pub struct Join {
    /// The ticket, or `-` for standard input
    #[arg(required = true, num_args = 1..)]
    pub ticket: Vec<String>,
    /// This device's name, for people [default: the host name]
    #[arg(long)]
    pub label: Option<String>,
}

const PUT_HELP: &str = "\
VALUE, --file or `-` must be given: a missing value is never an empty one.
Prints nothing, unless asked with --print-version or --json. `--` ends the
options, for keys that begin with a dash.

Examples:
  swarmkv put greeting hello
  swarmkv put photo --file cat.jpg
  date | swarmkv put now -
  swarmkv put empty ''
  swarmkv put --if-absent lock \"$HOSTNAME\"
  swarmkv put --ttl 1h session abc
  swarmkv put -- -dash value";

/// See [`Command::Put`].
#[derive(Debug, Args)]
pub struct Put {
    /// The key: 1 to 1024 bytes
    pub key: OsString,
    /// The value, or `-` for standard input: up to 1 MiB
    #[arg(allow_negative_numbers = true, conflicts_with = "file")]
    pub value: Option<OsString>,
    /// Read the value from this file
    #[arg(long, value_name = "PATH")]
    pub file: Option<PathBuf>,
    /// Stop showing the value after this time: 30s, 1h, 7d
    #[arg(long, value_name = "TIME", value_parser = parse::duration)]
    pub ttl: Option<Duration>,
    /// Only if the key shows no value at this device
    #[arg(long, conflicts_with = "if_version")]
    pub if_absent: bool,
    /// Only if the key holds exactly this version here; repeat it for concurrent ones
    #[arg(long, value_name = "VERSION")]
    pub if_version: Vec<String>,
    /// Print the name of the write, for `get --at-least`
    #[arg(long)]
    pub print_version: bool,
    /// KEY is base64
    #[arg(long)]
    pub key_base64: bool,
}

const GET_HELP: &str = "\
On a terminal a newline follows the value; elsewhere nothing does. A missing key
is exit code 3. A device that has not yet caught up with the swarm answers no
reads: exit code 7 after --timeout.

--siblings prints a line for each concurrent write, the shown one first:
  STATE<TAB>AUTHOR<TAB>WRITTEN<TAB>VALUE
STATE is shown, other, deleted or expired.

Examples:
  swarmkv get greeting
  swarmkv get photo > cat.jpg
  swarmkv get --siblings greeting
  swarmkv get --at-least \"$VERSION\" --timeout 30s greeting";

/// See [`Command::Get`].
#[derive(Debug, Args)]
pub struct Get {
    /// The key
    pub key: OsString,
    /// Print all concurrent values
    #[arg(long, conflicts_with = "meta")]
    pub siblings: bool,
    /// Print what is known about the value instead of the value
    #[arg(long)]
    pub meta: bool,
    /// First wait until this write has arrived here
    #[arg(long, value_name = "VERSION")]
    pub at_least: Option<String>,
    /// KEY is base64
    #[arg(long)]
    pub key_base64: bool,
}

const DEL_HELP: &str = "\
Keys that hold no value here are named and left alone; exit code 3 if none of
the keys did. Prints nothing else.

Examples:
  swarmkv del greeting
  swarmkv del a b c
  swarmkv del --if-version \"$VERSION\" lock";

/// See [`Command::Del`].
#[derive(Debug, Args)]
pub struct Del {
    /// The keys
    #[arg(required = true, num_args = 1..)]
    pub key: Vec<OsString>,
    /// Only if the key (one) holds exactly this version here
    #[arg(long, value_name = "VERSION")]
    pub if_version: Vec<String>,
    /// The keys are base64
    #[arg(long)]
    pub key_base64: bool,
}

const LS_HELP: &str = "\
Prints KEY<TAB>VALUE a line. On a terminal, control characters are escaped; in a
pipe, bytes are as they are, so use --json where they may hold tabs or newlines:
{\"key\",\"value\"} a line, as `import` reads it.

Examples:
  swarmkv ls
  swarmkv ls photos/ --keys-only
  swarmkv ls --long
  swarmkv ls --json > backup.jsonl";

/// See [`Command::Ls`].
#[derive(Debug, Args)]
pub struct Ls {
    /// Only keys that begin with this
    pub prefix: Option<OsString>,
    /// Print keys, one a line
    #[arg(long)]
    pub keys_only: bool,
    /// Print a table: time, size, concurrent values, author, key
    #[arg(long, conflicts_with = "keys_only")]
    pub long: bool,
    /// Print this many at most
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Begin at this key
    #[arg(long, value_name = "KEY")]
    pub start: Option<OsString>,
    /// PREFIX and --start are base64
    #[arg(long)]
    pub key_base64: bool,
}

const IMPORT_HELP: &str = "\
A line is {\"key\": K, \"value\": V}: each text, or {\"base64\": \"...\"}; a V of
null deletes the key. \"expires_at\" (Unix milliseconds) may follow. Lines take
effect in their order. A wrong line stops the import: all lines before it are
written, no line after it. So does Ctrl-C. Both say what is on disk. Importing a
file again does no harm.

Examples:
  swarmkv import backup.jsonl
  swarmkv ls --json | swarmkv --data-dir /elsewhere import -";

/// See [`Command::Import`].
#[derive(Debug, Args)]
pub struct Import {
    /// The file, or `-` for standard input
    #[arg(default_value = "-", hide_default_value = true)]
    pub file: PathBuf,
}

const STATUS_HELP: &str = "\
BEHIND: operations that the peer has not confirmed yet (it is asked every few
seconds). AHEAD: operations that it has and this device lacks. EQUAL: how long
ago both were last seen equal.

Examples:
  swarmkv status
  swarmkv status --json";

const PEERS_HELP: &str = "\
FOUND tells how (mdns, kad, direct), OVER what carries it (tcp, quic). BEHIND,
AHEAD and EQUAL are explained in: swarmkv status --help

A member that hands on what nobody honest would (forged or malformed bytes) ten
times in ten minutes is blocked by this device for an hour.

Examples:
  swarmkv peers
  swarmkv peers --json";
