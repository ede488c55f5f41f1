//! The bounded run: each target over seeded changes of genuine inputs, on any toolchain.
//!
//! `slice [SECONDS] [SEED]` runs each target for so long (default 15) from a seed (default: one fixed and
//! one fresh, printed). `slice FILE` replays one input: `TARGET` is the file's first dot-part.

use std::alloc::{GlobalAlloc, Layout, System};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Counts what is held, to see that no input makes a decoder ask for much more than its own size.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(live, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

type Target = (&'static str, fn(&[u8]));

const TARGETS: [Target; 3] = [
    ("decode", swarmkv_fuzz::decode),
    ("session", swarmkv_fuzz::session),
    ("engine", swarmkv_fuzz::engine),
];

struct Rng(u64);

impl Rng {
    /// SplitMix64 (Steele et al., 2014).
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n.max(1) as u64).unwrap_or(0)
    }
}

/// Genuine bytes to start from.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    if target != "decode" {
        return vec![Vec::new()];
    }
    let (gossip, frames) = swarmkv_fuzz::genuine();
    let tagged = |kind: u8, bytes: &Vec<u8>| [&[kind][..], bytes].concat();
    let mut corpus: Vec<Vec<u8>> = gossip.iter().map(|bytes| tagged(0, bytes)).collect();
    corpus.extend(frames.iter().map(|bytes| tagged(1, bytes)));
    // Inside the envelopes: a version byte and a variant number lie before commit and header.
    corpus.extend(gossip.iter().flat_map(|bytes| {
        (2..9).flat_map(move |kind| (3..9).map(move |skip| tagged(kind, &bytes[skip..].to_vec())))
    }));
    corpus
}

fn mutate(rng: &mut Rng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut input = corpus[rng.below(corpus.len())].clone();
    for _ in 0..rng.below(6) {
        let at = rng.below(input.len() + 1);
        match rng.below(6) {
            0 if at < input.len() => input[at] ^= 1 << rng.below(8),
            1 if at < input.len() => input[at] = [0x1b, 0x3b, 0x5b, 0x9b, 0xbb, 0xff][rng.below(6)],
            2 => input.truncate(at),
            3 => input.insert(at, rng.next() as u8),
            4 => {
                let other = &corpus[rng.below(corpus.len())];
                input.truncate(at);
                input.extend_from_slice(&other[rng.below(other.len() + 1)..]);
            }
            _ => input.extend((0..rng.below(300)).map(|_| rng.next() as u8)),
        }
    }
    input
}

/// Runs one input; a failure is written to a file.
fn one(name: &str, target: fn(&[u8]), input: &[u8]) -> Result<(), String> {
    let before = LIVE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let panicked = catch_unwind(AssertUnwindSafe(|| target(input))).is_err();
    let peak = PEAK.load(Ordering::Relaxed).saturating_sub(before);
    let greedy = name == "decode" && peak > 64 * input.len() + (1 << 20);
    if !panicked && !greedy {
        return Ok(());
    }
    let path = std::env::temp_dir().join(format!("{name}.{}.fuzz", input.len()));
    std::fs::write(&path, input).map_err(|e| e.to_string())?;
    let why = if panicked { "it panics".into() } else { format!("it takes {peak} bytes") };
    Err(format!("{name}: {why}; replay: slice {}", path.display()))
}

fn run(name: &str, target: fn(&[u8]), seed: u64, limit: Duration) -> Result<(), String> {
    let (mut rng, corpus, began) = (Rng(seed), corpus(name), Instant::now());
    let mut executions = 0u64;
    for input in &corpus {
        one(name, target, input)?;
    }
    while began.elapsed() < limit {
        one(name, target, &mutate(&mut rng, &corpus))
            .map_err(|e| format!("seed {seed}, execution {executions}: {e}"))?;
        executions += 1;
    }
    let rate = executions as f64 / began.elapsed().as_secs_f64();
    println!("{name}: {executions} executions from seed {seed}, {rate:.0} a second");
    Ok(())
}

fn main() -> Result<(), String> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let Some(input) = args.first().and_then(|path| std::fs::read(path).ok()) {
        let name = args[0].rsplit('/').next().and_then(|file| file.split('.').next());
        let found = TARGETS.iter().find(|(target, _)| Some(*target) == name);
        let (name, target) = found.ok_or("the file's name does not begin with a target's")?;
        return one(name, *target, &input);
    }
    let seconds = args.first().and_then(|text| text.parse().ok()).unwrap_or(15);
    let fresh = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let seeds = args.get(1).and_then(|text| text.parse().ok()).map_or(vec![1, fresh], |s| vec![s]);
    for (name, target) in TARGETS {
        for seed in &seeds {
            let limit = Duration::from_secs(seconds) / u32::try_from(seeds.len()).unwrap_or(1);
            run(name, target, *seed, limit)?;
        }
    }
    Ok(())
}
