//! Readings that other people's sensors publish: each message of a topic is a row.

use super::{Sensor, SensorError};
use crate::settings::MqttSource;
use edgeveil_wire::{MAX_VALUES, NameError, ValueName, Values};
use rumqttc::{Client, Connection, Event, MqttOptions, Packet, Publish, QoS, SubscribeReasonCode};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use std::{
    collections::VecDeque,
    fs,
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// A longer message is no row of numbers.
const MAX_MESSAGE: usize = 64 << 10;
/// Messages that have come and were not read; when there are more, the oldest go.
const MAX_WAITING: usize = 64;
/// How long the broker may take to grant the subscription.
const PATIENCE: Duration = Duration::from_secs(4);
/// How soon a lost connection is opened again.
const RETRY: Duration = Duration::from_secs(2);
/// Objects within objects become names with `_`; deeper ones are left out.
const MAX_DEPTH: usize = 4;

/// A subscription. It ends when this is dropped.
pub struct Mqtt {
    source: MqttSource,
    client: Client,
    inbox: Arc<Inbox>,
    heard: Instant,
}

#[derive(Default)]
struct Inbox {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Last level of the topic, and payload.
    waiting: VecDeque<(String, Vec<u8>)>,
    is_subscribed: bool,
    /// What is wrong with the connection.
    trouble: Option<String>,
    is_over: bool,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }
}

impl Mqtt {
    /// Connects and subscribes.
    pub fn open(source: &MqttSource) -> Result<Self, SensorError> {
        let error = |what: String| SensorError::Mqtt { broker: source.broker(), what };
        let random = getrandom::u32().map_err(|e| error(e.to_string()))?;
        let mut options = MqttOptions::new(format!("edgeveil-{random:08x}"), &source.host, source.port);
        options.set_keep_alive(Duration::from_secs(30)).set_max_packet_size(MAX_MESSAGE, MAX_MESSAGE);
        if let Some(path) = &source.login {
            let (user, password) = login(path).map_err(error)?;
            options.set_credentials(user, password);
        }
        if let Some(path) = &source.ca {
            let tls = rumqttc::TlsConfiguration::Rustls(Arc::new(tls(path).map_err(error)?));
            options.set_transport(rumqttc::Transport::tls_with_config(tls));
        }
        let (client, connection) = Client::new(options, 8);
        let inbox = Arc::<Inbox>::default();
        let reader = (inbox.clone(), client.clone(), source.topic.clone());
        thread::Builder::new()
            .name("mqtt-in".to_owned())
            .spawn(move || listen(connection, &reader.0, &reader.1, &reader.2))
            .map_err(|e| error(e.to_string()))?;
        let mqtt = Self { source: source.clone(), client, inbox, heard: Instant::now() };
        mqtt.wait_until_subscribed()?;
        Ok(mqtt)
    }

