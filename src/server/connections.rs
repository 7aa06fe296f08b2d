//! The open connections of a listener: whose they are, what each is doing, and
//! which of them is closed when there are too many.
//!
//! Nothing here waits. A newcomer is admitted at once: where the listener is full,
//! connections that do the least yield to it, in this order: those without a whole
//! request head, those that wait for their next request, those that send or take
//! bytes slowest. Only when every connection is being answered is a newcomer
//! refused. So a peer that opens connections and stays silent shuts out no other peer
//! else, and the official client of Shotgun, which does not reopen a connection
//! well, keeps an idle one for as long as there is room.
//!
//! All durations are monotonic; `now` is passed in.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::task::AtomicWaker;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

/// What one listener grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionBounds {
    /// Open connections, all peers together.
    pub max_connections: usize,
    /// Open connections of one peer; loopback, where all peers look alike, has only
    /// the bound of the listener.
    pub max_peer_connections: usize,
    /// From the first byte of a head (from the opening, for the first request) to
    /// its end, TLS handshake included.
    pub head_timeout: Duration,
    /// Without a byte of a body that is being sent, or without 256 KiB of an answer that is
    /// not taken as fast as it is written.
    pub body_timeout: Duration,
    /// Without a next request.
    pub idle_timeout: Duration,
}

impl Default for ConnectionBounds {
    fn default() -> Self {
        Self {
            max_connections: 4096,
            max_peer_connections: 1024,
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(4 * 3600),
        }
    }
}

/// The longest head of a request, and how much of a body is read ahead, in bytes:
/// what a connection costs that sends and is not read.
pub const MAX_HEAD_BYTES: usize = 32 << 10;
/// A peer that cannot be written to and takes fewer bytes than this takes none: what it
/// does not take stays in memory.
const MIN_TAKEN_BYTES: usize = 256 << 10;
/// A connection in the middle of a request yields only when it has been slow for so
/// long.
const MIN_SLOW_TIME: Duration = Duration::from_secs(1);
/// When there is no room, this part of all connections is closed together, so that
/// looking for them costs little for each newcomer.
const EVICTED_PART: usize = 64;

/// Whose connection it is: an IPv4 address, or the /64 network of an IPv6 one, which
/// is what one machine commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Peer(IpAddr);

impl Peer {
    /// Returns the peer behind an address.
    pub fn of(address: SocketAddr) -> Self {
        Self(match address.ip().to_canonical() {
            IpAddr::V6(ip) if !ip.is_loopback() => {
                IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)))
            }
            ip => ip,
        })
    }

    /// Tells whether it is this machine.
    pub fn is_loopback(self) -> bool {
        self.0.is_loopback()
    }
}

/// Why a newcomer is not admitted: every connection that could yield is being answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoom {
    /// Of the whole listener.
    OfListener,
    /// Of its peer.
    OfPeer,
}

/// Why a connection is closed from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The head of a request was not complete in time.
    HeadTimeout,
    /// No byte of a body came, or too little of an answer was taken, in time.
    BodyTimeout,
    /// No next request came in time.
    Idle,
    /// Others need the room.
    Evicted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Before the first request, or after the first byte of the next one.
    ReadingHead,
    /// The body of a request is being read.
    ReceivingBody,
    /// The answer is being made or sent.
    Answering,
    /// An answer was given, nothing came since.
    Idle,
}

#[derive(Debug)]
struct Activity {
    phase: Phase,
    /// Since when it is in this phase.
    since: Instant,
    /// When bytes last moved in either direction.
    progress: Instant,
    /// Bytes moved in this phase.
    moved: u64,
    /// Since when the peer takes no bytes, or fewer than [`MIN_TAKEN_BYTES`].
    write_blocked: Option<Instant>,
    /// What it has taken since.
    taken: usize,
    closing: Option<CloseReason>,
}

/// One open connection, as those who read, write and answer on it report it.
#[derive(Debug)]
pub struct Connection {
    id: u64,
    peer: Peer,
    activity: Mutex<Activity>,
    closed: Notify,
    body: AtomicWaker,
}

