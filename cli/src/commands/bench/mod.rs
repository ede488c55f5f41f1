//! `swarmkv bench`: what this device and its swarm can do, measured on them.

mod answer;
mod load;
mod pair;
mod report;

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use crate::args::{Bench, BenchPart};
use crate::client::Peer;
use crate::error::{Failure, Kind};
use crate::output::Output;
use crate::settings::Settings;
use report::Report;

/// Appends that the disk itself is measured with.
const APPENDS: u32 = 200;

/// Does it.
pub async fn run(args: Bench, settings: &Settings, out: Output) -> Result<(), Failure> {
    if args.answer {
        return answer::answer(settings, out).await;
    }
    let wanted = |part| args.only.is_none_or(|only| only == part);
    let place = settings.data_dir.parent().filter(|dir| dir.is_dir()).unwrap_or(Path::new("."));
    let mut report = Report::new(bare_syncs(place)?, args.size);
    let running = match Peer::connect(settings).await {
        Ok(_) => true,
        Err(failure) if args.only.is_none_or(|only| only == BenchPart::Pair) => {
            out.talk(format!("{} Measuring with two throw-away peers only.", failure.message));
            false
        }
        Err(failure) => return Err(failure),
    };
    let bar = out.progress(None, "{spinner} {msg} {elapsed}");
    let measured = async {
        if running && wanted(BenchPart::Local) {
            load::measure(&args, settings, &bar, &mut report).await?;
        }
        if running && wanted(BenchPart::Peers) {
            answer::measure(settings, &bar, &mut report).await?;
        }
        if wanted(BenchPart::Pair) {
            pair::measure(&args, place, &bar, &mut report).await?;
        }
        Ok::<(), Failure>(())
    };
    let result = tokio::select! {
        result = measured => result,
        _ = tokio::signal::ctrl_c() => Err(Failure::new(Kind::Interrupted, "Stopped before the end.")),
    };
    if running {
        bar.set_message("cleaning up");
        load::clean(settings).await?;
    }
    bar.finish_and_clear();
    report.print(out)?;
    result
}

/// Appends a second that this disk itself makes durable, 256 bytes each.
fn bare_syncs(dir: &Path) -> Result<f64, Failure> {
    let path = dir.join(format!(".swarmkv-bench-{}", std::process::id()));
    let failed = |e: std::io::Error| Failure::io(path.display(), &e);
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).open(&path).map_err(failed)?;
    let began = Instant::now();
    let synced = (0..APPENDS).try_for_each(|n| {
        file.write_all_at(&[7; 256], u64::from(n) * 256)?;
        file.sync_data()
    });
    let seconds = began.elapsed().as_secs_f64();
    std::fs::remove_file(&path).map_err(failed)?;
    synced.map_err(failed)?;
    Ok(f64::from(APPENDS) / seconds)
}