    fn wait_until_subscribed(&self) -> Result<(), SensorError> {
        let end = Instant::now() + PATIENCE;
        let mut state = self.inbox.lock();
        loop {
            if state.is_subscribed {
                return Ok(());
            }
            if let Some(trouble) = state.trouble.clone() {
                return Err(self.error(trouble));
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.error(format!(
                    "does not answer within {} s; is it a broker, and does it want TLS (`ca`)?",
                    PATIENCE.as_secs()
                )));
            }
            let waited = self.inbox.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn error(&self, what: impl Into<String>) -> SensorError {
        SensorError::Mqtt { broker: self.source.broker(), what: what.into() }
    }

    fn is_silent(&self) -> bool {
        self.source.silence.is_some_and(|silence| self.heard.elapsed() > silence)
    }
}

impl Drop for Mqtt {
    fn drop(&mut self) {
        self.inbox.change(|state| state.is_over = true);
        // Its thread notices; when the queue is full, it does with the next packet.
        let _ = self.client.try_disconnect();
    }
}

/// Receives until it is over, and connects again as often as needed.
fn listen(mut connection: Connection, inbox: &Inbox, client: &Client, topic: &str) {
    while !inbox.lock().is_over {
        match connection.recv() {
            Ok(Ok(Event::Incoming(packet))) => take(packet, inbox, client, topic),
            Ok(Ok(Event::Outgoing(_))) => {}
            Ok(Err(error)) => {
                inbox.change(|state| {
                    state.is_subscribed = false;
                    state.trouble = Some(explain(&error));
                });
                let state = inbox.lock();
                let rest = inbox.changed.wait_timeout_while(state, RETRY, |state| !state.is_over);
                drop(rest);
            }
            Err(_) => return,
        }
    }
}

fn take(packet: Packet, inbox: &Inbox, client: &Client, topic: &str) {
    match packet {
        Packet::ConnAck(_) => {
            let asked = client.try_subscribe(topic, QoS::AtLeastOnce);
            if let Err(error) = asked {
                let trouble = format!("was not asked for {topic} ({error}); it is connected to again");
                inbox.change(|state| state.trouble = Some(trouble));
            }
        }
        Packet::SubAck(answer) => {
            let granted = |code: &SubscribeReasonCode| matches!(code, SubscribeReasonCode::Success(_));
            let granted = answer.return_codes.iter().all(granted);
            inbox.change(|state| {
                state.is_subscribed = granted;
                state.trouble = (!granted).then(|| {
                    format!(
                        "refuses the subscription to {topic}; allow it in its access list, or set `login`"
                    )
                });
            });
        }
        // A retained one may be of any age.
        Packet::Publish(Publish { retain: false, topic, payload, .. }) => inbox.change(|state| {
            let level = topic.rsplit('/').next().unwrap_or_default().to_owned();
            state.waiting.push_back((level, payload.to_vec()));
            if state.waiting.len() > MAX_WAITING {
                state.waiting.pop_front();
            }
        }),
        _ => {}
    }
}

fn explain(error: &rumqttc::ConnectionError) -> String {
    use rumqttc::{ConnectReturnCode as Code, ConnectionError as Error};
    match error {
        Error::ConnectionRefused(Code::BadUserNamePassword | Code::NotAuthorized) => {
            "refuses the connection: it wants a user and a password, or others; put them into a file, `user:password`, and name it as `login`".to_owned()
        }
        Error::Io(error) => format!("cannot be reached: {error}; is it running, and is the address right?"),
        Error::Tls(error) => format!("cannot be trusted: {error}; `ca` must be what its certificate is signed by"),
        error => format!("{error}; it is connected to again"),
    }
}

fn login(path: &Path) -> Result<(String, String), String> {
    let shown = path.display();
    let text = fs::read_to_string(path)
        .map_err(|error| format!("login {shown}: {error}; let the agent's user read it"))?;
    let line = text.trim_end_matches(['\n', '\r']);
    match line.split_once(':') {
        Some((user, password)) if !line.contains(['\n', '\r']) => Ok((user.to_owned(), password.to_owned())),
        _ => Err(format!("login {shown}: wants one line, `user:password`")),
    }
}

fn tls(ca: &Path) -> Result<ClientConfig, String> {
    let error = |why: String| format!("ca {}: {why}; it wants a PEM file with the broker's CA", ca.display());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).map_err(|e| error(e.to_string()))? {
        let certificate = certificate.map_err(|e| error(e.to_string()))?;
        roots.add(certificate).map_err(|e| error(e.to_string()))?;
    }
    if roots.is_empty() {
        return Err(error("holds no certificate".to_owned()));
    }
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ClientConfig::builder_with_provider(ring).with_safe_default_protocol_versions();
    Ok(versions.expect("ring has the default versions").with_root_certificates(roots).with_no_client_auth())
}

impl Sensor for Mqtt {
    fn is_ready(&mut self) -> bool {
        let (is_waiting, is_troubled) = {
            let state = self.inbox.lock();
            (!state.waiting.is_empty(), state.trouble.is_some())
        };
        is_waiting || is_troubled || self.is_silent()
    }

    fn read(&mut self) -> Result<Values, SensorError> {
        let (message, trouble) = {
            let mut state = self.inbox.lock();
            (state.waiting.pop_front(), state.trouble.clone())
        };
        if let Some((level, payload)) = message {
            self.heard = Instant::now();
            return values(&level, &payload).map_err(|what| self.error(what));
        }
        if let Some(trouble) = trouble {
            return Err(self.error(trouble));
        }
        let silence = self.source.silence.unwrap_or_default().as_secs();
        let topic = &self.source.topic;
        Err(SensorError::Silent {
            broker: self.source.broker(),
            what: format!(
                "nothing has come on {topic} for {silence} s; look at what publishes there, or raise `silence`"
            ),
        })
    }
}

