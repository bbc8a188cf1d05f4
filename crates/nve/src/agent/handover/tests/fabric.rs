//! A CA, certificates under it, an Oracle's tickets, and an NVE that answers on loopback.

use super::super::{
    Bounds, Credentials, Door, Event, Listeners,
    driver::{Answer, Said},
    error::Refusal,
    serve,
    wire::{Question, VERSION},
};
use crate::agent::{clock, driver::Input, trace};
use crate::core::{Claim, Context, Live, NotHanded, RequestId};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls::{SignatureScheme, crypto::ring::sign::any_ecdsa_type, pki_types::PrivateKeyDer};
use std::{collections::BTreeSet, net::SocketAddr, sync::Arc};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{mpsc, watch},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use weft_api::{Identity, ORACLE_SERVER_NAME, SignedTicket, Ticket, TraceTicket};
use weft_model::{Epoch, Grant, TsMac, TsiId, TsiName, VnSpec, XtrId};

pub(super) const OLD: XtrId = XtrId([1; 16]);
pub(super) const NEW: XtrId = XtrId([2; 16]);
pub(super) const THIRD: XtrId = XtrId([3; 16]);

/// Who may sign for whom.
pub(in super::super) struct Fabric {
    ca: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Fabric {
    pub(in super::super) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let ca = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), ca }
    }

    /// A certificate and its key.
    fn certificate(
        &self,
        uri: &str,
        name: Option<&str>,
        usage: ExtendedKeyUsagePurpose,
    ) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        params.subject_alt_names.extend(name.map(|name| SanType::DnsName(name.try_into().unwrap())));
        params.extended_key_usages = vec![usage];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// What an NVE has.
    pub(in super::super) fn nve(&self, nve: XtrId) -> Credentials {
        self.of(&format!("weft:nve/{nve}"))
    }

    pub(super) fn of(&self, uri: &str) -> Credentials {
        let (certificate, key) = self.certificate(uri, None, ExtendedKeyUsagePurpose::ClientAuth);
        let own = Identity { certificate: certificate.pem(), key: key.serialize_pem() };
        Credentials::new(&self.ca, &own).unwrap()
    }

    /// An Oracle's word.
    pub(super) fn sign(&self, ticket: &Ticket) -> SignedTicket {
        let usage = ExtendedKeyUsagePurpose::ServerAuth;
        self.sign_as(ticket, "weft:oracle/o1", Some(ORACLE_SERVER_NAME), usage)
    }

    pub(super) fn sign_as(
        &self,
        ticket: &Ticket,
        uri: &str,
        name: Option<&str>,
        usage: ExtendedKeyUsagePurpose,
    ) -> SignedTicket {
        self.sign_octets(Ticket::DOMAIN, ticket.payload().unwrap(), uri, name, usage)
    }

    /// An Oracle's word for a trace.
    pub(super) fn sign_trace(&self, ticket: &TraceTicket) -> SignedTicket {
        let (payload, usage) = (ticket.payload().unwrap(), ExtendedKeyUsagePurpose::ServerAuth);
        self.sign_octets(TraceTicket::DOMAIN, payload, "weft:oracle/o1", Some(ORACLE_SERVER_NAME), usage)
    }

    fn sign_octets(
        &self,
        domain: &[u8],
        payload: Vec<u8>,
        uri: &str,
        name: Option<&str>,
        usage: ExtendedKeyUsagePurpose,
    ) -> SignedTicket {
        let (certificate, key) = self.certificate(uri, name, usage);
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let key = any_ecdsa_type(&key).unwrap();
        let signer = key.choose_scheme(&[SignatureScheme::ECDSA_NISTP256_SHA256]).unwrap();
        let signature = signer.sign(&SignedTicket::message(domain, &payload)).unwrap();
        SignedTicket { payload, certificate: certificate.der().to_vec(), signature }
    }
}

pub(super) fn tsi() -> TsiId {
    TsiId { vni: 7.try_into().unwrap(), name: TsiName::new("web1").unwrap() }
}

/// A good ticket, each time another.
pub(super) fn ticket() -> Ticket {
    let id = [getrandom::u64().unwrap(), 0];
    let expires_at = clock::date() + Ticket::TTL_S;
    Ticket { tsi: tsi(), from: OLD, to: NEW, epoch: Epoch::FIRST.next(), expires_at, id }
}

