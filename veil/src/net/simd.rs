//! Sixteen 32-bit floats at a time, on whatever the processor has.
//!
//! This file is the crate's one exception from `forbid(unsafe_code)`. Calling code that was compiled for instructions
//! which a processor may lack is unsafe in Rust, and so is the intrinsics' access through pointers. Both are confined
//! here: a token ([`Avx512`], [`Avx2`], [`Neon`]) can only be had from [`run`], which has asked the processor, and
//! loads and stores go through references to arrays of 16. Everything that is built on it is safe code.

#![allow(unsafe_code, reason = "see the module's documentation")]

pub(crate) const LANES: usize = 16;

/// A value of this type is the proof that the processor has the instructions.
pub(crate) trait Simd: Copy {
    /// Which tile shapes suit it.
    const TILES: Tiles;
    /// Sixteen floats in registers.
    type Block: Copy;
    fn load(self, from: &[f32; LANES]) -> Self::Block;
    fn store(self, block: Self::Block, to: &mut [f32; LANES]);
    fn splat(self, v: f32) -> Self::Block;
    fn add(self, a: Self::Block, b: Self::Block) -> Self::Block;
    fn max(self, a: Self::Block, b: Self::Block) -> Self::Block;
    /// `a * b + c`
    fn fma(self, a: Self::Block, b: Self::Block, c: Self::Block) -> Self::Block;
}

/// Which tiles fit the registers (the ignored test `bench` times them).
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Tiles {
    /// 32 registers of 16 floats: AVX-512 alone.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    Wide,
    /// 16 registers of 8, or 32 of 4.
    #[cfg_attr(not(any(target_arch = "x86_64", target_arch = "aarch64")), allow(dead_code))]
    Middle,
    /// 16 registers of 4.
    Narrow,
}

/// Something to be computed with whatever the processor has. `run` and all that it calls must be `#[inline(always)]`,
/// or it is compiled for the baseline.
pub(crate) trait Job {
    fn run<S: Simd>(self, simd: S);
}

/// Sets of instructions, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Isa {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// What the compiler may assume: SSE2 on x86-64.
    Baseline,
}

impl Isa {
    /// Those that this processor has.
    pub fn available() -> Vec<Isa> {
        let mut found = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if Avx512::detect().is_some() {
                found.push(Isa::Avx512);
            }
            if Avx2::detect().is_some() {
                found.push(Isa::Avx2);
            }
        }
        #[cfg(target_arch = "aarch64")]
        found.push(Isa::Neon);
        found.push(Isa::Baseline);
        found
    }

    pub fn best() -> Isa {
        Isa::available()[0]
    }
}

