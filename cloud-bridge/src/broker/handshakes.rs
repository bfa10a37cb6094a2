//! Peers that have not shown who they are yet: how many at once, in all and from one host, so that one host can neither
//! take every connection nor keep the processor busy with handshakes.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Handshakes at once.
const ALL: usize = 64;
/// Handshakes at once with one host.
const HOST: usize = 8;
/// Peers of one host that are in a handshake or wait for one; with few connections in all, a quarter of these.
const WAITING: usize = 64;

/// What is under way.
#[derive(Debug)]
pub struct Handshakes {
    all: Arc<Semaphore>,
    hosts: Mutex<HashMap<IpAddr, Host>>,
    waiting: usize,
}

#[derive(Debug)]
struct Host {
    turns: Arc<Semaphore>,
    there: usize,
}

/// A peer's place among those who wait, given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    handshakes: Arc<Handshakes>,
    host: IpAddr,
    turns: Arc<Semaphore>,
}

/// The right to a handshake, until it is dropped.
pub type Turn = (OwnedSemaphorePermit, OwnedSemaphorePermit);

impl Handshakes {
    /// For a broker with so many connections at the most.
    pub fn new(max_connections: u32) -> Arc<Self> {
        let waiting = (max_connections as usize / 4).clamp(HOST, WAITING);
        Arc::new(Self { all: Arc::new(Semaphore::new(ALL)), hosts: Mutex::default(), waiting })
    }

    /// A place for a peer; none when its host has too many.
    pub fn place(self: &Arc<Self>, peer: IpAddr) -> Option<Place> {
        let host = host(peer);
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let entry =
            hosts.entry(host).or_insert_with(|| Host { turns: Arc::new(Semaphore::new(HOST)), there: 0 });
        if entry.there >= self.waiting {
            return None;
        }
        entry.there += 1;
        Some(Place { handshakes: self.clone(), host, turns: entry.turns.clone() })
    }
}

impl Place {
    /// Waits for its turn.
    pub async fn turn(&self) -> Turn {
        let of_host = self.turns.clone().acquire_owned().await.expect("nobody closes it");
        (of_host, self.handshakes.all.clone().acquire_owned().await.expect("nobody closes it"))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut hosts = self.handshakes.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(host) = hosts.get_mut(&self.host) {
            host.there -= 1;
            if host.there == 0 {
                hosts.remove(&self.host);
            }
        }
    }
}

/// A host has 64 bits of an IPv6 address to itself.
pub fn host(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::timeout;

    #[tokio::test]
    async fn one_host_has_its_share_and_leaves_the_rest() {
        let handshakes = Handshakes::new(100);
        let (one, other) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let places: Vec<_> = (0..25).map(|_| handshakes.place(one).unwrap()).collect();
        assert!(handshakes.place(one).is_none(), "a quarter of the connections");
        let mut turns = Vec::new();
        for place in &places[..HOST] {
            turns.push(place.turn().await);
        }
        let next = || timeout(Duration::from_millis(20), places[HOST].turn());
        assert!(next().await.is_err());
        assert!(timeout(Duration::from_secs(5), handshakes.place(other).unwrap().turn()).await.is_ok());
        turns.pop();
        assert!(next().await.is_ok());
        drop((places, turns));
        assert!(handshakes.hosts.lock().unwrap().is_empty());
    }

    #[test]
    fn a_host_is_one_whatever_address_of_its_network_it_takes() {
        let of = |text: &str| host(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
    }
}
