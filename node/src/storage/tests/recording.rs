//! Files that remember every call, so that the power can be cut after any of them.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::super::files::{File, Files};
use super::super::memory::InMemory;
use super::model::Random;

/// Bytes that a device writes together or not at all.
const SECTOR: usize = 512;

/// One call.
#[derive(Clone, Debug)]
pub(super) enum Call {
    Create(String),
    Remove(String),
    SyncNames,
    Write(String, u64, Vec<u8>),
    SetLen(String, u64),
    SyncData(String),
    /// A commit was acknowledged.
    Acknowledged,
}

/// Files in memory, and what was done to them.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    files: InMemory,
    calls: Arc<Mutex<Vec<Call>>>,
}

fn locked(calls: &Mutex<Vec<Call>>) -> MutexGuard<'_, Vec<Call>> {
    calls.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Recorder {
    /// Files that hold this already, durably.
    pub(super) fn holding(image: &Image) -> io::Result<Self> {
        let recorder = Self::default();
        for (name, bytes) in &image.0 {
            recorder.files.open(name)?.write_at(0, bytes)?;
        }
        Ok(recorder)
    }

    pub(super) fn acknowledge(&self) {
        locked(&self.calls).push(Call::Acknowledged);
    }

    pub(super) fn calls(&self) -> Vec<Call> {
        locked(&self.calls).clone()
    }
}

impl Files for Recorder {
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let mut calls = locked(&self.calls);
        if !self.files.list()?.iter().any(|there| there == name) {
            calls.push(Call::Create(name.to_owned()));
        }
        let file = self.files.open(name)?;
        let calls = Arc::clone(&self.calls);
        Ok(Arc::new(Recorded { name: name.to_owned(), file, calls }))
    }

    fn reopen(&self, name: &str) -> io::Result<Arc<dyn File>> {
        self.files.reopen(name)?;
        self.open(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.files.list()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        locked(&self.calls).push(Call::Remove(name.to_owned()));
        self.files.remove(name)
    }

    fn sync(&self) -> io::Result<()> {
        locked(&self.calls).push(Call::SyncNames);
        Ok(())
    }

    fn allocated(&self) -> u64 {
        self.files.allocated()
    }
}

#[derive(Debug)]
struct Recorded {
    name: String,
    file: Arc<dyn File>,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl File for Recorded {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, out)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut calls = locked(&self.calls);
        calls.push(Call::Write(self.name.clone(), offset, bytes.to_vec()));
        self.file.write_at(offset, bytes)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut calls = locked(&self.calls);
        calls.push(Call::SetLen(self.name.clone(), len));
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        locked(&self.calls).push(Call::SyncData(self.name.clone()));
        Ok(())
    }
}

/// What is on a device after the power came back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Image(BTreeMap<String, Vec<u8>>);

/// What became of calls that were not synced when the power went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// None of them.
    Nothing,
    /// All of them.
    Everything,
    /// Any of them, in any order, each whole or torn at sectors.
    Anything,
}

/// A device while calls arrive.
#[derive(Clone, Default)]
pub(super) struct Device {
    synced: Image,
    names: Vec<Call>,
    data: BTreeMap<String, Vec<Call>>,
}

impl Device {
    pub(super) fn holding(image: &Image) -> Self {
        Self { synced: image.clone(), ..Self::default() }
    }

    pub(super) fn take(&mut self, call: &Call) {
        match call {
            Call::Create(_) | Call::Remove(_) => self.names.push(call.clone()),
            Call::Write(name, ..) | Call::SetLen(name, _) => {
                self.data.entry(name.clone()).or_default().push(call.clone());
            }
            Call::SyncNames => {
                for call in std::mem::take(&mut self.names) {
                    self.name(&call);
                }
            }
            Call::SyncData(name) => {
                // A file system makes a new file's name durable together with its data, or it is
                // found nowhere; the store syncs the names first, so both are the same here.
                for call in self.data.remove(name).unwrap_or_default() {
                    apply(&mut self.synced, &call);
                }
            }
            Call::Acknowledged => {}
        }
    }

    fn name(&mut self, call: &Call) {
        match call {
            Call::Create(name) => {
                self.synced.0.entry(name.clone()).or_default();
            }
            Call::Remove(name) => {
                self.synced.0.remove(name);
            }
            _ => {}
        }
    }

    /// What is there if the power goes now.
    pub(super) fn cut(&self, fate: Fate, random: &mut Random) -> Image {
        let mut after = self.clone();
        let happens = |random: &mut Random| match fate {
            Fate::Nothing => false,
            Fate::Everything => true,
            Fate::Anything => random.below(2) == 0,
        };
        for call in &self.names {
            if happens(random) {
                after.name(call);
            }
        }
        for calls in self.data.values() {
            for call in calls {
                if happens(random) {
                    let torn = fate == Fate::Anything && random.below(2) == 0;
                    let parts = if torn { tear(call, random) } else { vec![call.clone()] };
                    parts.iter().for_each(|part| apply(&mut after.synced, part));
                }
            }
        }
        after.synced
    }
}

/// Some of the sectors of a write.
fn tear(call: &Call, random: &mut Random) -> Vec<Call> {
    let Call::Write(name, offset, bytes) = call else { return vec![call.clone()] };
    let mut parts = Vec::new();
    let mut from = 0;
    while from < bytes.len() {
        let at = usize::try_from(*offset).unwrap_or(0) + from;
        let to = (from + SECTOR - at % SECTOR).min(bytes.len());
        if random.below(2) == 0 {
            parts.push(Call::Write(name.clone(), offset + from as u64, bytes[from..to].to_vec()));
        }
        from = to;
    }
    parts
}

/// Data of a file whose name is not there is nowhere.
fn apply(image: &mut Image, call: &Call) {
    match call {
        Call::Write(name, offset, bytes) => {
            let Some(file) = image.0.get_mut(name) else { return };
            let from = usize::try_from(*offset).unwrap_or(usize::MAX);
            if file.len() < from + bytes.len() {
                file.resize(from + bytes.len(), 0);
            }
            file[from..from + bytes.len()].copy_from_slice(bytes);
        }
        Call::SetLen(name, len) => {
            let len = usize::try_from(*len).unwrap_or(0);
            if let Some(file) = image.0.get_mut(name) {
                file.resize(len, 0);
            }
        }
        _ => {}
    }
}
