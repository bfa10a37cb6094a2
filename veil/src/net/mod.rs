//! The two networks, computed by ourselves: on x86-64 and aarch64 several times faster than by a general engine, since
//! exactly these layers are all there is. A layer can be computed by several threads, each a band of its rows. tract stays the oracle in the tests
//! and the engine on other processors.
//!
//! Numbers are 32-bit floats throughout; once buffers have the size of an input, nothing is allocated. Activations lie
//! in blocks of 16 channels (`map`), the layers are in `layers`, their weights in `weights`, the instructions in `simd`.

mod centerface;
mod first;
mod layers;
mod map;
mod onnx;
mod simd;
mod weights;
mod yunet;

pub(crate) use centerface::{Buffers as CenterFaceBuffers, CenterFace};
#[cfg(test)]
use map::Map;
pub(crate) use simd::{Isa, Job, Simd, run};
pub(crate) use yunet::{Buffers as YuNetBuffers, YuNet};

/// What each thread needs.
fn scratch(threads: usize) -> Vec<layers::Scratch> {
    (0..threads.max(1)).map(|_| layers::Scratch::default()).collect()
}

/// 1 / (1 + exp(-x)) of one channel in 16.
fn sigmoid(numbers: &mut [f32], channel: usize) {
    for v in numbers.iter_mut().skip(channel).step_by(simd::LANES) {
        *v = 1.0 / (1.0 + (-*v).exp());
    }
}

#[cfg(test)]
mod tests;
