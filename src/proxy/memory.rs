//! The memory that requests and answers take while they are in the proxy: counted in
//! bytes, bounded in total and for each peer.
//!
//! Nothing waits for memory while it holds some: what does not fit is refused at once,
//! so callers cannot block each other. Before anything is refused, the body or the answer
//! that hardly moves and holds most is cut off, so that a few callers who begin long bodies
//! and stop sending, or take a long answer byte by byte, do not keep the rest out. And
//! whatever holds much leaves a part to what holds little: nearly every request is short.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::Notify;

use super::progress::Progress;
use crate::server::{Connection, Peer};

/// What holds more than this leaves the part below to what holds less.
const SMALL_BYTES: usize = 64 << 10;
/// One `PARTS`th of all memory is reserved for what holds little.
const PARTS: usize = 8;

/// There is no memory left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum OutOfMemory {
    /// For anyone.
    #[error("requests and answers take all the memory that they may (`api.max_memory_mib`); try again shortly")]
    Total,
    /// For this peer; others still have some.
    #[error("requests of one address may take half of the memory for all (`api.max_memory_mib`); send fewer at once")]
    OfPeer,
}

/// Counts memory; clones share the count.
#[derive(Clone)]
pub(super) struct MemoryBudget(Arc<Inner>);

struct Inner {
    max_total: usize,
    max_peer: usize,
    used: Mutex<Used>,
}

#[derive(Default)]
struct Used {
    total: usize,
    by_peer: HashMap<Peer, usize>,
    receiving: HashMap<u64, Receiving>,
    taking: HashMap<u64, Taking>,
    next_id: u64,
}

/// A body that is still arriving.
struct Receiving {
    peer: Option<Peer>,
    bytes: usize,
    progress: Progress,
    cut: Arc<Notify>,
}

/// An answer that its caller takes.
struct Taking {
    peer: Option<Peer>,
    /// What is given back with it; nothing where others take the same answer.
    counted: usize,
    length: usize,
    connection: Arc<Connection>,
}

/// What of it moves so slowly that others may have its memory.
enum Stalled {
    Body(u64),
    Answer(u64),
}

impl MemoryBudget {
    /// Makes a budget of so many bytes; one peer beyond loopback has half of it.
    pub fn new(max_total: usize) -> Self {
        Self(Arc::new(Inner { max_total, max_peer: max_total / 2, used: Mutex::default() }))
    }

    /// Begins to count a body that is about to arrive.
    pub fn receive(&self, peer: Option<Peer>) -> ReceivingBody {
        let peer = peer.filter(|peer| !peer.is_loopback());
        let cut = Arc::new(Notify::new());
        let mut used = self.0.lock();
        let id = used.next_id;
        used.next_id += 1;
        used.receiving
            .insert(id, Receiving { peer, bytes: 0, progress: Progress::begin(Instant::now()), cut: Arc::clone(&cut) });
        ReceivingBody { budget: self.clone(), id, cut }
    }

    /// Takes memory for something that is made here, for the request of a peer.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`], at once.
    pub fn reserve(&self, peer: Option<Peer>, bytes: usize) -> Result<Reservation, OutOfMemory> {
        let peer = peer.filter(|peer| !peer.is_loopback());
        let mut reservation = Reservation { budget: self.clone(), peer, bytes: 0 };
        reservation.grow(bytes)?;
        Ok(reservation)
    }

    /// Watches how an answer is taken that is counted already, and that others may share.
    pub fn taking(&self, connection: Option<&Arc<Connection>>, bytes: Bytes) -> Bytes {
        Reservation { budget: self.clone(), peer: None, bytes: 0 }.answering(connection, bytes)
    }

    /// Returns what is in use, in bytes.
    #[cfg(test)]
    fn used(&self) -> usize {
        self.0.lock().total
    }
}

