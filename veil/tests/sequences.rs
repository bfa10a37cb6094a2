//! Moving pictures made from one photo, with the face's exact place in each frame: how much of it does a stream leave open?
//!
//! `EDGEVEIL_SEQUENCES` names a part of the names of those that are to be run (all unless told), `EDGEVEIL_PROFILE` the profile.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write;
use std::path::PathBuf;

use edgeveil_veil::{Cover, Face, Frame, Profile, Settings, Veil};

const WIDTH: usize = 320;
const HEIGHT: usize = 240;
const FRAMES: usize = 100;
/// The face in the photo: x0, y0, x1, y1.
const FACE: [f32; 4] = [176.0, 72.0, 274.0, 188.0];

struct Photo {
    pixels: Vec<u8>,
    side: usize,
}

/// Where the camera looks, and what stands in the way.
#[derive(Clone, Copy)]
struct View {
    /// The photo's pixel in the middle of the frame.
    centre: (f32, f32),
    /// Photo pixels per frame pixel.
    zoom: f32,
    /// Brightness.
    gain: f32,
    /// Columns of the frame that a pole hides.
    pole: Option<(f32, f32)>,
    /// Sensor noise in levels.
    noise: f32,
    /// Where in the frame the middle of a second head is, the first one's mirror image, in front of all.
    second: Option<(f32, f32)>,
}

const STILL: View =
    View { centre: (256.0, 190.0), zoom: 1.4, gain: 1.0, pole: None, noise: 0.0, second: None };

/// The middle of the face.
const MIDDLE: (f32, f32) = ((FACE[0] + FACE[2]) / 2.0, (FACE[1] + FACE[3]) / 2.0);

/// Half axes of the second head (with hair) in pixels of the photo.
const HEAD: (f32, f32) = (72.0, 92.0);

impl Photo {
    fn open(dir: &std::path::Path) -> Photo {
        let file = std::fs::File::open(dir.join("astronaut.png")).unwrap();
        let decoder = image::codecs::png::PngDecoder::new(std::io::BufReader::new(file)).unwrap();
        let image = image::DynamicImage::from_decoder(decoder).unwrap().into_rgb8();
        Photo { side: image.width() as usize, pixels: image.into_raw() }
    }

    /// Bilinear; grey beyond the photo.
    fn at(&self, x: f32, y: f32) -> [f32; 3] {
        let (x, y) = (x - 0.5, y - 0.5);
        let last = (self.side - 1) as f32;
        if x < 0.0 || y < 0.0 || x >= last || y >= last {
            return [110.0; 3];
        }
        let (fx, fy) = (x.fract(), y.fract());
        let pixel = |x: usize, y: usize, c: usize| f32::from(self.pixels[3 * (y * self.side + x) + c]);
        let (x, y) = (x as usize, y as usize);
        std::array::from_fn(|c| {
            let upper = pixel(x, y, c) * (1.0 - fx) + pixel(x + 1, y, c) * fx;
            let lower = pixel(x, y + 1, c) * (1.0 - fx) + pixel(x + 1, y + 1, c) * fx;
            upper * (1.0 - fy) + lower * fy
        })
    }
}

