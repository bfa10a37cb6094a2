//! Records for `tests/throughput`: a spool full of them, as an agent finds it after an outage, or the same records
//! published by a plain client that keeps nothing.

#![allow(clippy::unwrap_used, reason = "it is run by a script")]

use edgeveil_spool::{
    Durability, Lane as Index, LaneOptions, NewRecord, Options, Payload, RecordId, Spool, WhenFull,
};
use edgeveil_wire::{BootId, ClockState, ImageMeta, Lane, Reading, Stamp, Topic};
use rumqttc::{
    Outgoing, TlsConfiguration, Transport,
    v5::{
        AsyncClient, Event, MqttOptions,
        mqttbytes::{QoS, v5::Packet},
    },
};
use std::{path::Path, sync::Arc, time::Instant};

const USAGE: &str = "load fill DIR DEVICE READINGS IMAGES | load lines DEVICE READINGS | load publish PORT CA CERT KEY DEVICE READINGS IMAGES";
/// Bytes of an image.
const IMAGE: usize = 100_000;

/// The records of one device, readings and images mixed evenly.
struct Records {
    device: String,
    boot: BootId,
    jpeg: Vec<u8>,
    readings: u64,
    images: u64,
}

impl Records {
    fn new(device: &str, readings: &str, images: &str) -> Self {
        let mut boot = [0; 10];
        boot.copy_from_slice(&std::fs::read("/proc/sys/kernel/random/uuid").unwrap()[24..34]);
        // Noise does not compress: the picture is as long as it is made.
        let noise = |n: u32| n.wrapping_mul(2_654_435_761).rotate_left(n % 31) as u8;
        let picture = image::RgbImage::from_vec(400, 300, (0..360_000).map(noise).collect()).unwrap();
        let mut jpeg = Vec::new();
        image::codecs::jpeg::JpegEncoder::new_with_quality(&mut jpeg, 80).encode_image(&picture).unwrap();
        jpeg.truncate(IMAGE - 2);
        jpeg.extend([0xff, 0xd9]);
        Self {
            device: device.to_owned(),
            boot: BootId::from_random(boot),
            jpeg,
            readings: readings.parse().unwrap(),
            images: images.parse().unwrap(),
        }
    }

    fn stamp(&self, lane: Lane, seq: u64) -> Stamp {
        Stamp::new(self.boot, lane, seq, jiff::Timestamp::now(), ClockState::Synced, seq)
    }

    fn reading(&self, seq: u64) -> (Stamp, Topic, Vec<u8>) {
        let value = |name: &str, v: f64| (name.parse().unwrap(), v);
        let wave = (seq as f64 / 50.0).sin();
        let values = [value("sensor1", 20.0 + wave), value("sensor2", 0.5 + wave / 20.0)].into();
        let reading = Reading { stamp: self.stamp(Lane::Reading, seq), score: Some(0.25), values };
        (reading.stamp.clone(), Topic::Reading("env".parse().unwrap()), reading.to_json())
    }

    fn image(&self, seq: u64) -> (Stamp, Topic, Vec<u8>) {
        let meta = ImageMeta {
            stamp: self.stamp(Lane::Image, seq),
            device: self.device.parse().unwrap(),
            camera: "door".parse().unwrap(),
            faces: 0,
            cover: "deep-blur".to_owned(),
            software: "load".to_owned(),
        };
        let exif = [b"Exif\0\0".as_slice(), &meta.to_exif()].concat();
        let length = u16::try_from(exif.len() + 2).unwrap().to_be_bytes();
        let jpeg = [&self.jpeg[..2], &[0xff, 0xe1], &length, &exif, &self.jpeg[2..]].concat();
        (meta.stamp, Topic::Image("door".parse().unwrap()), jpeg)
    }

