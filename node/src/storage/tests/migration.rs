//! Stores of earlier layouts: what a new one takes over, whatever interrupts that, and that the old one is kept.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use redb::{Database, TableDefinition};
use swarmkv_protocol::codec::{self, Bytes};
use swarmkv_protocol::crypto::DeviceKey;
use swarmkv_protocol::engine::Engine;
use swarmkv_protocol::id::DeviceId;
use swarmkv_protocol::model::cell::Cell;
use swarmkv_protocol::op;
use swarmkv_protocol::roster::{Grant, Role, Roster};
use swarmkv_protocol::store::{Store, StoreError};
use swarmkv_protocol::time::Hlc;
use tempfile::TempDir;

use super::super::carry::{Report, carry};
use super::super::disk::Disk;
use super::super::journal::Sizes;
use super::super::memory::InMemory;
use super::super::migrate;
use super::super::old::{Body, BranchName, OldStore, Op, Version, version};
use super::super::schema::{INDEX, Rows};

// ---- stores that earlier builds wrote ----------------------------------------------------------------

/// A data directory that a build of this layout has left.
fn unpacked(layout: u32) -> TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let packed = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(format!("../tests/e2e/stores/layout-{layout}.tar.gz"));
    let tar = Command::new("tar").arg("xzf").arg(packed).arg("-C").arg(dir.path()).status();
    assert!(tar.expect("tar runs").success());
    dir
}

fn key_in(dir: &TempDir) -> DeviceKey {
    let seed = fs::read(dir.path().join("device.key")).expect("there");
    DeviceKey::from_seed(&seed.try_into().expect("32 bytes"))
}

fn opened(dir: &TempDir) -> Result<Disk, StoreError> {
    migrate::open(&dir.path().join("store"), || Ok(key_in(dir)))
}

/// What a file is called, below the store, and what is in it.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir).expect("listed") {
        let path = entry.expect("an entry").path();
        let name = PathBuf::from(path.file_name().expect("named"));
        if path.is_dir() {
            all.extend(files(&path).into_iter().map(|(below, bytes)| (name.join(below), bytes)));
        } else {
            all.insert(name, fs::read(&path).expect("read"));
        }
    }
    all
}

/// The slots on a key: their stamps and what they say.
fn on(disk: &Disk, key: &str) -> Vec<(Hlc, op::Body, Option<u64>)> {
    let slots = disk.slots(&Cell::value(key.as_bytes()).index_key()).expect("readable");
    let open = |raw: swarmkv_protocol::store::RawSlot| raw.open().expect("sound");
    slots.into_iter().map(open).map(|slot| (slot.hlc, slot.op.body, slot.op.expires_at)).collect()
}

fn put(text: &str) -> op::Body {
    op::Body::Put(text.as_bytes().into())
}

fn values(disk: &Disk, key: &str) -> Vec<op::Body> {
    on(disk, key).into_iter().map(|(_, body, _)| body).collect()
}

/// The own values of the stores that earlier builds left.
fn holds_own(disk: &Disk) {
    for n in 4..=40 {
        assert_eq!(values(disk, &format!("fruit/{n}")), [put(&format!("value {n}"))]);
    }
    assert_eq!(values(disk, "fruit/1"), [put("overwritten")]);
    assert_eq!(values(disk, "fruit/2"), [op::Body::Delete]);
    assert_eq!(values(disk, "fruit/3"), [put("first's")]);
    assert_eq!(values(disk, "big").len(), 1);
}

fn engine(dir: &TempDir, disk: &Disk) -> Engine<Disk> {
    let genesis = disk.genesis().expect("readable").expect("there");
    let roster = Roster::open(&genesis).expect("a genesis");
    let recovered = disk.recover().expect("readable");
    Engine::open(key_in(dir), roster, recovered, disk.clone(), 1, false).expect("opened")
}

#[test]
fn a_store_of_each_layout_keeps_own_values_and_members_and_is_kept_itself() {
    for layout in [2, 3] {
        let dir = unpacked(layout);
        let store = dir.path().join("store");
        let mut before = files(&store);
        let identity = before.remove(Path::new("identity"));
        let disk = opened(&dir).expect("migrated");
        holds_own(&disk);
        let stamps: Vec<Hlc> = (4..=40).map(|n| on(&disk, &format!("fruit/{n}"))[0].0).collect();
        assert!(stamps.is_sorted() && stamps[0].millis() > 1_700_000_000_000, "{stamps:?}");
        let engine = engine(&dir, &disk);
        assert_eq!(engine.roster().members().count(), 2, "layout {layout}");
        assert!(engine.caught_up(), "the owner's replica is the first");
        drop((engine, disk));
        assert_eq!(files(&store.join(format!("layout-{layout}-kept"))), before);
        let after = files(&store);
        assert_eq!(after.get(Path::new("identity")), identity.as_ref());
        let note = String::from_utf8(after[Path::new("README")].clone()).expect("text");
        assert!(note.contains(&format!("layout-{layout}-kept")), "{note}");
        assert!(!after.keys().any(|name| name.starts_with("migrating")));
        // Once is enough: the key is not asked for again.
        migrate::run(&store, || panic!("nothing is left to do")).expect("opened");
    }
}

