//! What the underlay brings.

use super::admit::{To, admit};
use super::bytes::{ETH, IPV4, IPV6, UDP, be16, checksum, ethertype, ipv4, ipv6, take, update};
use super::{Action, Learned, Verdict, carry, members, policy, translate};
use crate::{Away, IfIndex, Path, Peer, PuntReason, Reason, Tables, Toward, echo};
use core::net::IpAddr;
use weft_model::Vni;

const PASS: Verdict = Verdict::new(Action::Pass);

fn drop(reason: Reason, vni: Option<Vni>, path: Path) -> Verdict {
    Verdict { reason: Some(reason), vni, path, ..Verdict::new(Action::Drop) }
}

/// A drop of a frame for a VN that may not be here.
fn drop_inward(tables: &Tables, reason: Reason, vni: Vni, path: Path) -> Verdict {
    if tables.vaps.values().any(|vap| vap.vni == vni) {
        drop(reason, Some(vni), path)
    } else {
        drop(Reason::UnknownVni, None, path)
    }
}

pub(super) fn from_overlay(
    tables: &Tables,
    learned: &Learned,
    vni: u32,
    from: IpAddr,
    frame: &[u8],
) -> Verdict {
    let path = Path::Device;
    if !tables.peers.get(&from).is_some_and(|peer| peer.nve) {
        return drop(Reason::ForeignRloc, None, path);
    }
    let Ok(vni) = Vni::new(vni) else { return drop(Reason::BadVxlan, None, path) };
    let admitted = admit(tables, vni, from, frame, true);
    let mut lessons = admitted.lessons();
    let delivered = |device, frame| delivered(device, admitted.moved, vni, path, frame);
    let verdict = match admitted.to {
        Ok(To::Vap(device, _, None)) => Ok(let_in(tables, learned, delivered(device, frame.to_vec()))),
        Ok(To::Vap(device, _, Some(owner))) => {
            Ok(let_in(tables, learned, delivered(device, translate::restored(frame, owner))))
        }
        Ok(To::Owner) => {
            let (to, heard) = translate::asked(tables, vni, frame);
            lessons.extend(heard);
            let handed = to.and_then(|to| match to {
                translate::For::Owner(device) => Ok(delivered(device, frame.to_vec())),
                translate::For::All => {
                    let spread = members::spread(tables, learned, vni, frame)?;
                    Ok(Verdict { moved: admitted.moved, ..spread })
                }
            });
            handed.map_err(|reason| (reason, None))
        }
        Ok(To::Away(away)) => redirected(tables, vni, from, away, frame),
        Ok(To::Carry) => {
            carry::decide(tables, vni, from, frame).map(|verdict| let_in(tables, learned, verdict))
        }
        Ok(To::All | To::Later) => {
            let spread = members::spread(tables, learned, vni, frame);
            let spread = spread.map(|verdict| Verdict { moved: admitted.moved, ..verdict });
            spread.map_err(|reason| (reason, None))
        }
        Err(reason) => Err((reason, reported(tables, vni, reason))),
    };
    let verdict =
        verdict.unwrap_or_else(|(reason, also)| Verdict { also, ..drop_inward(tables, reason, vni, path) });
    lessons.extend(verdict.lessons);
    Verdict { lessons, ..verdict }
}

/// What is delivered to one VAP, unless its policies keep it out.
fn let_in(tables: &Tables, learned: &Learned, verdict: Verdict) -> Verdict {
    let (Action::Deliver(at), Some(frame)) = (verdict.action, verdict.frames.first()) else { return verdict };
    let Some(to) = tables.vaps.get(&at) else { return verdict };
    let (checked, octets) = (policy::check(tables, learned, to, Toward::In, frame), frame.len());
    verdict.unless_kept_out(checked, octets).unless_over_rate(learned, at, to, octets)
}

fn delivered(to: IfIndex, moved: bool, vni: Vni, path: Path, frame: Vec<u8>) -> Verdict {
    let (reason, vni, frames) = (Some(Reason::Delivered), Some(vni), vec![frame]);
    Verdict { reason, vni, path, moved, frames, ..Verdict::new(Action::Deliver(to)) }
}

