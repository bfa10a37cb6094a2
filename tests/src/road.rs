//! Ways to a broker as mobile links are: slow, or bad.

use crate::{Dice, free_port};
use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, sleep},
    time::Duration,
};

/// Passes connections on to a port of the loopback interface, at so many bytes a second towards it. Gives the port to
/// connect to. It ends with the test's process.
pub fn slow_road(to: u16, rate: usize) -> u16 {
    let port = free_port();
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("a free port");
    thread::spawn(move || {
        for near in listener.incoming().flatten() {
            let Ok(far) = TcpStream::connect(("127.0.0.1", to)) else { continue };
            let (Ok(near_too), Ok(far_too)) = (near.try_clone(), far.try_clone()) else { continue };
            thread::spawn(move || pass(near, far, Some(rate)));
            thread::spawn(move || pass(far_too, near_too, None));
        }
    });
    port
}

fn pass(mut from: TcpStream, mut to: TcpStream, rate: Option<usize>) {
    // A twentieth of a second's worth at a time.
    let mut bytes = vec![0; rate.map_or(64 << 10, |rate| (rate / 20).max(1))];
    while let Ok(length @ 1..) = from.read(&mut bytes) {
        if to.write_all(&bytes[..length]).is_err() {
            break;
        }
        if rate.is_some() {
            sleep(Duration::from_millis(50));
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

/// A way that cuts connections within packets, in either direction, holds bytes back, and lets some connections fall
/// silent without an end, as when a mobile link is gone.
pub struct BadRoad {
    /// Where to connect to.
    pub port: u16,
    good: Arc<AtomicBool>,
    deeds: Arc<[AtomicU64; 3]>,
}

/// What happens to a direction of a connection after so many bytes.
#[derive(Clone, Copy)]
enum Fate {
    Cut,
    Silence,
}

impl BadRoad {
    /// Opens one to a port of the loopback interface. A connection gets about so many bytes through. It ends with the
    /// test's process.
    pub fn open(to: u16, seed: u64, bytes: u64) -> Self {
        let port = free_port();
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("a free port");
        let (good, deeds): (Arc<AtomicBool>, Arc<[AtomicU64; 3]>) = Default::default();
        let road = Self { port, good: good.clone(), deeds: deeds.clone() };
        thread::spawn(move || {
            let mut dice = Dice::new(seed);
            for near in listener.incoming().flatten() {
                let Ok(far) = TcpStream::connect(("127.0.0.1", to)) else { continue };
                let (Ok(near_too), Ok(far_too)) = (near.try_clone(), far.try_clone()) else { continue };
                for (from, to) in [(near, far), (far_too, near_too)] {
                    // Some end within the handshake.
                    let end =
                        if dice.below(8) == 0 { dice.below(3000) } else { bytes / 2 + dice.below(bytes) };
                    let fate = if dice.below(4) == 0 { Fate::Silence } else { Fate::Cut };
                    let (dice, good, deeds) = (Dice::new(dice.roll()), good.clone(), deeds.clone());
                    thread::spawn(move || bad(from, to, end, fate, dice, &good, &deeds));
                }
            }
        });
        road
    }

    /// From now on it is a good road.
    pub fn mend(&self) {
        self.good.store(true, Ordering::SeqCst);
    }

    /// Connections that were cut, that fell silent, and times that bytes were held back.
    pub fn deeds(&self) -> [u64; 3] {
        [0, 1, 2].map(|n| self.deeds[n].load(Ordering::SeqCst))
    }
}

fn bad(
    mut from: TcpStream,
    mut to: TcpStream,
    end: u64,
    fate: Fate,
    mut dice: Dice,
    good: &AtomicBool,
    deeds: &[AtomicU64; 3],
) {
    let mut bytes = vec![0; 16 << 10];
    let mut passed = 0;
    while let Ok(length @ 1..) = from.read(&mut bytes) {
        let is_good = good.load(Ordering::SeqCst);
        let left = usize::try_from(end.saturating_sub(passed)).unwrap_or(usize::MAX);
        if !is_good && left < length {
            let _ = to.write_all(&bytes[..left]);
            deeds[fate as usize].fetch_add(1, Ordering::SeqCst);
            match fate {
                Fate::Cut => break,
                // It takes everything and gives nothing on; the other direction may still work.
                Fate::Silence => {
                    while !good.load(Ordering::SeqCst) && matches!(from.read(&mut bytes), Ok(1..)) {}
                    break;
                }
            }
        }
        if !is_good && dice.below(50) == 0 {
            deeds[2].fetch_add(1, Ordering::SeqCst);
            sleep(Duration::from_millis(dice.below(400)));
        }
        if to.write_all(&bytes[..length]).is_err() {
            break;
        }
        passed += length as u64;
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
