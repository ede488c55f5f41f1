//! The cases that measure speed, memory and disk. What is written first is `load`'s data set:
//! `n` random user keys, spread over the logs in equal parts.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use crate::{
    Setup,
    data::{Commit, LOGS, log_id, mix, op, user_key},
    engine::Res,
    store::Store,
};

const LOAD_BATCH: u64 = 4_096;
const WRITE_TIME: Duration = Duration::from_millis(1_500);
/// The log of the writes that add to the loaded data set.
pub const OWN_LOG: u64 = 1_000;
/// Where the user keys of such a log begin.
pub fn own_keys(log: u64) -> u64 {
    log << 32
}

/// Catch-up of an empty replica: big batches, each synced once, log after log.
pub fn load(setup: &Setup) -> Res<()> {
    let store = setup.open()?;
    let per_log = setup.n / LOGS;
    let start = Instant::now();
    for log in 0..LOGS {
        for first in (0..per_log).step_by(LOAD_BATCH as usize) {
            let seqs = first..(first + LOAD_BATCH).min(per_log);
            let ops = seqs
                .map(|seq| op(log * per_log + seq, seq + 1, None))
                .collect();
            store.commit(&Commit {
                log: log_id(log),
                ops,
            })?;
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let peak = memory("VmHWM")?;
    drop(store);
    println!(
        "load n={} per_s={:.0} peak_mb={peak} disk_mb={}",
        setup.n,
        (per_log * LOGS) as f64 / seconds,
        disk_mb(&setup.dir)?
    );
    Ok(())
}

/// Durable commits of fresh keys, one after another; 1,024 stands for four commits in one sync.
pub fn fresh(setup: &Setup) -> Res<()> {
    let store = setup.open()?;
    let mut writer = OwnWriter::new(OWN_LOG);
    for size in [1, 64, 256, 1_024] {
        let mut times = Vec::new();
        let start = Instant::now();
        while start.elapsed() < WRITE_TIME {
            times.push(writer.commit(&store, size)?);
        }
        print_rate(&format!("fresh{size}"), size, &mut times, start.elapsed());
    }
    println!("fresh peak_mb={}", memory("VmHWM")?);
    Ok(())
}

/// Writes fresh keys to a log of its own.
pub struct OwnWriter {
    log: u64,
    written: u64,
}

impl OwnWriter {
    pub fn new(log: u64) -> Self {
        Self { log, written: 0 }
    }

    pub fn commit(&mut self, store: &Store, size: u64) -> Res<Duration> {
        let seqs = self.written..self.written + size;
        let ops = seqs
            .map(|seq| op(own_keys(self.log) + seq, seq + 1, None))
            .collect();
        let commit = Commit {
            log: log_id(self.log),
            ops,
        };
        let start = Instant::now();
        store.commit(&commit)?;
        self.written += size;
        Ok(start.elapsed())
    }
}

/// `n` overwrites of the 100k loaded slots in commits of 64, each by the log that has the slot.
pub fn overwrite(setup: &Setup) -> Res<()> {
    const LOADED: u64 = 100_000;
    const SIZE: u64 = 64;
    let store = setup.open()?;
    let per_log = LOADED / LOGS;
    let mut current: Vec<u64> = (0..LOADED).map(|index| index % per_log + 1).collect();
    let mut heads = vec![per_log; LOGS as usize];
    let mut times = Vec::new();
    let start = Instant::now();
    for round in 0..setup.n / SIZE {
        let log = mix(round) % LOGS;
        let first = mix(round ^ (1 << 50)) % per_log;
        let mut ops = Vec::new();
        for step in 0..SIZE {
            // 97 and 6,250 have no common factor: 64 different slots all over the log.
            let index = log * per_log + (first + step * 97) % per_log;
            heads[log as usize] += 1;
            let seq = heads[log as usize];
            ops.push(op(index, seq, Some(current[index as usize])));
            current[index as usize] = seq;
        }
        let commit = Commit {
            log: log_id(log),
            ops,
        };
        let before = Instant::now();
        store.commit(&commit)?;
        times.push(before.elapsed());
    }
    print_rate("overwrite64", SIZE, &mut times, start.elapsed());
    let peak = memory("VmHWM")?;
    let before = disk_mb(&setup.dir)?;
    let slots = store.view()?.scan(&mut |_| ())?;
    drop(store);
    drop(setup.open()?);
    let after = disk_mb(&setup.dir)?;
    println!("overwrite peak_mb={peak} disk_mb={before} disk_reopened_mb={after} slots={slots}");
    Ok(())
}

fn print_rate(name: &str, size: u64, times: &mut [Duration], elapsed: Duration) {
    times.sort();
    let at = |part: usize| times[(times.len() - 1) * part / 1_000].as_secs_f64() * 1e6;
    let per_s = times.len() as f64 / elapsed.as_secs_f64();
    println!(
        "{name} commits_s={per_s:.0} ops_s={:.0} p50_us={:.0} p99_us={:.0} max_us={:.0}",
        per_s * size as f64,
        at(500),
        at(990),
        at(1_000)
    );
}

/// The source side of catch-up: every log in chunks, each chunk from a view of its own.
pub fn stream(setup: &Setup) -> Res<()> {
    let store = setup.open()?;
    for round in 0..2 {
        let start = Instant::now();
        let (mut slots, mut bytes) = (0, 0);
        for log in 0..LOGS {
            let mut after = 0;
            loop {
                let mut take = |slot: &[u8]| bytes += slot.len();
                let (count, last) = store.view()?.slots_after(&log_id(log), after, &mut take)?;
                if count == 0 {
                    break;
                }
                slots += count;
                after = last;
            }
        }
        let per_s = slots as f64 / start.elapsed().as_secs_f64();
        println!("stream{round} slots={slots} bytes={bytes} per_s={per_s:.0}");
    }
    println!("stream peak_mb={}", memory("VmHWM")?);
    Ok(())
}

/// Random `slots_of` with values, warm: a view for each, then one view for all.
pub fn get(setup: &Setup) -> Res<()> {
    const GETS: u64 = 300_000;
    let store = setup.open()?;
    let read = |fresh_view: bool, gets: u64| -> Res<f64> {
        let (mut slots, mut bytes) = (0, 0);
        let start = Instant::now();
        let held = store.view()?;
        for n in 0..gets {
            let key = user_key(mix(n) % setup.n);
            let mut take = |slot: &[u8]| bytes += slot.len();
            slots += match fresh_view {
                true => store.view()?.slots_of(&key, &mut take)?,
                false => held.slots_of(&key, &mut take)?,
            };
        }
        assert!(slots >= gets / LOGS * (LOGS - 1), "{slots} found of {gets}");
        Ok(gets as f64 / start.elapsed().as_secs_f64())
    };
    read(false, GETS)?;
    let (each, held) = (read(true, GETS)?, read(false, GETS)?);
    let peak = memory("VmHWM")?;
    println!("get per_s={each:.0} one_view_per_s={held:.0} peak_mb={peak}");
    Ok(())
}

pub fn scan(setup: &Setup) -> Res<()> {
    let store = setup.open()?;
    for round in 0..2 {
        let (start, mut bytes) = (Instant::now(), 0);
        let slots = store.view()?.scan(&mut |slot| bytes += slot.len())?;
        let seconds = start.elapsed().as_secs_f64();
        let per_s = slots as f64 / seconds;
        println!("scan{round} slots={slots} bytes={bytes} s={seconds:.3} per_s={per_s:.0}");
    }
    println!("scan peak_mb={}", memory("VmHWM")?);
    Ok(())
}

/// Open to first get, and the memory it leaves at rest.
pub fn reopen(setup: &Setup) -> Res<()> {
    let start = Instant::now();
    let store = setup.open()?;
    let opened = start.elapsed();
    store
        .view()?
        .slots_of(&user_key(setup.n / 2), &mut |_| ())?;
    let first = start.elapsed();
    std::thread::sleep(Duration::from_millis(300));
    let (rest, peak) = (memory("VmRSS")?, memory("VmHWM")?);
    let start = Instant::now();
    drop(store);
    println!(
        "reopen open_ms={:.1} first_get_ms={:.1} rest_mb={rest} peak_mb={peak} close_ms={:.1}",
        opened.as_secs_f64() * 1e3,
        first.as_secs_f64() * 1e3,
        start.elapsed().as_secs_f64() * 1e3
    );
    Ok(())
}

/// Commits of 64 alone, then beside a reader that gets through views it holds for 100 ms.
pub fn beside(setup: &Setup) -> Res<()> {
    let store = setup.open()?;
    let mut writer = OwnWriter::new(OWN_LOG + 1);
    let mut write = |name: &str| -> Res<()> {
        let (mut times, start) = (Vec::new(), Instant::now());
        while start.elapsed() < WRITE_TIME {
            times.push(writer.commit(&store, 64)?);
        }
        print_rate(name, 64, &mut times, start.elapsed());
        Ok(())
    };
    write("alone64")?;
    let (stop, gets, worst_us) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| -> Res<()> {
            while !stop.load(Ordering::Relaxed) {
                let (view, until) = (store.view()?, Instant::now() + Duration::from_millis(100));
                while Instant::now() < until {
                    let before = Instant::now();
                    let number = gets.fetch_add(1, Ordering::Relaxed);
                    view.slots_of(&user_key(mix(number) % setup.n), &mut |_| ())?;
                    let us = before.elapsed().as_micros() as u64;
                    worst_us.fetch_max(us, Ordering::Relaxed);
                }
            }
            Ok(())
        });
        let written = write("beside64");
        stop.store(true, Ordering::Relaxed);
        let read = reader
            .join()
            .unwrap_or_else(|_| Err("the reader panicked".into()));
        written.and(read)
    })?;
    let per_s = gets.into_inner() as f64 / WRITE_TIME.as_secs_f64();
    println!(
        "beside gets_s={per_s:.0} worst_get_us={}",
        worst_us.into_inner()
    );
    Ok(())
}