/// A frame goes on to where its destination went, unless that is where it came from. How often it was redirected is
/// no function of tables and frame: the outer TTL says so.
fn redirected(
    tables: &Tables,
    vni: Vni,
    from: IpAddr,
    away: Away,
    frame: &[u8],
) -> Result<Verdict, (Reason, Option<PuntReason>)> {
    let (to, path) = (away.rloc.get(), Path::Device);
    let here = tables.vaps.values().any(|vap| vap.vni == vni).then_some(vni);
    let verdict = |action, reason, also, frames| Verdict {
        reason: Some(reason),
        vni: here,
        path,
        also,
        frames,
        ..Verdict::new(action)
    };
    let node = |ip: IpAddr| tables.peers.get(&ip).map(|peer| peer.node);
    if to == from || node(to).is_some() && node(to) == node(from) {
        return Ok(verdict(Action::Drop, Reason::RedirectLoop, None, vec![]));
    }
    let also = reported(tables, vni, Reason::NoSuchTs);
    if !tables.config.rlocs.iter().any(|own| own.get().is_ipv4() == to.is_ipv4()) {
        return Ok(verdict(Action::Drop, Reason::NoRloc, also, vec![]));
    }
    let action = Action::Tunnel { rloc: away.rloc, path };
    Ok(verdict(action, Reason::Redirected, also, vec![frame.to_vec()]))
}

/// The agent is told of frames for who is not here, but where frames for anybody come to everybody.
fn reported(tables: &Tables, vni: Vni, reason: Reason) -> Option<PuntReason> {
    let asks = !members::floods(tables, vni) && !members::translates(tables, vni);
    (reason == Reason::NoSuchTs && asks).then_some(PuntReason::NoSuchTs)
}

/// A UDP datagram for the VXLAN port of one of our RLOCs.
struct Datagram {
    from: IpAddr,
    /// Where the payload starts.
    off: usize,
    udp_len: u16,
    ecn: u8,
}

fn datagram(tables: &Tables, frame: &[u8]) -> Option<Datagram> {
    let (from, to, off, ecn) = match ethertype(frame)? {
        IPV4 => {
            let h: [u8; 20] = take(frame, ETH)?;
            let fragment = u16::from_be_bytes([h[6], h[7]]) & 0x3fff != 0;
            if h[0] != 0x45 || h[9] != UDP || fragment {
                return None;
            }
            (ipv4(frame, 26)?, ipv4(frame, 30)?, ETH + 28, h[1] & 3)
        }
        IPV6 => {
            let h: [u8; 40] = take(frame, ETH)?;
            if h[0] >> 4 != 6 || h[6] != UDP {
                return None;
            }
            (ipv6(frame, 22)?, ipv6(frame, 38)?, ETH + 48, h[1] >> 4 & 3)
        }
        _ => return None,
    };
    let udp: [u8; 8] = take(frame, off - 8)?;
    let ours = tables.config.rlocs.iter().any(|rloc| rloc.get() == to);
    (ours && be16(&udp, 2)? == echo::PORT).then_some(Datagram { from, off, udp_len: be16(&udp, 4)?, ecn })
}

