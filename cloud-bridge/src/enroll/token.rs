//! One-time tokens: `7-m3kq8t…`, the number it is listed by and 160 random bits.

use anyhow::Context;
use sha2::{Digest, Sha256};
use std::str::FromStr;

/// Crockford's digits: none that is taken for another.
const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const SECRET: usize = 20;

/// A token as its holder has it. It has no `Debug`, so that it gets into no log.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    number: i64,
    text: String,
}

/// What was given for a token is none.
#[derive(Debug, thiserror::Error)]
#[error("this is no token; copy the whole of it, as `edgeveil-bridge enroll token` has printed it")]
pub struct TokenError;

/// The part of a token that cannot be guessed.
#[derive(Clone)]
pub struct Secret([u8; SECRET]);

impl Secret {
    /// A new one.
    pub fn random() -> anyhow::Result<Self> {
        let mut secret = [0; SECRET];
        getrandom::fill(&mut secret).context("random bytes for a token")?;
        Ok(Self(secret))
    }
}

impl Token {
    /// The token of a number.
    pub fn new(number: i64, secret: &Secret) -> Self {
        let digits = secret.0.chunks(5).flat_map(|chunk| {
            let bits = chunk.iter().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
            (0..8).rev().map(move |digit| char::from(DIGITS[(bits >> (5 * digit) & 31) as usize]))
        });
        Self { number, text: format!("{number}-{}", digits.collect::<String>()) }
    }

    /// What it is listed by.
    pub fn number(&self) -> i64 {
        self.number
    }

    /// What is typed on the device.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What is kept of it. It has so many random bits that a fast hash is enough.
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.text.as_bytes()).into()
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        let (number, secret) = text.split_once('-').ok_or(TokenError)?;
        let digits = secret.len() == SECRET / 5 * 8 && secret.bytes().all(|byte| DIGITS.contains(&byte));
        let number = number.parse().map_err(|_| TokenError)?;
        if digits { Ok(Self { number, text: text.to_owned() }) } else { Err(TokenError) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_read_back() {
        let secret = Secret::random().unwrap();
        let token = Token::new(7, &secret);
        assert!(token.text().starts_with("7-") && token.text().len() == 34, "{}", token.text());
        let read: Token = format!(" {}\n", token.text()).parse().unwrap();
        assert!(read == token && read.hash() == token.hash());
        assert!(Token::new(8, &secret).hash() != token.hash());
        assert!(Token::new(7, &Secret::random().unwrap()).hash() != token.hash());
        let all: String =
            (0..32_u8).map(|n| Token::new(1, &Secret([n * 8; SECRET])).text().to_owned()).collect();
        assert!(DIGITS.iter().all(|digit| all.contains(char::from(*digit))));
        for bad in ["", "7", "7-", "x-m3kq8t", &token.text()[..33], &format!("{}0", token.text())] {
            assert!(bad.parse::<Token>().is_err(), "{bad}");
        }
    }
}
