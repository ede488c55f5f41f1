//! The attack table, printed for people.

use crate::town::{Latency, Outcome};

/// One attack's line.
pub fn row(name: &str, rate: u64, member: bool, outcome: &Outcome, idle: Latency) -> Vec<String> {
    let who = if member { "member" } else { "stranger" };
    let cut_off = outcome.cut_off_ms.map_or_else(|| "-".into(), |ms| format!("{ms}"));
    let Latency { p50, p99 } = outcome.latency;
    vec![
        format!("{name} {rate}/s"),
        who.into(),
        outcome.sent.to_string(),
        cut_off,
        format!("{}", outcome.blocked_by),
        format!("{p50:.1} / {p99:.1}"),
        format!("{:.1}", p99 / idle.p99),
        format!("{:.1}", outcome.grown_kb as f64 / 1024.0),
    ]
}

/// Prints it.
pub fn print(idle: Latency, rows: &[Vec<String>]) {
    println!("idle: put to visible elsewhere p50 {:.1} ms, p99 {:.1} ms", idle.p50, idle.p99);
    println!(
        "{:<22} {:<9} {:>7} {:>11} {:>7} {:>15} {:>9} {:>8}",
        "attack", "by", "sent", "cut off ms", "blocked", "p50 / p99 ms", "x idle", "+MB"
    );
    for row in rows {
        println!(
            "{:<22} {:<9} {:>7} {:>11} {:>7} {:>15} {:>9} {:>8}",
            row[0], row[1], row[2], row[3], row[4], row[5], row[6], row[7]
        );
    }
}
