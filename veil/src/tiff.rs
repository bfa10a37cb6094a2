//! As much of TIFF as EXIF needs here: the orientation of a picture that comes in, and a look at the block that goes out.

/// Largest EXIF block that goes into a veiled JPEG: ids, times and names need some hundred bytes, pictures need more.
const MAX_BLOCK: usize = 8 * 1024;

struct Tiff<'a> {
    bytes: &'a [u8],
    big_endian: bool,
}

impl<'a> Tiff<'a> {
    fn open(bytes: &'a [u8]) -> Option<Self> {
        let big_endian = match bytes.get(..4)? {
            b"II*\0" => false,
            b"MM\0*" => true,
            _ => return None,
        };
        Some(Tiff { bytes, big_endian })
    }

    fn u16(&self, at: usize) -> Option<u16> {
        let raw = self.bytes.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if self.big_endian { u16::from_be_bytes(raw) } else { u16::from_le_bytes(raw) })
    }

    fn u32(&self, at: usize) -> Option<u32> {
        let raw = self.bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
        Some(if self.big_endian { u32::from_be_bytes(raw) } else { u32::from_le_bytes(raw) })
    }

    /// Position and number of the entries of the first directory.
    fn first_directory(&self) -> Option<(usize, usize)> {
        let at = self.u32(4)? as usize;
        Some((at.checked_add(2)?, usize::from(self.u16(at)?)))
    }
}

/// The EXIF orientation (1-8) of a TIFF block; 1 where there is none.
pub(crate) fn orientation(block: &[u8]) -> u16 {
    let find = || {
        let tiff = Tiff::open(block)?;
        let (at, count) = tiff.first_directory()?;
        let entry = (0..count).map(|i| at + 12 * i).find(|&entry| tiff.u16(entry) == Some(0x0112))?;
        tiff.u16(entry + 8)
    };
    find().filter(|o| (1..=8).contains(o)).unwrap_or(1)
}

/// Refuses a block that could carry a picture past the veil: a second directory is where cameras keep their thumbnail.
pub(crate) fn refuse_pictures(block: &[u8]) -> Result<(), &'static str> {
    const BROKEN: &str = "it is no TIFF block";
    if block.len() > MAX_BLOCK {
        return Err("it is larger than 8 KiB");
    }
    let tiff = Tiff::open(block).ok_or(BROKEN)?;
    let (at, count) = tiff.first_directory().ok_or(BROKEN)?;
    if tiff.u32(at + 12 * count).ok_or(BROKEN)? != 0 {
        return Err("it has a second directory, which is a thumbnail's place");
    }
    if block.windows(3).any(|w| w == [0xff, 0xd8, 0xff]) {
        return Err("it has a JPEG in it");
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A TIFF block with an orientation and a pointer to the next directory.
    pub(crate) fn block(orientation: u16, next: u32) -> Vec<u8> {
        let mut b = b"MM\0*\0\0\0\x08\0\x01".to_vec();
        b.extend([0x01, 0x12, 0, 3, 0, 0, 0, 1]);
        b.extend(orientation.to_be_bytes());
        b.extend([0, 0]);
        b.extend(next.to_be_bytes());
        b
    }

    #[test]
    fn reads_the_orientation() {
        assert_eq!(orientation(&block(6, 0)), 6);
        assert_eq!(orientation(&block(9, 0)), 1);
        for cut in 0..block(6, 0).len() {
            orientation(&block(6, 0)[..cut]);
        }
        assert_eq!(orientation(b"II*\0\xff\xff\xff\xff"), 1);
    }

    #[test]
    fn thumbnails_do_not_pass() {
        assert!(refuse_pictures(&block(1, 0)).is_ok());
        assert!(refuse_pictures(&block(1, 26)).is_err());
        assert!(refuse_pictures(b"Exif\0\0MM").is_err());
        let mut long = block(1, 0);
        long.resize(MAX_BLOCK + 1, 0);
        assert!(refuse_pictures(&long).is_err());
        let mut hidden = block(1, 0);
        hidden.extend([0xff, 0xd8, 0xff, 0xe0]);
        assert!(refuse_pictures(&hidden).is_err());
    }
}
