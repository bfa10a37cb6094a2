//! The version of a saved state.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The first field of what is saved. Another version is refused when it is read, before a field whose meaning may differ.
pub(crate) struct Version<const N: u32>;

impl<const N: u32> Serialize for Version<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(N)
    }
}

impl<'de, const N: u32> Deserialize<'de> for Version<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let saved = u32::deserialize(deserializer)?;
        if saved == N {
            Ok(Self)
        } else {
            Err(D::Error::custom(format_args!("it was saved in version {saved} of its format, this is {N}")))
        }
    }
}