impl Connection {
    fn new(id: u64, peer: Peer, now: Instant) -> Self {
        let activity = Activity {
            phase: Phase::ReadingHead,
            since: now,
            progress: now,
            moved: 0,
            write_blocked: None,
            taken: 0,
            closing: None,
        };
        Self { id, peer, activity: Mutex::new(activity), closed: Notify::new(), body: AtomicWaker::new() }
    }

    /// Returns whose it is.
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// Notes that bytes were read.
    pub fn received(&self, bytes: usize) {
        let mut activity = self.activity();
        let now = Instant::now();
        if activity.phase == Phase::Idle {
            activity.enter(Phase::ReadingHead, now);
        }
        activity.progress = now;
        activity.moved += bytes as u64;
    }

    /// Notes that bytes were written (`Some`), or could not be because the peer takes none.
    pub fn wrote(&self, bytes: Option<usize>) {
        let mut activity = self.activity();
        let now = Instant::now();
        match bytes {
            Some(bytes) => {
                activity.taken += bytes;
                // A byte now and then is not taking an answer.
                if activity.taken >= MIN_TAKEN_BYTES {
                    activity.write_blocked = None;
                }
                activity.progress = now;
                activity.moved += bytes as u64;
            }
            None if activity.write_blocked.is_none() => {
                (activity.write_blocked, activity.taken) = (Some(now), 0);
            }
            None => {}
        }
    }

    /// Notes that everything that was to be written is.
    pub fn flushed(&self) {
        self.activity().write_blocked = None;
    }

    /// Tells whether the peer takes an answer so slowly that it may lose it to others.
    pub fn is_slow_taker(&self, now: Instant) -> bool {
        let blocked = self.activity().write_blocked;
        blocked.is_some_and(|blocked| now.saturating_duration_since(blocked) >= MIN_SLOW_TIME)
    }

    /// Closes it, because others need the room.
    pub fn evict(&self) {
        self.close(CloseReason::Evicted);
    }

    /// Notes that the head of a request is complete.
    pub fn head_ended(&self, has_body: bool) {
        let phase = if has_body { Phase::ReceivingBody } else { Phase::Answering };
        self.activity().enter(phase, Instant::now());
    }

    /// Notes that nothing more is read of a body.
    pub fn body_ended(&self) {
        let mut activity = self.activity();
        if activity.phase == Phase::ReceivingBody {
            activity.enter(Phase::Answering, Instant::now());
        }
    }

    /// Notes that the whole answer was handed to the connection.
    pub fn answer_ended(&self) {
        self.activity().enter(Phase::Idle, Instant::now());
    }

    /// Returns why it is being closed, if it is.
    pub fn closing(&self) -> Option<CloseReason> {
        self.activity().closing
    }

    /// Tells whether it waits for the rest of a head.
    pub fn is_reading_head(&self) -> bool {
        self.activity().phase == Phase::ReadingHead
    }

    /// Tells whether a request is being received or answered.
    pub fn is_in_request(&self) -> bool {
        matches!(self.activity().phase, Phase::ReceivingBody | Phase::Answering)
    }

    /// Waits until it is to be closed.
    pub async fn closed(&self) -> CloseReason {
        loop {
            if let Some(reason) = self.closing() {
                return reason;
            }
            self.closed.notified().await;
        }
    }

    /// Registers the reader of a body, who is woken when the connection is to be closed.
    pub fn wake_at_close(&self, waker: &std::task::Waker) {
        self.body.register(waker);
    }

    fn close(&self, reason: CloseReason) {
        self.activity().closing.get_or_insert(reason);
        self.closed.notify_one();
        self.body.wake();
    }

