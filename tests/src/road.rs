//! A way to a broker that is slow in one direction, as mobile links are.

use crate::free_port;
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
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
    let _ = to.shutdown(std::net::Shutdown::Both);
    let _ = from.shutdown(std::net::Shutdown::Both);
}
