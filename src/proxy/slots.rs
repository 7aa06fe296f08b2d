//! Places for what may go on at the same time, in the order of arrival.
//!
//! One peer beyond loopback has half of them, so that it shuts out no other by itself.
//! Uploads hold theirs for as long as their callers send, so one that hardly moves yields
//! its place to one that waits.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::progress::Progress;
use crate::server::Peer;

/// How often one that waits looks for an upload that hardly moves.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The places of one kind; clones share them.
#[derive(Clone)]
pub(super) struct Slots(Arc<Inner>);

struct Inner {
    all: Arc<Semaphore>,
    of_peer: usize,
    peers: Mutex<HashMap<Peer, Arc<Semaphore>>>,
    uploads: Mutex<HashMap<u64, Moving>>,
    next_upload: AtomicU64,
}

/// How an upload moves.
struct Moving {
    peer: Option<Peer>,
    progress: Progress,
    cut: Arc<Notify>,
}

/// A place, until it is dropped.
pub(super) struct Slot {
    _place: OwnedSemaphorePermit,
    _share: Option<Share>,
}

/// A part of what one peer may have.
struct Share {
    slots: Slots,
    peer: Peer,
    permit: Option<OwnedSemaphorePermit>,
}

impl Slots {
    /// Makes `count` of them, at least one.
    pub fn new(count: usize) -> Self {
        let count = count.max(1);
        Self(Arc::new(Inner {
            all: Arc::new(Semaphore::new(count)),
            of_peer: count.div_ceil(2),
            peers: Mutex::default(),
            uploads: Mutex::default(),
            next_upload: AtomicU64::default(),
        }))
    }

    /// Waits for a place; `None` when there was none for so long.
    pub async fn take(&self, peer: Option<Peer>, wait: Duration) -> Option<Slot> {
        tokio::time::timeout(wait, self.next(peer)).await.ok()?
    }

    /// Does work that keeps its thread, in a place of its own; `None` when there was none for
    /// so long, or when the work panicked.
    pub async fn run_blocking<T: Send + 'static>(
        &self,
        peer: Option<Peer>,
        wait: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let place = self.take(peer, wait).await?;
        let working = tokio::task::spawn_blocking(move || {
            // Until it is done, also when its caller has left.
            let _place = place;
            work()
        });
        working.await.ok()
    }

    /// Waits for the place of an upload; those that hardly move yield meanwhile.
    pub async fn take_for_upload(&self, peer: Option<Peer>, wait: Duration) -> Option<UploadSlot> {
        let taken = async {
            let next = self.next(peer);
            tokio::pin!(next);
            loop {
                match tokio::time::timeout(LOOK_INTERVAL, &mut next).await {
                    Ok(slot) => return slot,
                    Err(_) => self.cut_stalled(peer, Instant::now()),
                }
            }
        };
        let slot = tokio::time::timeout(wait, taken).await.ok()??;
        let number = self.0.next_upload.fetch_add(1, Ordering::Relaxed);
        let cut = Arc::new(Notify::new());
        let moving = Moving { peer, progress: Progress::begin(Instant::now()), cut: Arc::clone(&cut) };
        self.0.uploads.lock().insert(number, moving);
        Some(UploadSlot { slots: self.clone(), number, cut, _slot: slot })
    }

    async fn next(&self, peer: Option<Peer>) -> Option<Slot> {
        // Where all peers look alike, none of them has too much.
        let share = match peer.filter(|peer| !peer.is_loopback()) {
            Some(peer) => Some(self.share(peer).await?),
            None => None,
        };
        let place = Arc::clone(&self.0.all).acquire_owned().await.ok()?;
        Some(Slot { _place: place, _share: share })
    }

    async fn share(&self, peer: Peer) -> Option<Share> {
        let of_peer = || Arc::new(Semaphore::new(self.0.of_peer));
        let semaphore = Arc::clone(self.0.peers.lock().entry(peer).or_insert_with(of_peer));
        // Before the wait: giving it up forgets the peer like its end.
        let mut share = Share { slots: self.clone(), peer, permit: None };
        share.permit = Some(semaphore.acquire_owned().await.ok()?);
        Some(share)
    }

    /// Ends the upload that has stood still for longest, of those whose end helps the peer.
    fn cut_stalled(&self, peer: Option<Peer>, now: Instant) {
        let is_full = self.0.all.available_permits() == 0;
        let mut uploads = self.0.uploads.lock();
        let helps = |one: &Moving| is_full || one.peer == peer;
        let longest = uploads.iter().filter(|(_, one)| one.progress.has_stalled(now) && helps(one));
        let longest = longest.min_by_key(|(_, one)| one.progress.since);
        let Some(number) = longest.map(|(number, _)| *number) else { return };
        if let Some(upload) = uploads.remove(&number) {
            upload.cut.notify_one();
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.permit.take();
        let mut peers = self.slots.0.peers.lock();
        // No other holds or waits for a part.
        if peers.get(&self.peer).is_some_and(|semaphore| Arc::strong_count(semaphore) == 1) {
            peers.remove(&self.peer);
        }
    }
}

