//! The way in and out.

use super::{Access, COOKIE, Visitor, Who, cookie, digest, form_token, now, random};
use crate::web::{Failed, html};
use axum::{
    Extension, Form,
    extract::{ConnectInfo, Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Redirect, Response},
};
use maud::html;
use serde::Deserialize;
use std::{net::SocketAddr, sync::Arc, time::Instant};
use subtle::ConstantTimeEq;

/// Where one wanted to go.
#[derive(Debug, Deserialize)]
pub struct To {
    #[serde(default)]
    to: String,
}

/// What a login brings.
#[derive(Deserialize)]
pub struct Login {
    #[serde(default)]
    name: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    token: String,
    #[serde(default)]
    to: String,
}

/// The form.
pub async fn form(
    State(access): State<Arc<Access>>,
    Extension(Visitor(visitor)): Extension<Visitor>,
    Query(To { to }): Query<To>,
) -> Response {
    page(&access, &visitor, &to, None).into_response()
}

fn page(access: &Access, visitor: &str, to: &str, problem: Option<&str>) -> maud::Markup {
    html::bare(
        "Log in",
        &html! {
            @if let Some(problem) = problem { p .problem role="alert" { (problem) } }
            @if access.users.is_none() {
                p { "Nobody logs in here." }
            } @else {
                form .login method="post" action="/login" {
                    input type="hidden" name="token" value=(form_token(visitor));
                    input type="hidden" name="to" value=(to);
                    label { "Name" input name="name" autocomplete="username" required autofocus maxlength="64"; }
                    label { "Password" input name="password" type="password" autocomplete="current-password" required maxlength="256"; }
                    button { "Log in" }
                }
                @if access.settings.secure_cookie {
                    p .dim { "Your browser keeps the login for HTTPS alone. Where there is none, set access.secure_cookie = false." }
                }
            }
        },
    )
}

/// Takes a login.
pub async fn login(
    State(access): State<Arc<Access>>,
    Extension(Visitor(visitor)): Extension<Visitor>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Form(given): Form<Login>,
) -> Result<Response, Failed> {
    let again = |status: StatusCode, why: &str| {
        (status, page(&access, &visitor, &given.to, Some(why))).into_response()
    };
    if !bool::from(form_token(&visitor).as_bytes().ct_eq(given.token.as_bytes())) {
        return Ok(again(StatusCode::FORBIDDEN, "This form is an old one; try again."));
    }
    let Some(file) = &access.users else { return Ok(StatusCode::NOT_FOUND.into_response()) };
    if !access.attempts.may_try(peer.ip(), &given.name, Instant::now()) {
        tracing::warn!(peer = %peer.ip(), "too many logins failed; this one was not looked at");
        return Ok(again(
            StatusCode::TOO_MANY_REQUESTS,
            "Too many logins failed. Wait a quarter of an hour.",
        ));
    }
    let users = match file.now() {
        Ok(users) => users,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "nobody can log in");
            return Ok(again(
                StatusCode::SERVICE_UNAVAILABLE,
                "The file of users cannot be read; the bridge's log says why.",
            ));
        }
    };
    let right = {
        let _one = access.checks.acquire().await;
        let (name, password) = (given.name.clone(), given.password.clone());
        tokio::task::spawn_blocking(move || users.check(&name, &password)).await.unwrap_or(false)
    };
    if !right {
        access.attempts.failed(peer.ip(), &given.name, Instant::now());
        // A name that nobody has may be a password that went into the wrong field.
        tracing::warn!(peer = %peer.ip(), "a login failed");
        return Ok(again(StatusCode::UNAUTHORIZED, "Name and password do not fit."));
    }
    let Some(session) = random() else { return Ok(StatusCode::SERVICE_UNAVAILABLE.into_response()) };
    let lasts = access.settings.session;
    let until = now() + i64::try_from(lasts.as_millis()).unwrap_or(i64::MAX / 2);
    access.catalog.begin_session(&digest(&session), &given.name, now(), until).await?;
    let mut response = Redirect::to(local(&given.to)).into_response();
    if let Some(cookie) = access.set_cookie(COOKIE, &session, lasts.as_secs()) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

/// Ends a session.
pub async fn logout(
    State(access): State<Arc<Access>>,
    Extension(who): Extension<Who>,
    headers: HeaderMap,
    Form(given): Form<Login>,
) -> Result<Response, Failed> {
    if !who.sent(&given.token) {
        return Ok((StatusCode::FORBIDDEN, "this form is an old one\n").into_response());
    }
    if let Some(session) = cookie(&headers, COOKIE) {
        access.catalog.end_session(&digest(session)).await?;
        access.catalog.note_action(now(), who.name(), "logout", "", "").await?;
    }
    let mut response = Redirect::to("/login").into_response();
    if let Some(cookie) = access.set_cookie(COOKIE, "", 0) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

/// A path of ours, and no address of somebody else's.
fn local(to: &str) -> &str {
    let plain = to.starts_with('/') && !to.starts_with("//") && !to.contains(['\\', '\r', '\n']);
    if plain { to } else { "/" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_leads_to_no_other_site() {
        for (to, where_to) in [
            ("/gallery?device=pi", "/gallery?device=pi"),
            ("", "/"),
            ("//evil.lan", "/"),
            ("https://evil.lan", "/"),
            ("/\\evil.lan", "/"),
            ("/a\r\nset-cookie: x", "/"),
        ] {
            assert_eq!(local(to), where_to);
        }
    }
}