#[test]
fn an_interrupted_migration_begins_again_or_goes_on_wherever_it_was() {
    for layout in [2, 3] {
        let mut steps = 0;
        loop {
            let dir = unpacked(layout);
            let store = dir.path().join("store");
            let mut before = files(&store);
            before.remove(Path::new("identity"));
            let mut left = steps;
            let cut = &mut |from: &Path, to: &Path| match left {
                0 => Err(io::Error::other("the power is gone")),
                _ => {
                    left -= 1;
                    fs::rename(from, to)
                }
            };
            let done = migrate::run_with(&store, || Ok(key_in(&dir)), cut).is_ok();
            holds_own(&opened(&dir).expect("migrated after all"));
            assert_eq!(files(&store.join(format!("layout-{layout}-kept"))), before);
            let names: Vec<_> = fs::read_dir(&store).expect("listed").collect();
            assert!(names.len() < 7, "{names:?}");
            if done {
                break;
            }
            steps += 1;
        }
        assert!(steps >= 5, "{steps} steps were cut short");
    }
}

#[test]
fn what_an_interrupted_migration_left_half_made_is_made_again() {
    let dir = unpacked(2);
    let store = dir.path().join("store");
    fs::create_dir(store.join("migrating")).expect("made");
    fs::write(store.join("migrating/index.redb"), b"half of it").expect("written");
    // An earlier build moved segments into place before the index.
    fs::write(store.join("00000000.log"), b"swarmkv seg3 and then nothing").expect("written");
    holds_own(&opened(&dir).expect("migrated"));
    assert!(!store.join("migrating").exists());
}

#[test]
fn a_store_of_a_later_layout_is_refused_and_untouched() {
    let dir = tempfile::tempdir().expect("a directory");
    let no_key = || -> Result<DeviceKey, StoreError> { panic!("nothing is signed") };
    drop(migrate::open(dir.path(), no_key).expect("made"));
    let db = Database::open(dir.path().join(INDEX)).expect("opened");
    let write = db.begin_write().expect("begun");
    {
        let mut meta = write.open_table(Rows::Meta.table()).expect("there");
        meta.insert(&b"format"[..], &5u32.to_be_bytes()[..]).expect("written");
    }
    write.commit().expect("durable");
    drop(db);
    let before = files(dir.path());
    let refused = migrate::open(dir.path(), no_key).err().expect("refused").to_string();
    assert!(refused.contains("layout 5"), "{refused}");
    assert_eq!(files(dir.path()), before);
}

#[test]
fn an_older_store_in_the_place_of_one_that_was_migrated_overwrites_nothing() {
    let dir = unpacked(3);
    drop(opened(&dir).expect("migrated"));
    let (store, restored) = (dir.path().join("store"), unpacked(3));
    for name in [INDEX, "00000000.log"] {
        fs::copy(restored.path().join("store").join(name), store.join(name)).expect("copied");
    }
    let before = files(&store);
    let refused = opened(&dir).err().expect("refused").to_string();
    assert!(refused.contains("layout-3-kept"), "{refused}");
    assert_eq!(files(&store), before);
}

#[test]
fn damaged_slots_are_left_out_and_counted() {
    let dir = unpacked(2);
    let file = dir.path().join("store/swarmkv.redb");
    let mut bytes = fs::read(&file).expect("read");
    let places: Vec<usize> =
        (0..bytes.len() - 8).filter(|at| bytes[*at..].starts_with(b"value 17")).collect();
    places.iter().for_each(|at| bytes[*at] = b'V');
    fs::write(&file, bytes).expect("written");
    let old = OldStore::open(&dir.path().join("store"), 2).expect("opened");
    let new = in_memory();
    let report = carry(&old, &new, &key_in(&dir)).expect("carried over");
    assert_eq!((report.damaged, report.written), (1, 40), "{report}");
    assert_eq!(values(&new, "fruit/17"), []);
    assert_eq!(values(&new, "fruit/16"), [put("value 16")]);
}

#[test]
fn what_is_left_of_a_damaged_journal_is_taken_over() {
    let dir = unpacked(3);
    let file = dir.path().join("store/00000000.log");
    let mut bytes = fs::read(&file).expect("read");
    let at = (0..bytes.len()).find(|at| bytes[*at..].starts_with(b"value 17")).expect("there");
    bytes[at] = b'V';
    fs::write(&file, bytes).expect("written");
    let disk = opened(&dir).expect("migrated");
    assert_eq!(values(&disk, "fruit/17"), []);
    assert_eq!(values(&disk, "fruit/18"), [put("value 18")]);
}