impl View {
    fn frame(&self, photo: &Photo, seed: usize) -> Vec<u8> {
        let mut state = (seed as u32).wrapping_mul(2_654_435_761) | 1;
        let mut noise = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((state >> 8) as f32 / (1 << 23) as f32 - 1.0) * self.noise
        };
        let mut pixels = Vec::with_capacity(3 * WIDTH * HEIGHT);
        for y in 0..HEIGHT {
            for x in 0..WIDTH {
                let hidden = self.pole.is_some_and(|(from, to)| (from..to).contains(&(x as f32)));
                let colour = if hidden {
                    [60.0, 70.0, 50.0]
                } else if let Some((dx, dy)) = self.in_second_head(x, y) {
                    photo.at(MIDDLE.0 - dx, MIDDLE.1 + dy)
                } else {
                    let px = (x as f32 + 0.5 - WIDTH as f32 / 2.0) * self.zoom + self.centre.0;
                    let py = (y as f32 + 0.5 - HEIGHT as f32 / 2.0) * self.zoom + self.centre.1;
                    photo.at(px, py)
                };
                let light = noise();
                pixels.extend(colour.map(|v| (v * self.gain + light).clamp(0.0, 255.0) as u8));
            }
        }
        pixels
    }

    /// What a pixel of the frame is from the middle of the second head, in pixels of the photo, if it lies in that.
    fn in_second_head(&self, x: usize, y: usize) -> Option<(f32, f32)> {
        let (cx, cy) = self.second?;
        let (dx, dy) = ((x as f32 + 0.5 - cx) * self.zoom, (y as f32 + 0.5 - cy) * self.zoom);
        ((dx / HEAD.0).hypot(dy / HEAD.1) <= 1.0).then_some((dx, dy))
    }

    /// The faces' boxes in the frame: the photo's, and the second head's.
    fn boxes(&self) -> Vec<[f32; 4]> {
        let [x0, y0, x1, y1] = FACE;
        let (w, h) = ((x1 - x0) / self.zoom, (y1 - y0) / self.zoom);
        let cx = (MIDDLE.0 - self.centre.0) / self.zoom + WIDTH as f32 / 2.0;
        let cy = (MIDDLE.1 - self.centre.1) / self.zoom + HEIGHT as f32 / 2.0;
        let of = |(cx, cy): (f32, f32)| [cx - w / 2.0, cy - h / 2.0, w, h];
        std::iter::once((cx, cy)).chain(self.second).map(of).collect()
    }

    /// Of each face the pixels of its ellipse that show it; none of a face of which less than half shows.
    fn faces(&self) -> Vec<([f32; 4], Pixels)> {
        let boxes = self.boxes().into_iter().enumerate();
        let seen = |(i, [left, top, w, h]): (usize, [f32; 4])| {
            let mut seen = Vec::new();
            for y in 0..HEIGHT {
                for x in 0..WIDTH {
                    let dx = (x as f32 + 0.5 - left) / w * 2.0 - 1.0;
                    let dy = (y as f32 + 0.5 - top) / h * 2.0 - 1.0;
                    let hidden = self.pole.is_some_and(|(from, to)| (from..to).contains(&(x as f32)))
                        || (i == 0 && self.in_second_head(x, y).is_some());
                    if dx * dx + dy * dy <= 1.0 && !hidden {
                        seen.push((x, y));
                    }
                }
            }
            if (seen.len() as f32) < 0.5 * std::f32::consts::PI / 4.0 * w * h {
                seen.clear();
            }
            ([left, top, w, h], seen)
        };
        boxes.map(seen).collect()
    }
}

type Motion = Box<dyn Fn(f32) -> View>;

/// Places, x and y.
type Pixels = Vec<(usize, usize)>;

