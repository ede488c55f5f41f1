//! Devices that fail: full ones are waited for, failed syncs are never forgiven.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use super::super::disk::Disk;
use super::super::files::{File, Files};
use super::super::journal::Sizes;
use super::super::memory::InMemory;
use super::super::schema::INDEX;
use super::super::segments::named;
use super::model::{Model, Random, SMALL};
use super::space::{eventually, removed, sizes, written};

/// Files on a device with so much room, whose syncs fail on demand.
#[derive(Debug, Default)]
struct Device {
    files: Arc<InMemory>,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Bytes that a file may be long.
    room: AtomicU64,
    /// The index may not even be written where it is.
    index_too: AtomicBool,
    broken: AtomicBool,
    refused: AtomicU64,
}

impl Files for Device {
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let state = Arc::clone(&self.state);
        let (file, is_index) = (self.files.open(name)?, name == INDEX);
        Ok(Arc::new(DeviceFile { file, is_index, state }))
    }

    fn reopen(&self, name: &str) -> io::Result<Arc<dyn File>> {
        self.files.reopen(name)?;
        self.open(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.files.list()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.files.remove(name)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn allocated(&self) -> u64 {
        self.files.allocated()
    }
}

#[derive(Debug)]
struct DeviceFile {
    file: Arc<dyn File>,
    is_index: bool,
    state: Arc<State>,
}

impl DeviceFile {
    fn room_for(&self, end: u64) -> io::Result<()> {
        let stuck = self.is_index && self.state.index_too.load(Ordering::Relaxed);
        if !stuck && (end <= self.state.room.load(Ordering::Relaxed) || end <= self.file.len()?) {
            return Ok(());
        }
        self.state.refused.fetch_add(1, Ordering::Relaxed);
        Err(io::ErrorKind::StorageFull.into())
    }
}

impl File for DeviceFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, out)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.room_for(offset + bytes.len() as u64)?;
        self.file.write_at(offset, bytes)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.room_for(len)?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.state.broken.swap(false, Ordering::Relaxed) {
            return Err(io::Error::other("the device says no"));
        }
        self.file.sync_data()
    }
}

fn device() -> (Arc<Device>, Arc<State>) {
    let device = Device::default();
    device.state.room.store(u64::MAX, Ordering::Relaxed);
    let state = Arc::clone(&device.state);
    (Arc::new(device), state)
}

#[test]
fn a_full_device_is_waited_for() {
    let (device, state) = device();
    let (mut random, mut model) = (Random(1), Model::default());
    let disk = Disk::with(device, SMALL).expect("made");
    disk.apply(model.some(&mut random));
    disk.sync().expect("durable");
    let before = model.clone();
    state.room.store(0, Ordering::Relaxed);
    let writer = {
        let disk = disk.clone();
        let mut model = model.clone();
        thread::spawn(move || {
            for _ in 0..60 {
                disk.apply(model.some(&mut random));
                disk.sync().expect("durable in the end");
            }
            model
        })
    };
    while !disk.is_full() {
        thread::sleep(Duration::from_millis(5));
    }
    // Readers go on meanwhile.
    let shown = disk.durable().scan(b"key/", b"").expect("readable").count();
    assert!(shown >= before.listing().len().min(1));
    assert!(!writer.is_finished());
    state.room.store(u64::MAX, Ordering::Relaxed);
    let after = writer.join().expect("done");
    assert!(!disk.is_full());
    assert_eq!(after.differs(&disk), None);
}

