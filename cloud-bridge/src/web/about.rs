//! What this is, and what it promises.

use super::html::{View, page};
use maud::{Markup, html};

pub async fn about(view: View) -> Markup {
    let body = html! {
        p { "Edgeveil bridge " (env!("CARGO_PKG_VERSION")) "." }
        h2 { "What it promises" }
        ul {
            li { "Pictures leave a device only after the faces that were found in them have been covered. A frame that could not be searched leaves it wholly covered, or not at all." }
            li { "What a device has recorded is kept there until it is stored here, and is stored once." }
            li { "Gaps show: each record has its number within its device's start, and what was dropped is counted by reason." }
        }
        h2 { "What it cannot promise" }
        ul {
            li { "Detectors miss faces: small, turned away, half hidden, in bad light. The figures are in the project's README, measured on public pictures." }
            li { "Somebody may be known by more than the face: clothes, gait, place and time." }
            li { "Whoever may see these pages sees the covered pictures; whoever has the device has what waits on its disk." }
            li { "A disk that is full long enough loses the oldest pictures, then readings, as the device's settings say; that is counted, and shown." }
        }
        h2 { "By keyboard" }
        p { "In galleries the arrow keys go from picture to picture and Enter opens one; with a picture open, ← and → go to the newer and the older one." }
        h2 { "For programs" }
        p { "The same data is at " code { "/v1/devices" } ", " code { "/v1/alerts" } ", " code { "/v1/images" } " below a device and " code { "/v1/devices/NAME/readings/GROUP" } ", by a token of " code { "access.tokens" } ", as " a href="/v1/openapi.json" { "described" } "; counters are at " a href="/metrics" { "/metrics" } "." }
    };
    page(&view, "/about", "About", &body)
}
