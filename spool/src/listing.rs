//! Stored records, page by page.

use crate::format::{Key, decode};
use crate::{Listed, SpoolError};

/// Entries read at once.
pub(crate) const PAGE: usize = 256;

type Page = Vec<(Key, sled::IVec)>;
type ReadPage<'a> = dyn FnMut(u64) -> Result<Page, SpoolError> + 'a;

/// Stored records, oldest first.
pub struct Listing<'a> {
    read: Box<ReadPage<'a>>,
    page: std::vec::IntoIter<(Key, sled::IVec)>,
    from: Option<u64>,
}

impl<'a> Listing<'a> {
    pub(crate) fn new(read: impl FnMut(u64) -> Result<Page, SpoolError> + 'a) -> Self {
        Self { read: Box::new(read), page: Vec::new().into_iter(), from: Some(0) }
    }

    fn next_entry(&mut self) -> Result<Option<(Key, sled::IVec)>, SpoolError> {
        if self.page.len() == 0
            && let Some(from) = self.from
        {
            let page = (self.read)(from).inspect_err(|_| self.from = None)?;
            self.from = page.last().map(|(key, _)| key.place.order + 1);
            self.page = page.into_iter();
        }
        Ok(self.page.next())
    }
}

impl Iterator for Listing<'_> {
    type Item = Result<Listed, SpoolError>;

    /// Ends after an error.
    fn next(&mut self) -> Option<Self::Item> {
        let (key, bytes) = match self.next_entry() {
            Ok(found) => found?,
            Err(e) => return Some(Err(e)),
        };
        let entry = decode(key, &bytes);
        Some(Ok(Listed {
            order: key.place.order,
            id: entry.map(|e| e.id),
            header: entry.map_or_else(Vec::new, |e| e.header.to_vec()),
            payload_len: entry.map_or(0, |e| u64::from(e.payload_len)),
            payload: key.kind.payload(),
        }))
    }
}
