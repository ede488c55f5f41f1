//! The words of the demo: what is done, what was seen, how long it took.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::error::Failure;
use crate::output::Output;

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
        let (step, does) = &self.step;
        let millis = took.as_secs_f64() * 1000.0;
        self.steps.push(json!({
            "step": step, "does": does, "saw": text,
            "ms": (millis * 1000.0).round() / 1000.0,
        }));
        let time =
            if millis < 10.0 { format!("{millis:.1} ms") } else { format!("{millis:.0} ms") };
        self.line(&format!("{time:>9}  {text}"))
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
