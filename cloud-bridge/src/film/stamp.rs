//! The time, written into a frame.

use super::frame::Frame;
use jiff::{Timestamp, tz::TimeZone};

/// Digits and what stands between them, five by seven: a row each, the highest bit is the left one.
const GLYPHS: [(char, [u8; 7]); 13] = [
    ('0', [0b01110, 0b10001, 0b10011, 0b10101, 0b11001, 0b10001, 0b01110]),
    ('1', [0b00100, 0b01100, 0b00100, 0b00100, 0b00100, 0b00100, 0b01110]),
    ('2', [0b01110, 0b10001, 0b00001, 0b00110, 0b01000, 0b10000, 0b11111]),
    ('3', [0b11110, 0b00001, 0b00001, 0b01110, 0b00001, 0b00001, 0b11110]),
    ('4', [0b00010, 0b00110, 0b01010, 0b10010, 0b11111, 0b00010, 0b00010]),
    ('5', [0b11111, 0b10000, 0b11110, 0b00001, 0b00001, 0b10001, 0b01110]),
    ('6', [0b00110, 0b01000, 0b10000, 0b11110, 0b10001, 0b10001, 0b01110]),
    ('7', [0b11111, 0b00001, 0b00010, 0b00100, 0b01000, 0b01000, 0b01000]),
    ('8', [0b01110, 0b10001, 0b10001, 0b01110, 0b10001, 0b10001, 0b01110]),
    ('9', [0b01110, 0b10001, 0b10001, 0b01111, 0b00001, 0b00010, 0b01100]),
    ('-', [0, 0, 0, 0b11111, 0, 0, 0]),
    (':', [0, 0b00100, 0b00100, 0, 0b00100, 0b00100, 0]),
    (' ', [0; 7]),
];

/// Writes a moment into the lower left corner, white on black.
pub fn stamp(frame: &mut Frame, milliseconds: i64, zone: &TimeZone) {
    let Ok(moment) = Timestamp::from_millisecond(milliseconds) else { return };
    let text = moment.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string();
    let dot = (frame.width / 320).max(1);
    let (width, height) = ((text.len() * 6 + 1) * dot, 9 * dot);
    if width > frame.width || height > frame.height {
        return;
    }
    let top = frame.height - height;
    let mut fill = |x: usize, y: usize, value: u8| {
        let at = (y * frame.width + x) * 3;
        frame.pixels[at..at + 3].fill(value);
    };
    for y in 0..height {
        for x in 0..width {
            let (column, row) = (x / dot, y / dot);
            let glyph = column.checked_sub(1).and_then(|column| text.chars().nth(column / 6));
            let rows = glyph.and_then(|glyph| GLYPHS.iter().find(|(known, _)| *known == glyph));
            let lit = rows.is_some_and(|(_, rows)| {
                let (bit, row) = ((column - 1) % 6, row.wrapping_sub(1));
                bit < 5 && row < 7 && rows[row] >> (4 - bit) & 1 == 1
            });
            fill(x, top + y, if lit { 255 } else { 0 });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_written_and_a_small_frame_left_alone() {
        let grey =
            |width: usize, height: usize| Frame { width, height, pixels: vec![90; width * height * 3] };
        let mut frame = grey(320, 240);
        stamp(&mut frame, 0, &TimeZone::UTC);
        let drawn = |frame: &Frame| {
            let lines = frame.pixels.chunks_exact(frame.width * 3).rev().take(8).skip(1);
            let line = |line: &[u8]| {
                line.chunks_exact(3).skip(1).take(29).map(|p| if p[0] == 255 { '#' } else { '.' }).collect()
            };
            let mut lines: Vec<String> = lines.map(line).collect();
            lines.reverse();
            lines
        };
        // The first five characters, 1970-
        assert_eq!(
            drawn(&frame),
            [
                "..#....###..#####..###.......",
                ".##...#...#.....#.#...#......",
                "..#...#...#....#..#..##......",
                "..#....####...#...#.#.#.#####",
                "..#.......#..#....##..#......",
                "..#......#...#....#...#......",
                ".###...##....#.....###.......",
            ]
        );
        let mut small = grey(40, 40);
        stamp(&mut small, 0, &TimeZone::UTC);
        assert!(small.pixels.iter().all(|value| *value == 90));
    }
}