/// The bare rate that a lone durable write is held against.
pub fn fdatasync(setup: &Setup) -> Res<()> {
    fs::create_dir_all(&setup.dir)?;
    let mut file = fs::File::create(setup.dir.join("bare"))?;
    for size in [300, 3_600] {
        let (mut times, start) = (Vec::new(), Instant::now());
        while start.elapsed() < WRITE_TIME {
            let before = Instant::now();
            file.write_all(&vec![7; size])?;
            file.sync_data()?;
            times.push(before.elapsed());
        }
        print_rate(&format!("fdatasync{size}"), 1, &mut times, start.elapsed());
    }
    Ok(())
}

/// A figure of this process from the kernel, in MiB.
fn memory(field: &str) -> Res<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find(|line| line.starts_with(field))
        .ok_or("no such figure")?;
    let kib = line.split_whitespace().nth(1).ok_or("no figure")?;
    Ok(kib.parse::<u64>()? / 1_024)
}

/// What a folder takes on disk, in MiB.
pub fn disk_mb(dir: &Path) -> Res<u64> {
    fn blocks(dir: &Path) -> Res<u64> {
        let mut sum = 0;
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let meta = entry.metadata()?;
            sum += if meta.is_dir() {
                blocks(&entry.path())?
            } else {
                meta.blocks()
            };
        }
        Ok(sum)
    }
    Ok(blocks(dir)? * 512 >> 20)
}
