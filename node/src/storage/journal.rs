//! The journal: every sync appends one frame to it, and slots stay where they were written.
//!
//! It lies in segments of about [`Sizes::segment`] bytes. Zeros are written ahead of its end, so that an append
//! overwrites what the file already has: then the device need not note a new length at every sync, which
//! costs a third of a lone commit (measured on ext4: 0.20 against 0.28 ms). At most one frame is written
//! and not yet synced, so a frame that makes no sense at the end was never acknowledged, and one that makes
//! no sense with sound ones after it has been damaged since.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::files::File;
use super::frame::{self, Builder, Within};
use super::room::no_room;
use super::schema::Pointer;
use super::segments::{Handles, Kind, OPEN_SEGMENTS, PREFIX, Segment, Segments};

/// How large things become.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    /// Bytes of a segment that is full. A larger frame has a segment of its own.
    pub(super) segment: u64,
    /// Bytes of zeros written ahead.
    pub(super) ahead: u64,
    /// A memtable of so many bytes is put into the index.
    pub(super) memtable: usize,
    /// Segments kept open for reading.
    pub(super) open: usize,
    /// A store that was given nothing to put into its index for so long does what was put off.
    pub(super) idle: Duration,
    /// Bytes that must be to be had before an idle store looks for more to give back.
    pub(super) worth: u64,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            segment: 32 << 20,
            ahead: 256 << 10,
            memtable: 8 << 20,
            open: OPEN_SEGMENTS,
            idle: Duration::from_secs(10),
            worth: 1 << 20,
        }
    }
}

/// A frame after a damaged one is looked for within so many numbers.
const LEAP: u64 = 1 << 20;

/// Where a frame begins, and its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) segment: u32,
    pub(super) offset: u64,
    pub(super) number: u64,
}

impl Position {
    /// Where a slot lies that is `within` the frame here.
    pub(super) fn pointer(self, (within, len): Within) -> Pointer {
        let offset = u32::try_from(self.offset).unwrap_or(u32::MAX).saturating_add(within);
        Pointer { segment: self.segment, offset, len }
    }

    pub(super) fn to_bytes(self) -> [u8; 20] {
        let mut out = [0; 20];
        out[..4].copy_from_slice(&self.segment.to_be_bytes());
        out[4..12].copy_from_slice(&self.offset.to_be_bytes());
        out[12..].copy_from_slice(&self.number.to_be_bytes());
        out
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (segment, rest) = bytes.split_first_chunk()?;
        let (offset, rest) = rest.split_first_chunk()?;
        let number = rest.try_into().ok()?;
        Some(Self {
            segment: u32::from_be_bytes(*segment),
            offset: u64::from_be_bytes(*offset),
            number: u64::from_be_bytes(number),
        })
    }
}

/// The journal's end.
pub(super) struct Journal {
    handles: Arc<Handles>,
    file: Arc<dyn File>,
    at: Position,
    /// The file's length: zeros from `at` on.
    len: u64,
    sizes: Sizes,
    /// An append failed: what is in the file is not known any more.
    broken: bool,
}

impl Journal {
    /// A journal whose next frame is `number`, in a new segment.
    pub(super) fn create(
        handles: Arc<Handles>,
        sizes: Sizes,
        segment: u32,
        number: u64,
    ) -> io::Result<(Self, Arc<Segment>)> {
        let (new, file) = handles.create(Kind::Log, segment)?;
        let at = Position { segment, offset: PREFIX, number };
        Ok((Self { handles, file, at, len: PREFIX, sizes, broken: false }, new))
    }

    /// Goes on at the end of `file`, which holds only zeros from `at` on.
    pub(super) fn resume(
        handles: Arc<Handles>,
        sizes: Sizes,
        file: Arc<dyn File>,
        at: Position,
    ) -> io::Result<Self> {
        let len = file.len()?;
        Ok(Self { handles, file, at, len, sizes, broken: false })
    }

    /// Where the next frame goes, unless it does not fit there.
    pub(super) fn position(&self) -> Position {
        self.at
    }

    /// Whether a frame of `len` bytes needs a segment of its own.
    pub(super) fn is_full_for(&self, len: usize) -> bool {
        self.at.offset > PREFIX && self.at.offset + len as u64 > self.sizes.segment
    }

    /// Goes on in a new segment; the one behind is cut to what it holds.
    pub(super) fn roll(&mut self, segment: u32) -> io::Result<Arc<Segment>> {
        self.file.set_len(self.at.offset)?;
        let (new, file) = self.handles.create(Kind::Log, segment)?;
        self.file = file;
        self.at = Position { segment, offset: PREFIX, ..self.at };
        self.len = PREFIX;
        Ok(new)
    }

    /// Writes a frame and makes it durable; says where it begins. Once this has failed it always does, unless
    /// it failed before the sync because the device is full.
    pub(super) fn append(&mut self, builder: Builder) -> io::Result<Position> {
        if std::mem::replace(&mut self.broken, true) {
            return Err(io::Error::other("an earlier write to the journal failed"));
        }
        let began = self.at;
        let bytes = builder.finish(began.number);
        let end = began.offset + bytes.len() as u64;
        if let Err(e) = self.write(&bytes, end) {
            self.broken = !no_room(&e);
            return Err(e);
        }
        self.file.sync_data()?;
        self.at = Position { offset: end, number: began.number + 1, ..began };
        self.broken = false;
        Ok(began)
    }

