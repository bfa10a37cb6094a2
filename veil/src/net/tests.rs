//! Our own executor against tract, on every set of instructions that this processor has.

use std::io::Write;
use std::time::Instant;

use tract_onnx::prelude::*;

use super::*;

fn model(name: &str) -> Option<Vec<u8>> {
    let dir = std::env::var_os("EDGEVEIL_MODELS").filter(|v| !v.is_empty());
    let dir = dir.or_else(|| {
        assert!(
            std::env::var_os("CI").is_none(),
            "EDGEVEIL_MODELS is not set: run veil/fetch-models and export it"
        );
        let _ =
            writeln!(std::io::stderr(), "skipped: EDGEVEIL_MODELS is not set (run veil/fetch-models DIR)");
        None
    })?;
    Some(std::fs::read(std::path::Path::new(&dir).join(name)).unwrap())
}

/// Smooth shapes with noise, so that all layers have something to do.
fn picture(width: usize, height: usize) -> Vec<u8> {
    let mut state = 1u32;
    (0..3 * width * height)
        .map(|i| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (x, y) = ((i / 3 % width) as f32, (i / 3 / width) as f32);
            let wave = 90.0 * (x / 9.0 + (i % 3) as f32).sin() + 60.0 * (y / 13.0).cos();
            (128.0 + wave + (state >> 27) as f32).clamp(0.0, 255.0) as u8
        })
        .collect()
}

fn oracle(model: &[u8], rgb: &[u8], width: usize, blue_first: bool) -> Vec<Vec<f32>> {
    let height = rgb.len() / 3 / width;
    let input = tract_ndarray::Array4::from_shape_fn((1, 3, height, width), |(_, c, y, x)| {
        f32::from(rgb[3 * (y * width + x) + if blue_first { 2 - c } else { c }])
    });
    let onnx = tract_onnx::onnx().with_ignore_value_info(true).with_ignore_output_shapes(true);
    let plan = onnx
        .model_for_read(&mut &model[..])
        .and_then(|m| m.with_input_fact(0, f32::fact([1, 3, height, width]).into()))
        .and_then(|m| m.into_optimized()?.into_runnable())
        .unwrap();
    let outputs = plan.run(tvec!(Tensor::from(input).into())).unwrap();
    outputs.iter().map(|o| o.as_plain_ram().unwrap().as_slice::<f32>().unwrap().to_vec()).collect()
}

/// Largest difference between channel `c` of `map` and every `step`th number of `want`, relative to numbers over 1.
fn difference(map: &Map, c: usize, want: &[f32], offset: usize, step: usize) -> f32 {
    let got = map.numbers().iter().skip(c).step_by(16);
    let want = want.iter().skip(offset).step_by(step);
    assert_eq!(got.len(), want.len());
    got.zip(want).map(|(a, b)| (a - b).abs() / b.abs().max(1.0)).fold(0.0, f32::max)
}

const SIZES: [(usize, usize); 5] = [(32, 32), (64, 32), (96, 160), (320, 256), (416, 224)];

#[test]
fn yunet_is_what_tract_computes() {
    let Some(file) = model("yunet.onnx") else { return };
    let net = YuNet::load(&file).unwrap();
    let mut buffers = YuNetBuffers::default();
    for (width, height) in SIZES {
        let rgb = picture(width, height);
        let want = oracle(&file, &rgb, width, true);
        for isa in Isa::available() {
            for (level, map) in net.forward(isa, &rgb, width, &mut buffers).iter().enumerate() {
                let mut worst = difference(map, 0, &want[level], 0, 1);
                worst = worst.max(difference(map, 5, &want[3 + level], 0, 1));
                for c in 0..4 {
                    worst = worst.max(difference(map, 1 + c, &want[6 + level], c, 4));
                }
                assert!(worst < 1e-4, "{isa:?} {width}x{height} level {level}: off by {worst}");
            }
        }
    }
}

#[test]
fn centerface_is_what_tract_computes() {
    let Some(file) = model("centerface.onnx") else { return };
    let net = CenterFace::load(&file).unwrap();
    let mut buffers = CenterFaceBuffers::default();
    for (width, height) in SIZES {
        let rgb = picture(width, height);
        let want = oracle(&file, &rgb, width, false);
        for isa in Isa::available() {
            let map = net.forward(isa, &rgb, width, &mut buffers);
            let spots = width * height / 16;
            let mut worst = difference(map, 0, &want[0], 0, 1);
            for c in 0..2 {
                worst = worst.max(difference(map, 1 + c, &want[1][c * spots..(c + 1) * spots], 0, 1));
                worst = worst.max(difference(map, 3 + c, &want[2][c * spots..(c + 1) * spots], 0, 1));
            }
            assert!(worst < 1e-4, "{isa:?} {width}x{height}: off by {worst}");
        }
    }
}

/// `cargo test --release -p edgeveil-veil -- --ignored --nocapture bench`: milliseconds for each set of instructions, the least of 30 runs.
#[test]
#[ignore = "a measurement"]
fn bench() {
    let (Some(yunet), Some(centerface)) = (model("yunet.onnx"), model("centerface.onnx")) else { return };
    let (yunet, centerface) = (YuNet::load(&yunet).unwrap(), CenterFace::load(&centerface).unwrap());
    let (mut y, mut c) = (YuNetBuffers::default(), CenterFaceBuffers::default());
    for (width, height) in [(320, 256), (416, 320), (640, 480)] {
        let rgb = picture(width, height);
        for isa in Isa::available() {
            let mut least = [f64::MAX; 2];
            for _ in 0..30 {
                let start = Instant::now();
                net_run(&yunet, isa, &rgb, width, &mut y);
                least[0] = least[0].min(start.elapsed().as_secs_f64() * 1e3);
                let start = Instant::now();
                std::hint::black_box(centerface.forward(isa, &rgb, width, &mut c));
                least[1] = least[1].min(start.elapsed().as_secs_f64() * 1e3);
            }
            println!("{width}x{height} {isa:?}: YuNet {:.2} ms, CenterFace {:.2} ms", least[0], least[1]);
        }
    }
}

fn net_run(net: &YuNet, isa: Isa, rgb: &[u8], width: usize, buffers: &mut YuNetBuffers) {
    std::hint::black_box(net.forward(isa, rgb, width, buffers));
}
