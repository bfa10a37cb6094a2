//! Who may see the pages, and who may act.

use super::reader::{Section, Setting};
use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

/// Who may see the pages, and who may act.
#[derive(Debug, Clone, PartialEq)]
pub struct AccessSettings {
    /// The file with users and their passwords' hashes.
    pub users: Option<PathBuf>,
    /// A proxy that has asked who somebody is.
    pub proxy: Option<ProxySettings>,
    /// The file with tokens of the read-only API.
    pub tokens: Option<PathBuf>,
    /// How long a login lasts.
    pub session: Duration,
    /// Whether browsers send the session by HTTPS only.
    pub secure_cookie: bool,
    /// Where nobody logs in: whether everybody may act. So it is while only this machine can ask.
    pub anybody_acts: bool,
    /// Names that the pages are asked for by, beside those of this machine, where everybody may act.
    pub hosts: Vec<String>,
}

/// A proxy that has asked who somebody is, such as oauth2-proxy or Authelia.
#[derive(Debug, Clone, PartialEq)]
pub struct ProxySettings {
    /// The header with the user's name.
    pub header: String,
    /// Who is believed in it.
    pub from: Vec<Network>,
    /// Users who may act; the others may look.
    pub operators: Vec<String>,
}

impl AccessSettings {
    /// Whether one has to say who one is.
    pub fn asks(&self) -> bool {
        self.users.is_some() || self.proxy.is_some()
    }
}

/// An address, or all that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// Whether an address is in it.
    pub fn contains(&self, other: IpAddr) -> bool {
        let number = |address: IpAddr| match address.to_canonical() {
            IpAddr::V4(v4) => (u128::from(v4.to_bits()) << 96, true),
            IpAddr::V6(v6) => (v6.to_bits(), false),
        };
        let ((ours, v4), (theirs, also_v4)) = (number(self.address), number(other));
        v4 == also_v4 && (self.bits == 0 || (ours ^ theirs) >> (128 - u32::from(self.bits)) == 0)
    }
}

impl std::str::FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is neither an address nor ADDRESS/BITS");
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u8>().map_err(|_| bad())?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(most);
        if bits > most {
            return Err(bad());
        }
        Ok(Self { address, bits })
    }
}

/// Networks, as a list in a text.
struct Networks(Vec<Network>);

impl Setting for Networks {
    const WANTS: &'static str = "addresses or networks such as \"127.0.0.1, 10.42.0.0/16\"";
    fn from_text(text: &str) -> Result<Self, String> {
        text.split(',').map(|one| one.trim().parse()).collect::<Result<_, _>>().map(Self)
    }
}

/// None: a problem.
pub(super) fn access(section: Section<'_, '_>, http: SocketAddr) -> Option<AccessSettings> {
    let local = http.ip().is_loopback();
    let (users, tokens) = (section.get("users"), section.get("tokens"));
    let session = section.or("session", Duration::from_secs(12 * 3600));
    if !(Duration::from_secs(300)..=Duration::from_secs(90 * 86_400)).contains(&session) {
        section.problem("session", "wants \"5 min\" to \"90 d\"".to_owned());
    }
    let secure_cookie = section.or("secure_cookie", !local);
    let hosts = names(section.or("hosts", String::new()));
    let part = section.section("proxy");
    let proxy = if part.is_given(&["header"]) { proxy(part).map(Some) } else { Some(None) };
    section.finish();
    let proxy = proxy?;
    let anybody_acts = local && users.is_none() && proxy.is_none();
    Some(AccessSettings { users, proxy, tokens, session, secure_cookie, anybody_acts, hosts })
}

fn names(text: String) -> Vec<String> {
    text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn proxy(section: Section<'_, '_>) -> Option<ProxySettings> {
    let header: Option<String> = section.required("header");
    let is_token = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    if header.as_deref().is_some_and(|header| !is_token(header)) {
        section.problem("header", "wants the name of a header such as \"X-Forwarded-User\"".to_owned());
    }
    let from: Option<Networks> = section.required("from");
    let operators = names(section.or("operators", String::new()));
    section.finish();
    Some(ProxySettings { header: header?.to_ascii_lowercase(), from: from?.0, operators })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    #[test]
    fn networks_hold_their_addresses() {
        let holds = |network: &str, address: &str| {
            network.parse::<Network>().unwrap().contains(address.parse().unwrap())
        };
        assert!(holds("10.42.0.0/16", "10.42.255.1") && !holds("10.42.0.0/16", "10.43.0.1"));
        assert!(holds("127.0.0.1", "127.0.0.1") && holds("127.0.0.1", "::ffff:127.0.0.1"));
        assert!(!holds("127.0.0.1", "127.0.0.2") && !holds("127.0.0.1", "::1"));
        assert!(holds("fd00::/8", "fdff::1") && !holds("fd00::/8", "fe80::1") && holds("::/0", "::1"));
        assert!(!holds("0.0.0.0/0", "::1"));
        for bad in ["", "a", "10.0.0.0/33", "10.0.0.0/-1", "::/129"] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }

    #[test]
    fn anybody_may_act_only_where_nobody_else_can_ask() {
        let access = |text: &str| Settings::parse("b.toml", text, &|_| None).map(|settings| settings.access);
        let plain = access("").unwrap();
        assert!(plain.anybody_acts && !plain.asks() && !plain.secure_cookie);
        let open = access("[http]\nlisten = \"0.0.0.0:80\"\n").unwrap();
        assert!(!open.anybody_acts && open.secure_cookie);
        let users = access("[access]\nusers = \"u\"\n").unwrap();
        assert!(!users.anybody_acts && users.asks());
        let proxy = access(
            "[access.proxy]\nheader = \"X-Forwarded-User\"\nfrom = \"127.0.0.1, 10.0.0.0/8\"\noperators = \"ann, bob\"\n",
        );
        let proxy = proxy.unwrap().proxy.unwrap();
        assert_eq!((proxy.header.as_str(), proxy.from.len()), ("x-forwarded-user", 2));
        assert_eq!(proxy.operators, ["ann", "bob"]);
        let problem = |text: &str| access(text).unwrap_err()[0].to_string();
        assert!(problem("[access.proxy]\nheader = \"u\"\n").contains("`access.proxy.from`: is missing"));
        assert!(problem("[access]\nsession = \"1 s\"\n").contains("b.toml:2: `access.session`"));
    }
}
