//! A shard with tenants, and Map-Requests ready to be given to it. Also used by the `lookups` example.

#![allow(clippy::unwrap_used, reason = "set-up of tests: what fails here ends them")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use weft_lisp::tcp::{Body, FrameDecoder};
use weft_lisp::{
    Address, Ecm, EcmHeader, Eid, EidAddr, EidRecord, EncodeOptions, Locator, MapRegister, MapRequest,
    Record, Xtr,
};
use weft_model::{
    Bum, Epoch, Grant, Learning, Name, Reply, Rloc, Subnets, TenantIp, Time, TsMac, TsiId, VnSpec, Vni, XtrId,
};
use weft_oracle::core::{Fact, NveFact, SessionEvent, SessionId, Shard, ShardConfig};

/// Where the Oracle is asked.
pub const ORACLE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// The RLOC of an NVE.
pub fn rloc(nve: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(172, 16, 0, 0)) + 1 + nve)
}

fn xtr(nve: u32) -> XtrId {
    XtrId((u128::from(nve) + 1).to_be_bytes())
}

/// The MAC, IPv4 or IPv6 EID (`kind` 0, 1, 2) of the `n`-th TSI; there is none from `tsis` on.
pub fn eid(n: u32, kind: u32) -> Eid {
    let addr = match kind {
        0 => EidAddr::Mac(TsMac::local((n + 1).into()).octets()),
        1 => EidAddr::Ipv4(Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 0)) + 1 + n)),
        _ => EidAddr::Ipv6(Ipv6Addr::from((0xfd00_u128 << 112) + 1 + u128::from(n))),
    };
    Eid::host(1, addr)
}

/// A shard with one VN, `nves` NVEs and `tsis` registered TSIs spread over them.
pub fn shard(nves: u32, tsis: u32) -> Shard {
    let now = Time::from_secs(1);
    let mut shard = Shard::new(ShardConfig::default(), now);
    let nets = ["10.0.0.0/8", "fd00::/64"].map(|net| net.parse().unwrap()).to_vec();
    shard.handle_fact(
        now,
        Fact::Vn(VnSpec {
            name: Name::new("red").unwrap(),
            vni: Vni::new(1).unwrap(),
            subnets: Subnets::new(nets).unwrap(),
            learning: Learning::Oracle,
            reply: Reply::Proxy,
            bum: Bum::Drop,
            storm: Default::default(),
            miss: Default::default(),
            gateway: None,
            default_groups: Default::default(),
            log_refused: false,
            tunnel: Default::default(),
        }),
    );
    for n in 0..nves {
        let rlocs = vec![Rloc::new(rloc(n).into()).unwrap()];
        let name = Name::new(format!("host{n}")).unwrap();
        shard.handle_fact(now, Fact::Nve(NveFact { xtr_id: xtr(n), name, rlocs }));
    }
    for n in 0..tsis {
        let ips = [eid(n, 1), eid(n, 2)].map(|eid| match eid.addr() {
            EidAddr::Ipv4(ip) => TenantIp::new(ip.into()).unwrap(),
            EidAddr::Ipv6(ip) => TenantIp::new(ip.into()).unwrap(),
            EidAddr::Mac(_) => unreachable!(),
        });
        shard.handle_fact(
            now,
            Fact::Grant(Grant {
                tsi: TsiId { vni: Vni::new(1).unwrap(), name: Name::new(format!("t{n}")).unwrap() },
                mac: TsMac::local((n + 1).into()),
                ips: ips.into(),
                groups: Default::default(),
                tunnel: Default::default(),
                owner: xtr(n % nves),
                epoch: Epoch::FIRST,
                next: None,
            }),
        );
    }
    shard.handle_fact(now, Fact::FactsLoaded);
    for n in 0..nves {
        let session = SessionId(n.into());
        shard.handle_session(now, SessionEvent::Up { session, xtr_id: xtr(n) });
    }
    for n in 0..tsis {
        register(&mut shard, now, n % nves, n);
    }
    drain(&mut shard);
    shard
}

/// Registers the `n`-th TSI.
pub fn register(shard: &mut Shard, now: Time, nve: u32, n: u32) {
    let here = [Locator::new(rloc(nve), 1)];
    let owner = [Locator::mac(TsMac::local((n + 1).into()).octets())];
    let record = |kind: u32, locators| {
        let eid = eid(n, kind);
        Record { ttl: u32::MAX, mask_len: eid.mask_len(), eid: eid.address(), locators, ..Record::default() }
    };
    let records = [record(0, (&here).into()), record(1, (&owner).into()), record(2, (&owner).into())];
    let register = MapRegister {
        records: (&records).into(),
        xtr: Some(Xtr { xtr_id: xtr(nve).0, site_id: 0 }),
        ..MapRegister::default()
    };
    let mut octets = Vec::new();
    Body::encode_registration(&register, n, &mut octets, EncodeOptions::default()).unwrap();
    let mut decoder = FrameDecoder::default();
    decoder.push(&octets);
    let frame = decoder.next_frame().unwrap().unwrap();
    shard.handle_session(now, SessionEvent::Frame { session: SessionId(nve.into()), frame });
}

/// A Map-Request of `nve` for `wanted`.
pub fn request(nve: u32, wanted: Eid, nonce: u64) -> (SocketAddr, Vec<u8>) {
    let itr_rlocs = [Address::from(rloc(nve))];
    let records = [EidRecord { notify: false, mask_len: wanted.mask_len(), eid: wanted.address() }];
    let request = MapRequest {
        nonce,
        source_eid: eid(nve, 1).address(),
        itr_rlocs: (&itr_rlocs).into(),
        records: (&records).into(),
        ..MapRequest::default()
    };
    let source = SocketAddr::new(rloc(nve).into(), 4342);
    let header = EcmHeader::Ip { source, destination: SocketAddr::new(ORACLE, 4342) };
    let mut octets = Vec::new();
    Ecm::encode_with(&mut octets, false, header, |out| request.encode(out, EncodeOptions::default()))
        .unwrap();
    (source, octets)
}

/// Takes everything there is to send; returns how many transmissions.
pub fn drain(shard: &mut Shard) -> usize {
    let mut octets = Vec::new();
    let mut count = 0;
    while shard.poll_transmit(&mut octets).is_some() {
        count += 1;
    }
    count
}
