//! A device's settings: those that run, and those that are wanted of it.

use super::{Failed, Web, html::View, not_found, refuse};
use crate::catalog::SettingsRow;
use axum::{
    Form,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Redirect, Response},
};
use edgeveil_wire::{Desired, DesiredAnswer, DeviceName, HealthTuning, Name, Reported, Tuning, Verdict};
use maud::{Markup, html};

/// One line: its name in forms, what it is called, and its values.
struct Line {
    name: String,
    label: String,
    runs: String,
    wanted: String,
}

/// The part of a device's page.
pub fn section(view: &View, device: &DeviceName, known: &SettingsRow) -> Markup {
    let reported = known.reported.as_deref().and_then(|json| Reported::from_json(json.as_bytes()).ok());
    let desired = known.desired.as_deref().and_then(|json| Desired::from_json(json.as_bytes()).ok());
    html! {
        section aria-labelledby="settings" {
            h2 #settings { "Settings" }
            @match &reported {
                None => p .dim { "It has told none: its agent is an older one, or its settings say link.remote_settings = false." },
                Some(reported) => {
                    (state(view, known, reported.desired.as_ref(), desired.as_ref()))
                    @let lines = lines(&reported.settings, desired.as_ref().map(|desired| &desired.settings));
                    form method="post" action=(format!("/devices/{device}/settings")) {
                        input type="hidden" name="token" value=(view.who.token);
                        div .scroll tabindex="0" role="region" aria-label="Settings" { table {
                            thead { tr { th scope="col" { "Setting" } th scope="col" { "Runs" } th scope="col" { "Wanted" } } }
                            tbody { @for line in &lines { tr {
                                th scope="row" { (line.label) }
                                td { (line.runs) }
                                td {
                                    @if view.who.acts() { input name=(line.name) value=(line.wanted) maxlength="32" size="12" aria-label=(format!("{}, wanted", line.label)); }
                                    @else { (line.wanted) }
                                }
                            } } }
                        } }
                        @if view.who.acts() {
                            p .dim { "What is left empty is as in the device's own file. The agent starts its parts anew with what it takes; the veil and its masks cannot be set from here." }
                            button { "Send" }
                        }
                    }
                    @if let Some(at) = known.reported_at { p .dim { "As told " (view.ago(at)) } }
                }
            }
        }
    }
}

fn state(
    view: &View,
    known: &SettingsRow,
    answer: Option<&DesiredAnswer>,
    desired: Option<&Desired>,
) -> Markup {
    let by = known.desired_by.as_deref().unwrap_or("somebody");
    let since = html! { @if let Some(at) = known.desired_at { ", wanted by " (by) " " (view.ago(at)) } };
    match (desired, answer) {
        (Some(desired), Some(answer)) if answer.id == desired.id => match answer.state {
            Verdict::Applied => html! { p { "What is wanted runs" (since) "." } },
            Verdict::Refused => html! {
                div .problem role="alert" {
                    "The device does not take what is wanted" (since) ", and goes on as it was:"
                    ul { @for problem in &answer.problems { li { (problem) } } }
                }
            },
        },
        (Some(_), _) => {
            html! { p .problem { "Not answered yet" (since) ". The device gets it when it is connected." } }
        }
        (None, Some(answer)) => {
            html! { p { "Set by somebody else than this page (" code { (answer.id) } ")." } }
        }
        (None, None) => html! { p { "As in the device's own file." } },
    }
}

fn lines(runs: &Tuning, wanted: Option<&Tuning>) -> Vec<Line> {
    let mut lines = Vec::new();
    let text = |value: Option<String>| value.unwrap_or_default();
    let mut line = |name: String, label: String, runs: Option<String>, wanted: Option<String>| {
        lines.push(Line { name, label, runs: text(runs), wanted: text(wanted) });
    };
    let interval = |tuning: &Tuning| tuning.health.as_ref().and_then(|health| health.interval.clone());
    line(
        "health.interval".to_owned(),
        "health: interval".to_owned(),
        interval(runs),
        wanted.and_then(interval),
    );
    for (group, of) in &runs.sensor {
        let want = wanted.and_then(|wanted| wanted.sensor.get(group));
        let mut one = |key: &str, runs: Option<String>, wanted: Option<String>| {
            line(format!("sensor.{group}.{key}"), format!("sensor {group}: {key}"), runs, wanted);
        };
        one("rate", of.rate.map(number), want.and_then(|want| want.rate.map(number)));
        one("detect", of.detect.map(yes), want.and_then(|want| want.detect.map(yes)));
        one("alerts", of.alerts.clone(), want.and_then(|want| want.alerts.clone()));
    }
    for (camera, of) in &runs.camera {
        let want = wanted.and_then(|wanted| wanted.camera.get(camera));
        let mut one = |key: &str, runs: Option<String>, wanted: Option<String>| {
            line(format!("camera.{camera}.{key}"), format!("camera {camera}: {key}"), runs, wanted);
        };
        one("fps", of.fps.map(number), want.and_then(|want| want.fps.map(number)));
        one("every", of.every.clone(), want.and_then(|want| want.every.clone()));
        one(
            "quality",
            of.quality.map(|q| q.to_string()),
            want.and_then(|want| want.quality.map(|q| q.to_string())),
        );
    }
    lines
}