/// `t` counts frames.
fn motions() -> Vec<(&'static str, Motion)> {
    fn shake(t: f32, much: f32) -> (f32, f32) {
        let wild = |k: f32| ((t * k).sin() * 43_758.547).fract() * 2.0 - 1.0;
        (much * wild(12.9), much * wild(78.2))
    }
    let at = |dx: f32, dy: f32| (STILL.centre.0 + dx, STILL.centre.1 + dy);
    let mut all: Vec<(&'static str, Motion)> = vec![
        ("still", Box::new(|_| STILL)),
        ("still, noise", Box::new(|_| View { noise: 8.0, ..STILL })),
        ("very slow pan", Box::new(move |t| View { centre: at(0.3 * t, 0.0), ..STILL })),
        ("slow pan", Box::new(move |t| View { centre: at(-60.0 + 1.2 * t, 0.0), ..STILL })),
        (
            "pan",
            Box::new(move |t| View { centre: at(-120.0 + 240.0 * (t / 25.0).sin().abs(), 0.0), ..STILL }),
        ),
        ("fast pan", Box::new(move |t| View { centre: at(130.0 * (t / 6.0).sin(), 0.0), ..STILL })),
        ("tilt", Box::new(move |t| View { centre: at(0.0, 70.0 * (t / 12.0).sin()), ..STILL })),
        (
            "circle",
            Box::new(move |t| View { centre: at(80.0 * (t / 9.0).sin(), 50.0 * (t / 9.0).cos()), ..STILL }),
        ),
        (
            "diagonal, noise",
            Box::new(move |t| View { centre: at(1.5 * t - 75.0, t - 50.0), noise: 8.0, ..STILL }),
        ),
        ("zoom in", Box::new(|t| View { zoom: 1.9 - 0.011 * t, ..STILL })),
        ("zoom out", Box::new(|t| View { zoom: 0.8 + 0.012 * t, ..STILL })),
        ("breathing zoom", Box::new(|t| View { zoom: 1.4 + 0.5 * (t / 8.0).sin(), ..STILL })),
        ("small face, pan", Box::new(move |t| View { centre: at(-60.0 + 1.5 * t, 0.0), zoom: 2.6, ..STILL })),
        (
            "jitter",
            Box::new(move |t| View {
                centre: {
                    let s = shake(t, 5.0);
                    at(s.0, s.1)
                },
                ..STILL
            }),
        ),
        (
            "strong jitter",
            Box::new(move |t| View {
                centre: {
                    let s = shake(t, 16.0);
                    at(s.0, s.1)
                },
                ..STILL
            }),
        ),
        (
            "jitter, noise",
            Box::new(move |t| View {
                centre: {
                    let s = shake(t, 8.0);
                    at(s.0, s.1)
                },
                noise: 10.0,
                ..STILL
            }),
        ),
        ("a pole passes", Box::new(|t| View { pole: Some((4.0 * t - 60.0, 4.0 * t - 25.0)), ..STILL })),
        ("a wide pole passes", Box::new(|t| View { pole: Some((5.0 * t - 120.0, 5.0 * t - 40.0)), ..STILL })),
        ("lights go down and up", Box::new(|t| View { gain: 0.65 + 0.35 * (t / 10.0).cos(), ..STILL })),
        ("a lamp flickers", Box::new(|t| View { gain: if t as u32 % 7 == 3 { 0.5 } else { 1.0 }, ..STILL })),
        ("slow dusk", Box::new(|t| View { gain: 1.0 - 0.006 * t, ..STILL })),
    ];
    let meetings: [(&'static str, Motion); 4] = [
        (
            "two cross",
            Box::new(move |t| View {
                centre: at(-60.0, 0.0),
                second: Some((340.0 - 3.6 * t, 110.0)),
                ..STILL
            }),
        ),
        (
            "two cross quickly",
            Box::new(move |t| View {
                second: Some((160.0 + 150.0 * (t / 7.0).sin(), 100.0)),
                centre: at(40.0, 0.0),
                ..STILL
            }),
        ),
        (
            "two small ones cross, noise",
            Box::new(move |t| View {
                zoom: 2.6,
                noise: 8.0,
                second: Some((300.0 - 2.8 * t, 85.0)),
                centre: at(0.0, 0.0),
                ..STILL
            }),
        ),
        (
            "one stays before the other, then goes",
            Box::new(move |t| View { second: Some((125.0 + (4.0 * t - 200.0).max(0.0), 70.0)), ..STILL }),
        ),
    ];
    all.extend(meetings);
    let enters: [(&'static str, Motion); 3] = [
        (
            "enters from the right",
            Box::new(move |t| View { centre: at(-230.0 + (3.0 * t).min(230.0), 0.0), ..STILL }),
        ),
        (
            "enters from the left and stays",
            Box::new(move |t| View { centre: at(230.0 - (5.0 * t).min(230.0), 0.0), ..STILL }),
        ),
        (
            "enters from below",
            Box::new(move |t| View { centre: at(0.0, -200.0 + (2.5 * t).min(200.0)), ..STILL }),
        ),
    ];
    all.extend(enters);
    all
}

fn models() -> Option<PathBuf> {
    let dir = std::env::var_os("EDGEVEIL_MODELS").filter(|v| !v.is_empty());
    if dir.is_none() {
        assert!(
            std::env::var_os("CI").is_none(),
            "EDGEVEIL_MODELS is not set: run veil/fetch-models and export it"
        );
        let _ =
            writeln!(std::io::stderr(), "skipped: EDGEVEIL_MODELS is not set (run veil/fetch-models DIR)");
    }
    dir.map(PathBuf::from)
}

/// Whether a box is this face's: its middle lies in it, and it is neither half nor twice as wide.
fn is_of(face: &Face, [x, y, w, h]: [f32; 4]) -> bool {
    let (cx, cy) = (face.x + face.width / 2.0, face.y + face.height / 2.0);
    (x..x + w).contains(&cx) && (y..y + h).contains(&cy) && face.width > 0.5 * w && face.width < 2.0 * w
}

#[test]
fn a_moving_face_stays_covered() {
    let Some(dir) = models() else { return };
    let photo = Photo::open(&dir);
    let told = |name: &str| std::env::var(name).unwrap_or_default();
    let profiles = match told("EDGEVEIL_PROFILE").as_str() {
        "" => vec![Profile::default()],
        name => vec![name.parse().unwrap()],
    };
    for profile in profiles {
        let settings = Settings { model: dir.clone(), cover: Cover::Solid, profile, ..Settings::default() };
        let first = Veil::open(&settings).unwrap();
        let (mut sum, mut frames, mut searched) = (Sum::default(), 0, 0);
        let mut open_for_long = Vec::new();
        for (name, motion) in motions() {
            if !name.contains(&told("EDGEVEIL_SEQUENCES")) {
                continue;
            }
            let mut veil = first.another();
            let mut of_this = Sum::default();
            // Of each face: whether it was covered before, frames for which it has been open, and the most of them.
            let mut runs = [(false, 0, 0); 2];
            let mut open = Vec::new();
            for t in 0..FRAMES {
                let view = motion(t as f32);
                let frame = Frame::from_rgb8(WIDTH as u32, HEIGHT as u32, view.frame(&photo, t)).unwrap();
                let before = veil.counters().searched;
                let image = veil.veil(frame).unwrap();
                let fresh = veil.counters().searched > before;
                for ((bounds, seen), (known, run, longest)) in view.faces().into_iter().zip(&mut runs) {
                    if seen.is_empty() {
                        *run = 0;
                        continue;
                    }
                    let fill = |&&(x, y): &&(usize, usize)| {
                        image.pixels()[3 * (y * WIDTH + x)..][..3] == [40, 42, 46]
                    };
                    let is_covered = seen.iter().filter(fill).count() as f32 >= 0.9 * seen.len() as f32;
                    let found = image.faces().iter().any(|face| !face.held && is_of(face, bounds));
                    of_this.pairs += 1;
                    of_this.covered += u32::from(is_covered);
                    of_this.found += u32::from(found);
                    of_this.found_fresh += u32::from(found && fresh);
                    if is_covered {
                        (*known, *run) = (true, 0);
                    } else {
                        open.push(t);
                        *run += 1;
                        if *known {
                            *longest = (*longest).max(*run);
                        }
                    }
                }
            }
            let counters = veil.counters();
            (frames, searched) = (frames + counters.frames, searched + counters.searched);
            println!(
                "{profile}, {name}: {} of {} frames searched, {of_this}, open in {open:?}",
                counters.searched, counters.frames
            );
            sum.add(of_this);
            if runs.iter().any(|(_, _, longest)| *longest > 1) {
                open_for_long.push(name);
            }
        }
        println!("{profile}: {sum}; {searched} of {frames} frames searched");
        assert!(open_for_long.is_empty(), "{profile}: open for more than a frame: {open_for_long:?}");
        assert!(f64::from(sum.covered) >= 0.995 * f64::from(sum.pairs), "{profile}: {sum}");
    }
}

/// Counts of (face, frame) pairs.
#[derive(Default, Clone, Copy)]
struct Sum {
    pairs: u32,
    covered: u32,
    /// With a detection, of this frame or (where nothing changed) of the last one that was searched.
    found: u32,
    /// With a detection in the very frame.
    found_fresh: u32,
}

impl Sum {
    fn add(&mut self, other: Sum) {
        self.pairs += other.pairs;
        self.covered += other.covered;
        self.found += other.found;
        self.found_fresh += other.found_fresh;
    }
}

impl std::fmt::Display for Sum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Sum { pairs, covered, found, found_fresh } = self;
        let share = |n: &u32| 100.0 * f64::from(*n) / f64::from((*pairs).max(1));
        write!(
            f,
            "{covered} of {pairs} (face, frame) pairs covered ({:.2} %), {:.1} % by a detection ({:.1} % in the same frame)",
            share(covered),
            share(found),
            share(found_fresh)
        )
    }
}

