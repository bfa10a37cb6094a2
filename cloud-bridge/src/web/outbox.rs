//! What goes on to others and what was refused: dead letters, the outbox, and what operators did.

use super::{
    Failed, Web,
    html::{View, page},
};
use crate::catalog::OutboxState;
use axum::{
    Form,
    extract::State,
    response::{IntoResponse, Redirect, Response},
};
use maud::{Markup, html};
use serde::Deserialize;

/// Rows of each list.
const ROWS: u32 = 50;

pub async fn outbox(State(web): State<Web>, view: View) -> Result<Markup, Failed> {
    let (counts, failed, open, letters, actions) = tokio::try_join!(
        web.catalog.outbox_counts(),
        web.catalog.outbox_entries(OutboxState::Failed, ROWS),
        web.catalog.outbox_entries(OutboxState::Open, ROWS),
        web.catalog.dead_letters(ROWS),
        web.catalog.actions(ROWS),
    )?;
    let body = html! {
        section aria-labelledby="targets" {
            h2 #targets { "Alerts that go on" }
            @if counts.is_empty() { p .dim { "No alert goes on to anybody. Name a target in the settings: [forward.notify] for people, [forward.webhook], [forward.kafka] or [forward.aws] for programs." } }
            @else {
                div .scroll tabindex="0" role="region" aria-label="Targets" { table {
                    thead { tr { th scope="col" { "Target" } th scope="col" { "Arrived" } th scope="col" { "Waiting" } th scope="col" { "Set aside" } } }
                    tbody { @for count in &counts { tr { th scope="row" { (count.target) } td { (count.done) } td { (count.open) } td { (count.failed) } } } }
                } }
            }
            (entries(&view, "Set aside", "Their target refuses them for good, as it seems.", &failed))
            @if !failed.is_empty() {
                @if view.who.acts() {
                    form method="post" action="/outbox/retry" {
                        input type="hidden" name="token" value=(view.who.token);
                        button { "Try all of these again" }
                    }
                } @else { p .dim { "An operator can try them again." } }
            }
            (entries(&view, "Waiting", "The oldest first.", &open))
        }
        section aria-labelledby="letters" {
            h2 #letters { "Dead letters" }
            p .dim { "What the bridge could not take for a record: kept, the last 10,000 of it." }
            @if letters.is_empty() { p { "None." } }
            @else {
                div .scroll tabindex="0" role="region" aria-label="Dead letters" { table {
                    thead { tr { th scope="col" { "Topic" } th scope="col" { "Reason" } } }
                    tbody { @for (topic, reason) in &letters { tr { td { code { (topic) } } td .free { (reason) } } } }
                } }
            }
        }
        @if view.who.acts() {
            section aria-labelledby="actions" {
                h2 #actions { "What was done here" }
                @if actions.is_empty() { p { "Nothing yet." } }
                @else {
                    div .scroll tabindex="0" role="region" aria-label="Actions" { table {
                        thead { tr { th scope="col" { "When" } th scope="col" { "Who" } th scope="col" { "What" } th scope="col" { "To what" } th scope="col" { "Note" } } }
                        tbody { @for one in &actions { tr { td { (view.time(one.at)) } td { (one.who) } td { (one.action) } td { (one.subject) } td .free { (one.detail) } } } }
                    } }
                }
            }
        }
    };
    Ok(page(&view, "/outbox", "Outbox", &body))
}

fn entries(view: &View, title: &str, what: &str, entries: &[crate::catalog::OutboxEntry]) -> Markup {
    html! {
        @if !entries.is_empty() {
            h3 { (title) }
            p .dim { (what) }
            div .scroll tabindex="0" role="region" aria-label=(title) { table {
                thead { tr { th scope="col" { "Target" } th scope="col" { "Alert" } th scope="col" { "Received" } th scope="col" { "Attempts" } th scope="col" { "Last error" } } }
                tbody { @for entry in entries { tr {
                    td { (entry.target) }
                    td { a href=(format!("/alerts/{}/{}", entry.device, entry.record)) { (entry.device) } }
                    td { (view.time(entry.created)) } td { (entry.attempts) } td .free { (entry.last_error.as_deref().unwrap_or("")) }
                } } }
            } }
        }
    }
}

/// A form without more.
#[derive(Deserialize)]
pub struct Sent {
    #[serde(default)]
    token: String,
}

pub async fn retry(State(web): State<Web>, view: View, Form(sent): Form<Sent>) -> Result<Response, Failed> {
    if let Some(refused) = super::refuse(&view.who, &sent.token) {
        return Ok(refused);
    }
    let rows = web.catalog.outbox_retry(None).await?;
    web.catalog.note_action(view.now, view.who.name(), "retry", "outbox", &format!("{rows} rows")).await?;
    Ok(Redirect::to("/outbox").into_response())
}
