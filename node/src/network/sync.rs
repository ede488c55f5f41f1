//! Repair sessions: framed streams between members, each in a task of its own.
//!
//! The task waits for the driver when frames come faster than they are taken; the swarm loop never
//! does. It knows nothing of what the frames say.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use libp2p::swarm::Stream;
use swarmkv_protocol::id::DeviceId;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, warn};

use super::event::Event;
use super::frames::{read_frame, write_frame};
use super::limits;
use super::peer;
use super::sessions::{Session, State, is_inbound};
use super::streams::{OpenError, StreamEvent};
use super::task::Task;

impl Task {
    pub(super) fn open_session(&mut self, session: u64, peer: DeviceId) {
        if is_inbound(session) || self.sessions.table.contains_key(&session) {
            warn!(session, "a session was opened under a number that is not free");
            return;
        }
        let room = self.sessions.count(false, None) < limits::OUTBOUND_SESSIONS;
        if !room || !self.members.contains(&peer) {
            self.outbox.push(Event::SessionClosed { session, refused: false });
            return;
        }
        self.sessions.table.insert(session, Session { peer, state: State::Opening(true) });
        self.swarm.behaviour_mut().inside().repair.open(session, peer::to_peer_id(&peer));
    }

    pub(super) fn send_frame(&mut self, session: u64, frame: Vec<u8>) {
        let Some(one) = self.sessions.table.get_mut(&session) else { return };
        let sent = match &one.state {
            State::Open(frames) if frame.len() <= limits::MAX_FRAME => frames.try_send(frame),
            State::Closing => return,
            _ => Err(mpsc::error::TrySendError::Full(frame)),
        };
        // A task that has ended says so itself; everything else breaks the rules of sending.
        if let Err(mpsc::error::TrySendError::Full(_)) = sent {
            warn!(session, "a frame was sent without leave or over the limit");
            self.close_session(session);
        }
    }

    pub(super) fn close_session(&mut self, session: u64) {
        let Some(one) = self.sessions.table.get_mut(&session) else { return };
        one.state = match one.state {
            State::Opening(_) => State::Opening(false),
            State::Open(_) | State::Closing => State::Closing,
        };
    }

    pub(super) fn on_repair(&mut self, event: StreamEvent) {
        match event {
            StreamEvent::Inbound { peer, stream } => {
                let Some(peer) = peer::to_device(&peer) else { return };
                if !self.members.contains(&peer) || !self.sessions.has_room_for(peer) {
                    debug!(%peer, "an inbound session is refused");
                    return;
                }
                let session = self.sessions.next_inbound();
                self.outbox.push(Event::SessionOpened { session, peer });
                self.start_session(session, peer, stream);
            }
            StreamEvent::Opened { id, result } => {
                let Some(one) = self.sessions.table.get(&id) else { return };
                let wanted = matches!(one.state, State::Opening(true));
                match result {
                    Ok(stream) if wanted => self.start_session(id, one.peer, stream),
                    other => {
                        let refused = matches!(other, Err(OpenError::Refused));
                        self.sessions.table.remove(&id);
                        self.outbox.push(Event::SessionClosed { session: id, refused });
                    }
                }
            }
        }
    }

    /// Sees every event of the stream tasks on its way to the driver.
    pub(super) fn on_stream_task(&mut self, event: Event) {
        if let Event::SessionClosed { session, .. } = event {
            self.sessions.table.remove(&session);
        }
        self.outbox.push_from_stream(event);
    }

    fn start_session(&mut self, session: u64, peer: DeviceId, stream: Stream) {
        let (frames, queue) = mpsc::channel(1);
        self.sessions.table.insert(session, Session { peer, state: State::Open(frames) });
        tokio::spawn(run(session, stream, queue, self.stream_events.clone()));
    }
}

/// Moves one session's frames until either side ends it, then says `SessionClosed`.
async fn run(
    session: u64,
    stream: Stream,
    queue: mpsc::Receiver<Vec<u8>>,
    events: mpsc::Sender<Event>,
) {
    let activity = Activity::new();
    let (mut reader, mut writer) = stream.split();
    let read = read_frames(session, &mut reader, &events, &activity);
    let write = write_frames(session, &mut writer, queue, &events, &activity);
    let (mut read, mut write) = (std::pin::pin!(read), std::pin::pin!(write));
    tokio::select! {
        end = &mut read => debug!(session, ?end, "session ended by the peer"),
        end = &mut write => if let Err(error) = end {
            debug!(session, %error, "session cannot be written to");
            // What the peer sent before it went is still worth having.
            let _ = timeout(limits::SESSION_LINGER, &mut read).await;
        },
        () = activity.idle() => debug!(session, "session idle"),
    }
    let _ = events.send(Event::SessionClosed { session, refused: false }).await;
}

async fn read_frames(
    session: u64,
    reader: &mut (impl futures::AsyncRead + Unpin),
    events: &mpsc::Sender<Event>,
    activity: &Activity,
) -> std::io::Result<()> {
    loop {
        let (mut told, mut told_at) = (0, Instant::now());
        let progress = |here: usize| {
            activity.touch();
            // Lost if the driver is busy: it is told again.
            if told_at.elapsed() >= limits::FRAME_NEWS_EVERY {
                let bytes = here - told;
                let news = Event::SessionBytes { session, bytes };
                if events.try_send(news).is_ok() {
                    told = here;
                }
                told_at = Instant::now();
            }
        };
        let Some(frame) = read_frame(reader, limits::MAX_FRAME, progress).await? else { break };
        activity.hold(true);
        let taken = events.send(Event::SessionFrame { session, frame }).await;
        activity.hold(false);
        if taken.is_err() {
            break;
        }
    }
    Ok(())
}

async fn write_frames(
    session: u64,
    writer: &mut (impl futures::AsyncWrite + Unpin),
    mut queue: mpsc::Receiver<Vec<u8>>,
    events: &mpsc::Sender<Event>,
    activity: &Activity,
) -> std::io::Result<()> {
    loop {
        if events.send(Event::SessionReady { session }).await.is_err() {
            return Ok(());
        }
        let Some(frame) = queue.recv().await else { return writer.close().await };
        write_frame(writer, &frame, || activity.touch()).await?;
    }
}

/// When bytes last moved, and whether we are waiting for our own driver (which is not idleness).
struct Activity {
    start: Instant,
    last_ms: AtomicU64,
    held: AtomicBool,
}

impl Activity {
    fn new() -> Self {
        Self { start: Instant::now(), last_ms: AtomicU64::new(0), held: AtomicBool::new(false) }
    }

    fn touch(&self) {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(now, Ordering::Relaxed);
    }

    fn hold(&self, held: bool) {
        self.touch();
        self.held.store(held, Ordering::Relaxed);
    }

    async fn idle(&self) {
        loop {
            let last = std::time::Duration::from_millis(self.last_ms.load(Ordering::Relaxed));
            let due = self.start + last + limits::SESSION_IDLE;
            if Instant::now() >= due {
                if !self.held.load(Ordering::Relaxed) {
                    return;
                }
                self.touch();
                continue;
            }
            sleep_until(due).await;
        }
    }
}
