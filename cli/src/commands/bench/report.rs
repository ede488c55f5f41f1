//! What was measured, as a table or as JSON.

use std::time::Duration;

use serde::Serialize;

use crate::error::Failure;
use crate::output::{Output, Table};
use crate::text;

/// One measurement.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What was done.
    pub what: String,
    /// By whom, or between whom.
    pub at: String,
    /// How many of them a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_second: Option<f64>,
    /// What half of them took at most, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p50_ms: Option<f64>,
    /// What 99 of 100 took at most, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_ms: Option<f64>,
}

/// All of them.
#[derive(Debug, Serialize)]
pub struct Report {
    durability: &'static str,
    value_bytes: u64,
    /// Appends a second that the disk itself makes durable.
    disk_syncs_per_second: f64,
    rows: Vec<Row>,
}

impl Report {
    pub fn new(disk_syncs_per_second: f64, value_bytes: u64) -> Self {
        let durability = "fdatasync before every acknowledgement, on every peer";
        Self { durability, value_bytes, disk_syncs_per_second, rows: Vec::new() }
    }

    /// Notes a rate.
    pub fn rate(&mut self, what: &str, at: &str, per_second: f64) {
        let (what, at) = (what.to_owned(), at.to_owned());
        self.rows.push(Row { what, at, per_second: Some(per_second), p50_ms: None, p99_ms: None });
    }

    /// Notes how long things took, and their rate if they came as fast as they could.
    pub fn times(&mut self, what: &str, at: &str, mut times: Vec<Duration>, seconds: Option<f64>) {
        times.sort_unstable();
        let at_rank = |p: usize| times.get(times.len().saturating_sub(1) * p / 100);
        let millis = |p| at_rank(p).map(|time: &Duration| time.as_secs_f64() * 1e3);
        let row = Row {
            what: what.to_owned(),
            at: at.to_owned(),
            per_second: seconds.map(|seconds| times.len() as f64 / seconds),
            p50_ms: millis(50),
            p99_ms: millis(99),
        };
        self.rows.push(row);
    }

    pub fn print(&self, out: Output) -> Result<(), Failure> {
        if out.is_json() {
            return out.json(self);
        }
        let mut table =
            Table::new(&[("MEASURED", 34), ("AT", 20), ("A SECOND", 9), ("P50", 8), ("P99", 8)]);
        for row in &self.rows {
            let rate =
                row.per_second.map_or(String::new(), |rate| text::count(rate.round() as u64));
            let time = |ms: Option<f64>| ms.map_or(String::new(), |ms| format!("{ms:.2} ms"));
            table.row(vec![
                row.what.clone(),
                row.at.clone(),
                rate,
                time(row.p50_ms),
                time(row.p99_ms),
            ]);
        }
        let lines = table.lines();
        let heading = lines.first().map(|line| out.heading(line));
        for line in heading.iter().chain(&lines[1..]) {
            out.line(line)?;
        }
        out.line("")?;
        let syncs = text::count(self.disk_syncs_per_second.round() as u64);
        out.line(&format!("Durability: {}.", self.durability))?;
        out.line(&format!(
            "Values of {} bytes. This disk alone: {syncs} appends a second, each synced.",
            self.value_bytes
        ))
    }
}
