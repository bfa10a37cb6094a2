//! Without a model there is no image: what a user meets before having run `veil/fetch-models`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use edgeveil_veil::{Settings, Veil, VeilError};

#[test]
fn a_missing_model_names_the_command() {
    let folder = std::env::temp_dir().join("edgeveil-no-models-here");
    let settings = Settings { model: folder.join("centerface.onnx"), ..Settings::default() };
    let e = Veil::open(&settings).unwrap_err();
    assert!(matches!(e, VeilError::ModelMissing { .. }));
    assert!(
        e.to_string().ends_with(&format!("not found: run `veil/fetch-models {}`", folder.display())),
        "{e}"
    );
}

#[test]
fn a_file_that_is_no_model_is_refused() {
    let file = std::env::temp_dir().join(format!("edgeveil-veil-no-model-{}.onnx", std::process::id()));
    std::fs::write(&file, b"not a model").unwrap();
    let opened = Veil::open(&Settings { model: file.clone(), ..Settings::default() });
    std::fs::remove_file(&file).unwrap();
    assert!(matches!(opened, Err(VeilError::ModelUnknown { .. })));
}

#[test]
fn a_folder_without_models_is_refused() {
    let opened = Veil::open(&Settings { model: std::env::temp_dir().join("none"), ..Settings::default() });
    assert!(matches!(opened, Err(VeilError::ModelMissing { .. })));
}

#[test]
fn settings_are_checked_before_the_model() {
    let settings = Settings { long_side: 333, ..Settings::default() };
    let e = Veil::open(&settings).unwrap_err();
    assert_eq!(e.to_string(), "long_side = 333 is out of range: a multiple of 32 from 64 to 4096");
}
