//! Explicit-state search over any model: breadth first (shortest traces) and random walks.
//! It knows nothing of what is modelled. States are told apart by 64-bit fingerprints.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::time::{Duration, Instant};

/// What is explored. `apply` is only called with what `acts` offered.
pub trait Model {
    type State: Clone + Hash;
    type Act: Copy + Debug;
    fn start(&self) -> Self::State;
    fn acts(&self, state: &Self::State) -> Vec<Self::Act>;
    fn apply(&self, state: &Self::State, act: Self::Act) -> Self::State;
    /// The invariant that a state breaks; `act` led to it.
    fn fault(&self, state: &Self::State, act: Self::Act) -> Option<&'static str>;
    /// A state in a line, for traces.
    fn tell(&self, state: &Self::State) -> String;
}

/// A multiply-and-rotate hash: fast, and the same in every run.
#[derive(Default, Clone)]
struct Mix(u64);

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        let h = (self.0 ^ (self.0 >> 32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        h ^ (h >> 29)
    }
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }
    fn write_u8(&mut self, x: u8) {
        self.write_u64(x.into());
    }
    fn write_u32(&mut self, x: u32) {
        self.write_u64(x.into());
    }
    fn write_usize(&mut self, x: usize) {
        self.write_u64(x as u64);
    }
    fn write_u64(&mut self, x: u64) {
        self.0 = (self.0.rotate_left(5) ^ x).wrapping_mul(0xf135_7aea_2e62_a9c5).rotate_left(23);
    }
}

/// Fingerprints are hashes already.
#[derive(Default, Clone)]
struct Same(u64);

impl Hasher for Same {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {
        unreachable!("only fingerprints are keys")
    }
    fn write_u64(&mut self, x: u64) {
        self.0 = x;
    }
}

fn fingerprint(state: &impl Hash) -> u64 {
    let mut hash = Mix(7);
    state.hash(&mut hash);
    hash.finish()
}

/// What a search did: states (or steps of walks), its depth, whether all there is was seen, what
/// it found.
pub struct Outcome<A> {
    pub states: usize,
    pub depth: usize,
    pub full: bool,
    pub found: Option<(&'static str, Vec<A>)>,
}

/// Where a search ends if it finds nothing.
#[derive(Clone, Copy)]
pub struct Bound {
    pub states: usize,
    pub time: Duration,
}

impl Bound {
    /// So many states; or, for long runs, as many seconds as `SWARMKV_MODEL_SECONDS` says.
    pub fn states(states: usize) -> Self {
        let seconds = std::env::var("SWARMKV_MODEL_SECONDS").ok();
        match seconds.and_then(|seconds| seconds.parse().ok()) {
            Some(seconds) => Bound { states: 15_000_000, time: Duration::from_secs(seconds) },
            None => Bound { states, time: Duration::from_secs(60) },
        }
    }
}

/// Breadth-first search until the first violation.
pub fn breadth_first<M: Model>(model: &M, bound: Bound) -> Outcome<M::Act> {
    let begun = Instant::now();
    let start = model.start();
    let mut seen: HashMap<u64, u64, BuildHasherDefault<Same>> = HashMap::default();
    seen.insert(fingerprint(&start), 0);
    let (mut frontier, mut depth) = (vec![start], 0);
    while !frontier.is_empty() {
        let mut next = Vec::new();
        for state in &frontier {
            let from = fingerprint(state);
            for act in model.acts(state) {
                let to = model.apply(state, act);
                let key = fingerprint(&to);
                if seen.contains_key(&key) {
                    continue;
                }
                seen.insert(key, from);
                if let Some(what) = model.fault(&to, act) {
                    let found = Some((what, trace(model, &seen, key)));
                    return Outcome { states: seen.len(), depth: depth + 1, full: false, found };
                }
                next.push(to);
            }
            if seen.len() > bound.states || begun.elapsed() > bound.time {
                return Outcome { states: seen.len(), depth, full: false, found: None };
            }
        }
        frontier = next;
        depth += 1;
    }
    Outcome { states: seen.len(), depth, full: true, found: None }
}

/// The acts that lead to the state with this fingerprint.
fn trace<M: Model>(
    model: &M,
    seen: &HashMap<u64, u64, BuildHasherDefault<Same>>,
    last: u64,
) -> Vec<M::Act> {
    let mut chain = vec![last];
    while let Some(&before) = seen.get(&chain[chain.len() - 1]).filter(|&&before| before != 0) {
        chain.push(before);
    }
    let mut state = model.start();
    let mut acts = Vec::new();
    for &want in chain.iter().rev().skip(1) {
        let leads = |&act: &M::Act| fingerprint(&model.apply(&state, act)) == want;
        let act = model.acts(&state).into_iter().find(leads).expect("each state was reached so");
        state = model.apply(&state, act);
        acts.push(act);
    }
    acts
}

/// Random numbers from a seed (xorshift).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound
    }
}

