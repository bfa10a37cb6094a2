//! Our own executor against tract, on every set of instructions that this processor has, and both against onnxruntime
//! (which `tests/run` installs by `veil/fetch-onnxruntime`).

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
    let mut buffers = [1, 2, 3].map(YuNetBuffers::new);
    for (width, height) in SIZES {
        let rgb = picture(width, height);
        let want = oracle(&file, &rgb, width, true);
        let ways = Isa::available().into_iter().flat_map(|isa| [0, 1, 2].map(|i| (isa, i)));
        for (isa, threads) in ways {
            let buffers = &mut buffers[threads];
            for (level, map) in net.forward(isa, &rgb, width, buffers).iter().enumerate() {
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
    let mut buffers = [1, 2, 3].map(CenterFaceBuffers::new);
    for (width, height) in SIZES {
        let rgb = picture(width, height);
        let want = oracle(&file, &rgb, width, false);
        let ways = Isa::available().into_iter().flat_map(|isa| [0, 1, 2].map(|i| (isa, i)));
        for (isa, threads) in ways {
            let map = net.forward(isa, &rgb, width, &mut buffers[threads]);
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

/// What onnxruntime computes, by a small Python script. None (said once) where it is not installed, except in CI.
fn reference(model: &str, rgb: &[u8], width: usize, blue_first: bool) -> Option<Vec<Vec<f32>>> {
    use std::process::{Command, Stdio};
    let Some(folder) = std::env::var_os("EDGEVEIL_ONNXRUNTIME").filter(|v| !v.is_empty()) else {
        assert!(
            std::env::var_os("CI").is_none(),
            "EDGEVEIL_ONNXRUNTIME is not set: run veil/fetch-onnxruntime and export it"
        );
        let _ = writeln!(
            std::io::stderr(),
            "skipped: EDGEVEIL_ONNXRUNTIME is not set (run veil/fetch-onnxruntime DIR)"
        );
        return None;
    };
    let dir = std::env::var_os("EDGEVEIL_MODELS")?;
    let mut python = Command::new("python3")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/outputs.py"))
        .arg(std::path::Path::new(&dir).join(model))
        .args([width.to_string(), (rgb.len() / 3 / width).to_string()])
        .arg(if blue_first { "bgr" } else { "rgb" })
        .env("PYTHONPATH", folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 starts");
    // It reads all of its input before it writes.
    python.stdin.take().unwrap().write_all(rgb).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success(), "the reference failed (see above)");
    let mut rest = &output.stdout[..];
    let mut outputs = Vec::new();
    while let Some((length, more)) = rest.split_first_chunk::<8>() {
        let (numbers, more) = more.split_at(4 * u64::from_le_bytes(*length) as usize);
        outputs.push(numbers.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect());
        rest = more;
    }
    Some(outputs)
}

fn worst_of(got: &[f32], want: &[f32]) -> f32 {
    assert_eq!(got.len(), want.len());
    got.iter().zip(want).map(|(a, b)| (a - b).abs() / b.abs().max(1.0)).fold(0.0, f32::max)
}

#[test]
fn yunet_is_what_onnxruntime_computes() {
    let Some(file) = model("yunet.onnx") else { return };
    let net = YuNet::load(&file).unwrap();
    let mut buffers = YuNetBuffers::new(1);
    for (width, height) in [(320, 256), (96, 160)] {
        let rgb = picture(width, height);
        let Some(want) = reference("yunet.onnx", &rgb, width, true) else { return };
        let by_tract = oracle(&file, &rgb, width, true);
        let mut worst = by_tract.iter().zip(&want).map(|(a, b)| worst_of(a, b)).fold(0.0, f32::max);
        assert!(by_tract.len() == want.len() && worst < 1e-4, "tract {width}x{height}: off by {worst}");
        println!("{width}x{height}: tract is off by {worst:.1e}");
        for isa in Isa::available() {
            worst = 0.0;
            for (level, map) in net.forward(isa, &rgb, width, &mut buffers).iter().enumerate() {
                worst = worst.max(difference(map, 0, &want[level], 0, 1));
                worst = worst.max(difference(map, 5, &want[3 + level], 0, 1));
                for c in 0..4 {
                    worst = worst.max(difference(map, 1 + c, &want[6 + level], c, 4));
                }
            }
            assert!(worst < 1e-4, "{isa:?} {width}x{height}: off by {worst}");
            println!("{width}x{height}: {isa:?} is off by {worst:.1e}");
        }
    }
}

#[test]
fn centerface_is_what_onnxruntime_computes() {
    let Some(file) = model("centerface.onnx") else { return };
    let net = CenterFace::load(&file).unwrap();
    let mut buffers = CenterFaceBuffers::new(1);
    for (width, height) in [(320, 256), (96, 160)] {
        let rgb = picture(width, height);
        let Some(want) = reference("centerface.onnx", &rgb, width, false) else { return };
        let by_tract = oracle(&file, &rgb, width, false);
        let mut worst = by_tract.iter().zip(&want).map(|(a, b)| worst_of(a, b)).fold(0.0, f32::max);
        assert!(by_tract.len() == want.len() && worst < 1e-4, "tract {width}x{height}: off by {worst}");
        println!("{width}x{height}: tract is off by {worst:.1e}");
        for isa in Isa::available() {
            let map = net.forward(isa, &rgb, width, &mut buffers);
            let spots = width * height / 16;
            worst = difference(map, 0, &want[0], 0, 1);
            for c in 0..2 {
                worst = worst.max(difference(map, 1 + c, &want[1][c * spots..(c + 1) * spots], 0, 1));
                worst = worst.max(difference(map, 3 + c, &want[2][c * spots..(c + 1) * spots], 0, 1));
            }
            assert!(worst < 1e-4, "{isa:?} {width}x{height}: off by {worst}");
            println!("{width}x{height}: {isa:?} is off by {worst:.1e}");
        }
    }
}

/// `cargo test --release -p edgeveil-veil -- --ignored --nocapture bench`: milliseconds for each set of instructions, the least of 30 runs.
#[test]
#[ignore = "a measurement"]
fn bench() {
    let (Some(yunet), Some(centerface)) = (model("yunet.onnx"), model("centerface.onnx")) else { return };
    let (yunet, centerface) = (YuNet::load(&yunet).unwrap(), CenterFace::load(&centerface).unwrap());
    let (mut y, mut c) = (YuNetBuffers::new(1), CenterFaceBuffers::new(1));
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
