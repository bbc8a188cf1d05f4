//! The session with the Oracle: registrations out, acknowledgements in.

use crate::Registering;
use anyhow::{Context as _, Result, bail};
use std::sync::Arc;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use weft_api::{Identity, ORACLE_SERVER_NAME, Trust, tls_config};
use weft_lisp::{
    EncodeOptions, Locator, MapRegister, MapVersion, Record, Xtr,
    tcp::{Body, FrameDecoder, Signal},
};
use weft_model::{Grant, Rloc, XtrId};

/// Octets written at once.
const CHUNK: usize = 64 * 1024;

pub(crate) struct Session {
    stream: TlsStream<TcpStream>,
    decoder: FrameDecoder,
    next_id: u32,
}

impl Session {
    pub(crate) async fn open(to: &str, trust: &Trust, identity: &Identity) -> Result<Self> {
        let config = tls_config(trust, Some(identity))?;
        let tcp = TcpStream::connect(to).await.with_context(|| format!("connecting to {to}"))?;
        tcp.set_nodelay(true)?;
        let connector = TlsConnector::from(Arc::new(config));
        let mut stream = connector.connect(ORACLE_SERVER_NAME.try_into()?, tcp).await?;
        let mut octets = Vec::new();
        let hello = Body::Signal(Signal::Hello { version: 1, boot_id: 1 });
        hello.encode(0, &mut octets, EncodeOptions::default())?;
        stream.write_all(&octets).await?;
        stream.flush().await?;
        Ok(Self { stream, decoder: FrameDecoder::default(), next_id: 1 })
    }

    /// Registers `grants` and waits for every acknowledgement.
    pub(crate) async fn register(
        &mut self,
        grants: &[Grant],
        me: XtrId,
        rloc: Rloc,
        what: Registering,
    ) -> Result<()> {
        let first = self.next_id;
        let last = first + u32::try_from(grants.len())?;
        self.next_id = last;
        let (mut from, mut to) = tokio::io::split(&mut self.stream);
        let write = async {
            let mut octets = Vec::with_capacity(2 * CHUNK);
            for (id, grant) in (first..last).zip(grants) {
                encode(grant, me, rloc, what, id, &mut octets)?;
                if octets.len() >= CHUNK {
                    to.write_all(&octets).await?;
                    octets.clear();
                }
            }
            to.write_all(&octets).await?;
            to.flush().await?;
            Ok::<_, anyhow::Error>(())
        };
        let decoder = &mut self.decoder;
        let read = async {
            let mut left = grants.len();
            let mut buffer = vec![0; CHUNK];
            while left > 0 {
                let n = from.read(&mut buffer).await?;
                if n == 0 {
                    bail!("the Oracle ended the session with {left} registrations unanswered");
                }
                decoder.push(buffer.get(..n).unwrap_or_default());
                while let Some(frame) = decoder.next_frame()? {
                    match frame.body() {
                        Ok(Body::RegistrationAck(_)) if (first..last).contains(&frame.id) => left -= 1,
                        Ok(Body::RegistrationReject { reason, .. }) => {
                            bail!("registration {} was refused: {reason:?}", frame.id)
                        }
                        _ => {}
                    }
                }
            }
            Ok(())
        };
        futures_util::try_join!(write, read).map(drop)
    }
}

/// As an NVE registers one: its MAC behind its RLOC, each IP bound to its MAC.
fn encode(grant: &Grant, me: XtrId, rloc: Rloc, what: Registering, id: u32, out: &mut Vec<u8>) -> Result<()> {
    let (ttl, priority) = match what {
        Registering::Activated => (u32::MAX, 1),
        Registering::Withdrawn => (0, Locator::UNUSABLE),
    };
    let vni = grant.tsi.vni.get();
    let version = MapVersion::new(grant.epoch.map_version()).unwrap_or(MapVersion::NONE);
    let (at, owner) = ([Locator::new(rloc.get(), priority)], [Locator::mac(grant.mac.octets())]);
    let record = |eid: weft_lisp::Eid, locators| Record {
        ttl,
        mask_len: eid.mask_len(),
        authoritative: true,
        map_version: version,
        eid: eid.address(),
        locators,
        ..Record::default()
    };
    let mut records = vec![record(weft_lisp::Eid::host(vni, grant.mac.octets()), (&at).into())];
    let ips = grant.ips.iter().map(|ip| record(weft_lisp::Eid::host(vni, ip.get()), (&owner).into()));
    records.extend(ips);
    let register = MapRegister {
        proxy_reply: true,
        want_notify: true,
        records: (&records).into(),
        xtr: Some(Xtr { xtr_id: me.0, site_id: 0 }),
        ..MapRegister::default()
    };
    Body::encode_registration(&register, id, out, EncodeOptions::default())?;
    Ok(())
}