/// Random walks of at most `length` steps, until the bound (its states are steps here).
pub fn walks<M: Model>(model: &M, length: usize, seed: u64, bound: Bound) -> Outcome<M::Act> {
    let begun = Instant::now();
    let mut random = Random::new(seed);
    let (mut states, mut deepest) = (0, 0);
    while states < bound.states && begun.elapsed() < bound.time {
        let mut state = model.start();
        let mut path = Vec::new();
        while path.len() < length {
            let acts = model.acts(&state);
            if acts.is_empty() {
                break;
            }
            let act = acts[random.below(acts.len())];
            state = model.apply(&state, act);
            path.push(act);
            states += 1;
            if let Some(what) = model.fault(&state, act) {
                let depth = path.len();
                return Outcome { states, depth, full: false, found: Some((what, path)) };
            }
        }
        deepest = deepest.max(path.len());
    }
    Outcome { states, depth: deepest, full: false, found: None }
}

/// A trace as text, a step a line.
pub fn narrate<M: Model>(model: &M, acts: &[M::Act]) -> String {
    let mut state = model.start();
    let mut text = String::new();
    for &act in acts {
        state = model.apply(&state, act);
        text += &format!("    {:<36} | {}\n", format!("{act:?}"), model.tell(&state));
    }
    text
}

/// The invariant that a given trace ends with breaking.
pub fn replay<M: Model>(model: &M, acts: &[M::Act]) -> Option<&'static str>
where
    M::Act: PartialEq,
{
    let mut state = model.start();
    for (at, &act) in acts.iter().enumerate() {
        assert!(model.acts(&state).contains(&act), "step {at}, {act:?}, is not possible");
        state = model.apply(&state, act);
        let fault = model.fault(&state, act);
        if fault.is_some() {
            assert_eq!(at + 1, acts.len(), "{fault:?} before the end");
            return fault;
        }
    }
    None
}

/// Prints what a search did, and fails if it found a violation.
pub fn expect_none<M: Model>(model: &M, name: &str, outcome: Outcome<M::Act>) {
    let Outcome { states, depth, full, found } = outcome;
    let extent = if full { "all of it" } else { "bounded" };
    println!("{name}: {states} states, depth {depth}, {extent}");
    if let Some((what, acts)) = found {
        panic!("{name}: {what} ({} steps)\n{}", acts.len(), narrate(model, &acts));
    }
}

/// Prints the violation that taking out a guard leads to; false if there is none.
pub fn expect_some<M: Model>(model: &M, name: &str, outcome: Outcome<M::Act>) -> bool {
    let Outcome { states, depth, found, .. } = outcome;
    let Some((what, acts)) = found else {
        println!("{name}: nothing in {states} states, depth {depth}");
        return false;
    };
    println!("{name}: {what} ({} steps, {states} states)", acts.len());
    if std::env::var_os("SWARMKV_MODEL_TRACES").is_some() {
        print!("{}", narrate(model, &acts));
    }
    true
}