/// The numbers of a message: of a JSON object, or a number by itself, which is called as the topic's last level is.
fn values(level: &str, payload: &[u8]) -> Result<Values, String> {
    let shown =
        || String::from_utf8_lossy(payload).chars().filter(|c| !c.is_control()).take(60).collect::<String>();
    let json: serde_json::Value = serde_json::from_slice(payload).map_err(|_| {
        format!("brings `{}`, which is neither a JSON object nor a number; let it publish one", shown())
    })?;
    let mut values = Values::new();
    collect(&json, level, 0, &mut values);
    match values.len() {
        0 => Err(format!("brings `{}`, which has no number in it; name another topic", shown())),
        1..=MAX_VALUES => Ok(values),
        many => Err(format!("brings {many} values in a message, and {MAX_VALUES} are possible")),
    }
}

fn collect(json: &serde_json::Value, name: &str, depth: usize, values: &mut Values) {
    use serde_json::Value as Json;
    let number = match json {
        Json::Number(number) => number.as_f64().filter(|number| number.is_finite()),
        Json::Bool(is_true) => Some(f64::from(u8::from(*is_true))),
        Json::Object(object) if depth < MAX_DEPTH => {
            for (key, json) in object {
                // At the top the keys are the names.
                let name = if depth == 0 { key.clone() } else { format!("{name}_{key}") };
                collect(json, &name, depth + 1, values);
            }
            None
        }
        _ => None,
    };
    if let Some(number) = number
        && let Some(name) = legal(name)
    {
        values.insert(name, number);
    }
}

/// The name as readings can have it. None for those that are the payload's own, such as `timestamp`.
fn legal(name: &str) -> Option<ValueName> {
    match name.parse() {
        Ok(name) => Some(name),
        Err(NameError::Reserved(_)) => None,
        Err(_) => {
            let legal = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
            let name: String = name.chars().map(legal).take(64).collect();
            name.trim_start_matches(['_', '-']).parse().ok()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(level: &str, payload: &str) -> Result<String, String> {
        let values = values(level, payload.as_bytes())?;
        Ok(values.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn what_sensors_publish_becomes_rows() {
        for (level, payload, expected) in [
            (
                "data",
                r#"{"timestamp": 1764144000.5, "sensor1": 20.1, "sensor2": 0.5}"#,
                "sensor1=20.1 sensor2=0.5",
            ),
            ("temperature", " 21.5\n", "temperature=21.5"),
            ("Küche 1", "7", "K_che_1=7"),
            // zigbee2mqtt
            (
                "door",
                r#"{"battery":100,"contact":false,"device":{"a":1},"last_seen":"x","voltage":3025}"#,
                "battery=100 contact=0 device_a=1 voltage=3025",
            ),
            // Tasmota
            (
                "SENSOR",
                r#"{"Time":"2026-11-26T05:00:00","DS18B20":{"Id":"0","Temperature":20.6},"ENERGY":{"Power":[1,2],"Today":0.3}}"#,
                "DS18B20_Temperature=20.6 ENERGY_Today=0.3",
            ),
        ] {
            assert_eq!(shown(level, payload).as_deref(), Ok(expected), "{payload}");
        }
    }

    #[test]
    fn messages_that_are_no_rows_are_named() {
        for (payload, what) in
            [("ON", "neither"), ("{}", "no number"), ("[1, 2]", "no number"), ("{\"a\": \"1\"}", "no number")]
        {
            let error = shown("x", payload).unwrap_err();
            assert!(error.contains(what), "{payload}: {error}");
        }
        let many = format!("{{{}}}", (0..65).map(|i| format!("\"v{i}\": {i}")).collect::<Vec<_>>().join(","));
        assert!(shown("x", &many).unwrap_err().contains("65"));
        assert!(values("x", &[0xff, 0xfe]).is_err() && values("x", "[".repeat(60_000).as_bytes()).is_err());
    }
}
