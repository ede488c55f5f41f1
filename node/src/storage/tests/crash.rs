//! Power cuts: the calls that a store makes to its files are recorded, and the device is rebuilt as it could
//! be found after a cut at any of them, inside recovery too.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::disk::Disk;
use super::model::{Model, Random, SMALL};
use super::recording::{Call, Device, Fate, Image, Recorder};

/// Commits recorded in one life.
const COMMITS: usize = 90;
/// Random images at each sync, beside the two extremes.
const IMAGES: usize = 2;
/// One image in so many has its recovery cut as well.
const AGAIN: u64 = 24;

fn seeds() -> u64 {
    std::env::var("SWARMKV_CRASH_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(2)
}

/// Writes for a while; returns the calls and the state after each acknowledged commit.
fn live(
    recorder: &Arc<Recorder>,
    first: &Model,
    random: &mut Random,
    commits: usize,
) -> Vec<Model> {
    let disk = Disk::with(Arc::clone(recorder) as Arc<_>, SMALL).expect("opened");
    let mut states = vec![first.clone()];
    let mut model = first.clone();
    for _ in 0..commits {
        disk.apply(model.some(random));
        disk.sync().expect("durable");
        recorder.acknowledge();
        states.push(model.clone());
    }
    states
}

/// Which of the states a store is in.
fn found(disk: &Disk, states: &[Model], acknowledged: usize) -> Result<usize, String> {
    let mut why = String::new();
    for (number, state) in states.iter().enumerate().skip(acknowledged).take(2) {
        match state.differs(disk) {
            None => return Ok(number),
            Some(difference) => why = difference,
        }
    }
    Err(why)
}

#[derive(Debug, Default)]
struct Tally {
    images: usize,
    in_recovery: usize,
    in_flight_kept: usize,
}

/// Cuts the power at every sync among `calls` and has `check` look at what is found.
fn cut_everywhere(
    calls: &[Call],
    before: &Image,
    random: &mut Random,
    check: &mut dyn FnMut(Image, usize, &mut Random),
) {
    let mut device = Device::holding(before);
    let mut acknowledged = 0;
    for call in calls {
        if matches!(call, Call::SyncData(_) | Call::SyncNames) {
            for fate in [Fate::Nothing, Fate::Everything] {
                check(device.cut(fate, random), acknowledged, random);
            }
            for _ in 0..IMAGES {
                check(device.cut(Fate::Anything, random), acknowledged, random);
            }
        }
        device.take(call);
        acknowledged += usize::from(matches!(call, Call::Acknowledged));
    }
    check(device.cut(Fate::Nothing, random), acknowledged, random);
}

#[test]
fn whatever_was_acknowledged_survives_every_cut() {
    let mut tally = Tally::default();
    for seed in 0..seeds() {
        let mut random = Random(seed);
        let recorder = Arc::new(Recorder::default());
        let states = live(&recorder, &Model::default(), &mut random, COMMITS);
        let calls = recorder.calls();
        cut_everywhere(
            &calls,
            &Image::default(),
            &mut random,
            &mut |image, acknowledged, random| {
                tally.images += 1;
                let recovered = Arc::new(Recorder::holding(&image).expect("in memory"));
                let disk = Disk::with(Arc::clone(&recovered) as Arc<_>, SMALL)
                    .unwrap_or_else(|e| panic!("seed {seed}, {acknowledged} commits: {e}"));
                let state = found(&disk, &states, acknowledged)
                    .unwrap_or_else(|why| panic!("seed {seed}, {acknowledged} commits: {why}"));
                assert!(!disk.is_damaged(), "seed {seed}: a torn end is no damage");
                tally.in_flight_kept += state - acknowledged;
                drop(disk);
                if random.below(AGAIN) == 0 {
                    tally.in_recovery += cut_recovery(&image, &states[state], random);
                }
            },
        );
    }
    println!("{tally:?}");
    assert!(tally.images > 1000 && tally.in_recovery > 500 && tally.in_flight_kept > 0);
}

/// Opens an image, writes on, and cuts all of that: recovery is found as safe as what came before it.
fn cut_recovery(image: &Image, state: &Model, random: &mut Random) -> usize {
    let recorder = Arc::new(Recorder::holding(image).expect("in memory"));
    let states = live(&recorder, state, random, 12);
    let mut images = 0;
    cut_everywhere(&recorder.calls(), image, random, &mut |image, acknowledged, _| {
        images += 1;
        let recovered = Recorder::holding(&image).expect("in memory");
        let disk = Disk::with(Arc::new(recovered), SMALL).expect("opened in the end");
        found(&disk, &states, acknowledged)
            .unwrap_or_else(|why| panic!("{acknowledged} commits after recovery: {why}"));
    });
    images
}

#[test]
fn a_life_has_all_that_a_cut_can_hit() {
    let recorder = Arc::new(Recorder::default());
    live(&recorder, &Model::default(), &mut Random(1), COMMITS);
    let mut kinds = BTreeMap::new();
    let (mut made, mut filled) = (0, 0);
    for call in recorder.calls() {
        made += usize::from(matches!(&call, Call::Create(name) if name.ends_with(".slots")));
        filled += usize::from(matches!(&call, Call::SyncData(name) if name.ends_with(".slots")));
        let kind = match call {
            Call::Create(name) | Call::Remove(name) | Call::SyncData(name) => {
                name.rsplit('.').next().map(str::to_owned).unwrap_or_default()
            }
            _ => continue,
        };
        *kinds.entry(kind).or_insert(0) += 1;
    }
    assert!(filled > made, "{filled} runs appended to {made} segments");
    // Journal, moved slots, index.
    assert!(["log", "slots", "redb"].iter().all(|kind| kinds.contains_key(*kind)), "{kinds:?}");
}
