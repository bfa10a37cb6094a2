//! Bearer tokens, from a file with one in each line. It is read with each request, so that tokens can be changed while the
//! bridge runs; what is compared are digests, in constant time.

use crate::settings::ImageAccess;
use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};
use std::path::Path;
use subtle::{Choice, ConstantTimeEq};

/// A file of tokens is no larger.
const MAX_FILE: u64 = 64 << 10;
/// A token is no shorter, so that it cannot be guessed.
const MIN_TOKEN: usize = 16;

/// Whether somebody with this `Authorization` may go on.
pub async fn admits(access: &ImageAccess, authorization: Option<&[u8]>) -> Result<bool> {
    let ImageAccess::Tokens(file) = access else { return Ok(true) };
    let tokens = read(file).await?;
    let Some((scheme, token)) = authorization.and_then(|value| value.split_at_checked(7)) else {
        return Ok(false);
    };
    let given = Sha256::digest(token.trim_ascii());
    let known = tokens
        .iter()
        .fold(Choice::from(0), |known, token| known | Sha256::digest(token)[..].ct_eq(&given[..]));
    Ok(scheme.eq_ignore_ascii_case(b"Bearer ") && bool::from(known))
}

/// The tokens of a file. An error names the file and the remedy.
pub async fn read(file: &Path) -> Result<Vec<String>> {
    let remedy = || format!("anonymise.token_file {}", file.display());
    let size = tokio::fs::metadata(file).await.with_context(remedy)?.len();
    ensure!(size <= MAX_FILE, "{}: is longer than 64 KiB; keep one token in each line", remedy());
    let text = tokio::fs::read_to_string(file).await.with_context(remedy)?;
    let tokens: Vec<_> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect();
    ensure!(
        !tokens.is_empty() && tokens.iter().all(|token| token.len() >= MIN_TOKEN),
        "{}: wants a token of {MIN_TOKEN} characters or more in each line, such as `openssl rand -hex 32` makes",
        remedy()
    );
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_a_whole_token_of_the_file_is_let_in() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tokens");
        std::fs::write(&file, "# of the door\n0123456789abcdef\n\n  fedcba9876543210  \n").unwrap();
        let access = ImageAccess::Tokens(file.clone());
        let admits = async |value: &str| admits(&access, Some(value.as_bytes())).await.unwrap();
        assert!(admits("Bearer 0123456789abcdef").await && admits("bearer fedcba9876543210").await);
        for bad in
            ["", "Bearer ", "Bearer 0123456789abcde", "Bearer # of the door", "Basic  0123456789abcdef"]
        {
            assert!(!admits(bad).await, "{bad}");
        }
        assert!(!super::admits(&access, None).await.unwrap());
        assert!(super::admits(&ImageAccess::Open, None).await.unwrap());
        for bad in ["", "short\n"] {
            std::fs::write(&file, bad).unwrap();
            let error = super::admits(&access, None).await.unwrap_err().to_string();
            assert!(error.contains("tokens: wants a token of 16"), "{error}");
        }
    }
}