    fn each(&self, mut take: impl FnMut(Lane, Stamp, Topic, Vec<u8>)) {
        let most = self.readings.max(self.images);
        let mut images = 0;
        for n in 0..most {
            if n < self.readings {
                let (stamp, topic, payload) = self.reading(n);
                take(Lane::Reading, stamp, topic, payload);
            }
            if (n + 1) * self.images / most > images {
                let (stamp, topic, payload) = self.image(images);
                take(Lane::Image, stamp, topic, payload);
                images += 1;
            }
        }
    }
}

/// Fills a spool as the agent lays it out.
fn fill(dir: &Path, records: &Records) {
    let lane = |name, payload, durability| LaneOptions::new(name, payload, durability, WhenFull::DropOldest);
    let lanes = vec![
        lane("alert", Payload::Inline, Durability::Immediate),
        lane("status", Payload::Inline, Durability::Group),
        lane("reading", Payload::Inline, Durability::Group),
        lane("image", Payload::File, Durability::Group),
        lane("refused", Payload::Inline, Durability::Group),
    ];
    let (spool, _) = Spool::open(Options { min_free_bytes: 0, ..Options::new(dir, lanes) }).unwrap();
    let mut count = 0;
    records.each(|lane, stamp, topic, payload| {
        let (id, header) = (RecordId(stamp.id.to_bytes()), topic.to_string());
        let record = NewRecord { id, header: header.as_bytes(), payload: &payload };
        assert!(spool.push(Index(lane as u8), record).unwrap().dropped.is_empty());
        count += 1;
        if count % 200 == 0 {
            spool.commit().unwrap();
        }
    });
    spool.commit().unwrap();
}

/// Publishes at QoS 1 with a hundred messages under way, and says when the last one was acknowledged.
async fn publish(port: &str, identity: [&str; 3], records: Records) {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
    let [ca, cert, key] = identity;
    let mut roots = rustls::RootCertStore::empty();
    for ca in CertificateDer::pem_file_iter(ca).unwrap() {
        roots.add(ca.unwrap()).unwrap();
    }
    let chain = CertificateDer::pem_file_iter(cert).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(key).unwrap();
    let tls = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .unwrap();
    let mut options = MqttOptions::new(&records.device, "localhost", port.parse().unwrap());
    options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(Arc::new(tls))));
    options.set_outgoing_inflight_upper_limit(100);
    let (client, mut events) = AsyncClient::new(options, 100);
    let all = records.readings + records.images;
    let (sender, mut made) = tokio::sync::mpsc::channel(100);
    std::thread::spawn(move || {
        let prefix = format!("edgeveil/{}", records.device);
        records.each(|_, _, topic, payload| {
            sender.blocking_send((format!("{prefix}/{topic}"), payload)).unwrap();
        });
    });
    let began = Instant::now();
    tokio::spawn(async move {
        while let Some((topic, payload)) = made.recv().await {
            client.publish(topic, QoS::AtLeastOnce, false, payload).await.unwrap();
        }
        std::future::pending::<()>().await;
    });
    let (mut acknowledged, mut sent) = (0, 0);
    while acknowledged < all {
        match events.poll().await.unwrap() {
            Event::Incoming(Packet::PubAck(_)) => acknowledged += 1,
            Event::Outgoing(Outgoing::Publish(_)) => sent += 1,
            _ => {}
        }
    }
    assert_eq!(sent, all);
    println!("{}", began.elapsed().as_secs_f64());
}

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["fill", dir, device, readings, images] => {
            fill(dir.as_ref(), &Records::new(device, readings, images));
        }
        ["lines", device, readings] => Records::new(device, readings, "0").each(|_, _, _, payload| {
            println!("{}", String::from_utf8(payload).unwrap());
        }),
        ["publish", port, ca, cert, key, device, readings, images] => {
            rustls::crypto::ring::default_provider().install_default().unwrap();
            let records = Records::new(device, readings, images);
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(publish(
                port,
                [ca, cert, key],
                records,
            ));
        }
        _ => eprintln!("{USAGE}"),
    }
}
