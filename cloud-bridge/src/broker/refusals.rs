//! Connections that came to nothing, logged so that a device with a wrong certificate is seen and a port scan is not
//! a flood.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
};
use tokio::time::{Duration, Instant};

const QUIET: Duration = Duration::from_secs(60);
const MAX_PEERS: usize = 1024;

/// Once a minute for each address; the oldest address is forgotten when there are too many.
#[derive(Debug, Default)]
pub struct Refusals {
    peers: Mutex<HashMap<IpAddr, (Instant, u64)>>,
}

impl Refusals {
    /// Counts a refusal, and logs it when the address was quiet for a minute.
    pub fn note(&self, peer: IpAddr, reason: &str) {
        if let Some(unlogged) = self.due(peer, Instant::now()) {
            tracing::warn!(%peer, reason, unlogged, "refused a connection");
        }
    }

    /// How many were not logged since the last line, when a line is due.
    fn due(&self, peer: IpAddr, now: Instant) -> Option<u64> {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((last, unlogged)) = peers.get_mut(&peer) {
            if now.duration_since(*last) < QUIET {
                *unlogged += 1;
                return None;
            }
            *last = now;
            return Some(std::mem::take(unlogged));
        }
        if peers.len() >= MAX_PEERS {
            let oldest = peers.iter().min_by_key(|(_, (last, _))| *last).map(|(peer, _)| *peer);
            oldest.map(|oldest| peers.remove(&oldest));
        }
        peers.insert(peer, (now, 0));
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_minute_and_bounded() {
        let refusals = Refusals::default();
        let start = Instant::now();
        let peer = |n: u32| IpAddr::from(n.to_be_bytes());
        assert_eq!(refusals.due(peer(1), start), Some(0));
        assert_eq!(refusals.due(peer(1), start + Duration::from_secs(59)), None);
        assert_eq!(refusals.due(peer(1), start + Duration::from_secs(60)), Some(1));
        for n in 2..5000 {
            refusals.due(peer(n), start);
        }
        assert!(refusals.peers.lock().unwrap().len() <= MAX_PEERS);
    }
}