/// The place of an upload, until it is dropped.
pub(super) struct UploadSlot {
    slots: Slots,
    number: u64,
    cut: Arc<Notify>,
    _slot: Slot,
}

impl UploadSlot {
    /// Notes bytes that the caller sent.
    pub fn arrived(&self, bytes: usize) {
        self.arrived_at(bytes, Instant::now());
    }

    fn arrived_at(&self, bytes: usize, now: Instant) {
        let mut uploads = self.slots.0.uploads.lock();
        // One that was cut off is not there any more.
        if let Some(moving) = uploads.get_mut(&self.number) {
            moving.progress.arrived(bytes, now);
        }
    }

    /// Waits until another one needs the place more.
    pub async fn cut(&self) {
        self.cut.notified().await;
    }
}

impl Drop for UploadSlot {
    fn drop(&mut self) {
        self.slots.0.uploads.lock().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::super::progress::tests::{MOVES, STALLED};
    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    fn peer(last: u8) -> Option<Peer> {
        Some(Peer::of(([10, 0, 0, last], 1).into()))
    }

    #[tokio::test(start_paused = true)]
    async fn one_peer_has_half_of_the_places_and_loopback_all() {
        let slots = Slots::new(4);
        let _held = [slots.take(peer(1), LONG).await, slots.take(peer(1), LONG).await];
        assert!(slots.take(peer(1), LONG).await.is_none());
        let other = slots.take(peer(2), LONG).await.expect("a place of another");
        let _last = slots.take(peer(3), LONG).await.expect("the last place");
        assert!(slots.take(peer(4), LONG).await.is_none());
        drop(other);
        assert!(slots.take(peer(4), LONG).await.is_some());
        let slots = Slots::new(4);
        let local = Some(Peer::of(([127, 0, 0, 1], 1).into()));
        let all = futures::future::join_all((0..4).map(|_| slots.take(local, LONG))).await;
        assert!(all.iter().all(Option::is_some));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_remembered_of_a_peer_that_is_gone() {
        let slots = Slots::new(2);
        let held = slots.take(peer(1), LONG).await;
        assert!(slots.take(peer(1), LONG).await.is_none(), "it waited in vain");
        assert_eq!(slots.0.peers.lock().len(), 1);
        drop(held);
        assert!(slots.0.peers.lock().is_empty());
        assert_eq!(slots.0.all.available_permits(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_is_given_up_with_its_wait() {
        let slots = Slots::new(1);
        let held = slots.take(None, LONG).await;
        let waiting = slots.take(None, LONG);
        drop(waiting);
        drop(held);
        assert!(slots.take(None, LONG).now_or_never().flatten().is_some());
    }

    #[tokio::test]
    async fn work_keeps_its_place_until_it_is_done_also_when_its_caller_has_left() {
        let slots = Slots::new(1);
        let (finish, finished) = std::sync::mpsc::channel::<()>();
        let work = slots.run_blocking(None, LONG, move || finished.recv());
        assert!(work.now_or_never().is_none(), "its caller leaves before it is done");
        assert!(slots.take(None, LONG).now_or_never().flatten().is_none(), "it is still at work");
        finish.send(()).expect("it waits for this");
        assert!(slots.take(None, LONG).await.is_some());
        assert_eq!(slots.run_blocking(None, LONG, || 7).await, Some(7));
        let panics = || -> u8 { panic!("of this test") };
        assert_eq!(slots.run_blocking(None, LONG, panics).await, None);
        assert!(slots.take(None, LONG).await.is_some(), "a panic gives the place back");
    }

    #[tokio::test]
    async fn the_upload_that_stands_still_yields_and_one_that_moves_does_not() {
        let slots = Slots::new(2);
        let still = slots.take_for_upload(None, LONG).await.expect("a place");
        let moving = slots.take_for_upload(None, LONG).await.expect("a place");
        let later = Instant::now() + STALLED;
        // A byte now and then is no progress.
        still.arrived_at(1, later);
        moving.arrived_at(MOVES, later);
        slots.cut_stalled(None, later);
        assert!(still.cut().now_or_never().is_some());
        assert!(moving.cut().now_or_never().is_none());
        slots.cut_stalled(None, later);
        assert!(moving.cut().now_or_never().is_none(), "nothing else stands still");
    }

    #[tokio::test]
    async fn where_places_are_left_a_peer_ends_only_its_own_uploads() {
        let slots = Slots::new(4);
        let other = slots.take_for_upload(peer(2), LONG).await.expect("a place");
        let own = [slots.take_for_upload(peer(1), LONG).await, slots.take_for_upload(peer(1), LONG).await];
        let later = Instant::now() + STALLED;
        slots.cut_stalled(peer(1), later);
        slots.cut_stalled(peer(1), later);
        slots.cut_stalled(peer(1), later);
        assert!(own.iter().flatten().all(|one| one.cut().now_or_never().is_some()));
        assert!(other.cut().now_or_never().is_none());
    }
}