pub(super) fn from_underlay(tables: &Tables, learned: &Learned, frame: &[u8]) -> Verdict {
    let Some(outer) = datagram(tables, frame) else { return PASS };
    let peer = tables.peers.get(&outer.from).copied().unwrap_or_default();
    let path = Path::Direct;
    let Some(header) = take::<8>(frame, outer.off).filter(|_| frame.len() >= outer.off + 8 + ETH) else {
        return drop(stranger_or(peer, Reason::BadVxlan), None, path);
    };
    if header[0] & 8 == 0 {
        return match echo_reply(frame, &outer, peer) {
            Some(reply) => {
                Verdict { reason: Some(Reason::Echoed), frames: vec![reply], ..Verdict::new(Action::Reply) }
            }
            None => drop(stranger_or(peer, Reason::BadVxlan), None, path),
        };
    }
    if !peer.nve {
        return drop(Reason::ForeignRloc, None, path);
    }
    let Ok(vni) = Vni::new(u32::from_be_bytes([0, header[4], header[5], header[6]])) else {
        return drop(Reason::BadVxlan, None, path);
    };
    let inner = &frame[outer.off + 8..];
    let admitted = admit(tables, vni, outer.from, inner, false);
    let heard: Vec<_> = admitted.heard.into_iter().collect();
    let (device, way, owner) = match admitted.to {
        Err(reason) => {
            let (lessons, also) = (admitted.lessons(), reported(tables, vni, reason));
            return Verdict { lessons, also, ..drop_inward(tables, reason, vni, path) };
        }
        // Copies are made where the VXLAN device has stripped it.
        Ok(To::All | To::Owner | To::Later | To::Away(_) | To::Carry) => return PASS,
        Ok(To::Vap(device, way, owner)) => (device, way, owner),
    };
    let v4 = ethertype(inner) == Some(IPV4);
    if way == Path::Device || !v4 && ethertype(inner) != Some(IPV6) {
        return Verdict { lessons: heard, ..PASS };
    }
    if inner.len() < ETH + if v4 { 20 } else { 40 } {
        return drop(Reason::Malformed, Some(vni), path);
    }
    let lessons = admitted.lessons();
    let mut inner = owner.map_or_else(|| inner.to_vec(), |owner| translate::restored(inner, owner));
    if !merge_ecn(&mut inner, v4, outer.ecn) {
        return Verdict { lessons: heard, ..drop(Reason::EcnLost, Some(vni), path) };
    }
    let verdict = Verdict { lessons, ..delivered(device, admitted.moved, vni, path, inner) };
    let_in(tables, learned, verdict)
}

fn stranger_or(peer: Peer, reason: Reason) -> Reason {
    if peer.nve { reason } else { Reason::ForeignRloc }
}

/// RFC 6040 section 4.2. False: the inner packet cannot carry the mark.
fn merge_ecn(inner: &mut [u8], v4: bool, outer: u8) -> bool {
    let Some([a, b]) = take(inner, ETH) else { return false };
    let shift = if v4 { 0 } else { 4 };
    let ecn = match (outer, b >> shift & 3) {
        (3, 0) => return false,
        (3, _) => 3,
        (1, 2) => 1,
        (_, inner) => inner,
    };
    let now = b & !(3 << shift) | ecn << shift;
    if v4
        && now != b
        && let Some(check) = be16(inner, ETH + 10)
    {
        let check = update(check, u16::from_be_bytes([a, b]), u16::from_be_bytes([a, now]));
        inner[ETH + 10..ETH + 12].copy_from_slice(&check.to_be_bytes());
    }
    inner[ETH + 1] = now;
    true
}

fn echo_reply(frame: &[u8], outer: &Datagram, peer: Peer) -> Option<Vec<u8>> {
    let payload: [u8; echo::LEN] = take(frame, outer.off)?;
    let nonce = u64::from_be_bytes(take(&payload, 16)?);
    if !peer.oracle || usize::from(outer.udp_len) != 8 + echo::LEN || payload != echo::request(nonce) {
        return None;
    }
    let mut f = frame.to_vec();
    let udp = outer.off - 8;
    f[udp..udp + 2].copy_from_slice(&frame[udp + 2..udp + 4]);
    f[udp + 2..udp + 4].copy_from_slice(&frame[udp..udp + 2]);
    f[outer.off + echo::LEN - 1] = echo::REPLY;
    let check = be16(frame, udp + 6)?;
    if check != 0 {
        let word = |kind: u8| u16::from(kind) << 8;
        let check = match update(check, word(echo::REQUEST), word(echo::REPLY)) {
            0 => 0xffff,
            other => other,
        };
        f[udp + 6..udp + 8].copy_from_slice(&check.to_be_bytes());
    }
    if outer.from.is_ipv4() {
        f[26..30].copy_from_slice(&frame[30..34]);
        f[30..34].copy_from_slice(&frame[26..30]);
        f[22] = 64;
        f[24..26].copy_from_slice(&[0, 0]);
        let check = checksum(&[&f[14..34]]);
        f[24..26].copy_from_slice(&check);
    } else {
        f[22..38].copy_from_slice(&frame[38..54]);
        f[38..54].copy_from_slice(&frame[22..38]);
        f[21] = 64;
    }
    Some(f)
}
