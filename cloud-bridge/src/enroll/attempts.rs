//! How often a host may be refused before it has to wait, so that nobody keeps the registrar busy with guesses.

use crate::broker::host;
use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

const WINDOW: Duration = Duration::from_secs(60);
/// Refusals of one host within it.
const MAX_REFUSED: u32 = 10;
/// Hosts that are counted; with more, all of those that are not have to wait.
const MAX_HOSTS: usize = 4096;

/// Refusals by host, and when the first of them was.
#[derive(Debug, Default)]
pub struct Attempts(Mutex<HashMap<IpAddr, (Instant, u32)>>);

impl Attempts {
    /// Whether a host may try.
    pub fn may_try(&self, peer: IpAddr, now: Instant) -> bool {
        let hosts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match hosts.get(&host(peer)) {
            Some((since, count)) => now.duration_since(*since) >= WINDOW || *count < MAX_REFUSED,
            None => {
                hosts.len() < MAX_HOSTS
                    || hosts.values().any(|(since, _)| now.duration_since(*since) >= WINDOW)
            }
        }
    }

    /// It was refused.
    pub fn refused(&self, peer: IpAddr, now: Instant) {
        let mut hosts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if hosts.len() >= MAX_HOSTS {
            hosts.retain(|_, (since, _)| now.duration_since(*since) < WINDOW);
        }
        let (since, count) = hosts.entry(host(peer)).or_insert((now, 0));
        if now.duration_since(*since) >= WINDOW {
            (*since, *count) = (now, 0);
        }
        *count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_guesses_waits_and_others_do_not() {
        let (attempts, start) = (Attempts::default(), Instant::now());
        let peer = |n: u32| IpAddr::from(n.to_be_bytes());
        for _ in 0..MAX_REFUSED {
            assert!(attempts.may_try(peer(1), start));
            attempts.refused(peer(1), start);
        }
        assert!(!attempts.may_try(peer(1), start + WINDOW - Duration::from_millis(1)));
        assert!(attempts.may_try(peer(2), start));
        assert!(attempts.may_try(peer(1), start + WINDOW));
        attempts.refused(peer(1), start + WINDOW);
        assert!(attempts.may_try(peer(1), start + WINDOW));
    }

    #[test]
    fn the_memory_is_bounded_and_frees_itself() {
        let (attempts, start) = (Attempts::default(), Instant::now());
        for n in 0..MAX_HOSTS as u32 {
            attempts.refused(IpAddr::from(n.to_be_bytes()), start);
        }
        let another = IpAddr::from([200, 0, 0, 1]);
        assert!(!attempts.may_try(another, start));
        assert!(attempts.may_try(another, start + WINDOW));
        attempts.refused(another, start + WINDOW);
        assert_eq!(attempts.0.lock().unwrap().len(), 1);
    }
}
