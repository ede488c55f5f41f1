//! Ordinary life: writes, overwrites, checkpoints, reclaimed segments, restarts; snapshots stay what they
//! were.

use std::sync::Arc;

use swarmkv_protocol::codec::Bytes;
use swarmkv_protocol::id::Hash;
use swarmkv_protocol::store::{Store as _, Write};

use super::super::disk::Disk;
use super::super::files::Files;
use super::super::memory::InMemory;
use super::super::segments::{Kind, named};
use super::super::view::Snapshot;
use super::model::{Model, Random, SMALL, branch, key, rows};
use crate::storage::schema::Rows;

fn listing(snapshot: &Snapshot) -> Vec<(Vec<u8>, Vec<swarmkv_protocol::store::RawSlot>)> {
    let scan = snapshot.scan(b"key/", b"").expect("readable");
    scan.map(|group| group.expect("readable")).collect()
}

#[test]
fn a_store_is_what_its_model_says_through_restarts() {
    for seed in 0..12 {
        let (mut random, mut model) = (Random(seed), Model::default());
        let files: Arc<dyn Files> = Arc::new(InMemory::default());
        let mut disk = Disk::with(Arc::clone(&files), SMALL).expect("made");
        let mut moments: Vec<(Snapshot, Model)> = Vec::new();
        for step in 0..400 {
            disk.apply(model.some(&mut random));
            let snapshot = disk.sync().expect("durable");
            if random.below(8) == 0 {
                moments.push((snapshot, model.clone()));
            }
            if moments.len() > 6 {
                moments.remove(0);
            }
            if step % 7 == 0 {
                assert_eq!(model.differs(&disk), None, "seed {seed}, step {step}");
            }
            for (snapshot, then) in &moments {
                assert_eq!(listing(snapshot), then.listing(), "seed {seed}, step {step}");
            }
            if random.below(60) == 0 {
                moments.clear();
                drop(disk);
                disk = Disk::with(Arc::clone(&files), SMALL).expect("opened again");
                assert!(!disk.is_damaged());
                assert_eq!(model.differs(&disk), None, "seed {seed}, after a restart");
            }
        }
    }
}

#[test]
fn what_is_not_synced_is_seen_by_the_core_alone() {
    let (mut random, mut model) = (Random(5), Model::default());
    let disk = Disk::with(Arc::new(InMemory::default()), SMALL).expect("made");
    let before = model.clone();
    disk.apply(model.some(&mut random));
    disk.apply(model.some(&mut random));
    assert_eq!(listing(&disk.durable()), before.listing());
    let shown = listing(&disk.sync().expect("durable"));
    assert_eq!(shown, model.listing());
    assert_eq!(model.differs(&disk), None);
}

#[test]
fn space_is_given_back() {
    let (mut random, mut model) = (Random(9), Model::default());
    let files: Arc<dyn Files> = Arc::new(InMemory::default());
    let disk = Disk::with(Arc::clone(&files), SMALL).expect("made");
    let mut most = 0;
    for step in 0..4000 {
        disk.apply(model.some(&mut random));
        disk.sync().expect("durable");
        if step > 1000 {
            most = most.max(segments(&files));
        }
    }
    assert_eq!(model.differs(&disk), None);
    // Live are some 36 slots of 300 bytes: 2 segments' worth. Without giving back it would be hundreds.
    assert!(most <= 16, "{most} segments");
    assert!(rows(&disk, Rows::Headers) > 0);
    // What was moved together is found after a restart as well.
    drop(disk);
    let disk = Disk::with(Arc::clone(&files), SMALL).expect("opened again");
    assert_eq!(model.differs(&disk), None);
}

fn segments(files: &Arc<dyn Files>) -> usize {
    let names = files.list().expect("listed");
    names.iter().filter_map(|name| named(name)).count()
}

#[test]
fn moved_slots_lie_in_segments_of_their_own() {
    let (mut random, mut model) = (Random(3), Model::default());
    let files: Arc<dyn Files> = Arc::new(InMemory::default());
    let disk = Disk::with(Arc::clone(&files), SMALL).expect("made");
    for _ in 0..800 {
        disk.apply(model.some(&mut random));
        disk.sync().expect("durable");
    }
    drop(disk);
    let names = files.list().expect("listed");
    let kinds = names.iter().filter_map(|name| named(name));
    assert!(kinds.into_iter().any(|(kind, _)| kind == Kind::Slots), "{names:?}");
}

#[test]
fn a_removed_slot_that_was_never_there_does_no_harm() {
    let disk = Disk::with(Arc::new(InMemory::default()), SMALL).expect("made");
    disk.apply(vec![Write::RemoveSlot { key: key(1), branch: branch(1), seq: 4 }]);
    let snapshot = disk.sync().expect("durable");
    assert_eq!(snapshot.slots(&key(1)), Ok(Vec::new()));
}