// ---- stores made for one purpose ---------------------------------------------------------------------

fn in_memory() -> Disk {
    Disk::with(std::sync::Arc::new(InMemory::default()), Sizes::default()).expect("made")
}

/// A store of layout 2 being made.
struct Made {
    dir: TempDir,
    rows: Vec<(&'static str, Vec<u8>, Vec<u8>)>,
}

fn branch(author: DeviceId, epoch: u32) -> BranchName {
    let mut name = [0; 40];
    name[..32].copy_from_slice(author.as_bytes());
    name[32..36].copy_from_slice(&epoch.to_be_bytes());
    name
}

fn old_op(key: &str, body: Body, ctx: &[Version]) -> Op {
    Op { key: key.as_bytes().into(), body, ctx: ctx.to_vec(), expires_at: None }
}

fn old_put(key: &str, value: &str) -> Op {
    old_op(key, Body::Put(value.as_bytes().into()), &[])
}

impl Made {
    fn of(roster: &Roster, statements: &[Bytes]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut made = Self { dir, rows: Vec::new() };
        made.row("meta", b"format", &2u32.to_be_bytes());
        made.row("meta", b"genesis", roster.genesis_bytes());
        let mut all = roster.clone();
        for (name, bytes) in all.insert(statements).0 {
            made.row("statements", name.as_bytes(), &bytes);
        }
        made
    }

    fn row(&mut self, table: &'static str, key: &[u8], value: &[u8]) {
        self.rows.push((table, key.to_vec(), value.to_vec()));
    }

    /// A slot below its branch's head.
    fn slot(&mut self, branch: BranchName, seq: u64, stamp: u64, op: &Op) -> Version {
        let place = [&branch[..], &seq.to_be_bytes()].concat();
        let bytes = codec::encode(&(&op.key, &op.body, &op.ctx, op.expires_at));
        let rest = [&stamp.to_be_bytes()[..], &bytes].concat();
        let sum = crc32fast::hash(&[&place[..], &rest].concat());
        self.row("slots", &place, &[&sum.to_be_bytes()[..], &rest].concat());
        self.row("headers", &place, b"");
        self.row("logs", &branch, b"");
        version(&(branch, seq), Hlc(stamp), op)
    }