fn number(value: f64) -> String {
    value.to_string()
}

fn yes(value: bool) -> String {
    if value { "yes" } else { "no" }.to_owned()
}

/// From a form's fields; what is empty is not wanted.
fn read(fields: &[(String, String)]) -> Result<Tuning, String> {
    let mut tuning = Tuning::default();
    for (name, value) in fields {
        let value = value.trim();
        if value.is_empty() || name == "token" {
            continue;
        }
        let bad = |wants: &str| format!("{name}: `{value}`; wants {wants}");
        let number =
            || value.parse::<f64>().ok().filter(|number| number.is_finite()).ok_or_else(|| bad("a number"));
        let parts: Vec<_> = name.split('.').collect();
        match parts[..] {
            ["health", "interval"] => tuning.health = Some(HealthTuning { interval: Some(value.to_owned()) }),
            ["sensor", group, key] => {
                let group: Name = group.parse().map_err(|_| bad("a sensor group"))?;
                let sensor = tuning.sensor.entry(group).or_default();
                match key {
                    "rate" => sensor.rate = Some(number()?),
                    "detect" => {
                        sensor.detect = Some(match value {
                            "yes" | "true" => true,
                            "no" | "false" => false,
                            _ => return Err(bad("yes or no")),
                        });
                    }
                    "alerts" => sensor.alerts = Some(value.to_owned()),
                    _ => return Err(format!("{name}: there is no such setting")),
                }
            }
            ["camera", camera, key] => {
                let camera: Name = camera.parse().map_err(|_| bad("a camera"))?;
                let camera = tuning.camera.entry(camera).or_default();
                match key {
                    "fps" => camera.fps = Some(number()?),
                    "every" => camera.every = Some(value.to_owned()),
                    "quality" => camera.quality = Some(value.parse().map_err(|_| bad("1 to 100"))?),
                    _ => return Err(format!("{name}: there is no such setting")),
                }
            }
            _ => return Err(format!("{name}: there is no such setting")),
        }
    }
    Ok(tuning)
}

pub async fn want(
    State(web): State<Web>,
    view: View,
    Path(device): Path<String>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Failed> {
    let token = fields.iter().find(|(name, _)| name == "token").map_or("", |(_, token)| token);
    if let Some(refused) = refuse(&view.who, token) {
        return Ok(refused);
    }
    let Ok(device) = device.parse::<DeviceName>() else { return Ok(not_found("device")) };
    let settings = match read(&fields) {
        Ok(settings) => settings,
        Err(why) => return Ok((StatusCode::BAD_REQUEST, format!("{why}\n")).into_response()),
    };
    let mut random = [0; 8];
    if getrandom::fill(&mut random).is_err() {
        return Ok((StatusCode::SERVICE_UNAVAILABLE, "no random numbers\n").into_response());
    }
    let desired = Desired { id: format!("{:016x}", u64::from_be_bytes(random)), settings };
    if !web.wishes.want(&device, &desired, view.who.name(), view.now).await? {
        return Ok(not_found("device"));
    }
    Ok(Redirect::to(&format!("/devices/{device}#settings")).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(fields: &[(&str, &str)]) -> Vec<(String, String)> {
        fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_form_says_what_is_wanted_and_nothing_else() {
        let tuning = read(&fields(&[
            ("token", "x"),
            ("health.interval", " 1 min "),
            ("sensor.env.rate", "2.5"),
            ("sensor.env.detect", ""),
            ("sensor.soil.detect", "no"),
            ("camera.door.quality", "70"),
        ]))
        .unwrap();
        assert_eq!(
            serde_json::to_string(&tuning).unwrap(),
            r#"{"health":{"interval":"1 min"},"sensor":{"env":{"rate":2.5},"soil":{"detect":false}},"camera":{"door":{"quality":70}}}"#
        );
        assert_eq!(read(&fields(&[("token", "x"), ("health.interval", "")])).unwrap(), Tuning::default());
        let shown = lines(&tuning, Some(&tuning));
        assert!(
            shown
                .iter()
                .any(|line| line.name == "sensor.env.rate" && line.runs == "2.5" && line.wanted == "2.5")
        );
        for (name, value) in [
            ("sensor.env.rate", "fast"),
            ("sensor.env.rate", "inf"),
            ("sensor.env.veil", "off"),
            ("sensor.a b.rate", "1"),
            ("camera.door.quality", "300"),
            ("camera.door.masks", "[]"),
            ("veil.model", "x"),
            ("sensor.env.detect", "perhaps"),
        ] {
            assert!(read(&fields(&[(name, value)])).unwrap_err().starts_with(name), "{name}");
        }
    }
}
