//! One model with whatever computes it: our own executor, or tract where that is the faster one.

use std::sync::Arc;

use super::tract::Tract;
use super::{centerface, yunet};
use crate::geometry::Detection;
use crate::net::{self, Isa};
use crate::{Engine, ModelKind};

pub(super) struct Network {
    kind: ModelKind,
    how: How,
}

enum How {
    YuNet(Arc<net::YuNet>, Box<net::YuNetBuffers>, Isa),
    CenterFace(Arc<net::CenterFace>, Box<net::CenterFaceBuffers>, Isa),
    Tract(Tract),
}

/// Every `step`th number of a slice: one channel of a network's output, in whatever layout it comes.
#[derive(Clone, Copy)]
pub(super) struct Channel<'a> {
    numbers: &'a [f32],
    step: usize,
}

impl<'a> Channel<'a> {
    /// `spots` numbers, if that many are there.
    pub fn new(numbers: &'a [f32], step: usize, spots: usize) -> Result<Self, String> {
        if spots == 0 || numbers.len() <= (spots - 1) * step {
            return Err(format!("an output of {} numbers is too short for {spots} spots", numbers.len()));
        }
        Ok(Channel { numbers, step })
    }

    pub fn at(&self, spot: usize) -> f32 {
        self.numbers[spot * self.step]
    }
}

impl Network {
    pub fn open(bytes: &[u8], kind: ModelKind, engine: Engine, threads: usize) -> Result<Network, String> {
        let isa = Isa::best();
        let how = match (engine.resolved(), kind) {
            (Engine::Tract, _) => How::Tract(Tract::open(bytes)?),
            (_, ModelKind::YuNet) => {
                let buffers = Box::new(net::YuNetBuffers::new(threads));
                How::YuNet(Arc::new(net::YuNet::load(bytes)?), buffers, isa)
            }
            (_, ModelKind::CenterFace) => {
                let buffers = Box::new(net::CenterFaceBuffers::new(threads));
                How::CenterFace(Arc::new(net::CenterFace::load(bytes)?), buffers, isa)
            }
        };
        Ok(Network { kind, how })
    }

    /// Boxes of at least this score in pixels of the input (packed RGB, both sides multiples of 32).
    pub fn look(
        &mut self,
        rgb: &[u8],
        (width, height): (u32, u32),
        least: f32,
    ) -> Result<Vec<Detection>, String> {
        let w = width as usize;
        match &mut self.how {
            How::YuNet(net, buffers, isa) => {
                let outputs = net.forward(*isa, rgb, w, buffers);
                let mut found = Vec::new();
                for (map, stride) in outputs.iter().zip(yunet::STRIDES) {
                    let spots = map.height * map.width;
                    let channel = |c: usize| Channel::new(&map.numbers()[c..], 16, spots);
                    let boxes = [channel(1)?, channel(2)?, channel(3)?, channel(4)?];
                    let level = yunet::Level { class: channel(0)?, object: channel(5)?, boxes };
                    yunet::decode(&level, stride, (map.width, map.height), least, &mut found)?;
                }
                Ok(found)
            }
            How::CenterFace(net, buffers, isa) => {
                let map = net.forward(*isa, rgb, w, buffers);
                let spots = map.height * map.width;
                let channel = |c: usize| Channel::new(&map.numbers()[c..], 16, spots);
                let outputs = centerface::Outputs {
                    heat: channel(0)?,
                    size: [channel(1)?, channel(2)?],
                    offset: [channel(3)?, channel(4)?],
                };
                centerface::decode(&outputs, (map.width, map.height), least)
            }
            How::Tract(tract) => tract.look(self.kind, rgb, (width, height), least),
        }
    }
}
