//! Where the local API's Unix socket lies: in the data directory, or, where that lies too deep for a
//! socket's path, in a private directory that a pointer in the data directory names.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

const SOCKET: &str = "api.sock";
const POINTER: &str = "api.addr";

/// Longest socket path that every supported system takes, in bytes (macOS: 103, Linux: 107).
const MAX_PATH: usize = 103;

/// A bound socket; its files are removed when this is dropped.
pub(crate) struct Listening {
    pub(crate) listener: Option<UnixListener>,
    socket: PathBuf,
    private: Option<Private>,
}

/// What a socket outside the data directory needs besides.
struct Private {
    dir: PathBuf,
    pointer: PathBuf,
}

/// Binds the socket of a data directory. The caller holds the directory's lock, so whatever lies there
/// is left over from a peer that was killed.
pub(crate) fn listen(data_dir: &Path) -> io::Result<Listening> {
    remove_old(data_dir);
    let direct = data_dir.join(SOCKET);
    if direct.as_os_str().len() <= MAX_PATH {
        let listener = bind(&direct)?;
        return Ok(Listening { listener: Some(listener), socket: direct, private: None });
    }
    let dir = private_dir()?;
    let socket = dir.join(SOCKET);
    let pointer = data_dir.join(POINTER);
    let text = socket.to_str().ok_or_else(|| io::Error::other("path is not UTF-8"))?;
    fs::write(&pointer, format!("{text}\n{}\n", mark(data_dir)?))?;
    let private = Some(Private { dir, pointer });
    let mut listening = Listening { listener: None, socket, private };
    listening.listener = Some(bind(&listening.socket)?);
    Ok(listening)
}

fn bind(socket: &Path) -> io::Result<UnixListener> {
    let listener = UnixListener::bind(socket)?;
    fs::set_permissions(socket, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// The socket of the peer that runs on `data_dir`, if one may.
pub(crate) fn find(data_dir: &Path) -> Option<PathBuf> {
    let data_dir = fs::canonicalize(data_dir).ok()?;
    let direct = data_dir.join(SOCKET);
    if direct.as_os_str().len() <= MAX_PATH { Some(direct) } else { pointed(&data_dir) }
}

/// Where the pointer leads, unless it was copied here from another directory.
fn pointed(data_dir: &Path) -> Option<PathBuf> {
    let text = fs::read_to_string(data_dir.join(POINTER)).ok()?;
    let (socket, rest) = text.split_once('\n')?;
    (rest.trim_end_matches('\n') == mark(data_dir).ok()?).then(|| PathBuf::from(socket))
}

/// Tells a directory from its copies.
fn mark(data_dir: &Path) -> io::Result<String> {
    let meta = fs::metadata(data_dir)?;
    Ok(format!("{}/{}", meta.dev(), meta.ino()))
}

fn remove_old(data_dir: &Path) {
    let _ = fs::remove_file(data_dir.join(SOCKET));
    if let Some(socket) = pointed(data_dir) {
        let _ = fs::remove_file(&socket);
        let _ = socket.parent().map(fs::remove_dir);
    }
    let _ = fs::remove_file(data_dir.join(POINTER));
}

/// A fresh directory that only this user can enter, at a short path.
fn private_dir() -> io::Result<PathBuf> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let name = format!("swarmkv-{}", swarmkv_protocol::id::to_text(&random));
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let candidates = runtime.into_iter().chain([std::env::temp_dir(), PathBuf::from("/tmp")]);
    let mut last = io::Error::other("no directory for the local API's socket");
    for parent in candidates {
        let dir = parent.join(&name);
        if dir.as_os_str().len() + 1 + SOCKET.len() > MAX_PATH {
            continue;
        }
        match DirBuilder::new().mode(0o700).create(&dir) {
            Ok(()) => return Ok(dir),
            Err(e) => last = e,
        }
    }
    Err(last)
}

impl Drop for Listening {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.socket);
        if let Some(Private { dir, pointer }) = &self.private {
            let _ = fs::remove_dir(dir);
            let _ = fs::remove_file(pointer);
        }
    }
}
