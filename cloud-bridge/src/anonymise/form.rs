//! Forms with files (`multipart/form-data`, RFC 7578), as far as one field of one is needed.

use memchr::memmem;

/// Fields of a form at the most.
pub const MAX_FIELDS: usize = 32;
/// A field's own header is no longer.
const MAX_HEADER: usize = 8 << 10;

/// One field.
#[derive(Debug, PartialEq, Eq)]
pub struct Part<'b> {
    /// Its name, if it tells one.
    pub name: Option<String>,
    /// What it holds.
    pub content: &'b [u8],
}

/// Why a body is no form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    /// It is not built as one.
    #[error("no valid form: {0}")]
    Broken(&'static str),
    /// It has more fields than there may be.
    #[error("a form has {MAX_FIELDS} fields at the most")]
    TooMany,
}

/// The boundary that a Content-Type names (RFC 2046, 5.1.1).
pub fn boundary(content_type: &str) -> Option<String> {
    let boundary = parameter(content_type, "boundary")?;
    let fits = (1..=70).contains(&boundary.len())
        && boundary.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')
        && !boundary.ends_with(' ');
    fits.then_some(boundary)
}

/// The fields of a form, in order.
pub fn parts<'b>(body: &'b [u8], boundary: &str) -> Result<Vec<Part<'b>>, FormError> {
    let broken = |why| Err(FormError::Broken(why));
    let first = format!("--{boundary}");
    let between = format!("\r\n{first}");
    let mut rest = if body.starts_with(first.as_bytes()) {
        &body[first.len()..]
    } else {
        // Something for readers who know no forms may stand before.
        match memmem::find(body, between.as_bytes()) {
            Some(at) => &body[at + between.len()..],
            None => return broken("its boundary is not there"),
        }
    };
    let mut parts = Vec::new();
    loop {
        if rest.starts_with(b"--") {
            return Ok(parts);
        }
        let padding = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        let Some(after) = rest[padding..].strip_prefix(b"\r\n") else {
            return broken("its last boundary is not there");
        };
        if parts.len() == MAX_FIELDS {
            return Err(FormError::TooMany);
        }
        // A field without a header begins with the empty line.
        let (header, after) = match after.strip_prefix(b"\r\n") {
            Some(content) => (&after[..0], content),
            None => match memmem::find(&after[..after.len().min(MAX_HEADER)], b"\r\n\r\n") {
                Some(end) => (&after[..end], &after[end + 4..]),
                None => return broken("the header of a field has no end"),
            },
        };
        // The line's end before a boundary is the boundary's; so a field of nothing ends with the empty line itself.
        let content = match after.strip_prefix(first.as_bytes()) {
            Some(_) => 0,
            None => match memmem::find(after, between.as_bytes()) {
                Some(end) => end,
                None => return broken("it ends within a field"),
            },
        };
        parts.push(Part { name: name(header), content: &after[..content] });
        let end = if after.starts_with(first.as_bytes()) { first.len() } else { content + between.len() };
        rest = &after[end..];
    }
}

fn name(header: &[u8]) -> Option<String> {
    let header = String::from_utf8_lossy(header);
    let (_, disposition) = header
        .split("\r\n")
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("content-disposition"))?;
    parameter(disposition, "name")
}

/// A parameter of a header's value: `value; name=token; other="in quotes"`.
fn parameter(value: &str, wanted: &str) -> Option<String> {
    let (_, mut rest) = value.split_once(';')?;
    loop {
        let (name, after) = rest.split_once('=')?;
        let (text, after) = match after.trim_start().strip_prefix('"') {
            Some(quoted) => in_quotes(quoted)?,
            None => {
                let end = after.find(';').unwrap_or(after.len());
                (after[..end].trim().to_owned(), &after[end..])
            }
        };
        if name.trim().trim_start_matches(';').trim().eq_ignore_ascii_case(wanted) {
            return Some(text);
        }
        rest = after;
    }
}

/// What stands before the closing quote, and what stands behind it. A backslash takes the next character as it is.
fn in_quotes(quoted: &str) -> Option<(String, &str)> {
    let mut text = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((text, &quoted[at + 1..])),
            '\\' => text.push(characters.next()?.1),
            other => text.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    type Field<'b> = (Option<String>, &'b [u8]);

    fn names_and_contents(body: &[u8]) -> Result<Vec<Field<'_>>, FormError> {
        Ok(parts(body, "b")?.into_iter().map(|part| (part.name, part.content)).collect())
    }

    #[test]
    fn fields_are_found_with_whatever_they_hold() {
        let body = b"ignored\r\n--b\r\nContent-Disposition: form-data; name=\"note\"\r\n\r\na\r\n--c\r\n--b  \r\n\
            content-type: image/png\r\nCONTENT-DISPOSITION: form-data; filename=\"; name=\\\"x\\\"\"; name=image\r\n\r\n\x89\r\n\r\n\0\r\n\
            --b\r\n\r\nno header\r\n--b\r\n\r\n--b--\r\nignored";
        let found = names_and_contents(body).unwrap();
        let wanted: Vec<Field<'_>> = vec![
            (Some("note".to_owned()), b"a\r\n--c"),
            (Some("image".to_owned()), b"\x89\r\n\r\n\0"),
            (None, b"no header"),
            (None, b""),
        ];
        assert_eq!(found, wanted);
        assert_eq!(names_and_contents(b"--b--"), Ok(vec![]));
    }

    #[test]
    fn what_is_cut_or_no_form_is_told() {
        let whole = b"--b\r\ncontent-disposition: form-data; name=image\r\n\r\nxyz\r\n--b--";
        assert_eq!(names_and_contents(whole).unwrap().len(), 1);
        for end in 0..whole.len() {
            assert!(names_and_contents(&whole[..end]).is_err(), "{end}");
        }
        assert!(names_and_contents(b"no form at all").is_err());
        assert!(names_and_contents(&[b"--b\r\n", &[b'x'; 9000][..], b"\r\n\r\n\r\n--b--"].concat()).is_err());
        let many = [b"--b\r\n\r\nx\r\n".repeat(MAX_FIELDS), b"--b--".to_vec()].concat();
        assert_eq!(names_and_contents(&many).unwrap().len(), MAX_FIELDS);
        let many = [b"--b\r\n\r\nx\r\n".repeat(MAX_FIELDS + 1), b"--b--".to_vec()].concat();
        assert_eq!(names_and_contents(&many), Err(FormError::TooMany));
    }

    #[test]
    fn a_boundary_is_read_from_its_parameter() {
        let of = |rest: &str| boundary(&format!("multipart/form-data{rest}"));
        assert_eq!(of("; boundary=abc"), Some("abc".to_owned()));
        assert_eq!(of("; charset=utf-8; Boundary=\"a b:c\""), Some("a b:c".to_owned()));
        let long = "x".repeat(71);
        for bad in [
            "",
            ";",
            "; boundary",
            "; boundary=",
            "; boundary=\"",
            "; boundary=\"a \"",
            "; boundary=\u{e9}",
            &format!("; boundary={long}"),
        ] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }
}