/// What the NVE that is asked has.
pub(super) fn context() -> Context {
    let name: weft_model::VnName = "red".parse().unwrap();
    let vn = VnSpec {
        name,
        vni: tsi().vni,
        subnets: Default::default(),
        learning: Default::default(),
        reply: Default::default(),
        bum: Default::default(),
        storm: Default::default(),
        miss: Default::default(),
        gateway: None,
        default_groups: Default::default(),
        log_refused: false,
        tunnel: Default::default(),
    };
    let ips = BTreeSet::from(["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()]);
    let grant = Grant {
        tsi: tsi(),
        mac: TsMac::local(1),
        ips,
        owner: OLD,
        epoch: Epoch::FIRST,
        next: None,
        groups: Default::default(),
        tunnel: Default::default(),
    };
    Context { revision: 3, grant, epoch: Epoch::FIRST, vn, activated: true, live: Live::default() }
}

/// An NVE that answers, and who says what its driver would.
pub(super) struct Asked {
    pub(super) fabric: Fabric,
    pub(super) at: SocketAddr,
    /// Questions that came through.
    pub(super) claims: mpsc::UnboundedReceiver<Claim>,
    /// Who said something to which request, and that it does not listen any more.
    pub(super) said: mpsc::UnboundedReceiver<mpsc::Sender<Said>>,
    pub(super) left: mpsc::UnboundedReceiver<RequestId>,
    /// Traces that came through.
    pub(super) traces: mpsc::UnboundedReceiver<trace::Event>,
}

impl Asked {
    /// With web1 at epoch 1 and `live` of it.
    pub(super) async fn new(bounds: Bounds, live: Live) -> Self {
        Self::at(([127, 0, 0, 1], 0).into(), bounds, live).await
    }

    pub(super) async fn at(at: SocketAddr, bounds: Bounds, live: Live) -> Self {
        let fabric = Fabric::new();
        let (inputs, mut queue) = mpsc::channel(64);
        let credentials = watch::channel(Arc::new(fabric.nve(OLD))).1;
        let door = Door::new(OLD, credentials, inputs, bounds).unwrap();
        // Loopback is no RLOC.
        let listener = TcpListener::bind(at).await.unwrap();
        let at = listener.local_addr().unwrap();
        tokio::spawn(serve(Listeners(vec![listener]), door));
        let (claimed, claims) = mpsc::unbounded_channel();
        let (says, said) = mpsc::unbounded_channel();
        let (leaves, left) = mpsc::unbounded_channel();
        let (traced, traces) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut next = 0;
            while let Some(input) = queue.recv().await {
                match input {
                    Input::Handover(Event::Asked(claim, answer)) => {
                        next += 1;
                        claimed.send(claim.clone()).unwrap();
                        let _ = answer.send(reply(&claim, next, live.clone(), &says));
                    }
                    Input::Handover(Event::Left(request)) => drop(leaves.send(request)),
                    Input::Trace(event) => drop(traced.send(event)),
                    _ => unreachable!(),
                }
            }
        });
        Self { fabric, at, claims, said, left, traces }
    }

    /// TLS with these credentials.
    pub(super) async fn connect(
        &self,
        shown: &Credentials,
        nve: XtrId,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let socket = TcpSocket::new_v4()?;
        // Who does not read soon holds the other up.
        socket.set_recv_buffer_size(8_192)?;
        let stream = socket.connect(self.at).await?;
        let config = shown.client(nve).unwrap();
        let name = rustls::pki_types::ServerName::IpAddress(self.at.ip().into());
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    /// The answer to a POST of `body` by NVE `who`: head and body.
    pub(super) async fn post(&self, who: &Credentials, body: &[u8]) -> String {
        self.post_to("/v1/context", who, body).await
    }

    pub(super) async fn post_to(&self, path: &str, who: &Credentials, body: &[u8]) -> String {
        let mut stream = self.connect(who, OLD).await.unwrap();
        let head = format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).await.unwrap();
        // Of one that is too long not all is read.
        let _ = stream.write_all(body).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    /// The same, of a question with this ticket.
    pub(super) async fn ask(&self, who: &Credentials, ticket: &SignedTicket) -> String {
        self.post(who, &question(ticket)).await
    }
}

pub(super) fn question(ticket: &SignedTicket) -> Vec<u8> {
    serde_json::to_vec(&Question { version: VERSION, ticket: ticket.to_string() }).unwrap()
}

fn reply(
    claim: &Claim,
    next: u64,
    live: Live,
    says: &mpsc::UnboundedSender<mpsc::Sender<Said>>,
) -> Result<Answer, Refusal> {
    if claim.epoch <= Epoch::FIRST {
        let refused = NotHanded::Outdated { tsi: claim.tsi.clone(), ours: Epoch::FIRST, theirs: claim.epoch };
        return Err(refused.into());
    }
    let (said, hears) = mpsc::channel(8);
    says.send(said).unwrap();
    Ok((RequestId(next), Box::new(Context { live, ..context() }), hears))
}
