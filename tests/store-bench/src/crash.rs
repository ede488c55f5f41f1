//! The cases in which something goes wrong: a killed writer, a full disk.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::{
    Setup,
    cases::{OWN_LOG, OwnWriter, own_keys},
    data::{header, log_id, op_bytes, user_key},
    engine::Res,
    store::Store,
};

const COMMIT: u64 = 8;

/// The log that one run of such a case writes, unlike any other case's.
fn run_log(run: u64) -> u64 {
    OWN_LOG + 1_000 + run
}

/// Kills a writing child process without warning, reopens, checks all that it acknowledged.
pub fn kill(setup: &Setup) -> Res<()> {
    let mut child = Command::new(std::env::current_exe()?)
        .args([&setup.engine, &setup.arrangement, "kill-child"])
        .arg(&setup.dir)
        .arg(setup.n.to_string())
        .stdout(Stdio::piped())
        .spawn()?;
    let output = child.stdout.take().ok_or("the child has no output")?;
    let mut lines = BufReader::new(output).lines();
    let mut acknowledged = lines.next().ok_or("the child wrote nothing")??.parse()?;
    let killer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(1_000));
        child.kill().and_then(|()| child.wait())
    });
    for line in lines {
        acknowledged = line?.parse().unwrap_or(acknowledged);
    }
    killer.join().map_err(|_| "the killer panicked")??;
    let start = Instant::now();
    let store = setup.open()?;
    store.view()?.slots_of(&user_key(0), &mut |_| ())?;
    let first_get_ms = start.elapsed().as_secs_f64() * 1e3;
    let (found, wrong) = check(&store, setup.n, acknowledged)?;
    println!(
        "kill first_get_ms={first_get_ms:.1} acknowledged={acknowledged} found={found} \
         wrong={wrong}"
    );
    if wrong > 0 {
        Err("acknowledged data was lost".into())
    } else {
        Ok(())
    }
}

/// Writes to a log of the run's own, saying how many operations are durable.
pub fn child(setup: &Setup) -> Res<()> {
    let store = setup.open()?;
    let mut writer = OwnWriter::new(run_log(setup.n));
    let mut output = std::io::stdout().lock();
    for done in 1.. {
        writer.commit(&store, COMMIT)?;
        writeln!(output, "{}", done * COMMIT)?;
        output.flush()?;
    }
    Ok(())
}

/// How many slots of the run's log there are, and how many acknowledged ones are not right:
/// in either index, or with other bytes than were written, or without their header.
fn check(store: &Store, run: u64, acknowledged: u64) -> Res<(u64, u64)> {
    let (view, log) = (store.view()?, log_id(run_log(run)));
    let keys = own_keys(run_log(run));
    let (mut found, mut after) = (0, 0);
    loop {
        let (count, last) = view.slots_after(&log, after, &mut |_| ())?;
        if count == 0 {
            break;
        }
        (found, after) = (found + count, last);
    }
    let mut wrong = acknowledged.saturating_sub(found);
    for number in 0..acknowledged {
        let mut right = false;
        let expected = op_bytes(keys + number, number + 1);
        view.slots_of(&user_key(keys + number), &mut |slot| {
            right |= slot[8..] == expected
        })?;
        let headed = (number + 1) % COMMIT != 0 || view.has_header(&log, number + 1)?;
        wrong += u64::from(!right || !headed);
    }
    Ok((found, wrong))
}

/// Writes until the disk is full, then says what still works. Run it on a small file system.
pub fn fill(setup: &Setup) -> Res<()> {
    let ballast = setup.dir.join("ballast");
    std::fs::create_dir_all(&setup.dir)?;
    std::fs::write(&ballast, header(0).repeat(30_000))?;
    let store = setup.open()?;
    let mut writer = OwnWriter::new(run_log(setup.n));
    let mut acknowledged = 0;
    let error = loop {
        match writer.commit(&store, COMMIT) {
            Ok(_) => acknowledged += COMMIT,
            Err(error) => break error,
        }
    };
    println!("fill acknowledged={acknowledged} error: {error}");
    report("read after it", || {
        store
            .view()?
            .slots_of(&user_key(own_keys(run_log(setup.n))), &mut |_| ())
    });
    std::fs::remove_file(&ballast)?;
    report("write with room again", || writer.commit(&store, COMMIT));
    let close = Instant::now();
    drop(store);
    println!("fill close_ms={}", close.elapsed().as_millis());
    let store = setup.open()?;
    report("check after reopening", || {
        check(&store, setup.n, acknowledged)
    });
    report("write after reopening", || {
        OwnWriter::new(7).commit(&store, COMMIT)
    });
    Ok(())
}

fn report<T: std::fmt::Debug>(what: &str, action: impl FnOnce() -> Res<T>) {
    match action() {
        Ok(value) => println!("fill {what}: {value:?}"),
        Err(error) => println!("fill {what}: failed: {error}"),
    }
}
