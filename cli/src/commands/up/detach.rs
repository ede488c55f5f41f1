//! `swarmkv up --detach`: starts this program again in the background and waits until it answers.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::args::Up;
use crate::client::Peer;
use crate::error::{Failure, Kind};
use crate::output::Output;
use crate::settings::Settings;
use crate::text;

const LOG: &str = "up.log";
/// A log beyond this is set aside at the next start.
const LOG_LIMIT: u64 = 4 << 20;
/// Pause between two looks whether the peer answers.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// Bytes of the log read for the reason of a failed start.
const TAIL: u64 = 16 * 1024;

/// Starts it.
pub async fn run(args: &Up, settings: &Settings, out: Output) -> Result<(), Failure> {
    let path = settings.data_dir().join(LOG);
    let (log, begin) = open_log(&path).map_err(|e| Failure::io(path.display(), &e))?;
    let mut child = spawn(args, settings, log).map_err(|e| Failure::io("swarmkv up", &e))?;
    let pid = child.id();
    wait_until_it_answers(&mut child, settings, &path, begin).await?;
    if out.is_json() {
        return out.json(&json!({"pid": pid, "log": path.to_string_lossy()}));
    }
    out.line(&pid.to_string())?;
    out.talk(format!(
        "The peer runs in the background as process {pid}; it stops with: kill {pid}"
    ));
    out.talk(format!("What it says goes to {}", path.display()));
    Ok(())
}

/// Opens the log for appending; also answers where this run's part begins.
fn open_log(path: &Path) -> io::Result<(File, u64)> {
    if fs::metadata(path).is_ok_and(|meta| meta.len() > LOG_LIMIT) {
        fs::rename(path, path.with_extension("log.old"))?;
    }
    let log = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    let begin = log.metadata()?.len();
    Ok((log, begin))
}

fn spawn(args: &Up, settings: &Settings, log: File) -> io::Result<Child> {
    Command::new(std::env::current_exe()?)
        .args(arguments(args, settings))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .spawn()
}

fn arguments(args: &Up, settings: &Settings) -> Vec<OsString> {
    let mut list: Vec<OsString> = vec!["up".into(), "--background".into(), "--data-dir".into()];
    list.push(settings.data_dir().into());
    for (option, values) in [("--listen", &args.listen), ("--peer", &args.peer)] {
        list.extend(values.iter().flat_map(|value| [option.into(), value.into()]));
    }
    if args.no_mdns {
        list.push("--no-mdns".into());
    }
    if args.memory {
        list.push("--memory".into());
    }
    list.extend((0..settings.verbose).map(|_| "-v".into()));
    list
}

async fn wait_until_it_answers(
    child: &mut Child,
    settings: &Settings,
    log: &Path,
    begin: u64,
) -> Result<(), Failure> {
    let end = Instant::now() + settings.timeout;
    while Instant::now() < end {
        let status = child.try_wait().map_err(|e| Failure::io("swarmkv up", &e))?;
        if let Some(status) = status {
            return Err(reason(status, log, begin));
        }
        if let Ok(mut peer) = Peer::connect(settings).await
            && peer.status().await.is_ok_and(|status| status.pid == child.id())
        {
            return Ok(());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let (pid, time) = (child.id(), text::duration(settings.timeout));
    Err(Failure::new(
        Kind::Timeout,
        format!("The peer (process {pid}) runs but has not answered within {time}."),
    )
    .hint(format!("See what it says in {}", log.display())))
}

/// Why the child ended, in its own words.
fn reason(status: ExitStatus, log: &Path, begin: u64) -> Failure {
    let said = said_since(log, begin).unwrap_or_default();
    let last = |mark: &str| said.lines().rev().find_map(|line| line.strip_prefix(mark));
    let failure = match last("error: ") {
        Some(message) => Failure::new(Kind::from_code(status.code()), message),
        None => Failure::failed(format!("the peer ended at once ({status})")),
    };
    match last("hint: ") {
        Some(hint) => failure.hint(hint),
        None => failure.hint(format!("See what it said in {}", log.display())),
    }
}

fn said_since(log: &Path, begin: u64) -> io::Result<String> {
    let mut file = File::open(log)?;
    let len = file.metadata()?.len();
    file.seek(SeekFrom::Start(begin.max(len.saturating_sub(TAIL))))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
