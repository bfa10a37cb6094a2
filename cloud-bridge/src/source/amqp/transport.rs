//! The streams that lapin speaks over: TLS by rustls and ring, as everywhere else, or none where that is meant.

use async_compat::Compat;
use async_rs::{Tokio, traits::Reactor};
use futures_util::{
    Stream,
    io::{AsyncRead, AsyncWrite},
};
use rustls::pki_types::ServerName;
use std::{
    fmt, io,
    io::{Read, Write},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::either::Either;

/// Until there is a TLS connection to an address, or it is given up.
const CONNECT: Duration = Duration::from_secs(10);

/// Tokio's reactor, whose TCP streams are encrypted unless plain ones are meant.
#[derive(Clone)]
pub struct Transport {
    tokio: Tokio,
    /// With the name in the node's certificate.
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Transport {
    /// To a node of this name.
    pub fn new(tls: rustls::ClientConfig, host: &str) -> Result<Self, String> {
        let name = ServerName::try_from(host.to_owned()).map_err(|error| format!("{host}: {error}"))?;
        Ok(Self { tokio: Tokio::current(), tls: Some((TlsConnector::from(Arc::new(tls)), name)) })
    }

    /// To a node that speaks no TLS.
    #[cfg_attr(not(feature = "worker"), allow(dead_code, reason = "a worker alone has a broker without TLS"))]
    pub fn plain() -> Self {
        Self { tokio: Tokio::current(), tls: None }
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.tls.as_ref().map(|(_, name)| name);
        f.debug_struct("Transport").field("name", &name).finish_non_exhaustive()
    }
}

impl Reactor for Transport {
    type TcpStream = Compat<Either<TlsStream<TcpStream>, TcpStream>>;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H: Read + Write + Send + 'static>(
        &self,
        _: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        let text = "only connections that are made here are encrypted";
        Err::<Self::TcpStream, _>(io::Error::new(io::ErrorKind::Unsupported, text))
    }

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.tokio.sleep(duration)
    }

    fn interval(&self, duration: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.tokio.interval(duration)
    }

    fn tcp_connect_addr(
        &self,
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        let tls = self.tls.clone();
        async move {
            let connected = async {
                let stream = TcpStream::connect(address).await?;
                // Acknowledgements are small, and devices wait for them.
                stream.set_nodelay(true)?;
                match tls {
                    Some((tls, name)) => tls.connect(name, stream).await.map(Either::Left),
                    None => Ok(Either::Right(stream)),
                }
            };
            let late = |_| {
                let text = format!("no connection within {} s", CONNECT.as_secs());
                io::Error::new(io::ErrorKind::TimedOut, text)
            };
            timeout(CONNECT, connected).await.map_err(late).flatten().map(Compat::new)
        }
    }
}
