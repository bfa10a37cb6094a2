//! Functions of which the standard library gives no exact result.
//!
//! `f64::ln`, `exp`, `powf` and their like are the platform's own, and differ from one to the next in the last digit; `powi` may
//! even differ between two builds. `libm` computes them from additions and multiplications, which IEEE 754 fixes. So a score is the same,
//! bit for bit, wherever floats are IEEE 754's (everywhere but on x86 processors without SSE2). `clippy.toml` keeps the others out.

pub(crate) use libm::{cos, exp, exp2, expm1, log as ln, log1p, pow};

pub(crate) fn square(x: f64) -> f64 {
    x * x
}

pub(crate) fn cube(x: f64) -> f64 {
    x * x * x
}
