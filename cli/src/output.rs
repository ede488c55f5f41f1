//! The only printer: data to standard output, talk to standard error, and what a terminal changes.

use std::borrow::Cow;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::error::{Failure, Kind};
use crate::text;

const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "1;31";
const CYAN: &str = "36";

/// How this run prints.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    json: bool,
    talks: bool,
    terminal: bool,
    talk_terminal: bool,
    colour: bool,
}

impl Output {
    /// Printing as asked for on the command line, on the streams that this process has.
    pub fn new(json: bool, quiet: bool) -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            json,
            talks: !json && !quiet,
            terminal: io::stdout().is_terminal(),
            talk_terminal: io::stderr().is_terminal(),
            colour: !plain && !dumb,
        }
    }

    /// Whether data is wanted as JSON.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Writes data as it is.
    pub fn data(&self, bytes: &[u8]) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        out.write_all(bytes).and_then(|()| out.flush()).map_err(|e| match e.kind() {
            ErrorKind::BrokenPipe => Failure::reader_gone(),
            _ => Failure::io("standard output", &e),
        })
    }

    /// Writes a value's exact bytes; a newline follows for a person.
    pub fn value(&self, bytes: &[u8]) -> Result<(), Failure> {
        self.data(bytes)?;
        if self.terminal && !bytes.ends_with(b"\n") { self.data(b"\n") } else { Ok(()) }
    }

    /// Writes a line of data.
    pub fn line(&self, text: &str) -> Result<(), Failure> {
        self.data(format!("{text}\n").as_bytes())
    }

    /// Writes one JSON object on a line.
    pub fn json(&self, value: &impl Serialize) -> Result<(), Failure> {
        let mut line = Vec::new();
        push_json(&mut line, value)?;
        self.data(&line)
    }

    /// Bytes of a key or value inside a line: escaped where a terminal would act on them.
    pub fn in_line<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        if self.terminal {
            Cow::Owned(text::escaped(bytes).into_bytes())
        } else {
            Cow::Borrowed(bytes)
        }
    }

    /// A table's heading.
    pub fn heading(&self, text: &str) -> String {
        self.paint(self.terminal, BOLD, text)
    }

    /// Text of less weight, in data.
    pub fn faint(&self, text: &str) -> String {
        self.paint(self.terminal, DIM, text)
    }

    /// Says a line to the person, unless silence was asked for.
    pub fn talk(&self, text: impl AsRef<str>) {
        if self.talks {
            let _ = writeln!(io::stderr(), "{}", text.as_ref());
        }
    }

    /// Tells a failure: `error: …` and `hint: …`, or one JSON object.
    pub fn failure(&self, failure: &Failure) {
        let mut err = io::stderr().lock();
        let Failure { message, hint, .. } = failure;
        let _ = if self.json {
            let mut line = Vec::new();
            let _ = push_json(&mut line, failure);
            err.write_all(&line)
        } else {
            let hint = hint.as_ref().map_or(String::new(), |hint| {
                format!("{} {hint}\n", self.paint(self.talk_terminal, CYAN, "hint:"))
            });
            let error = self.paint(self.talk_terminal, RED, "error:");
            write!(err, "{error} {message}\n{hint}")
        };
    }

    /// A bar of work to do, or a spinner where that is not known. It shows on a terminal only.
    pub fn progress(&self, total: Option<u64>, template: &str) -> ProgressBar {
        if !self.talks || !self.talk_terminal {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr_with_hz(10));
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        bar
    }

    /// Whether talk is wanted and goes to a log rather than to a terminal.
    pub fn talks_to_log(&self) -> bool {
        self.talks && !self.talk_terminal
    }

    fn paint(&self, terminal: bool, style: &str, text: &str) -> String {
        if self.colour && terminal {
            format!("\x1b[{style}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// Adds one JSON object and a newline.
pub fn push_json(out: &mut Vec<u8>, value: &impl Serialize) -> Result<(), Failure> {
    serde_json::to_writer(&mut *out, value)
        .map_err(|e| Failure::new(Kind::Failed, format!("this cannot be put as JSON: {e}")))?;
    out.push(b'\n');
    Ok(())
}

/// Cells aligned in columns; the last column is as wide as it likes.
pub struct Table {
    widths: Vec<usize>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with a heading for each column and the most characters that it may take.
    pub fn new(columns: &[(&str, usize)]) -> Self {
        let headings = columns.iter().map(|(heading, _)| (*heading).to_owned()).collect();
        Self { widths: columns.iter().map(|(_, width)| *width).collect(), rows: vec![headings] }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// The table's lines, the heading first.
    pub fn lines(&self) -> Vec<String> {
        let used = |column: usize| {
            let longest = self.rows.iter().map(|row| row[column].chars().count()).max();
            longest.unwrap_or(0).min(self.widths[column])
        };
        let widths: Vec<usize> = (0..self.widths.len()).map(used).collect();
        self.rows.iter().map(|row| aligned(row, &widths)).collect()
    }
}

/// One row, each cell cut and padded to its column's width; cells beyond these are left as they are.
pub fn aligned(cells: &[String], widths: &[usize]) -> String {
    let pad = |(i, cell): (usize, &String)| match widths.get(i) {
        Some(&width) => format!("{:<width$}", text::cut(cell, width)),
        None => cell.clone(),
    };
    let padded: Vec<String> = cells.iter().enumerate().map(pad).collect();
    padded.join("  ").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_takes_no_more_room_than_it_needs_and_cuts_what_is_too_long() {
        let mut table = Table::new(&[("A", 4), ("BEE", 10)]);
        table.row(vec!["123456".into(), "x".into()]);
        table.row(vec!["1".into(), "".into()]);
        assert_eq!(table.lines(), ["A     BEE", "123…  x", "1"]);
    }
}
