//! Logins that failed: whoever guesses waits, by host and by name.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Failures are forgotten after so long.
const WINDOW: Duration = Duration::from_secs(15 * 60);
/// Of one host within it. Behind a proxy everybody is one host, so there are more of them than of one name.
const OF_HOST: u32 = 50;
/// For one name.
const OF_NAME: u32 = 10;
/// Hosts and names that are counted; while there are more, nobody can log in.
const MOST: usize = 4096;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Host(IpAddr),
    Name(String),
}

/// Failures, and when the first of them was.
#[derive(Debug, Default)]
pub struct Attempts(Mutex<HashMap<Key, (Instant, u32)>>);

impl Attempts {
    /// Whether a login may be tried.
    pub fn may_try(&self, host: IpAddr, name: &str, now: Instant) -> bool {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() >= MOST {
            failures.retain(|_, (since, _)| now.duration_since(*since) < WINDOW);
        }
        let below = |key: &Key, most: u32| match failures.get(key) {
            Some((since, count)) => now.duration_since(*since) >= WINDOW || *count < most,
            None => failures.len() < MOST,
        };
        below(&Key::Host(crate::broker::host(host)), OF_HOST) && below(&Key::Name(name.to_owned()), OF_NAME)
    }

    /// One has failed.
    pub fn failed(&self, host: IpAddr, name: &str, now: Instant) {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for key in [Key::Host(crate::broker::host(host)), Key::Name(name.to_owned())] {
            let (since, count) = failures.entry(key).or_insert((now, 0));
            if now.duration_since(*since) >= WINDOW {
                (*since, *count) = (now, 0);
            }
            *count += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_guesses_waits_by_name_and_by_host() {
        let (attempts, start) = (Attempts::default(), Instant::now());
        let host = |n: u32| IpAddr::from(n.to_be_bytes());
        for n in 0..OF_NAME {
            assert!(attempts.may_try(host(n), "ann", start));
            attempts.failed(host(n), "ann", start);
        }
        assert!(!attempts.may_try(host(99), "ann", start), "from another host too");
        assert!(
            attempts.may_try(host(99), "bob", start) && attempts.may_try(host(99), "ann", start + WINDOW)
        );
        for n in 0..OF_HOST {
            attempts.failed(host(7), &format!("user-{n}"), start);
        }
        assert!(!attempts.may_try(host(7), "bob", start) && attempts.may_try(host(8), "bob", start));
    }

    #[test]
    fn the_memory_is_bounded() {
        let (attempts, start) = (Attempts::default(), Instant::now());
        for n in 0..MOST as u32 {
            attempts.failed(IpAddr::from(n.to_be_bytes()), "ann", start);
        }
        let another = IpAddr::from([200, 0, 0, 1]);
        assert!(!attempts.may_try(another, "bob", start));
        assert!(attempts.may_try(another, "bob", start + WINDOW));
        assert!(attempts.0.lock().unwrap().is_empty());
    }
}