#[test]
fn a_commit_that_must_not_wait_does_not() {
    let (device, state) = device();
    let (mut random, mut model) = (Random(1), Model::default());
    let sizes = Sizes { segment: 1 << 20, ahead: 64 << 10, memtable: 8 << 10, ..Sizes::default() };
    let disk = Disk::with(device, sizes).expect("made");
    // The journal has its zeros ahead; the index gets nothing, not even where it has been.
    disk.apply(model.some(&mut random));
    disk.sync().expect("durable");
    state.room.store(0, Ordering::Relaxed);
    state.index_too.store(true, Ordering::Relaxed);
    let mut commits = 0;
    loop {
        disk.apply(model.some(&mut random));
        disk.seal();
        if disk.commit_at_once().expect("not broken").is_none() {
            break;
        }
        commits += 1;
    }
    assert!(commits > 20, "the journal had room for more than {commits}");
    while !disk.is_full() {
        thread::sleep(Duration::from_millis(5));
    }
    state.index_too.store(false, Ordering::Relaxed);
    state.room.store(u64::MAX, Ordering::Relaxed);
    disk.commit().expect("what was sealed is still there");
    assert_eq!(model.differs(&disk), None);
}

#[test]
fn who_stops_does_not_wait_for_room() {
    let (device, state) = device();
    let (mut random, mut model) = (Random(1), Model::default());
    let disk = Disk::with(Arc::clone(&device) as Arc<_>, SMALL).expect("made");
    disk.apply(model.some(&mut random));
    disk.sync().expect("durable");
    state.room.store(0, Ordering::Relaxed);
    disk.stop_waiting();
    let acknowledged = loop {
        let before = model.clone();
        disk.apply(model.some(&mut random));
        if disk.sync().is_err() {
            break before;
        }
    };
    assert!(state.refused.load(Ordering::Relaxed) > 0);
    drop(disk);
    state.room.store(u64::MAX, Ordering::Relaxed);
    let disk = Disk::with(device, SMALL).expect("opened again");
    assert_eq!(acknowledged.differs(&disk), None);
}

#[test]
fn what_is_dead_whole_is_given_back_though_there_is_no_room_for_survivors() {
    let (device, state) = device();
    let files: Arc<dyn Files> = Arc::clone(&device) as _;
    let segments =
        || files.list().expect("listed").iter().filter(|name| named(name).is_some()).count();
    // Room for the deletions is written ahead; no checkpoint is made but those that are asked for.
    let sizes = Sizes { segment: 64 << 10, ahead: 48 << 10, memtable: 8 << 20, ..sizes() };
    let disk = Disk::with(Arc::clone(&files), sizes).expect("made");
    for n in 0..1000 {
        disk.apply(vec![written(n, n + 1, 900)]);
        disk.sync().expect("durable");
    }
    disk.settle().expect("begun");
    let full = segments();
    state.room.store(0, Ordering::Relaxed);
    disk.apply((0..1000).filter(|n| n % 200 > 0).map(|n| removed(n, n + 1)).collect());
    disk.sync().expect("durable");
    disk.settle().expect("begun");
    eventually("segments without survivors are given back", || segments() < full - 6);
    assert!(!disk.is_full(), "nobody waits");
    let left = segments();
    assert!(left > 5, "{left} of {full}: survivors were moved without room");
    state.room.store(u64::MAX, Ordering::Relaxed);
    // Each of these empties one.
    let seq = std::cell::Cell::new(2000);
    eventually("survivors are moved when there is room", || {
        seq.set(seq.get() + 1);
        disk.apply(vec![written(1, seq.get(), 10)]);
        disk.sync().expect("durable");
        disk.settle().expect("begun");
        segments() < left
    });
}

#[test]
fn after_a_failed_sync_nothing_is_acknowledged_any_more() {
    let (device, state) = device();
    let (mut random, mut model) = (Random(1), Model::default());
    let disk = Disk::with(Arc::clone(&device) as Arc<_>, SMALL).expect("made");
    disk.apply(model.some(&mut random));
    disk.sync().expect("durable");
    state.broken.store(true, Ordering::Relaxed);
    disk.apply(model.some(&mut random));
    assert!(disk.sync().is_err());
    // The device is well again; what it lost is not known.
    disk.apply(model.some(&mut random));
    assert!(disk.sync().is_err());
}