/// The gate cannot keep a face from being noticed: a background which has, in each of the gate's cells, exactly the face's
/// brightness does not hide that one has come.
#[test]
fn a_face_as_bright_as_its_background_is_noticed_at_once() {
    let Some(dir) = models() else { return };
    let photo = Photo::open(&dir);
    let settings = Settings { model: dir, cover: Cover::Solid, search_every: 100, ..Settings::default() };
    let mut veil = Veil::open(&settings).unwrap();
    let view = View { zoom: 1.6, ..STILL };
    let shown = view.frame(&photo, 0);
    // The same picture as mosaic: cells of 4 pixels are those of a frame 320 pixels wide.
    let mut camouflage = shown.clone();
    for y in (0..HEIGHT).step_by(4) {
        for x in (0..WIDTH).step_by(4) {
            for c in 0..3 {
                let at = |i: usize| 3 * ((y + i / 4) * WIDTH + x + i % 4) + c;
                let mean = (0..16).map(|i| u32::from(shown[at(i)])).sum::<u32>() / 16;
                (0..16).for_each(|i| camouflage[at(i)] = mean as u8);
            }
        }
    }
    let frame = |pixels: &[u8]| Frame::from_rgb8(WIDTH as u32, HEIGHT as u32, pixels.to_vec()).unwrap();
    veil.veil(frame(&camouflage)).unwrap();
    veil.veil(frame(&camouflage)).unwrap();
    assert_eq!(veil.counters().searched, 1, "nothing had changed");
    veil.veil(frame(&shown)).unwrap();
    assert_eq!(veil.counters().searched, 2, "the gate let a change past");
}
