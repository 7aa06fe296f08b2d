//! Which of several nodes to ask next, and which to leave alone for a while.
//!
//! Pure: the caller passes in the time and the jitter. A node that failed is
//! dead for 5 s, twice as long each time it fails again, 60 s at most. When all
//! are dead the one whose time is up first is asked, so that a cluster that
//! comes back is found at once.

use std::time::{Duration, Instant};

use crate::retry::doubled;

const FIRST_REST: Duration = Duration::from_secs(5);
const LONGEST_REST: Duration = Duration::from_secs(60);

/// The nodes of one cluster.
#[derive(Debug)]
pub(super) struct Endpoints {
    nodes: Vec<Node>,
    next: usize,
}

#[derive(Debug, Clone, Default)]
struct Node {
    failures: u32,
    dead_until: Option<Instant>,
}

impl Endpoints {
    /// Returns `count` nodes, all of them alive.
    pub(super) fn new(count: usize) -> Self {
        Self { nodes: vec![Node::default(); count], next: 0 }
    }

    /// Returns the node to ask: live ones in turn, else the one that rests the shortest.
    pub(super) fn pick(&mut self, now: Instant) -> usize {
        let count = self.nodes.len();
        for step in 0..count {
            let candidate = (self.next + step) % count;
            if !self.nodes[candidate].is_dead(now) {
                self.next = (candidate + 1) % count;
                return candidate;
            }
        }
        let soonest = (0..count).min_by_key(|&node| self.nodes[node].dead_until);
        soonest.unwrap_or_default()
    }

    /// Returns true when a node other than those just asked is worth trying without a pause.
    pub(super) fn any_live(&self, now: Instant) -> bool {
        self.nodes.iter().any(|node| !node.is_dead(now))
    }

    /// Notes that `node` did not answer. `jitter` is in 0..1 and adds up to half the rest.
    pub(super) fn failed(&mut self, node: usize, now: Instant, jitter: f64) {
        let node = &mut self.nodes[node];
        let rest = doubled(FIRST_REST, node.failures, LONGEST_REST);
        node.failures += 1;
        node.dead_until = Some(now + rest.mul_f64(1.0 + jitter / 2.0).min(LONGEST_REST));
    }

    /// Notes that `node` answered.
    pub(super) fn worked(&mut self, node: usize) {
        self.nodes[node] = Node::default();
    }
}

impl Node {
    fn is_dead(&self, now: Instant) -> bool {
        self.dead_until.is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picks(endpoints: &mut Endpoints, now: Instant, count: usize) -> Vec<usize> {
        (0..count).map(|_| endpoints.pick(now)).collect()
    }

    #[test]
    fn live_nodes_are_asked_in_turn() {
        let mut endpoints = Endpoints::new(3);
        assert_eq!(picks(&mut endpoints, Instant::now(), 5), [0, 1, 2, 0, 1]);
    }

    #[test]
    fn a_failed_node_rests_and_is_asked_again_later() {
        let mut endpoints = Endpoints::new(3);
        let start = Instant::now();
        endpoints.failed(1, start, 0.0);
        assert_eq!(picks(&mut endpoints, start, 4), [0, 2, 0, 2]);
        let later = start + Duration::from_secs(5);
        assert_eq!(picks(&mut endpoints, later, 3), [0, 1, 2]);
    }

    #[test]
    fn a_node_that_keeps_failing_rests_longer_up_to_a_minute() {
        let mut endpoints = Endpoints::new(2);
        let now = Instant::now();
        let mut rests = Vec::new();
        for _ in 0..6 {
            endpoints.failed(0, now, 0.0);
            rests.push(endpoints.nodes[0].dead_until.unwrap().duration_since(now).as_secs());
        }
        assert_eq!(rests, [5, 10, 20, 40, 60, 60]);
        endpoints.worked(0);
        assert!(!endpoints.nodes[0].is_dead(now));
    }

    #[test]
    fn with_all_nodes_dead_the_first_to_return_is_asked() {
        let mut endpoints = Endpoints::new(2);
        let now = Instant::now();
        endpoints.failed(0, now, 1.0);
        endpoints.failed(1, now, 0.0);
        assert!(!endpoints.any_live(now));
        assert_eq!(endpoints.pick(now), 1);
    }
}
