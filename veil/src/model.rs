//! The model files: which ones are known, where they lie, and that a file is what it should be.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use sha2::{Digest, Sha256};

use crate::VeilError;

/// Larger files are not read to the end: no known model comes near.
const MAX_MODEL: u64 = 64 << 20;

/// The detectors that this crate knows how to feed and read. Both are MIT-licensed; `veil/fetch-models` gets them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ModelKind {
    /// CenterFace (Xu et al., arXiv 1911.03599): the more thorough one.
    #[default]
    CenterFace,
    /// YuNet 2023mar (Wu et al., Machine Intelligence Research 20, 2023): several times cheaper.
    YuNet,
}

impl ModelKind {
    const ALL: [ModelKind; 2] = [ModelKind::CenterFace, ModelKind::YuNet];

    /// The name under which `veil/fetch-models` stores it.
    pub fn file_name(self) -> &'static str {
        match self {
            ModelKind::CenterFace => "centerface.onnx",
            ModelKind::YuNet => "yunet.onnx",
        }
    }

    /// The SHA-256 that the file must have.
    pub fn sha256(self) -> &'static str {
        match self {
            ModelKind::CenterFace => "09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc",
            ModelKind::YuNet => "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
        }
    }
}

impl FromStr for ModelKind {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "centerface" => Ok(ModelKind::CenterFace),
            "yunet" => Ok(ModelKind::YuNet),
            _ => Err(format!("unknown model {s:?}: use centerface or yunet")),
        }
    }
}

impl fmt::Display for ModelKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ModelKind::CenterFace => "centerface",
            ModelKind::YuNet => "yunet",
        })
    }
}

/// Where `veil/fetch-models` puts the models when it is not told: `$EDGEVEIL_MODELS`, else `edgeveil/models` in
/// `$XDG_CACHE_HOME` or `~/.cache`.
pub fn models_dir() -> PathBuf {
    let var = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    var("EDGEVEIL_MODELS").unwrap_or_else(|| {
        var("XDG_CACHE_HOME")
            .or_else(|| var("HOME").map(|home| home.join(".cache")))
            .unwrap_or_else(|| PathBuf::from("."))
            .join("edgeveil/models")
    })
}

/// Reads the file once and vouches for these very bytes.
pub(crate) fn read(path: &Path, kind: ModelKind) -> Result<Vec<u8>, VeilError> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path);
    match file.and_then(|f| f.take(MAX_MODEL).read_to_end(&mut bytes)) {
        Ok(_) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(VeilError::ModelMissing { path: path.into() });
        }
        Err(source) => return Err(VeilError::ModelUnreadable { path: path.into(), source }),
    }
    let sha256: String = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
    if sha256 != kind.sha256() {
        return Err(VeilError::ModelUnknown { path: path.into(), kind, sha256 });
    }
    Ok(bytes)
}

/// The folder for which `fetch-models` has to be run.
pub(crate) fn folder_of(path: &Path) -> String {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir.display().to_string(),
        _ => ".".into(),
    }
}

pub(crate) fn mismatch_hint(path: &Path, sha256: &str) -> String {
    match ModelKind::ALL.into_iter().find(|kind| kind.sha256() == sha256) {
        Some(kind) => format!("it is the {kind} model; set the model's kind to {kind}"),
        None => format!(
            "it is damaged or another version; delete it and run `veil/fetch-models {}`",
            folder_of(path)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_model_says_what_to_run() {
        let e = read(Path::new("/nowhere/models/centerface.onnx"), ModelKind::CenterFace).unwrap_err();
        assert_eq!(
            e.to_string(),
            "model file /nowhere/models/centerface.onnx not found: run `veil/fetch-models /nowhere/models`"
        );
    }

    #[test]
    fn another_models_file_is_recognised() {
        let hint = mismatch_hint(Path::new("x.onnx"), ModelKind::YuNet.sha256());
        assert_eq!(hint, "it is the yunet model; set the model's kind to yunet");
    }

    #[test]
    fn names_round_trip() {
        for kind in ModelKind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
    }
}
