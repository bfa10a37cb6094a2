//! The room where a frame becomes veiled: raw pixels go in, only covered pixels come out.
//!
//! Edgeveil's first promise is that no unveiled face leaves the device. This crate keeps it by types, not by care.
//! A [`Frame`] holds raw pixels and gives them to nobody outside of this crate; a [`VeiledImage`] can only be made
//! here, from a frame that a detector has looked at (or that was covered as a whole), and only a `VeiledImage` can
//! become a [`VeiledJpeg`]. Code that stores or sends images asks for a `VeiledJpeg` and so cannot be handed a raw
//! one.
//!
//! ```no_run
//! use edgeveil_veil::{Frame, Limits, Settings, Veil};
//!
//! let mut veil = Veil::open(&Settings::default())?;
//! let frame = Frame::decode(&std::fs::read("door.jpg")?, &Limits::default())?;
//! let veiled = veil.veil_still(frame)?;
//! std::fs::write("door-veiled.jpg", veiled.to_jpeg(85, None)?.as_bytes())?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Raw pixels have no way out:
//!
//! ```compile_fail,E0616
//! let frame = edgeveil_veil::Frame::from_rgb8(1, 1, vec![1, 2, 3]).unwrap();
//! let raw = frame.pixels; // private
//! ```
//! ```compile_fail,E0624
//! let frame = edgeveil_veil::Frame::from_rgb8(1, 1, vec![1, 2, 3]).unwrap();
//! let raw = frame.pixels(); // known to this crate only
//! ```
//! ```compile_fail,E0451
//! // Nobody else can declare an image veiled.
//! let image = edgeveil_veil::VeiledImage { width: 1, height: 1, pixels: vec![1, 2, 3], faces: vec![] };
//! ```
//!
//! # What fails closed
//!
//! A missing, damaged or unknown model is an error at [`Veil::open`]. A panic in inference, an output that is not a
//! number, a corrupt or oversized picture are errors, and the frame is gone with them: there is no way to get it
//! back. Whoever needs *an* image then uses [`cover_all`] or [`VeiledImage::blank`].
//!
//! # How it finds faces
//!
//! YuNet looks at the whole frame and proposes, CenterFace decides about what is doubtful ([`Profile`]). Both run in an
//! executor of our own (`net`), for which tract is the oracle. In a stream, faces are held where they were and where they were
//! going (`hold`), and a frame without any change since the last searched one is not searched again (`gate`).
//!
//! # What survives of a face
//!
//! Under [`Cover::DeepBlur`] at most 27 numbers: 3x3 colour averages of a region that is larger than the face, each
//! moved by a small random amount. Where the region is under 72 pixels wide or high they are 12, under 48 they are 3.
//! Under [`Cover::Mosaic`] at most 12, under [`Cover::Solid`] none. In each case the place and size of the region can
//! be seen, and so can what lies around it: hair, neck, shoulders. Averages of the same face over
//! many frames can be averaged again, which removes the random part: it is there against exact subtraction, not
//! against a patient observer. For the strictest needs use `Solid`.
//!
//! # What it does not do
//!
//! It hides faces that the detector finds, and the regions around them. Gait, clothing, number plates, reflections
//! and faces that the detector misses in every frame of the hold are not hidden.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

mod cover;
mod decode;
mod detect;
mod error;
mod frame;
mod gate;
mod geometry;
mod hold;
mod image;
mod jpeg;
mod mjpeg;
mod model;
mod net;
mod settings;
mod tiff;
mod veil;
mod worker;
mod yuyv;

pub use error::{FrameError, VeilError};
pub use frame::{Frame, Limits};
pub use image::{Face, VeiledImage, cover_all};
pub use jpeg::VeiledJpeg;
pub use model::{ModelKind, models_dir};
pub use settings::{Cover, Engine, Mask, Profile, Settings};
pub use veil::{Counters, Veil};
