//! Where the local API's Unix socket lies. The data directory holds a pointer to it, because a socket's
//! path may have about 100 bytes and a data directory may lie deeper than that.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
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
    pointer: PathBuf,
    private_dir: Option<PathBuf>,
}

/// Binds the socket of a data directory. The caller holds the directory's lock, so whatever lies there
/// is left over from a peer that was killed.
pub(crate) fn listen(data_dir: &Path) -> io::Result<Listening> {
    let pointer = data_dir.join(POINTER);
    if let Ok(old) = fs::read_to_string(&pointer) {
        remove_old(data_dir, Path::new(old.trim_end_matches('\n')));
    }
    let direct = data_dir.join(SOCKET);
    let (socket, private_dir) = if direct.as_os_str().len() <= MAX_PATH {
        (direct, None)
    } else {
        let dir = private_dir()?;
        (dir.join(SOCKET), Some(dir))
    };
    let listener = UnixListener::bind(&socket)?;
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o600))?;
    let text = socket.to_str().ok_or_else(|| io::Error::other("path is not UTF-8"))?;
    let fresh = pointer.with_extension("new");
    fs::write(&fresh, format!("{text}\n"))?;
    fs::rename(&fresh, &pointer)?;
    Ok(Listening { listener: Some(listener), socket, pointer, private_dir })
}

/// The socket of the peer that runs on `data_dir`, if one may.
pub(crate) fn find(data_dir: &Path) -> Option<PathBuf> {
    let text = fs::read_to_string(data_dir.join(POINTER)).ok()?;
    Some(PathBuf::from(text.trim_end_matches('\n')))
}

fn remove_old(data_dir: &Path, socket: &Path) {
    let ours = socket.file_name().is_some_and(|name| name == SOCKET);
    if ours {
        let _ = fs::remove_file(socket);
        let parent = socket.parent().filter(|dir| *dir != data_dir);
        if let Some(dir) = parent {
            let _ = fs::remove_dir(dir);
        }
    }
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
        let _ = fs::remove_file(&self.pointer);
        let _ = fs::remove_file(&self.socket);
        if let Some(dir) = &self.private_dir {
            let _ = fs::remove_dir(dir);
        }
    }
}
