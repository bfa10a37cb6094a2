//! The device's certificate, from the first one on: a key that is made here and stays here, a folder that holds one
//! identity and has room for the next, and the bridge that signs. `docs/enroll.md` has the contract.
//!
//! [`ask`] talks to the bridge, [`Folder`] keeps what it has given, [`renewal`] asks again in time. Which of two
//! identities is used is for [`crate::link`] to find out, since only the broker can tell.

pub mod ask;
mod folder;
mod key;
pub mod renewal;

pub use ask::{AskError, BridgeUrl, Fingerprint};
pub use folder::{Files, Folder, FolderError, Given, Pending, Place};
pub use key::csr;
