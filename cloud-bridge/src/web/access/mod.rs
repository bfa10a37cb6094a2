//! Who asks, and what they may do.
//!
//! Somebody is a local user with a session, or whom a trusted proxy says they are, or anybody where nobody is asked.
//! Whatever changes something is a POST with a form's token, which only pages of ours know (docs/access.md).

mod attempts;
mod login;
pub mod password;
pub mod users;

pub use login::{form, login, logout};

use crate::{
    catalog::{Catalog, CatalogError},
    settings::AccessSettings,
};
use anyhow::Result;
use attempts::Attempts;
use axum::{
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Redirect, Response},
};
use sha2::{Digest, Sha256};
use std::{fmt, net::SocketAddr, str::FromStr, sync::Arc};
use subtle::ConstantTimeEq;
use users::UserFile;

/// What somebody may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Role {
    /// Look.
    Viewer,
    /// And act.
    Operator,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
        })
    }
}

impl FromStr for Role {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "viewer" => Ok(Self::Viewer),
            "operator" => Ok(Self::Operator),
            _ => Err(()),
        }
    }
}

/// Who asks.
#[derive(Debug, Clone)]
pub struct Who {
    /// Their name; none where nobody is asked.
    pub name: Option<String>,
    /// What they may do.
    pub role: Role,
    /// What their forms have to bring.
    pub token: String,
    /// Whether they can log out here.
    pub has_session: bool,
}

impl Who {
    /// For the account of what was done.
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or("anybody")
    }

    /// Whether they may act.
    pub fn acts(&self) -> bool {
        self.role == Role::Operator
    }

    /// Whether a form is one of ours.
    pub fn sent(&self, token: &str) -> bool {
        self.token.as_bytes().ct_eq(token.as_bytes()).into()
    }
}

/// What it takes to tell.
#[derive(Debug)]
pub struct Access {
    settings: AccessSettings,
    users: Option<UserFile>,
    attempts: Attempts,
    catalog: Catalog,
    /// Passwords that are checked at the same time: each takes some 20 MiB.
    checks: tokio::sync::Semaphore,
}

/// The session's cookie. Without HTTPS the name must not have the prefix that browsers hold to it.
const COOKIE: &str = "edgeveil_session";
/// Of those who have none: what their forms' token hangs on.
const VISITOR: &str = "edgeveil_visitor";

impl Access {
    /// Reads the files that the settings name.
    pub async fn open(settings: &AccessSettings, catalog: &Catalog) -> Result<Self> {
        let users = settings.users.as_deref().map(UserFile::open).transpose()?;
        if let Some(file) = &settings.tokens {
            crate::anonymise::token::read(file).await?;
        }
        Ok(Self {
            settings: settings.clone(),
            users,
            attempts: Attempts::default(),
            catalog: catalog.clone(),
            checks: tokio::sync::Semaphore::new(2),
        })
    }

    /// None: they have to say who they are first.
    async fn who(
        &self,
        headers: &HeaderMap,
        peer: SocketAddr,
        visitor: &str,
    ) -> Result<Option<Who>, CatalogError> {
        if let Some(proxy) = &self.settings.proxy
            && proxy.from.iter().any(|network| network.contains(peer.ip()))
            && let Some(name) = headers.get(&proxy.header).and_then(|name| name.to_str().ok())
            && !name.is_empty()
        {
            let role =
                if proxy.operators.iter().any(|known| known == name) { Role::Operator } else { Role::Viewer };
            let name = Some(name.to_owned());
            return Ok(Some(Who { name, role, token: form_token(visitor), has_session: false }));
        }
        if let Some(file) = &self.users
            && let Some(cookie) = cookie(headers, COOKIE)
            && let Some(name) = self.catalog.session(&digest(cookie), now()).await?
        {
            let users = file.now().map_err(|error| {
                tracing::error!(error = format!("{error:#}"), "nobody can log in");
            });
            if let Some(user) = users.ok().and_then(|users| users.get(&name).cloned()) {
                let token = form_token(cookie);
                return Ok(Some(Who { name: Some(name), role: user.role, token, has_session: true }));
            }
        }
        if self.settings.asks() {
            return Ok(None);
        }
        let role = if self.settings.anybody_acts { Role::Operator } else { Role::Viewer };
        Ok(Some(Who { name: None, role, token: form_token(visitor), has_session: false }))
    }

    fn set_cookie(&self, name: &str, value: &str, max_age: u64) -> Option<HeaderValue> {
        let secure = if self.settings.secure_cookie { "; Secure" } else { "" };
        HeaderValue::try_from(format!(
            "{name}={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age={max_age}{secure}"
        ))
        .ok()
    }
}

impl Access {
    /// Where everybody on this machine may act, another site must not become this one: its name may be made to lead to the
    /// loopback address, and its pages would then count as ours.
    fn refuses_host(&self, headers: &HeaderMap) -> Option<Response> {
        if !self.settings.anybody_acts {
            return None;
        }
        let host = headers.get(header::HOST)?.to_str().unwrap_or_default();
        if is_this_machine(host) || self.settings.hosts.iter().any(|known| known == name_of(host)) {
            return None;
        }
        let text = "these pages are this machine's own: ask for http://localhost, or name this host in access.hosts\n";
        Some((StatusCode::MISDIRECTED_REQUEST, text).into_response())
    }
}

