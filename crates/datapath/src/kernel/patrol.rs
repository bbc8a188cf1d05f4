//! What the kernel holds compared with what it should, a part at a time: whoever does both that and something else is not
//! kept from it for longer the more tenant systems there are elsewhere.

use super::{
    Kernel,
    abi::{LocationValue, NeighbourValue, ScopedIp, VnMac},
    maps::{Table, Walker},
    observed,
    sys::Walk,
};
use crate::{DatapathError, Location, Neighbour, Op, Tables};
use core::ops::Bound;
use std::collections::BTreeMap;
use weft_model::{MacAddr, TenantIp, Vni};

/// Entries of what is wanted that are looked up at once; of what is there, which is read many at a call, four times as
/// many.
const WANTED: usize = 256;

/// One comparison of everything. [`Patrol::step`] until it says that it was the last part; then it begins anew.
#[derive(Debug, Default)]
pub struct Patrol {
    at: Stage,
}

/// What is compared next.
#[derive(Debug, Default)]
enum Stage {
    /// All but where tenant systems are and what is answered for them: of a large policy that is much, too.
    #[default]
    Few,
    /// Locations that are there.
    Locations(Walk),
    /// Locations that should be, behind this one.
    WantedLocations(Option<(Vni, MacAddr)>),
    /// Answers that are there.
    Neighbours(Walk),
    /// Answers that should be.
    WantedNeighbours(Option<(Vni, TenantIp)>),
}

/// A part of a comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The changes that make it as it should be.
    pub ops: Vec<Op>,
    /// It was the last one.
    pub last: bool,
}

impl Patrol {
    /// Whether the next part is the first.
    #[must_use]
    pub const fn begins(&self) -> bool {
        matches!(self.at, Stage::Few)
    }

    /// Compares the next part with what is `wanted` now. Make the changes before `wanted` changes, or they would undo what
    /// is right.
    ///
    /// # Errors
    /// When a map cannot be read; the comparison then begins anew.
    pub fn step(&mut self, kernel: &Kernel, wanted: &Tables) -> Result<Part, DatapathError> {
        let maps = &kernel.maps;
        let (ops, next) = match core::mem::take(&mut self.at) {
            Stage::Few => (wanted.diff_few(&kernel.observe_few()?), Some(Stage::Locations(Walk::default()))),
            Stage::Locations(mut walk) => {
                let remove = |(vni, mac)| Op::RemoveLocation(vni, mac);
                let (ops, more) =
                    beyond(&maps.fdb.walker()?, &mut walk, &wanted.fdb, observed::location, remove)?;
                (ops, Some(if more { Stage::Locations(walk) } else { Stage::WantedLocations(None) }))
            }
            Stage::WantedLocations(after) => {
                let key = |(vni, mac): (Vni, MacAddr)| VnMac::new(vni, mac);
                let meaning = |value: LocationValue| value.meaning();
                let (ops, last) = missing(&maps.fdb, after, &wanted.fdb, key, meaning, set_location)?;
                let more = last.map(|last| Stage::WantedLocations(Some(last)));
                (ops, more.or_else(|| Some(Stage::Neighbours(Walk::default()))))
            }
            Stage::Neighbours(mut walk) => {
                let remove = |(vni, ip)| Op::RemoveNeighbour(vni, ip);
                let (table, wanted) = (maps.neighbours.walker()?, &wanted.neighbours);
                let (ops, more) = beyond(&table, &mut walk, wanted, observed::neighbour, remove)?;
                (ops, Some(if more { Stage::Neighbours(walk) } else { Stage::WantedNeighbours(None) }))
            }
            Stage::WantedNeighbours(after) => {
                let key = |(vni, ip): (Vni, TenantIp)| ScopedIp { scope: vni.get(), ip: ip.get().into() };
                let meaning = |value: NeighbourValue| Some(value.into());
                let (ops, last) =
                    missing(&maps.neighbours, after, &wanted.neighbours, key, meaning, set_neighbour)?;
                (ops, last.map(|last| Stage::WantedNeighbours(Some(last))))
            }
        };
        let last = next.is_none();
        self.at = next.unwrap_or_default();
        Ok(Part { ops, last })
    }
}

fn set_location((vni, mac): (Vni, MacAddr), location: Location) -> Op {
    Op::SetLocation(vni, mac, location)
}

fn set_neighbour((vni, ip): (Vni, TenantIp), neighbour: Neighbour) -> Op {
    Op::SetNeighbour(vni, ip, neighbour)
}

/// Takes away what should not be there at all of the next entries that a table holds; and whether there are more. What says
/// something wrong [`missing`] finds.
fn beyond<K: aya::Pod, V: aya::Pod, Id: Ord, Is>(
    table: &Walker<K, V>,
    walk: &mut Walk,
    wanted: &BTreeMap<Id, Is>,
    meaning: fn(K, V) -> Option<(Id, Is)>,
    remove: fn(Id) -> Op,
) -> Result<(Vec<Op>, bool), DatapathError> {
    let mut ops = Vec::new();
    let more = table.part(walk, |key, value| {
        let found = meaning(key, value).filter(|(id, _)| !wanted.contains_key(id));
        ops.extend(found.map(|(id, _)| remove(id)));
    })?;
    Ok((ops, more))
}

/// Sets what is not there, or says something else, of the next entries that a table should hold; and the last of them: none,
/// there are no more.
fn missing<K: aya::Pod, V: aya::Pod, Id: Ord + Copy, Is: PartialEq + Copy>(
    table: &Table<K, V>,
    after: Option<Id>,
    wanted: &BTreeMap<Id, Is>,
    key: impl Fn(Id) -> K,
    meaning: impl Fn(V) -> Option<Is>,
    set: fn(Id, Is) -> Op,
) -> Result<(Vec<Op>, Option<Id>), DatapathError> {
    let (mut ops, mut last) = (Vec::new(), None);
    let behind = after.map_or(Bound::Unbounded, Bound::Excluded);
    for (id, should) in wanted.range((behind, Bound::Unbounded)).take(WANTED) {
        last = Some(*id);
        if table.get(&key(*id))?.and_then(&meaning) != Some(*should) {
            ops.push(set(*id, *should));
        }
    }
    Ok((ops, last))
}