    fn overdue(&self, bounds: &ConnectionBounds, now: Instant) -> Option<CloseReason> {
        let activity = self.activity();
        let since = |moment: Instant| now.saturating_duration_since(moment);
        if activity.write_blocked.is_some_and(|blocked| since(blocked) >= bounds.body_timeout) {
            return Some(CloseReason::BodyTimeout);
        }
        match activity.phase {
            Phase::ReadingHead => (since(activity.since) >= bounds.head_timeout).then_some(CloseReason::HeadTimeout),
            Phase::ReceivingBody => {
                (since(activity.progress) >= bounds.body_timeout).then_some(CloseReason::BodyTimeout)
            }
            Phase::Idle => (since(activity.since) >= bounds.idle_timeout).then_some(CloseReason::Idle),
            Phase::Answering => None,
        }
    }

    /// Returns the place in the order in which connections yield, lowest first;
    /// `None` for one that does not.
    fn yields(&self, now: Instant) -> Option<(u8, i64)> {
        let activity = self.activity();
        let age = now.saturating_duration_since(activity.since);
        let oldest_first = -i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
        let blocked = activity.write_blocked.map(|blocked| now.saturating_duration_since(blocked));
        match activity.phase {
            _ if blocked.is_some_and(|blocked| blocked >= MIN_SLOW_TIME) => Some((2, 0)),
            Phase::ReadingHead => Some((0, oldest_first)),
            Phase::Idle => Some((1, oldest_first)),
            Phase::ReceivingBody if age >= MIN_SLOW_TIME => {
                let per_second = activity.moved / age.as_secs().max(1);
                Some((2, i64::try_from(per_second).unwrap_or(i64::MAX)))
            }
            Phase::ReceivingBody | Phase::Answering => None,
        }
    }

    fn activity(&self) -> MutexGuard<'_, Activity> {
        self.activity.lock()
    }
}

impl Activity {
    fn enter(&mut self, phase: Phase, now: Instant) {
        (self.phase, self.since, self.progress, self.moved) = (phase, now, now, 0);
    }
}

/// The open connections of one listener.
#[derive(Debug)]
pub struct Connections {
    bounds: ConnectionBounds,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    by_id: HashMap<u64, Arc<Connection>>,
    by_peer: HashMap<Peer, usize>,
    next_id: u64,
}

impl Connections {
    /// Makes an empty list.
    pub fn new(bounds: ConnectionBounds) -> Self {
        Self { bounds, open: Mutex::default() }
    }

    /// Admits a connection, closing others where there is no room for it.
    ///
    /// # Errors
    ///
    /// [`NoRoom`] when all of them are being answered.
    pub fn admit(self: &Arc<Self>, address: SocketAddr, now: Instant) -> Result<Admitted, NoRoom> {
        let ConnectionBounds { max_connections, max_peer_connections, .. } = self.bounds;
        let peer = Peer::of(address);
        let mut open = self.lock();
        if !peer.is_loopback() && open.of(peer) >= max_peer_connections {
            let most = max_peer_connections.div_ceil(EVICTED_PART);
            open.evict(most, now, |one, _| one == peer).ok_or(NoRoom::OfPeer)?;
        }
        if open.by_id.len() >= max_connections {
            // The peers with more than an equal part of the room yield.
            let part = max_connections / open.by_peer.len().max(1);
            let most = max_connections.div_ceil(EVICTED_PART);
            open.evict(most, now, |_, connections| connections >= part).ok_or(NoRoom::OfListener)?;
        }
        let connection = Arc::new(Connection::new(open.next_id, peer, now));
        open.next_id += 1;
        open.by_id.insert(connection.id, Arc::clone(&connection));
        *open.by_peer.entry(peer).or_default() += 1;
        Ok(Admitted { connections: Arc::clone(self), connection })
    }

    /// Closes connections that took too long.
    pub fn close_overdue(&self, now: Instant) {
        let open = self.lock();
        for connection in open.by_id.values() {
            if let Some(reason) = connection.overdue(&self.bounds, now) {
                connection.close(reason);
            }
        }
    }

    /// Closes connections that do the least, as many as one newcomer would; for a
    /// process that has no files left.
    pub fn make_room(&self, now: Instant) {
        let mut open = self.lock();
        let most = open.by_id.len().div_ceil(EVICTED_PART);
        // None to close is no failure: the next attempt may find some.
        let _ = open.evict(most, now, |_, _| true);
    }