    fn carried(self, key: &DeviceKey) -> (Disk, Report) {
        let db = Database::create(self.dir.path().join("swarmkv.redb")).expect("made");
        let write = db.begin_write().expect("begun");
        for table in ["slots", "headers", "logs", "statements", "tickets", "addresses", "meta"] {
            let definition: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new(table);
            let mut open = write.open_table(definition).expect("made");
            for (_, key, value) in self.rows.iter().filter(|row| row.0 == table) {
                open.insert(&key[..], &value[..]).expect("written");
            }
        }
        write.commit().expect("durable");
        drop(db);
        let new = in_memory();
        let old = OldStore::open(self.dir.path(), 2).expect("opened");
        let report = carry(&old, &new, key).expect("carried over");
        (new, report)
    }
}

fn key(number: u8) -> DeviceKey {
    DeviceKey::from_seed(&[number; 32])
}

/// A swarm of an owner and of a writer with these bounds.
fn swarm(prefix: &str, max_bytes: Option<u64>) -> (Roster, Vec<Bytes>) {
    let roster = Roster::found(&key(1), "swarm", "owner", [0; 16]).expect("founded");
    let grant = Grant {
        device: key(2).id(),
        label: "writer".to_owned(),
        role: Role::Writer,
        prefix: prefix.as_bytes().into(),
        max_bytes,
    };
    let statement = roster.grant(&key(1), grant).expect("granted");
    (roster, vec![statement])
}

#[test]
fn tombstones_and_expiries_and_counters_are_written_again_and_others_values_are_not() {
    let (roster, statements) = swarm("", None);
    let mut made = Made::of(&roster, &statements);
    let (mine, other) = (branch(key(1).id(), 7), branch(key(2).id(), 7));
    let expires_at = Some(99);
    made.slot(mine, 1, 10 << 16, &Op { expires_at, ..old_put("expires", "v") });
    made.slot(mine, 2, 11 << 16, &old_op("gone", Body::Delete, &[]));
    made.slot(mine, 3, 11 << 16, &old_op("counter", Body::Counter((5, 2)), &[]));
    made.slot(other, 1, 12 << 16, &old_put("theirs", "v"));
    made.slot(other, 2, 12 << 16, &old_op("counter", Body::Counter((1, 0)), &[]));
    let (new, report) = made.carried(&key(1));
    assert_eq!(on(&new, "expires"), [(Hlc(10 << 16), put("v"), expires_at)]);
    assert_eq!(on(&new, "gone"), [(Hlc(11 << 16), op::Body::Delete, None)]);
    let [(stamp, op::Body::Counter(parts), None)] = &on(&new, "counter")[..] else { panic!() };
    assert_eq!((*stamp, parts.len()), (Hlc(11 << 16), 1));
    assert_eq!((parts[0].first_seq, parts[0].up.0, parts[0].down.0), (3, 5, 2));
    assert_eq!(values(&new, "theirs"), []);
    assert_eq!(report, Report { written: 3, of_others: 2, ..Report::default() });
    assert!(new.recover().expect("readable").caught_up, "the owner's replica is the first");
}

#[test]
fn an_own_value_that_a_member_has_overwritten_is_left_to_that_member() {
    let (roster, statements) = swarm("", None);
    let mut made = Made::of(&roster, &statements);
    let (mine, theirs) = (branch(key(1).id(), 7), branch(key(2).id(), 7));
    let stranger = branch(key(3).id(), 7);
    let a = made.slot(mine, 1, 10 << 16, &old_put("a", "mine"));
    let b = made.slot(mine, 2, 11 << 16, &old_put("b", "mine"));
    made.slot(theirs, 1, 12 << 16, &old_op("a", Body::Delete, &[a]));
    // No member: nobody would bring what it wrote.
    made.slot(stranger, 1, 12 << 16, &old_op("b", Body::Delete, &[b]));
    let (new, report) = made.carried(&key(1));
    assert_eq!(values(&new, "a"), []);
    assert_eq!(values(&new, "b"), [put("mine")]);
    assert_eq!((report.written, report.overwritten), (1, 1), "{report}");
}

#[test]
fn of_several_own_logs_each_key_has_the_value_that_was_shown() {
    let roster = Roster::found(&key(1), "swarm", "owner", [0; 16]).expect("founded");
    let mut made = Made::of(&roster, &[]);
    let (first, second) = (branch(key(1).id(), 9), branch(key(1).id(), 7));
    let a = made.slot(first, 1, 10 << 16, &old_put("a", "old"));
    made.slot(first, 2, 20 << 16, &old_put("b", "new"));
    made.slot(second, 1, 11 << 16, &old_op("a", Body::Put(b"new"[..].into()), &[a]));
    made.slot(second, 2, 12 << 16, &old_put("b", "old"));
    let (new, report) = made.carried(&key(1));
    assert_eq!(on(&new, "a"), [(Hlc(11 << 16), put("new"), None)]);
    assert_eq!(on(&new, "b"), [(Hlc(20 << 16), put("new"), None)]);
    assert_eq!(report, Report { written: 2, concurrent: 1, ..Report::default() });
    assert!(new.recover().expect("readable").caught_up, "nobody else has anything");
}

#[test]
fn a_commit_of_many_operations_becomes_several_with_rising_stamps() {
    let roster = Roster::found(&key(1), "swarm", "owner", [0; 16]).expect("founded");
    let mut made = Made::of(&roster, &[]);
    let mine = branch(key(1).id(), 7);
    for n in 1..=600 {
        made.slot(mine, n, 10 << 16, &old_put(&format!("k{n:03}"), "v"));
    }
    made.slot(mine, 601, (10 << 16) + 1, &old_put("last", "v"));
    let (new, report) = made.carried(&key(1));
    assert_eq!(report.written, 601);
    let stamp = |key: &str| on(&new, key)[0].0.0 - (10 << 16);
    assert_eq!([stamp("k001"), stamp("k256"), stamp("k257"), stamp("k600")], [0, 0, 1, 2]);
    assert_eq!(stamp("last"), 3);
}

#[test]
fn a_grant_bounds_what_is_written_again() {
    let (roster, statements) = swarm("mine/", Some(60));
    let mut made = Made::of(&roster, &statements);
    let mine = branch(key(2).id(), 7);
    made.slot(mine, 1, 10 << 16, &old_put("mine/a", "v"));
    made.slot(mine, 2, 11 << 16, &old_put("other", "v"));
    made.slot(mine, 3, 12 << 16, &old_put("mine/b", &"v".repeat(99)));
    made.slot(mine, 4, 13 << 16, &old_put("mine/c", "v"));
    let (new, report) = made.carried(&key(2));
    assert_eq!((report.written, report.refused), (2, 2), "{report}");
    assert_eq!(values(&new, "mine/c"), [put("v")]);
    assert!(!new.recover().expect("readable").caught_up, "others may have something");
    // Who is no member writes nothing, and nothing fails.
    let mut made = Made::of(&roster, &statements);
    made.slot(branch(key(3).id(), 7), 1, 10 << 16, &old_put("mine/a", "v"));
    assert_eq!(made.carried(&key(3)).1, Report { refused: 1, ..Report::default() });
}