    fn write(&mut self, bytes: &[u8], end: u64) -> io::Result<()> {
        self.file.write_at(self.at.offset, bytes)?;
        if end > self.len {
            let zeros = self.sizes.ahead.min(self.sizes.segment.saturating_sub(end));
            self.file.write_at(end, &vec![0; usize::try_from(zeros).unwrap_or(0)])?;
            self.len = end + zeros;
        }
        Ok(())
    }
}

/// What [`replay`] found.
pub(super) struct Replayed {
    /// Where the next frame goes.
    pub(super) end: Position,
    /// Nothing but zeros from there on.
    pub(super) clean: bool,
    /// Frames were lost between others, so what they said is lost.
    pub(super) damaged: bool,
}

/// Hands every frame of the journal from `from` on to `each`: where it begins, and its body.
pub(super) fn replay(
    segments: &Segments,
    from: Position,
    mut each: impl FnMut(Position, &[u8]),
) -> io::Result<Replayed> {
    let mut end = from;
    let (mut clean, mut damaged) = (true, false);
    let logs = segments.range(from.segment..).filter(|(_, segment)| segment.kind == Kind::Log);
    for (segment, log) in logs {
        let file = log.file()?;
        if *segment != from.segment {
            end = Position { segment: *segment, offset: PREFIX, ..end };
        }
        let began = end.number;
        let len = file.len()?;
        let mut body = Vec::new();
        while let Some(at) = next(&*file, end, len, &mut body)? {
            damaged |= at.number != end.number;
            each(at, &body);
            let offset = at.offset + (frame::HEAD + body.len()) as u64;
            end = Position { offset, number: at.number + 1, ..at };
        }
        clean = zeros(&*file, end.offset, len)?;
        if end.number > began {
            // They may be in the system's cache only: before anybody acts on them they must be durable.
            file.sync_data()?;
        }
    }
    Ok(Replayed { end, clean, damaged })
}

/// Hands the frames of one segment to `each`, up to the first that makes no sense. Says where that would
/// begin, if there are only zeros from there on.
pub(super) fn frames(
    file: &dyn File,
    segment: u32,
    mut each: impl FnMut(Position, &[u8]) -> io::Result<()>,
) -> io::Result<Option<Position>> {
    let len = file.len()?;
    let mut head = [0; frame::HEAD];
    if len < PREFIX + frame::HEAD as u64 {
        return Ok((len == PREFIX).then_some(Position { segment, offset: PREFIX, number: 1 }));
    }
    file.read_at(PREFIX, &mut head)?;
    let number = frame::Head::read(&head).number;
    let mut at = Position { segment, offset: PREFIX, number };
    let mut body = Vec::new();
    while read(file, at.offset, len, at.number..at.number + 1, &mut body)?.is_some() {
        each(at, &body)?;
        let offset = at.offset + (frame::HEAD + body.len()) as u64;
        at = Position { offset, number: at.number + 1, ..at };
    }
    Ok(zeros(file, at.offset, len)?.then_some(at))
}

/// The frame at `end`, or the first sound one after it; its body goes into `body`.
fn next(
    file: &dyn File,
    end: Position,
    len: u64,
    body: &mut Vec<u8>,
) -> io::Result<Option<Position>> {
    if read(file, end.offset, len, end.number..end.number + 1, body)?.is_some() {
        return Ok(Some(end));
    }
    if zeros(file, end.offset, len)? {
        return Ok(None);
    }
    // Looked for in memory: a read for each byte would take minutes.
    let mut rest = vec![0; usize::try_from(len - end.offset).unwrap_or(0)];
    file.read_at(end.offset, &mut rest)?;
    let numbers = end.number + 1..end.number + LEAP;
    for at in 0..rest.len() {
        let Some(head) = rest[at..].first_chunk() else { break };
        if !numbers.contains(&frame::Head::read(head).number) {
            continue;
        }
        let offset = end.offset + at as u64;
        if let Some(number) = read(file, offset, len, numbers.clone(), body)? {
            return Ok(Some(Position { offset, number, ..end }));
        }
    }
    Ok(None)
}

/// Reads the frame at `offset` if there is a sound one of a number among `numbers`.
fn read(
    file: &dyn File,
    offset: u64,
    len: u64,
    numbers: std::ops::Range<u64>,
    body: &mut Vec<u8>,
) -> io::Result<Option<u64>> {
    let start = offset + frame::HEAD as u64;
    if start > len {
        return Ok(None);
    }
    let mut head = [0; frame::HEAD];
    file.read_at(offset, &mut head)?;
    let head = frame::Head::read(&head);
    if !numbers.contains(&head.number) || u64::from(head.len) > len - start {
        return Ok(None);
    }
    body.resize(head.len as usize, 0);
    file.read_at(start, body)?;
    Ok(head.fits(body).then_some(head.number))
}

fn zeros(file: &dyn File, from: u64, len: u64) -> io::Result<bool> {
    let mut piece = vec![0; 64 << 10];
    let mut at = from;
    while at < len {
        let take = usize::try_from(len - at).map_or(piece.len(), |left| left.min(piece.len()));
        file.read_at(at, &mut piece[..take])?;
        if piece[..take].iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        at += take as u64;
    }
    Ok(true)
}
