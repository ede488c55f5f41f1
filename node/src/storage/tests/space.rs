//! Space and descriptors: both stay bounded by what lives, however much was written, and idle stores give
//! back too.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use swarmkv_protocol::codec::{self, Bytes};
use swarmkv_protocol::model::cell::Cell;
use swarmkv_protocol::op::{Body, Op};
use swarmkv_protocol::store::{RawSlot, Store, Write};
use swarmkv_protocol::time::Hlc;

use super::super::disk::Disk;
use super::super::files::{Files, OnDisk};
use super::super::journal::Sizes;
use super::super::segments::{Handles, Kind, name, named};
use super::model::{branch, key};
use super::watched::Watched;

/// A full segment. The real one is a thousand times as large.
const SEGMENT: u64 = 32 << 10;
/// Descriptors beside those kept for reading: the index, the journal's end, the survivors' end, and one
/// that is being opened while the cache is full.
const BESIDE: usize = 4;

pub(super) fn sizes() -> Sizes {
    Sizes {
        segment: SEGMENT,
        ahead: 4 << 10,
        memtable: 8 << 10,
        open: 2,
        idle: Duration::from_secs(3600),
        worth: 1 << 10,
    }
}

pub(super) fn written(n: u64, seq: u64, len: usize) -> Write {
    let body = Body::Put(Bytes(vec![seq as u8; len]));
    let cell = Cell::from_index_key(&key(n)).expect("an index key");
    let op = Op { cell, body, ctx: Vec::new(), took: Vec::new(), expires_at: None };
    let op = Bytes(codec::encode(&op));
    Write::Slot { key: key(n), slot: RawSlot { branch: branch(1), seq, hlc: Hlc(seq << 16), op } }
}

pub(super) fn removed(n: u64, seq: u64) -> Write {
    Write::RemoveSlot { key: key(n), branch: branch(1), seq }
}

/// Keys overwritten at random ages: a few are written all the time, others nearly never, so that every
/// segment keeps a survivor or two.
struct Overwriter {
    /// Where each key's slot lies, if it has one.
    at: Vec<u64>,
    seq: u64,
}

impl Overwriter {
    fn new(keys: usize) -> Self {
        Self { at: vec![0; keys], seq: 0 }
    }

    fn step(&mut self, disk: &Disk, len: usize) -> usize {
        self.seq += 1;
        // Every 61st write is to one of the cold keys, in turn.
        let cold = self.at.len() as u64 - 4;
        let n = if self.seq.is_multiple_of(61) { 4 + (self.seq / 61) % cold } else { self.seq % 4 };
        let before = std::mem::replace(&mut self.at[n as usize], self.seq);
        let removal = (before > 0).then(|| removed(n, before));
        disk.apply(removal.into_iter().chain([written(n, self.seq, len)]).collect());
        disk.sync().expect("durable");
        len
    }

    fn check(&self, disk: &Disk) {
        for (n, seq) in self.at.iter().enumerate().filter(|(_, seq)| **seq > 0) {
            let slots = disk.slots(&key(n as u64)).expect("readable");
            assert_eq!(slots.len(), 1, "key {n}");
            assert_eq!(slots[0].seq, *seq, "key {n}");
            assert!(slots[0].open().is_ok(), "key {n}");
        }
    }
}

#[test]
fn ten_gigabytes_of_overwrites_leave_few_files_and_open_few() {
    let files = Arc::new(Watched::default());
    let disk = Disk::with(Arc::clone(&files) as Arc<_>, sizes()).expect("made");
    let mut writer = Overwriter::new(200);
    let (mut bytes, mut most) = (0, 0);
    // What 320 full segments hold.
    while bytes < 320 * SEGMENT as usize {
        bytes += writer.step(&disk, 300);
        most = most.max(files.segments());
    }
    writer.check(&disk);
    drop(disk);
    let open = files.most_open();
    println!("{bytes} bytes written: at most {most} segments, at most {open} files open");
    // Alive are 200 slots of some 340 bytes, two segments' worth: twice that, what the journal has not put
    // into the index yet, and what is being given back.
    assert!(most <= 12, "{most} segments");
    assert!(open <= sizes().open + BESIDE, "{open} files open");
}

#[test]
fn restarts_and_torn_ends_leave_no_small_segments_behind() {
    let files = Arc::new(Watched::default());
    let mut writer = Overwriter::new(40);
    for _ in 0..60 {
        let disk = Disk::with(Arc::clone(&files) as Arc<_>, sizes()).expect("opened");
        for _ in 0..40 {
            writer.step(&disk, 200);
        }
        writer.check(&disk);
        disk.settle().expect("begun");
        drop(disk);
        // What a killed peer leaves at the journal's end: a frame that was never finished.
        let names = files.list().expect("listed");
        let log = names.iter().rfind(|name| name.ends_with(".log")).expect("a journal");
        let file = files.open(log).expect("there");
        file.write_at(file.len().expect("known"), b"half a frame").expect("written");
    }
    let disk = Disk::with(Arc::clone(&files) as Arc<_>, sizes()).expect("opened");
    writer.check(&disk);
    let there = files.segments();
    println!("{there} segments after 60 restarts");
    assert!(there <= 8, "{there} segments");
}

