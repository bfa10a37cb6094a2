//! What the bridge sees to be wrong with single devices, for the page, `/readyz` and the log. The bridge itself works on.

use edgeveil_wire::DeviceName;
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};
use tokio::time::{Duration, Instant};

/// Between two lines about the same trouble of the same device.
const QUIET: Duration = Duration::from_secs(10);
/// A trouble that was not seen again for so long is over.
const OVER: Duration = Duration::from_secs(10 * 60);
/// Names are those of certificates, so there are few; more than this are not remembered.
const MOST: usize = 1024;

/// What can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// It sends payloads in a major version that this bridge does not know.
    Version,
    /// Its connection was taken over by another one of the same name.
    TakenOver,
}

#[derive(Debug)]
struct Trouble {
    text: String,
    seen: Instant,
    logged: Instant,
    unlogged: u64,
}

/// The troubles of now.
#[derive(Debug, Default)]
pub struct Troubles {
    known: Mutex<BTreeMap<(DeviceName, Kind), Trouble>>,
}

impl Troubles {
    /// Remembers a trouble, and logs it when its last line is ten seconds old.
    pub fn note(&self, device: &DeviceName, kind: Kind, text: String) {
        if let Some(unlogged) = self.due(device, kind, &text, Instant::now()) {
            tracing::warn!(%device, unlogged, "{text}");
        }
    }

    /// How many were not logged since the last line, when a line is due.
    fn due(&self, device: &DeviceName, kind: Kind, text: &str, now: Instant) -> Option<u64> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let text = text.to_owned();
        if let Some(trouble) = known.get_mut(&(device.clone(), kind)) {
            (trouble.text, trouble.seen) = (text, now);
            if now.duration_since(trouble.logged) < QUIET {
                trouble.unlogged += 1;
                return None;
            }
            trouble.logged = now;
            return Some(std::mem::take(&mut trouble.unlogged));
        }
        if known.len() >= MOST {
            known.retain(|_, trouble| now.duration_since(trouble.seen) < OVER);
        }
        if known.len() >= MOST {
            return None;
        }
        known.insert((device.clone(), kind), Trouble { text, seen: now, logged: now, unlogged: 0 });
        Some(0)
    }

    /// What is wrong now, a line each: `device: text`.
    pub fn now(&self) -> Vec<String> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, trouble| trouble.seen.elapsed() < OVER);
        known.iter().map(|((device, _), trouble)| format!("{device}: {}", trouble.text)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_in_ten_seconds_for_each_device_and_bounded() {
        let (troubles, start) = (Troubles::default(), Instant::now());
        let due = |name: &str, after| {
            troubles.due(&name.parse().unwrap(), Kind::Version, "x", start + Duration::from_secs(after))
        };
        assert_eq!((due("a", 0), due("a", 9), due("b", 9)), (Some(0), None, Some(0)));
        assert_eq!(due("a", 10), Some(1));
        for n in 0..3000 {
            due(&format!("n{n}"), 10);
        }
        assert_eq!(troubles.now().len(), MOST);
        assert_eq!(due("later", 700), Some(0), "those that are over make room");
    }

    #[test]
    fn what_is_wrong_now_is_told() {
        let troubles = Troubles::default();
        troubles.note(&"pi".parse().unwrap(), Kind::TakenOver, "taken over".to_owned());
        assert_eq!(troubles.now(), ["pi: taken over"]);
    }
}
