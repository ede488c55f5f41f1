//! Frames on a stream: a big-endian `u32` length, then that many bytes.
//!
//! The length is checked before anything is allocated, and the buffer grows as bytes arrive.

use std::io;

use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Bytes asked for at a time; also the most that an announced length alone can make us allocate.
const CHUNK: usize = 64 * 1024;

/// Reads one frame of at most `max` bytes; `None` if the stream ended before it began. `progress`
/// is called whenever bytes arrived, with how many of the frame are here.
pub(super) async fn read_frame(
    stream: &mut (impl AsyncRead + Unpin),
    max: usize,
    mut progress: impl FnMut(usize),
) -> io::Result<Option<Vec<u8>>> {
    let mut head = [0; 4];
    let mut have = 0;
    while have < head.len() {
        match stream.read(&mut head[have..]).await? {
            0 if have == 0 => return Ok(None),
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => have += read,
        }
        progress(0);
    }
    let len = usize::try_from(u32::from_be_bytes(head)).unwrap_or(usize::MAX);
    if len > max {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "frame over the limit"));
    }
    let mut frame = Vec::new();
    let mut filled = 0;
    while filled < len {
        if filled == frame.len() {
            frame.resize(len.min(filled + CHUNK.max(filled)), 0);
        }
        match stream.read(&mut frame[filled..]).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => filled += read,
        }
        progress(filled);
    }
    Ok(Some(frame))
}

/// Writes one frame and flushes it. `progress` is called whenever bytes were taken.
pub(super) async fn write_frame(
    stream: &mut (impl AsyncWrite + Unpin),
    frame: &[u8],
    mut progress: impl FnMut(),
) -> io::Result<()> {
    let len = u32::try_from(frame.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // One buffer, so that a small frame is one packet.
    let mut bytes = Vec::with_capacity(4 + frame.len());
    bytes.extend_from_slice(&len.to_be_bytes());
    bytes.extend_from_slice(frame);
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        match stream.write(rest).await? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => rest = &rest[written..],
        }
        progress();
    }
    stream.flush().await?;
    progress();
    Ok(())
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;
    use futures::io::Cursor;

    use super::*;

    fn read(bytes: &[u8], max: usize) -> io::Result<Option<Vec<u8>>> {
        block_on(read_frame(&mut Cursor::new(bytes), max, |_| ()))
    }

    #[test]
    fn frames_come_back_as_written() {
        for len in [0, 1, 70_000, 200_000] {
            let frame: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
            let mut wire = Vec::new();
            block_on(write_frame(&mut wire, &frame, || ())).unwrap();
            assert_eq!(read(&wire, len).unwrap(), Some(frame));
        }
    }

    #[test]
    fn a_length_at_the_limit_passes_and_one_above_fails_before_its_bytes() {
        let wire = [&4u32.to_be_bytes()[..], b"four"].concat();
        assert_eq!(read(&wire, 4).unwrap().unwrap(), b"four");
        assert_eq!(read(&wire[..4], 3).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn an_end_between_frames_is_clean_and_one_inside_is_not() {
        assert_eq!(read(&[], 9).unwrap(), None);
        assert_eq!(read(&[0, 0], 9).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(read(&[0, 0, 0, 2, 1], 9).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
