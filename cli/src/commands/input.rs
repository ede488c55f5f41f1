//! What a command reads from a file or from standard input.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::error::Failure;

/// Reads a file, or standard input for `-`, up to one byte more than `limit`.
pub fn read_up_to(path: &Path, limit: usize) -> Result<Vec<u8>, Failure> {
    let most = limit as u64 + 1;
    let mut bytes = Vec::new();
    let (name, read) = if is_stdin(path) {
        ("standard input".to_owned(), std::io::stdin().lock().take(most).read_to_end(&mut bytes))
    } else {
        let read = File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes));
        (path.display().to_string(), read)
    };
    read.map_err(|e| Failure::io(name, &e))?;
    Ok(bytes)
}

/// Whether a path means standard input.
pub fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}
