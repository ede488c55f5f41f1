//! The words of the demo: what is done, what was seen, how long it took.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::error::Failure;
use crate::output::Output;

/// Columns of a line.
const WIDTH: usize = 80;

/// A tale being told.
pub struct Tale {
    out: Output,
    begun: Instant,
    step: (&'static str, String),
    steps: Vec<Value>,
}

impl Tale {
    /// Says what will happen.
    pub fn begin(dir: &Path, out: Output) -> Result<Self, Failure> {
        let tale =
            Self { out, begun: Instant::now(), step: ("", String::new()), steps: Vec::new() };
        tale.line("Three peers on this machine: alice, bob and carol. No server.")?;
        tale.line(&format!("Their data is in {} until the end.", dir.display()))?;
        Ok(tale)
    }

    /// Says what is done next.
    pub fn does(&mut self, name: &'static str, text: &str) -> Result<(), Failure> {
        self.line("")?;
        self.line(&self.out.heading(text))?;
        self.step = (name, text.to_owned());
        Ok(())
    }

    /// Says what was seen, and how long it took.
    pub fn saw(&mut self, took: Duration, text: &str) -> Result<(), Failure> {
        let millis = took.as_secs_f64() * 1000.0;
        self.note(json!((millis * 1000.0).round() / 1000.0), text);
        let digits = usize::from(millis < 10.0);
        self.wrapped(&format!("{millis:.digits$} ms"), text)
    }

    /// Says more of what was seen in the time told last.
    pub fn also(&mut self, text: &str) -> Result<(), Failure> {
        self.note(Value::Null, text);
        self.wrapped("", text)
    }

    fn note(&mut self, millis: Value, text: &str) {
        let (step, does) = &self.step;
        self.steps.push(json!({"step": step, "does": does, "saw": text, "ms": millis}));
    }

    /// Prints a line, broken between words where it is too wide, beside what stands on its left.
    fn wrapped(&self, left: &str, text: &str) -> Result<(), Failure> {
        let mut line = format!("{left:>9} ");
        for word in text.split(' ') {
            if line.chars().count() + 1 + word.chars().count() > WIDTH {
                self.line(&line)?;
                line = " ".repeat(12);
            }
            line.push(' ');
            line.push_str(word);
        }
        self.line(&line)
    }

    /// Says that all was as promised.
    pub fn end(&self) -> Result<(), Failure> {
        let seconds = self.begun.elapsed().as_secs_f64();
        if self.out.is_json() {
            return self.out.json(&json!({
                "ok": true, "seconds": (seconds * 1000.0).round() / 1000.0, "steps": self.steps,
            }));
        }
        self.line("")?;
        self.line(&format!("All as promised, in {seconds:.1} s. Nothing is left behind."))?;
        self.line("Your own swarm: swarmkv init, swarmkv up, swarmkv invite")
    }

    fn line(&self, text: &str) -> Result<(), Failure> {
        if self.out.is_json() { Ok(()) } else { self.out.line(text) }
    }
}
