//! Values over time as SVG, made here: nothing is loaded for it.

use super::html::{View, number};
use crate::catalog::{AlertRow, Point};
use edgeveil_wire::Values;
use maud::{Markup, html};
use std::{collections::BTreeMap, fmt::Write};

/// Points of a line at the most.
pub const PARTS: u32 = 240;
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 120.0;
/// Values of a group that get a chart.
const MOST: usize = 16;

/// What is drawn.
pub struct Chart<'a> {
    /// In their order.
    pub points: &'a [Point],
    /// The left end: milliseconds since 1970.
    pub from: i64,
    /// The right one.
    pub to: i64,
    /// Marked.
    pub alerts: &'a [AlertRow],
}

/// One chart for each value, and one for the scores.
pub fn charts(view: &View, chart: &Chart<'_>) -> Markup {
    let mut lines: BTreeMap<String, Vec<(i64, f64)>> = BTreeMap::new();
    let mut scores = Vec::new();
    for point in chart.points {
        scores.extend(point.score.map(|score| (point.timestamp, score)));
        let values: Values = serde_json::from_str(&point.vals).unwrap_or_default();
        for (name, value) in values {
            lines.entry(name.to_string()).or_default().push((point.timestamp, value));
        }
    }
    html! {
        @for (name, line) in lines.iter().take(MOST) { (drawn(view, chart, name, line, None)) }
        @if !scores.is_empty() { (drawn(view, chart, "score", &scores, Some((0.0, 1.0)))) }
    }
}

fn drawn(
    view: &View,
    chart: &Chart<'_>,
    name: &str,
    line: &[(i64, f64)],
    range: Option<(f64, f64)>,
) -> Markup {
    let values = line.iter().map(|(_, value)| *value).filter(|value| value.is_finite());
    let least = values.clone().fold(f64::INFINITY, f64::min);
    let most = values.fold(f64::NEG_INFINITY, f64::max);
    let (low, high) = range.unwrap_or_else(|| {
        let room = ((most - least) * 0.08).max(most.abs() * 1e-6).max(1e-9);
        (least - room, most + room)
    });
    let x = |at: i64| (at - chart.from) as f64 / (chart.to - chart.from).max(1) as f64 * WIDTH;
    let y = |value: f64| HEIGHT - (value - low) / (high - low) * HEIGHT;
    // Where much is missing the line is not drawn on.
    let gap = (chart.to - chart.from) / i64::from(PARTS) * 6;
    let (mut path, mut last) = (String::new(), None);
    for (at, value) in line.iter().filter(|(_, value)| value.is_finite()) {
        let goes_on = last.is_some_and(|last| at - last <= gap);
        let _ = write!(path, "{}{:.1} {:.1}", if goes_on { "L" } else { "M" }, x(*at), y(*value));
        last = Some(*at);
    }
    let marks: Vec<_> =
        chart.alerts.iter().filter(|alert| (chart.from..=chart.to).contains(&alert.timestamp)).collect();
    let newest = line.last().map_or(f64::NAN, |(_, value)| *value);
    let told = format!(
        "{name}: {} to {}, at last {}, {} alerts",
        number(least),
        number(most),
        number(newest),
        marks.len()
    );
    html! {
        figure .chart {
            figcaption { strong { (name) } " " span .dim { (number(least)) " to " (number(most)) ", at last " (number(newest)) } }
            svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) preserveAspectRatio="none" role="img" aria-label=(told) {
                @for alert in &marks {
                    line .mark .critical[alert.severity == "critical"] x1=(format!("{:.1}", x(alert.timestamp))) x2=(format!("{:.1}", x(alert.timestamp))) y1="0" y2=(HEIGHT) {}
                }
                path .line d=(path) {}
            }
            p .ends .dim { (view.time(chart.from)) (view.time(chart.to)) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::html::tests::view;

    #[test]
    fn a_line_stops_where_readings_are_missing() {
        let point =
            |at: i64, value: f64| Point { timestamp: at, score: None, vals: format!("{{\"t\":{value}}}") };
        let mut points: Vec<_> = (0..10).map(|n| point(n * 1000, 20.0)).collect();
        points.extend((200..210).map(|n| point(n * 1000, 21.0)));
        let chart = Chart { points: &points, from: 0, to: 240_000, alerts: &[] };
        let drawn = charts(&view(), &chart).into_string();
        assert_eq!(drawn.matches('M').count(), 2, "{drawn}");
        assert!(drawn.contains("20 to 21") && !drawn.contains("NaN") && !drawn.contains("inf"), "{drawn}");
    }

    #[test]
    fn a_value_that_never_changes_is_a_line_too() {
        for value in [0.0, 1e12, -5.0] {
            let points = [0, 1000].map(|at| Point {
                timestamp: at,
                score: Some(0.4),
                vals: format!("{{\"t\":{value}}}"),
            });
            let chart = Chart { points: &points, from: 0, to: 240_000, alerts: &[] };
            let drawn = charts(&view(), &chart).into_string();
            assert!(!drawn.contains("NaN") && !drawn.contains("inf") && drawn.contains(">score<"), "{drawn}");
        }
    }
}
