//! What the bridge says of itself: lines of log, and spans by OTLP.
//!
//! Spans have ids and counts, never what records hold.

use crate::settings::{LogFormat, LogSettings, OtlpSettings};
use anyhow::Result;
use std::io::IsTerminal;
use tracing_subscriber::{EnvFilter, Layer, Registry, layer::SubscriberExt, util::SubscriberInitExt};

type BoxedLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// Goes on until [`Telemetry::end`].
#[must_use]
pub struct Telemetry {
    #[cfg(feature = "otlp")]
    spans: Option<otlp::Spans>,
}

impl Telemetry {
    /// Begins. Fails on a file of the settings that cannot be used.
    pub fn start(log: &LogSettings, otlp: Option<&OtlpSettings>) -> Result<Self> {
        let mut layers = vec![lines(log)];
        #[cfg(feature = "otlp")]
        let spans = match otlp {
            Some(settings) => {
                let (spans, layer) = otlp::open(settings)?;
                layers.push(layer);
                Some(spans)
            }
            None => None,
        };
        #[cfg(not(feature = "otlp"))]
        let _ = otlp;
        tracing_subscriber::registry().with(std::mem::take(&mut layers)).init();
        Ok(Self {
            #[cfg(feature = "otlp")]
            spans,
        })
    }

    /// Sends what is left, for two seconds at most.
    pub fn end(self) {
        #[cfg(feature = "otlp")]
        if let Some(spans) = self.spans {
            spans.end();
        }
    }
}

fn lines(settings: &LogSettings) -> BoxedLayer {
    // The libraries' own lines tell of every connection and attempt what ours tell better. A filter that names them wins.
    let filter = format!(
        "mqtt5=error,rumqttc=error,object_store=error,sqlx::query=error,lapin=off,opentelemetry=off,opentelemetry_sdk=off,opentelemetry_otlp=off,opentelemetry-otlp=off,{}",
        settings.filter
    );
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match settings.format {
        LogFormat::Text => lines.with_filter(filter).boxed(),
        LogFormat::Json => lines.json().with_filter(filter).boxed(),
    }
}

#[cfg(feature = "otlp")]
mod otlp {
    use super::{BoxedLayer, OtlpSettings};
    use anyhow::{Context, Result, anyhow};
    use opentelemetry::trace::TracerProvider;
    use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
    use opentelemetry_sdk::{
        Resource,
        error::OTelSdkResult,
        trace::{Sampler, SdkTracerProvider, SpanData},
    };
    use std::{
        fs,
        path::Path,
        sync::atomic::{AtomicBool, Ordering::Relaxed},
        time::Duration,
    };
    use tracing_subscriber::{Layer, filter::Targets};

    /// For one request to the collector.
    const TIMEOUT: Duration = Duration::from_secs(10);
    const GOODBYE: Duration = Duration::from_secs(2);

    /// Collects spans, 2048 at most, and sends them every 5 s from a thread of its own. More are dropped.
    pub struct Spans(SdkTracerProvider);

    impl Spans {
        pub fn end(self) {
            // The log has it when the collector takes nothing.
            let _ = self.0.shutdown_with_timeout(GOODBYE);
        }
    }

    pub fn open(settings: &OtlpSettings) -> Result<(Spans, BoxedLayer)> {
        let exporter = Told { exporter: exporter(settings)?, is_down: AtomicBool::new(false) };
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(settings.sample))))
            .with_resource(
                Resource::builder()
                    .with_service_name("edgeveil-bridge")
                    .with_attribute(opentelemetry::KeyValue::new(
                        "service.version",
                        env!("CARGO_PKG_VERSION"),
                    ))
                    .build(),
            )
            .build();
        let tracer = provider.tracer("edgeveil-bridge");
        let layer = tracing_opentelemetry::layer()
            .with_tracer(tracer)
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(Targets::new().with_target("edgeveil_bridge", tracing::Level::INFO))
            .boxed();
        Ok((Spans(provider), layer))
    }

    fn exporter(settings: &OtlpSettings) -> Result<SpanExporter> {
        let read = |what: &str, path: &Path| {
            fs::read(path).with_context(|| format!("otlp.{what} {}", path.display()))
        };
        let mut headers = std::collections::HashMap::new();
        if let Some(path) = &settings.token_file {
            let token = String::from_utf8(read("token_file", path)?).context("otlp.token_file is no text")?;
            headers.insert("authorization".to_owned(), format!("Bearer {}", token.trim()));
        }
        let mut client = reqwest::blocking::Client::builder().timeout(TIMEOUT);
        if let Some(path) = &settings.ca {
            let roots = reqwest::Certificate::from_pem_bundle(&read("ca", path)?)
                .map_err(|error| anyhow!("otlp.ca {}: {error}", path.display()))?;
            client = client.tls_certs_only(roots);
        }
        // It has a runtime of its own, which must not be made or dropped within ours.
        let client = std::thread::spawn(move || client.build())
            .join()
            .map_err(|_| anyhow!("the client for otlp.endpoint could not be made"))?
            .context("otlp.endpoint")?;
        let endpoint = format!("{}/v1/traces", settings.endpoint.trim_end_matches('/'));
        SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_endpoint(endpoint)
            .with_headers(headers)
            .with_timeout(TIMEOUT)
            .build()
            .context("otlp.endpoint")
    }

    /// Says once that the collector takes nothing, and once that it does again.
    #[derive(Debug)]
    struct Told {
        exporter: SpanExporter,
        is_down: AtomicBool,
    }

    impl opentelemetry_sdk::trace::SpanExporter for Told {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            let sent = self.exporter.export(batch).await;
            let was_down = self.is_down.swap(sent.is_err(), Relaxed);
            match &sent {
                Err(error) if !was_down => {
                    tracing::warn!(%error, "the collector at otlp.endpoint takes no spans; they are dropped until it does");
                }
                Ok(()) if was_down => tracing::info!("the collector at otlp.endpoint takes spans again"),
                _ => {}
            }
            sent
        }

        fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
            self.exporter.shutdown_with_timeout(timeout)
        }

        fn force_flush(&self) -> OTelSdkResult {
            self.exporter.force_flush()
        }

        fn set_resource(&mut self, resource: &Resource) {
            self.exporter.set_resource(resource);
        }
    }
}
