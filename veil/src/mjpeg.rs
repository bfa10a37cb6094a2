//! Cameras send MJPEG frames without Huffman tables: everybody is meant to know the ones of the JPEG standard (ITU-T T.81,
//! annex K.3). Here they are put back.

const DC_COUNTS: [[u8; 16]; 2] =
    [[0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0], [0, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0]];
const AC_COUNTS: [[u8; 16]; 2] = [
    [0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 0x7d],
    [0, 2, 1, 2, 4, 4, 3, 4, 7, 5, 4, 4, 0, 1, 2, 0x77],
];
const AC_VALUES: [&str; 2] = [
    "01020300041105122131410613516107227114328191a1082342b1c11552d1f02433627282090a161718191a25262728292a3435\
     363738393a434445464748494a535455565758595a636465666768696a737475767778797a838485868788898a92939495969798\
     999aa2a3a4a5a6a7a8a9aab2b3b4b5b6b7b8b9bac2c3c4c5c6c7c8c9cad2d3d4d5d6d7d8d9dae1e2e3e4e5e6e7e8e9eaf1f2f3f4\
     f5f6f7f8f9fa",
    "000102031104052131061241510761711322328108144291a1b1c109233352f0156272d10a162434e125f11718191a262728292a35\
     363738393a434445464748494a535455565758595a636465666768696a737475767778797a82838485868788898a929394959697\
     98999aa2a3a4a5a6a7a8a9aab2b3b4b5b6b7b8b9bac2c3c4c5c6c7c8c9cad2d3d4d5d6d7d8d9dae2e3e4e5e6e7e8e9eaf2f3f4f5\
     f6f7f8f9fa",
];

/// The file with the standard's tables, if it is a baseline JPEG that has none of its own.
pub(crate) fn with_tables(file: &[u8]) -> Option<Vec<u8>> {
    if !lacks_tables(file)? {
        return None;
    }
    let mut whole = Vec::with_capacity(file.len() + 420);
    whole.extend_from_slice(&file[..2]);
    for (class, counts) in [(0x00, &DC_COUNTS), (0x10, &AC_COUNTS)] {
        for (table, counts) in counts.iter().enumerate() {
            let values = if class == 0 { (0..12).collect() } else { hexadecimal(AC_VALUES[table]) };
            whole.extend([0xff, 0xc4]);
            whole.extend((19 + values.len() as u16).to_be_bytes());
            whole.push(class | table as u8);
            whole.extend_from_slice(counts);
            whole.extend(values);
        }
    }
    whole.extend_from_slice(&file[2..]);
    Some(whole)
}

/// None when the file ends before its first scan.
fn lacks_tables(file: &[u8]) -> Option<bool> {
    let mut at = 2;
    loop {
        let [0xff, marker] = *file.get(at..at + 2)? else { return None };
        match marker {
            0xc4 | 0xc2 => return Some(false),
            0xda => return Some(true),
            0xff => at += 1,
            _ => at += 2 + usize::from(u16::from_be_bytes([*file.get(at + 2)?, *file.get(at + 3)?])),
        }
    }
}

fn hexadecimal(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().filter_map(|c| c.to_digit(16)).map(|d| d as u8).collect();
    digits.as_chunks::<2>().0.iter().map(|[high, low]| high << 4 | low).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Frame, Limits};

    #[test]
    fn the_tables_have_as_many_values_as_codes() {
        for (counts, values) in AC_COUNTS.iter().zip(AC_VALUES) {
            let codes: usize = counts.iter().map(|&n| usize::from(n)).sum();
            assert_eq!(hexadecimal(values).len(), codes);
        }
        assert!(DC_COUNTS.iter().all(|counts| counts.iter().sum::<u8>() == 12));
    }

    #[test]
    fn a_frame_without_tables_is_read_as_with_them() {
        let pixels: Vec<u8> = (0..64 * 48 * 3).map(|i| (i * i / 31) as u8).collect();
        let mut file = Vec::new();
        let mut encoder = jpeg_encoder::Encoder::new(&mut file, 90);
        encoder.set_sampling_factor(jpeg_encoder::SamplingFactor::F_2_1);
        encoder.encode(&pixels, 64, 48, jpeg_encoder::ColorType::Rgb).unwrap();
        assert!(with_tables(&file).is_none());
        let mut bare = file.clone();
        let mut at = 2;
        while bare[at + 1] != 0xda {
            let length = 2 + usize::from(u16::from_be_bytes([bare[at + 2], bare[at + 3]]));
            if bare[at + 1] == 0xc4 {
                bare.drain(at..at + length);
            } else {
                at += length;
            }
        }
        assert!(bare.len() + 400 < file.len());
        let decode = |file: &[u8]| Frame::decode(file, &Limits::default()).unwrap().into_pixels();
        assert_eq!(decode(&bare), decode(&file));
        for cut in 0..at + 4 {
            let _ = with_tables(&bare[..cut]);
        }
    }
}