    /// Returns how many there are.
    pub fn len(&self) -> usize {
        self.lock().by_id.len()
    }

    /// Tells whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock()
    }
}

impl Open {
    fn of(&self, peer: Peer) -> usize {
        self.by_peer.get(&peer).copied().unwrap_or_default()
    }

    /// Closes up to `most` connections of the peers chosen; `None` when none yields.
    fn evict(&mut self, most: usize, now: Instant, chosen: impl Fn(Peer, usize) -> bool) -> Option<()> {
        let candidates = self.by_id.values().filter(|one| chosen(one.peer, self.of(one.peer)));
        let mut order: Vec<_> = candidates.filter_map(|one| Some((one.yields(now)?, one.id))).collect();
        order.sort_unstable();
        order.truncate(most);
        for (_, id) in &order {
            if let Some(connection) = self.remove(*id) {
                connection.close(CloseReason::Evicted);
            }
        }
        (!order.is_empty()).then_some(())
    }

    fn remove(&mut self, id: u64) -> Option<Arc<Connection>> {
        let connection = self.by_id.remove(&id)?;
        if let Some(count) = self.by_peer.get_mut(&connection.peer) {
            *count -= 1;
            if *count == 0 {
                self.by_peer.remove(&connection.peer);
            }
        }
        Some(connection)
    }
}

/// A connection that has its place until this is dropped.
#[derive(Debug)]
pub struct Admitted {
    connections: Arc<Connections>,
    connection: Arc<Connection>,
}