#[test]
fn a_snapshot_reads_on_in_files_that_were_given_up_and_then_they_go() {
    let dir = tempfile::tempdir().expect("a directory");
    let files: Arc<dyn Files> = Arc::new(OnDisk::at(dir.path()).expect("made"));
    let segments = || {
        let names = files.list().expect("listed");
        names.into_iter().filter(|name| named(name).is_some()).collect::<Vec<_>>()
    };
    let disk = Disk::with(Arc::clone(&files), Sizes { open: 1, ..sizes() }).expect("made");
    let mut writer = Overwriter::new(60);
    for _ in 0..600 {
        writer.step(&disk, 300);
    }
    let snapshot = disk.durable();
    let then: Vec<_> = (0..60).map(|n| snapshot.slots(&key(n)).expect("readable")).collect();
    let kept = segments().into_iter().filter(|name| name.ends_with(".log")).collect::<Vec<_>>();
    for _ in 0..3000 {
        writer.step(&disk, 300);
    }
    assert!(kept.iter().all(|name| segments().contains(name)), "the snapshot's files are there");
    for (n, slots) in then.iter().enumerate() {
        assert_eq!(snapshot.slots(&key(n as u64)).as_ref(), Ok(slots), "key {n}");
    }
    drop(snapshot);
    writer.step(&disk, 300);
    disk.settle().expect("begun");
    let gone = || kept.iter().all(|name| !segments().contains(name));
    eventually("nobody reads them any more", gone);
    writer.check(&disk);
}

#[test]
fn a_snapshot_of_a_closed_store_neither_opens_nor_removes_what_is_somebody_elses() {
    let dir = tempfile::tempdir().expect("a directory");
    let files: Arc<dyn Files> = Arc::new(OnDisk::at(dir.path()).expect("made"));
    let old = Handles::new(Arc::clone(&files), 8);
    let (kept, _) = old.create(Kind::Slots, 7).expect("made");
    kept.give_up();
    old.close();
    // The store is opened again, and comes to use the number again.
    files.remove(&name(Kind::Slots, 7)).expect("there");
    let new = Handles::new(Arc::clone(&files), 8);
    let (_theirs, _) = new.create(Kind::Slots, 7).expect("made");
    assert!(kept.file().is_err());
    drop(kept);
    assert_eq!(files.list().expect("listed"), [name(Kind::Slots, 7)]);
}

#[test]
fn a_snapshot_holds_no_file_open_when_its_store_is_closed() {
    let files = Arc::new(Watched::default());
    let disk = Disk::with(Arc::clone(&files) as Arc<_>, sizes()).expect("made");
    let mut writer = Overwriter::new(60);
    for _ in 0..600 {
        writer.step(&disk, 300);
    }
    let snapshot = disk.durable();
    let scan = snapshot.scan(b"key/", b"").expect("readable");
    drop(disk);
    assert_eq!(files.open_now(), 0);
    drop((snapshot, scan));
}

/// Waits until `done` says so.
pub(super) fn eventually(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn an_idle_store_gives_back_what_the_last_writes_left() {
    let files = Arc::new(Watched::default());
    // The memtable never fills: without idle moments there is no checkpoint but those that the journal asks for.
    let sizes = Sizes { idle: Duration::from_millis(40), memtable: 8 << 20, ..sizes() };
    let disk = Disk::with(Arc::clone(&files) as Arc<_>, sizes).expect("made");
    for n in 0..600 {
        disk.apply(vec![written(n, n + 1, 900)]);
        disk.sync().expect("durable");
    }
    let full = files.segments();
    // A few bytes that say that nearly all of it is dead.
    disk.apply((0..600).filter(|n| n % 50 > 0).map(|n| removed(n, n + 1)).collect());
    disk.sync().expect("durable");
    // The journal's last segments, and that of the twelve survivors.
    eventually("space is given back without further writes", || files.segments() <= 4);
    println!("{full} segments, {} when idle", files.segments());
    assert!(full > 15, "{full}");
    for n in (0..600).step_by(50) {
        let slots = disk.slots(&key(n)).expect("readable");
        assert!(slots.len() == 1 && slots[0].open().is_ok(), "key {n}");
    }
    let rests = || {
        files.scans();
        thread::sleep(Duration::from_millis(200));
        files.scans().is_empty()
    };
    eventually("what cannot be improved is left alone", rests);
}