/// Runs the job; where the processor lacks `isa`, with the baseline.
pub(crate) fn run<J: Job>(isa: Isa, job: J) {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => {
            if let Some(simd) = Avx512::detect() {
                // SAFETY: the token says that the processor has what `avx512` is compiled for.
                return unsafe { avx512(job, simd) };
            }
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => {
            if let Some(simd) = Avx2::detect() {
                // SAFETY: as above.
                return unsafe { avx2(job, simd) };
            }
        }
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => return job.run(Neon(())),
        Isa::Baseline => {}
    }
    job.run(Baseline);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")]
fn avx512<J: Job>(job: J, simd: Avx512) {
    job.run(simd);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn avx2<J: Job>(job: J, simd: Avx2) {
    job.run(simd);
}

#[derive(Clone, Copy)]
pub(super) struct Baseline;

impl Simd for Baseline {
    const TILES: Tiles = Tiles::Narrow;
    type Block = [f32; LANES];

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Self::Block {
        *from
    }
    #[inline(always)]
    fn store(self, block: Self::Block, to: &mut [f32; LANES]) {
        *to = block;
    }
    #[inline(always)]
    fn splat(self, v: f32) -> Self::Block {
        [v; LANES]
    }
    #[inline(always)]
    fn add(self, a: Self::Block, b: Self::Block) -> Self::Block {
        std::array::from_fn(|i| a[i] + b[i])
    }
    #[inline(always)]
    fn max(self, a: Self::Block, b: Self::Block) -> Self::Block {
        std::array::from_fn(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn fma(self, a: Self::Block, b: Self::Block, c: Self::Block) -> Self::Block {
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{LANES, Simd, Tiles};
    use std::arch::x86_64::*;

    #[derive(Clone, Copy)]
    pub(in super::super) struct Avx512(());

    impl Avx512 {
        pub fn detect() -> Option<Self> {
            let has = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma");
            has.then_some(Self(()))
        }
    }

    // SAFETY of all of these: `self` exists only where the processor has AVX-512F, and the references are to 16 floats.
    impl Simd for Avx512 {
        const TILES: Tiles = Tiles::Wide;
        type Block = __m512;

        #[inline(always)]
        fn load(self, from: &[f32; LANES]) -> __m512 {
            unsafe { _mm512_loadu_ps(from.as_ptr()) }
        }
        #[inline(always)]
        fn store(self, block: __m512, to: &mut [f32; LANES]) {
            unsafe { _mm512_storeu_ps(to.as_mut_ptr(), block) }
        }
        #[inline(always)]
        fn splat(self, v: f32) -> __m512 {
            unsafe { _mm512_set1_ps(v) }
        }
        #[inline(always)]
        fn add(self, a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_add_ps(a, b) }
        }
        #[inline(always)]
        fn max(self, a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_max_ps(a, b) }
        }
        #[inline(always)]
        fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
            unsafe { _mm512_fmadd_ps(a, b, c) }
        }
    }

    #[derive(Clone, Copy)]
    pub(in super::super) struct Avx2(());

    impl Avx2 {
        pub fn detect() -> Option<Self> {
            (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(Self(()))
        }
    }

    // SAFETY of all of these: `self` exists only where the processor has AVX2 and FMA, and the references are to 16
    // floats, of which each access takes 8.
    impl Simd for Avx2 {
        const TILES: Tiles = Tiles::Middle;
        type Block = [__m256; 2];

        #[inline(always)]
        fn load(self, from: &[f32; LANES]) -> Self::Block {
            unsafe { [_mm256_loadu_ps(from.as_ptr()), _mm256_loadu_ps(from.as_ptr().add(8))] }
        }
        #[inline(always)]
        fn store(self, [a, b]: Self::Block, to: &mut [f32; LANES]) {
            unsafe {
                _mm256_storeu_ps(to.as_mut_ptr(), a);
                _mm256_storeu_ps(to.as_mut_ptr().add(8), b);
            }
        }
        #[inline(always)]
        fn splat(self, v: f32) -> Self::Block {
            let v = unsafe { _mm256_set1_ps(v) };
            [v, v]
        }
        #[inline(always)]
        fn add(self, a: Self::Block, b: Self::Block) -> Self::Block {
            unsafe { [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])] }
        }
        #[inline(always)]
        fn max(self, a: Self::Block, b: Self::Block) -> Self::Block {
            unsafe { [_mm256_max_ps(a[0], b[0]), _mm256_max_ps(a[1], b[1])] }
        }
        #[inline(always)]
        fn fma(self, a: Self::Block, b: Self::Block, c: Self::Block) -> Self::Block {
            unsafe { [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])] }
        }
    }
}

#[cfg(target_arch = "aarch64")]
use arm::Neon;

#[cfg(target_arch = "aarch64")]
mod arm {
    use super::{LANES, Simd, Tiles};
    use std::arch::aarch64::*;

    #[derive(Clone, Copy)]
    pub(in super::super) struct Neon(pub(super) ());

    // SAFETY of all of these: NEON is part of every aarch64 target that this crate builds for, and the references are
    // to 16 floats, of which each access takes 4.
    impl Simd for Neon {
        const TILES: Tiles = Tiles::Middle;
        type Block = [float32x4_t; 4];

        #[inline(always)]
        fn load(self, from: &[f32; LANES]) -> Self::Block {
            let at = |i: usize| unsafe { vld1q_f32(from.as_ptr().add(4 * i)) };
            [at(0), at(1), at(2), at(3)]
        }
        #[inline(always)]
        fn store(self, block: Self::Block, to: &mut [f32; LANES]) {
            for (i, part) in block.into_iter().enumerate() {
                unsafe { vst1q_f32(to.as_mut_ptr().add(4 * i), part) }
            }
        }
        #[inline(always)]
        fn splat(self, v: f32) -> Self::Block {
            [unsafe { vdupq_n_f32(v) }; 4]
        }
        #[inline(always)]
        fn add(self, a: Self::Block, b: Self::Block) -> Self::Block {
            let at = |i: usize| unsafe { vaddq_f32(a[i], b[i]) };
            [at(0), at(1), at(2), at(3)]
        }
        #[inline(always)]
        fn max(self, a: Self::Block, b: Self::Block) -> Self::Block {
            let at = |i: usize| unsafe { vmaxq_f32(a[i], b[i]) };
            [at(0), at(1), at(2), at(3)]
        }
        #[inline(always)]
        fn fma(self, a: Self::Block, b: Self::Block, c: Self::Block) -> Self::Block {
            let at = |i: usize| unsafe { vfmaq_f32(c[i], a[i], b[i]) };
            [at(0), at(1), at(2), at(3)]
        }
    }
}