impl Admitted {
    /// Returns the connection.
    pub fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.connections.lock().remove(self.connection.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn connections(max_connections: usize, max_peer_connections: usize) -> Arc<Connections> {
        let bounds = ConnectionBounds { max_connections, max_peer_connections, ..ConnectionBounds::default() };
        Arc::new(Connections::new(bounds))
    }

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 40_000))
    }

    fn is_evicted(admitted: &Admitted) -> bool {
        admitted.connection().closing() == Some(CloseReason::Evicted)
    }

    #[test]
    fn the_oldest_half_head_yields_first_then_the_longest_idle() {
        let (all, now) = (connections(3, 3), Instant::now());
        let idle = all.admit(address(1), now).expect("room");
        idle.connection().head_ended(false);
        idle.connection().answer_ended();
        let half_head = all.admit(address(1), now).expect("room");
        let busy = all.admit(address(1), now).expect("room");
        busy.connection().head_ended(false);
        let next = all.admit(address(2), now + SECOND).expect("room is made");
        assert!(is_evicted(&half_head) && !is_evicted(&idle) && !is_evicted(&busy));
        next.connection().head_ended(false);
        let last = all.admit(address(2), now + SECOND).expect("room is made");
        assert!(is_evicted(&idle) && !is_evicted(&busy));
        last.connection().head_ended(false);
        let refused = all.admit(address(3), now + SECOND).expect_err("all are being answered");
        assert_eq!(refused, NoRoom::OfListener);
        drop(busy);
        assert!(all.admit(address(3), now + SECOND).is_ok());
        assert_eq!(all.len(), 2, "the newcomer that was dropped has given its place back");
    }

    #[test]
    fn one_peer_takes_neither_all_places_nor_those_of_others() {
        let (all, now) = (connections(100, 10), Instant::now());
        let own = all.admit(address(1), now).expect("room");
        let others: Vec<_> = (0..50).map(|_| all.admit(address(2), now + SECOND).expect("room")).collect();
        assert_eq!(all.len(), 11);
        assert!(!is_evicted(&own));
        assert_eq!(others.iter().filter(|one| is_evicted(one)).count(), 40);
    }

    #[test]
    fn a_peer_whose_connections_are_all_being_answered_is_refused_and_others_are_not() {
        let (all, now) = (connections(10, 2), Instant::now());
        let busy: Vec<_> = (0..2).map(|_| all.admit(address(1), now).expect("room")).collect();
        busy.iter().for_each(|one| one.connection().head_ended(false));
        assert_eq!(all.admit(address(1), now).expect_err("no room"), NoRoom::OfPeer);
        assert!(all.admit(address(2), now).is_ok());
    }

    #[test]
    fn a_full_listener_closes_connections_of_those_who_hold_most() {
        let (all, now) = (connections(64, 64), Instant::now());
        let few: Vec<_> = (0..4).map(|_| all.admit(address(1), now).expect("room")).collect();
        let many: Vec<_> = (0..60).map(|_| all.admit(address(2), now + SECOND).expect("room")).collect();
        let _next = all.admit(address(3), now + SECOND).expect("room is made");
        assert!(!few.iter().any(is_evicted), "they were older, but few");
        assert_eq!(many.iter().filter(|one| is_evicted(one)).count(), 1);
    }

    #[test]
    fn the_slowest_body_yields_and_a_quick_one_does_not() {
        let (all, now) = (connections(2, 2), Instant::now());
        let [slow, quick] = [10, 1_000_000].map(|bytes| {
            let one = all.admit(address(1), now).expect("room");
            one.connection().head_ended(true);
            one.connection().received(bytes);
            one
        });
        assert!(all.admit(address(1), now).is_err(), "neither was slow for long enough");
        let _next = all.admit(address(1), now + 5 * SECOND).expect("room is made");
        assert!(is_evicted(&slow) && !is_evicted(&quick));
    }

    #[test]
    fn what_takes_too_long_is_closed_with_its_reason() {
        let (all, now) = (connections(10, 10), Instant::now());
        let opened: Vec<_> = (0..4).map(|_| all.admit(address(1), now).expect("room")).collect();
        opened[1].connection().head_ended(true);
        opened[2].connection().head_ended(false);
        opened[3].connection().head_ended(false);
        opened[3].connection().answer_ended();
        let closing = |after: Duration| {
            all.close_overdue(now + after);
            opened.iter().map(|one| one.connection().closing()).collect::<Vec<_>>()
        };
        assert_eq!(closing(5 * SECOND), [None; 4]);
        assert_eq!(closing(11 * SECOND), [Some(CloseReason::HeadTimeout), None, None, None]);
        assert_eq!(closing(62 * SECOND)[1], Some(CloseReason::BodyTimeout));
        assert_eq!(closing(5 * 3600 * SECOND)[2..], [None, Some(CloseReason::Idle)], "an answer takes its time");
        opened[2].connection().wrote(None);
        assert_eq!(closing(6 * 3600 * SECOND)[2], Some(CloseReason::BodyTimeout), "the peer takes nothing");
    }

    #[test]
    fn a_byte_now_and_then_is_not_taking_an_answer() {
        let (all, now) = (connections(10, 10), Instant::now());
        let opened: Vec<_> = (0..3).map(|_| all.admit(address(1), now).expect("room")).collect();
        for one in opened.iter().map(Admitted::connection) {
            one.head_ended(false);
            one.wrote(None);
            one.wrote(Some(1));
        }
        opened[1].connection().wrote(Some(MIN_TAKEN_BYTES));
        opened[2].connection().flushed();
        let later = Instant::now() + 61 * SECOND;
        let slow = opened.iter().map(|one| one.connection().is_slow_taker(later));
        assert_eq!(slow.collect::<Vec<_>>(), [true, false, false]);
        all.close_overdue(later);
        let closing = opened.iter().map(|one| one.connection().closing());
        assert_eq!(closing.collect::<Vec<_>>(), [Some(CloseReason::BodyTimeout), None, None]);
    }

    #[test]
    fn a_network_of_ipv6_is_one_peer() {
        let peer = |text: &str| Peer::of(format!("[{text}]:1").parse().expect("an address"));
        assert_eq!(peer("2001:db8::1"), peer("2001:db8::ffff:1"));
        assert_ne!(peer("2001:db8::1"), peer("2001:db8:0:1::1"));
        assert_eq!(peer("::ffff:10.0.0.1"), Peer::of(address(1)));
        assert!(peer("::1").is_loopback());
    }
}