impl Inner {
    /// Takes memory for something that holds `held` bytes already.
    fn take(&self, peer: Option<Peer>, held: usize, bytes: usize, now: Instant) -> Result<(), OutOfMemory> {
        let is_small = held + bytes <= SMALL_BYTES;
        let most = if is_small { self.max_total } else { self.max_total - self.max_total / PARTS };
        let mut used = self.lock();
        if peer.is_some_and(|peer| used.of(peer) + bytes > self.max_peer) {
            return Err(OutOfMemory::OfPeer);
        }
        while used.total + bytes > most {
            used.cut_stalled(now)?;
        }
        used.add(peer, bytes);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Used {
    fn of(&self, peer: Peer) -> usize {
        self.by_peer.get(&peer).copied().unwrap_or_default()
    }

    fn add(&mut self, peer: Option<Peer>, bytes: usize) {
        self.total += bytes;
        if let Some(peer) = peer {
            *self.by_peer.entry(peer).or_default() += bytes;
        }
    }

    fn give_back(&mut self, peer: Option<Peer>, bytes: usize) {
        self.total -= bytes;
        let Some(peer) = peer else { return };
        if let Some(used) = self.by_peer.get_mut(&peer) {
            *used -= bytes;
            if *used == 0 {
                self.by_peer.remove(&peer);
            }
        }
    }

    /// Cuts off the largest body or answer that hardly moves. Its memory counts as free at
    /// once; it is a moment later, when its reader or its connection has seen it.
    fn cut_stalled(&mut self, now: Instant) -> Result<(), OutOfMemory> {
        let stalled = |one: &Receiving| one.bytes > 0 && one.progress.has_stalled(now);
        let bodies = self.receiving.iter().filter(|(_, one)| stalled(one));
        let bodies = bodies.map(|(id, one)| (one.bytes, Stalled::Body(*id)));
        let answers = self.taking.iter().filter(|(_, one)| one.connection.is_slow_taker(now));
        let answers = answers.map(|(id, one)| (one.length, Stalled::Answer(*id)));
        let (_, largest) = bodies.chain(answers).max_by_key(|(bytes, _)| *bytes).ok_or(OutOfMemory::Total)?;
        match largest {
            Stalled::Body(id) => {
                let body = self.receiving.remove(&id).ok_or(OutOfMemory::Total)?;
                self.give_back(body.peer, body.bytes);
                body.cut.notify_one();
            }
            Stalled::Answer(id) => {
                let answer = self.taking.remove(&id).ok_or(OutOfMemory::Total)?;
                self.give_back(answer.peer, answer.counted);
                answer.connection.evict();
            }
        }
        Ok(())
    }
}

/// The count of a body that is arriving.
pub(super) struct ReceivingBody {
    budget: MemoryBudget,
    id: u64,
    cut: Arc<Notify>,
}

impl ReceivingBody {
    /// Counts bytes that have arrived, and the memory that was added for them.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`], at once; also when the body was cut off.
    pub fn grow(&self, arrived: usize, bytes: usize) -> Result<(), OutOfMemory> {
        self.grow_at(arrived, bytes, Instant::now())
    }

    fn grow_at(&self, arrived: usize, bytes: usize, now: Instant) -> Result<(), OutOfMemory> {
        let inner = &*self.budget.0;
        let (peer, held) = {
            let mut used = inner.lock();
            let body = used.receiving.get_mut(&self.id).ok_or(OutOfMemory::Total)?;
            body.progress.arrived(arrived, now);
            (body.peer, body.bytes)
        };
        inner.take(peer, held, bytes, now)?;
        let mut used = inner.lock();
        match used.receiving.get_mut(&self.id) {
            Some(body) => body.bytes += bytes,
            None => {
                used.give_back(peer, bytes);
                return Err(OutOfMemory::Total);
            }
        }
        Ok(())
    }

    /// Waits until the body is cut off for others.
    pub async fn cut(&self) {
        self.cut.notified().await;
    }

    /// Ends the arrival: what has arrived stays counted until the reservation is
    /// dropped.
    pub fn complete(self) -> Reservation {
        let removed = self.budget.0.lock().receiving.remove(&self.id);
        let (peer, bytes) = removed.map_or((None, 0), |body| (body.peer, body.bytes));
        Reservation { budget: self.budget.clone(), peer, bytes }
    }
}

impl Drop for ReceivingBody {
    fn drop(&mut self) {
        let mut used = self.budget.0.lock();
        if let Some(body) = used.receiving.remove(&self.id) {
            used.give_back(body.peer, body.bytes);
        }
    }
}

/// Memory in use, until this is dropped.
pub(super) struct Reservation {
    budget: MemoryBudget,
    peer: Option<Peer>,
    bytes: usize,
}

impl Reservation {
    /// Takes more.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`], at once.
    pub fn grow(&mut self, bytes: usize) -> Result<(), OutOfMemory> {
        self.budget.0.take(self.peer, self.bytes, bytes, Instant::now())?;
        self.bytes += bytes;
        Ok(())
    }

    /// Ties an answer to the memory that was counted for it. While its caller takes it too
    /// slowly, the connection may be closed for others who need the memory.
    pub fn answering(
        mut self,
        connection: Option<&Arc<Connection>>,
        bytes: impl AsRef<[u8]> + Send + 'static,
    ) -> Bytes {
        let Some(connection) = connection.map(Arc::clone) else { return self.holding(bytes) };
        // From now on it is counted there.
        let (budget, peer, counted) = (self.budget.clone(), self.peer, std::mem::take(&mut self.bytes));
        let mut used = budget.0.lock();
        let id = used.next_id;
        used.next_id += 1;
        used.taking.insert(id, Taking { peer, counted, length: bytes.as_ref().len(), connection });
        drop(used);
        Bytes::from_owner(Held { bytes, _counted: Answer { budget, id } })
    }

    /// Ties bytes to the memory that was counted for them.
    pub fn holding(self, bytes: impl AsRef<[u8]> + Send + 'static) -> Bytes {
        Bytes::from_owner(Held { bytes, _counted: self })
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.0.lock().give_back(self.peer, self.bytes);
    }
}

/// The memory of an answer that is being taken, until this is dropped.
struct Answer {
    budget: MemoryBudget,
    id: u64,
}

impl Drop for Answer {
    fn drop(&mut self) {
        let mut used = self.budget.0.lock();
        if let Some(answer) = used.taking.remove(&self.id) {
            used.give_back(answer.peer, answer.counted);
        }
    }
}

/// Bytes and what counts them, which end together.
struct Held<T, C> {
    bytes: T,
    _counted: C,
}

impl<T: AsRef<[u8]>, C> AsRef<[u8]> for Held<T, C> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::super::progress::tests::{MOVES, STALLED};
    use super::*;

    fn peer(last: u8) -> Option<Peer> {
        Some(Peer::of(([10, 0, 0, last], 1).into()))
    }

    #[test]
    fn bodies_that_arrive_together_never_wait_for_each_other() {
        let budget = MemoryBudget::new(256);
        let bodies: Vec<_> = (0..16).map(|_| budget.receive(None)).collect();
        for body in &bodies {
            body.grow(16, 16).expect("memory");
        }
        assert_eq!(bodies[0].grow(16, 16), Err(OutOfMemory::Total), "refused at once, while all hold some");
        let first = bodies.into_iter().next().expect("a body").complete();
        assert_eq!(budget.used(), 16, "the others were dropped");
        let bytes = first.holding(vec![0; 16]);
        let part = bytes.slice(0..1);
        drop(bytes);
        assert_eq!(budget.used(), 16, "a part of the bytes keeps all of them");
        drop(part);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_body_that_stands_still_yields_and_one_that_moves_does_not() {
        let budget = MemoryBudget::new(100);
        let [still, moving] = [budget.receive(None), budget.receive(None)];
        still.grow(60, 60).expect("memory");
        moving.grow(30, 30).expect("memory");
        let later = Instant::now() + STALLED;
        // One byte is no progress, however recent.
        still.grow_at(1, 0, later).expect("memory");
        moving.grow_at(MOVES, 0, later).expect("memory");
        budget.0.take(None, 0, 50, later).expect("the memory of the one that hardly moves");
        assert_eq!(still.grow(1, 1), Err(OutOfMemory::Total));
        assert_eq!(still.complete().bytes, 0, "what was taken from it is not given back twice");
        moving.grow(1, 1).expect("memory");
        assert_eq!(budget.used(), 81);
    }

    #[test]
    fn what_holds_much_leaves_a_part_to_what_holds_little() {
        let budget = MemoryBudget::new(PARTS << 20);
        let long = budget.receive(None);
        long.grow(0, (PARTS - 1) << 20).expect("memory");
        assert_eq!(long.grow(0, 1), Err(OutOfMemory::Total));
        assert!(budget.reserve(None, SMALL_BYTES + 1).is_err());
        let mut answer = budget.reserve(None, SMALL_BYTES).expect("memory");
        assert_eq!(answer.grow(1), Err(OutOfMemory::Total), "it has become long");
        budget.receive(None).grow(100, 100).expect("memory");
    }

    #[test]
    fn one_peer_has_half_and_loopback_all() {
        let budget = MemoryBudget::new(100);
        let one = budget.receive(peer(1));
        one.grow(50, 50).expect("memory");
        assert_eq!(budget.receive(peer(1)).grow(1, 1), Err(OutOfMemory::OfPeer));
        budget.receive(peer(2)).grow(50, 50).expect("memory");
        drop(one);
        let local = budget.receive(Some(Peer::of(([127, 0, 0, 1], 1).into())));
        local.grow(100, 100).expect("memory");
        assert!(budget.reserve(None, 1).is_err());
        drop(local);
        assert_eq!(budget.used(), 0);
        assert!(budget.0.lock().by_peer.is_empty());
    }
}