/// Without the port.
fn name_of(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

fn is_this_machine(host: &str) -> bool {
    let name = name_of(host);
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || address.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Lets those in who may see the page, and refuses what comes from elsewhere than our own forms.
pub async fn guard(State(access): State<Arc<Access>>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0);
    let peer = peer.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)));
    let headers = request.headers();
    if let Some(refused) = access.refuses_host(headers) {
        return refused;
    }
    if request.method() == Method::POST && comes_from_elsewhere(headers) {
        return (StatusCode::FORBIDDEN, "this came from another site\n").into_response();
    }
    let known = cookie(headers, VISITOR).map(str::to_owned);
    let Some(visitor) = known.clone().or_else(random) else {
        return (StatusCode::SERVICE_UNAVAILABLE, "no random numbers\n").into_response();
    };
    let path = request.uri().path().to_owned();
    let who = if path.starts_with("/v1/") {
        access.bearer(headers, peer, &visitor).await
    } else {
        access.who(headers, peer, &visitor).await
    };
    let who = match who {
        Ok(who) => who,
        Err(error) => return super::Failed::from(error).into_response(),
    };
    let is_open = path == "/login";
    request.extensions_mut().insert(Visitor(visitor.clone()));
    let mut response = match who {
        Some(who) => {
            request.extensions_mut().insert(who);
            next.run(request).await
        }
        None if is_open => next.run(request).await,
        None if path.starts_with("/v1/") => {
            let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
            (StatusCode::UNAUTHORIZED, challenge, "wants a token of access.tokens, or a session\n")
                .into_response()
        }
        None if access.users.is_none() => {
            (StatusCode::UNAUTHORIZED, "come through the proxy that knows you\n").into_response()
        }
        None => Redirect::to(&format!(
            "/login?to={}",
            encode(request.uri().path_and_query().map_or("/", |to| to.as_str()))
        ))
        .into_response(),
    };
    if known.is_none()
        && let Some(cookie) = access.set_cookie(VISITOR, &visitor, 365 * 86_400)
    {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

impl Access {
    /// The API takes tokens beside sessions.
    async fn bearer(
        &self,
        headers: &HeaderMap,
        peer: SocketAddr,
        visitor: &str,
    ) -> Result<Option<Who>, CatalogError> {
        if let Some(file) = &self.settings.tokens
            && let Some(given) = headers.get(header::AUTHORIZATION)
        {
            let tokens = crate::settings::ImageAccess::Tokens(file.clone());
            let admitted = crate::anonymise::token::admits(&tokens, Some(given.as_bytes())).await;
            return Ok(match admitted {
                Ok(true) => Some(Who {
                    name: Some("token".to_owned()),
                    role: Role::Viewer,
                    token: String::new(),
                    has_session: false,
                }),
                Ok(false) => None,
                Err(error) => {
                    tracing::error!(error = format!("{error:#}"), "nobody is let in by a token");
                    None
                }
            });
        }
        self.who(headers, peer, visitor).await
    }
}

/// The visitor's cookie, known or new.
#[derive(Debug, Clone)]
pub struct Visitor(pub String);

/// Browsers say where a request comes from; programs do not, and have no cookies to be abused.
fn comes_from_elsewhere(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(site) = text("sec-fetch-site") {
        return !matches!(site, "same-origin" | "none");
    }
    let Some(origin) = text("origin") else { return false };
    let host = text("host").unwrap_or_default();
    origin.split_once("://").is_none_or(|(_, from)| from != host)
}

fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let cookies = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let mut pairs =
        cookies.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let value = pairs.find(|(known, _)| *known == name)?.1;
    (value.len() == 64 && value.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(value)
}

/// 256 bits that nobody guesses.
fn random() -> Option<String> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).ok()?;
    Some(hex(&bytes))
}

/// What the catalog has of a session: who reads it there cannot use it.
fn digest(cookie: &str) -> String {
    hex(&Sha256::digest(cookie))
}

fn form_token(cookie: &str) -> String {
    hex(&Sha256::digest(format!("form of {cookie}")))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn now() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// For a query.
fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'/');
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                ((*name).parse::<header::HeaderName>().unwrap(), HeaderValue::from_static(value))
            })
            .collect()
    }

    #[test]
    fn a_post_of_another_site_is_known() {
        for (pairs, elsewhere) in [
            (vec![("sec-fetch-site", "same-origin")], false),
            (vec![("sec-fetch-site", "cross-site")], true),
            (vec![("sec-fetch-site", "same-site")], true),
            (vec![("origin", "https://a.lan"), ("host", "a.lan")], false),
            (vec![("origin", "https://evil.lan"), ("host", "a.lan")], true),
            (vec![("origin", "null"), ("host", "a.lan")], true),
            (vec![], false),
        ] {
            assert_eq!(comes_from_elsewhere(&headers(&pairs)), elsewhere, "{pairs:?}");
        }
    }

    #[test]
    fn only_names_of_this_machine_are_known() {
        for host in
            ["localhost", "localhost:8080", "127.0.0.1", "127.0.0.1:8080", "[::1]", "[::1]:8080", "127.8.0.1"]
        {
            assert!(is_this_machine(host), "{host}");
        }
        for host in ["", "evil.lan", "localhost.evil.lan:80", "192.168.0.1", "127.0.0.1.evil.lan", "[::2]:80"]
        {
            assert!(!is_this_machine(host), "{host}");
        }
    }

    #[test]
    fn only_cookies_of_ours_are_read() {
        const GOOD: &str =
            "edgeveil_session=0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        let found = |value: &'static str| cookie(&headers(&[("cookie", value)]), COOKIE).map(str::len);
        assert_eq!(found(GOOD), Some(64));
        assert_eq!(
            found("a=b; edgeveil_session=0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"),
            Some(64)
        );
        for bad in ["", "edgeveil_session=", "edgeveil_session=x", "x=y"] {
            assert_eq!(found(bad), None);
        }
    }
}
