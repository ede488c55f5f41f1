//! What the core's hot paths cost: nanoseconds here, and, with `perf` at hand, instructions, which stay the
//! same on a busy machine. `cargo bench -p swarmkv-tests`

use std::hint::black_box;
use std::process::Command;
use std::time::Instant;

use swarmkv_protocol::codec::{self, Bytes};
use swarmkv_protocol::crypto::{DeviceKey, Domain, PublicKey};
use swarmkv_protocol::id::{BranchId, LogId, Version};
use swarmkv_protocol::live_root::Totals;
use swarmkv_protocol::model::cell::Cell;
use swarmkv_protocol::op::{Body, Op, Slot};
use swarmkv_protocol::store::RawSlot;
use swarmkv_protocol::time::Hlc;
use swarmkv_protocol::view::View;

/// A case: does its thing so many times.
type Case = (&'static str, fn(u64));

const CASES: [Case; 9] = [
    ("encode an operation of 280 bytes", encode),
    ("decode it strictly", decode),
    ("count a slot into a live root", count),
    ("hash a live root", root),
    ("name a slot", name),
    ("show a key that one log wrote", show_one),
    ("merge a key that three logs wrote", merge_three),
    ("sign a header", sign),
    ("verify one", verify),
];

/// Iterations that are timed.
const TIMED: u64 = 20_000;
/// Iterations whose instructions are counted.
const COUNTED: u64 = 2_000;

fn main() {
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    if let (Some(case), Some(times)) = (args.next(), args.next()) {
        let case = CASES.iter().find(|(name, _)| *name == case).expect("a case of that name");
        case.1(times.parse().expect("a number"));
        return;
    }
    println!("{:<36} {:>12} {:>14}", "", "ns", "instructions");
    for (name, run) in CASES {
        run(TIMED / 10);
        let began = Instant::now();
        run(TIMED);
        let ns = began.elapsed().as_nanos() as f64 / TIMED as f64;
        // Twice as many less once as many: what starting costs falls out.
        let counted = instructions(name, 2 * COUNTED).zip(instructions(name, COUNTED));
        let counted = counted.map(|(twice, once)| twice.saturating_sub(once) / COUNTED);
        println!(
            "{name:<36} {ns:>12.0} {:>14}",
            counted.map_or("no perf".into(), |n| n.to_string())
        );
    }
}

fn instructions(case: &str, times: u64) -> Option<u64> {
    let me = std::env::current_exe().ok()?;
    let mut perf = Command::new("perf");
    perf.args(["stat", "-x", ",", "-e", "instructions:u", "--"])
        .arg(me)
        .arg(case)
        .arg(times.to_string());
    let out = perf.output().ok().filter(|out| out.status.success())?;
    String::from_utf8_lossy(&out.stderr).lines().last()?.split(',').next()?.parse().ok()
}

fn log(n: u8) -> LogId {
    LogId { author: DeviceKey::from_seed(&[n; 32]).id(), epoch: 7, shard: 0 }
}

fn op(ctx: Vec<Version>) -> Op {
    let cell = Cell::value(b"0123456789abcdef00000042".as_slice());
    let body = Body::Put(Bytes(vec![b'v'; 256]));
    Op { cell, body, ctx, took: Vec::new(), expires_at: None }
}

fn slot(n: u8, ctx: Vec<Version>) -> Slot {
    let op = op(ctx);
    let size = codec::encode(&op).len();
    Slot { log: log(n), seq: 9, hlc: Hlc(77 << 16), op, size }
}

fn raw(slot: &Slot) -> RawSlot {
    RawSlot {
        branch: BranchId::from(slot.log),
        seq: slot.seq,
        hlc: slot.hlc,
        op: Bytes(codec::encode(&slot.op)),
    }
}

fn encode(times: u64) {
    let op = op(Vec::new());
    for _ in 0..times {
        black_box(codec::encode(black_box(&op)));
    }
}

fn decode(times: u64) {
    let (log, bytes) = (log(1), codec::encode(&op(Vec::new())));
    for _ in 0..times {
        let _ = black_box(Op::decode(&log, black_box(&bytes)));
    }
}

fn count(times: u64) {
    let (mut totals, slot) = (Totals::default(), slot(1, Vec::new()));
    for _ in 0..times {
        black_box(totals.add(black_box(&slot)));
    }
}

fn root(times: u64) {
    let totals = Totals::default();
    for _ in 0..times {
        black_box(black_box(&totals).root());
    }
}

fn name(times: u64) {
    let slot = slot(1, Vec::new());
    for _ in 0..times {
        black_box(black_box(&slot).version());
    }
}

fn show_one(times: u64) {
    let slots = [raw(&slot(1, Vec::new()))];
    for _ in 0..times {
        let _ = black_box(View::shown_of(black_box(&slots), |_| 100, 0));
    }
}

fn merge_three(times: u64) {
    let first = slot(1, Vec::new());
    let mut slots =
        vec![raw(&first), raw(&slot(2, vec![first.version()])), raw(&slot(3, Vec::new()))];
    slots.sort_by_key(|slot| slot.branch);
    for _ in 0..times {
        let _ = black_box(View::merge(black_box(&slots), |_| 100));
    }
}

fn sign(times: u64) {
    let key = DeviceKey::from_seed(&[1; 32]);
    for _ in 0..times {
        black_box(key.sign(Domain::Commit, black_box(&[7; 260])));
    }
}

fn verify(times: u64) {
    let key = DeviceKey::from_seed(&[1; 32]);
    let sig = key.sign(Domain::Commit, &[7; 260]);
    let verifier = PublicKey::new(&key.id()).expect("a key");
    for _ in 0..times {
        black_box(verifier.verifies(Domain::Commit, black_box(&[7; 260]), &sig));
    }
}