#[test]
fn the_newest_header_of_each_log_is_handed_to_a_start_and_goes_with_its_log() {
    let files: Arc<dyn Files> = Arc::new(InMemory::default());
    let open = || Disk::with(Arc::clone(&files), SMALL).expect("opened");
    let header = |n, seq: u64| Write::Header {
        branch: branch(n),
        seq,
        bytes: Bytes(vec![seq.to_be_bytes()[7]; 40]),
    };
    let record = |n| Write::Log { branch: branch(n), record: Bytes(vec![1]) };
    let heads = |disk: &Disk| disk.recover().expect("readable").heads;
    let held = |disk: &Disk, seq| disk.header(&branch(1), seq).expect("readable").is_some();
    let mut disk = open();
    // Part of it in the index, part in the journal, and one that has no record.
    disk.apply(vec![
        record(1),
        record(2),
        header(1, 3),
        header(1, 300),
        header(2, 7),
        header(3, 1),
    ]);
    disk.sync().expect("durable");
    disk.settle().expect("begun");
    drop(disk);
    disk = open();
    disk.apply(vec![header(1, 9), header(2, 8)]);
    disk.sync().expect("durable");
    let newest = |n, seq: u8| (branch(n), Bytes(vec![seq; 40]));
    assert_eq!(heads(&disk), [newest(1, 44), newest(2, 8)]);
    // Gone wherever they lie; what the number is used for next stays.
    disk.apply(vec![
        header(1, 10),
        Write::RemoveLog { branch: branch(1) },
        header(1, 2),
        record(1),
    ]);
    assert!([3, 9, 10, 300].iter().all(|seq| !held(&disk, *seq)) && held(&disk, 2));
    disk.sync().expect("durable");
    drop(disk);
    disk = open();
    assert_eq!(heads(&disk), [newest(1, 2), newest(2, 8)]);
    disk.settle().expect("begun");
    drop(disk);
    disk = open();
    assert_eq!(heads(&disk), [newest(1, 2), newest(2, 8)]);
    assert!([3, 9, 10, 300].iter().all(|seq| !held(&disk, *seq)) && held(&disk, 2));
}

#[test]
fn the_own_head_that_a_store_in_memory_keeps_is_taken_once() {
    let files: Arc<dyn Files> = Arc::new(InMemory::default());
    let open = || Disk::with(Arc::clone(&files), SMALL).expect("opened");
    let disk = Disk::in_memory(open()).expect("made");
    disk.keep_own_head(Some(Bytes(vec![5]))).expect("kept");
    drop(disk);
    let kept = open();
    assert_eq!(kept.take_own_head(), Ok(Some(Bytes(vec![5]))));
    drop(kept);
    assert_eq!(open().take_own_head(), Ok(None), "a crash right after leaves none");
}

#[test]
fn a_store_in_memory_keeps_on_disk_who_is_a_member_and_nothing_else() {
    let files: Arc<dyn Files> = Arc::new(InMemory::default());
    let open = || Disk::with(Arc::clone(&files), SMALL).expect("opened");
    let statement = |n: u8| Write::Statement { name: Hash::new([n; 32]), bytes: Bytes(vec![n]) };
    let kept = open();
    kept.apply(vec![statement(1)]);
    kept.sync().expect("durable");
    let disk = Disk::in_memory(kept).expect("made");
    let (mut random, mut model) = (Random(2), Model::default());
    for _ in 0..20 {
        disk.apply(model.some(&mut random));
        disk.sync().expect("kept");
    }
    disk.apply(vec![statement(2)]);
    disk.sync().expect("kept");
    assert_eq!(model.differs(&disk), None);
    assert_eq!(rows(&disk, Rows::Statements), 2);
    drop(disk);
    let kept = open();
    assert_eq!(rows(&kept, Rows::Statements), 2);
    assert_eq!(Model::default().differs(&kept), None);
}

#[test]
fn a_store_of_a_later_layout_is_not_touched() {
    let files: Arc<dyn Files> = Arc::new(InMemory::default());
    let disk = Disk::with(Arc::clone(&files), SMALL).expect("made");
    disk.note(Rows::Meta, b"format", Some(Bytes(9u32.to_be_bytes().to_vec())));
    disk.sync().expect("durable");
    disk.settle().expect("begun");
    drop(disk);
    let refused = Disk::with(files, SMALL).err().expect("refused").to_string();
    assert!(
        refused.contains("layout 9") && refused.contains("use the build that wrote it"),
        "{refused}"
    );
}
