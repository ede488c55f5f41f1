//! What `up` says while the peer runs: plain lines for people, JSON lines with `--json`.

use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use serde_json::{Value, json};
use swarmkv_node::NodeEvent;
use swarmkv_node::api::wire::Status;

use crate::output::Output;
use crate::text;

/// Pause between two lines about one catch-up in a log.
const LOG_PAUSE: Duration = Duration::from_secs(1);

/// Tells events as they come.
pub struct Talk {
    out: Output,
    listening: Vec<String>,
    catch_up: Option<CatchUp>,
}

/// A catch-up that was seen to begin.
struct CatchUp {
    bar: ProgressBar,
    said: Instant,
}

impl Talk {
    /// Says who this is and where it can be reached.
    pub fn begin(status: &Status, out: Output) -> Self {
        let mut talk = Self { out, listening: Vec::new(), catch_up: None };
        let (swarm, device, role) = (clean(&status.swarm), clean(&status.device), &status.role);
        talk.say(
            &format!("This is \"{device}\" ({role}) of the swarm \"{swarm}\". Ctrl-C stops it."),
            || {
                json!({
                    "event": "started", "swarm": status.swarm, "swarm_id": status.swarm_id,
                    "device": status.device, "device_id": status.device_id, "role": status.role,
                    "pid": status.pid, "data_dir": status.data_dir,
                })
            },
        );
        for addr in &status.listen {
            talk.listening(addr);
        }
        if status.members == 1 {
            talk.remark("No other member yet. Admit one with: swarmkv invite");
        }
        talk
    }

    /// Tells one event.
    pub fn event(&mut self, event: &NodeEvent) {
        match event {
            NodeEvent::Listening { addr } => self.listening(addr),
            NodeEvent::Connected { device, device_id, source, transport, addr } => self.say(
                &format!(
                    "Connected to \"{}\" at {} ({source}, {transport}).",
                    clean(device),
                    text::host_port(addr)
                ),
                || {
                    json!({
                        "event": "connected", "device": device,
                        "device_id": device_id.to_string(), "source": source,
                        "transport": transport, "addr": addr,
                    })
                },
            ),
            NodeEvent::Disconnected { device } => {
                self.say(
                    &format!("\"{}\" is gone.", clean(device)),
                    || json!({"event": "disconnected", "device": device}),
                );
            }
            NodeEvent::CatchingUp { from, received, planned } => {
                self.catching_up(from, *received, *planned);
            }
            NodeEvent::CaughtUp => self.caught_up(),
            NodeEvent::StrangerRefused { what } => {
                self.say(
                    &format!("Turned a stranger away: {}.", clean(what)),
                    || json!({"event": "stranger_refused", "what": what}),
                );
            }
            NodeEvent::Full { full } => {
                let text = if *full {
                    "The disk is full: nothing is written until there is room. Reads go on."
                } else {
                    "There is room on the disk again: writing goes on."
                };
                self.say(text, || json!({"event": "full", "full": full}));
            }
            NodeEvent::Trouble { message } => {
                self.say(
                    &format!("Trouble: {}", clean(message)),
                    || json!({"event": "trouble", "message": message}),
                );
            }
            about_members => self.about_members(about_members),
        }
    }

    /// Tells who comes and who has to go.
    fn about_members(&self, event: &NodeEvent) {
        match event {
            NodeEvent::Knocked { device, check_words } => self.say(
                &format!(
                    "\"{}\" asks to join, and waits for a person to confirm its check words: \
                     {check_words}.",
                    clean(device)
                ),
                || json!({"event": "knocked", "device": device, "check_words": check_words}),
            ),
            NodeEvent::Admitted { device, check_words } => self.say(
                &format!(
                    "Admitted \"{}\". Check words: {check_words}. The new device shows the same.",
                    clean(device)
                ),
                || json!({"event": "admitted", "device": device, "check_words": check_words}),
            ),
            NodeEvent::Removed { device, by } => {
                let device_text = clean(device);
                let line = match by {
                    Some(by) => format!("\"{device_text}\" was taken out by \"{}\".", clean(by)),
                    None => format!("\"{device_text}\" has left the swarm."),
                };
                self.say(&line, || json!({"event": "removed", "device": device, "by": by}));
            }
            NodeEvent::Expelled { by } => {
                let how = match by {
                    Some(by) => format!("\"{}\" took this device out of the swarm.", clean(by)),
                    None => "This device has left the swarm.".to_owned(),
                };
                let line = format!("{how} Its copy stays readable; nothing is sent or received.");
                self.say(&line, || json!({"event": "expelled", "by": by}));
            }
            NodeEvent::Blocked { device, reason } => self.say(
                &format!(
                    "Blocked \"{}\" for an hour: it keeps sending what nobody honest would. The last \
                     was: {}.",
                    clean(device),
                    clean(reason)
                ),
                || json!({"event": "blocked", "device": device, "reason": reason}),
            ),
            _ => {}
        }
    }

    /// Some events were missed because too many came at once.
    pub fn lagged(&self, missed: u64) {
        let missed_text = text::plural(missed, "event");
        self.say(
            &format!("({missed_text} came too fast to tell; see swarmkv status)"),
            || json!({"event": "missed", "count": missed}),
        );
    }

    /// Says that the peer was told to stop.
    pub fn end(&mut self) {
        self.catch_up = None;
        self.say("Stopping. Everything written is on disk.", || json!({"event": "stopping"}));
    }

    fn listening(&mut self, addr: &str) {
        if self.listening.iter().any(|known| known == addr) {
            return;
        }
        self.listening.push(addr.to_owned());
        self.say(&format!("Listening on {addr}"), || json!({"event": "listening", "addr": addr}));
    }

    fn catching_up(&mut self, from: &str, received: u64, planned: u64) {
        let known = self.catch_up.is_some();
        let template = "{msg} {wide_bar} {pos}/{len} slots {per_sec} {eta}";
        let (out, now) = (self.out, Instant::now());
        let catch_up = self.catch_up.get_or_insert_with(|| CatchUp {
            bar: out.progress(Some(planned), template),
            said: now,
        });
        catch_up.bar.set_length(planned.max(received));
        catch_up.bar.set_position(received);
        catch_up.bar.set_message(format!("Catching up from {}", clean(from)));
        if known && now.duration_since(catch_up.said) < LOG_PAUSE {
            return;
        }
        catch_up.said = now;
        if !out.is_json() && !out.talks_to_log() {
            return;
        }
        let (have, all) = (text::count(received), text::count(planned));
        self.say(&format!("Catching up from \"{}\": {have} of about {all} slots.", clean(from)), || {
            json!({"event": "catching_up", "from": from, "received": received, "planned": planned})
        });
    }

    fn caught_up(&mut self) {
        if let Some(CatchUp { bar, .. }) = self.catch_up.take() {
            bar.finish_and_clear();
        }
        self.say("Caught up: this replica is whole.", || json!({"event": "caught_up"}));
    }

    fn say(&self, line: &str, object: impl FnOnce() -> Value) {
        if self.out.is_json() {
            // The peer goes on even if nobody reads its events any more.
            let _ = self.out.json(&object());
        } else {
            self.remark(line);
        }
    }

    fn remark(&self, line: &str) {
        match &self.catch_up {
            Some(CatchUp { bar, .. }) => bar.suspend(|| self.out.talk(line)),
            None => self.out.talk(line),
        }
    }
}

/// A name from elsewhere must not drive the terminal.
fn clean(name: &str) -> String {
    text::escaped(name.as_bytes())
}
