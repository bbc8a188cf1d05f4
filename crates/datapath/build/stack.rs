//! How deep the stack of each program gets, from the compiled object. The kernel refuses what goes deeper than 512 octets,
//! calls included, or more than eight calls deep, by an error that names no function; and older kernels count each
//! function's part in steps of 32 octets, newer ones in steps of 16: what loads here need not load there.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// Octets that a program and what it calls may have.
pub const MOST: u32 = 512;
/// Octets in which a function's part is counted.
const STEP: u32 = 32;
/// How deep calls may be nested.
const CALLS: usize = 8;

/// A program's deepest chain of calls: each function and the octets of its part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain(pub Vec<(String, u32)>);

impl Chain {
    /// Octets that it takes.
    pub fn octets(&self) -> u32 {
        self.0.iter().map(|(_, octets)| octets).sum()
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} octets:", self.octets())?;
        self.0.iter().try_for_each(|(name, octets)| write!(f, " {name} {octets}"))
    }
}

/// The deepest chain of each program of an object, or what is wrong with it.
pub fn chains(object: &[u8]) -> Result<Vec<Chain>, String> {
    let elf = Elf::read(object).ok_or("the compiled object is no little-endian 64-bit ELF file")?;
    let functions = elf.functions().ok_or("the compiled object's functions do not add up")?;
    let called: BTreeSet<_> = functions.values().flat_map(|function| &function.calls).copied().collect();
    let programs = functions.keys().filter(|at| !called.contains(at));
    programs.map(|at| deepest(&functions, *at, &mut Vec::new()).map(Chain)).collect()
}

/// Says so if one of them is too deep.
pub fn check(chains: &[Chain], most: u32) -> Result<(), String> {
    let deep = chains.iter().find(|chain| chain.octets() > most || chain.0.len() > CALLS);
    deep.map_or(Ok(()), |chain| {
        Err(format!(
            "the stack of an eBPF program gets too deep ({most} octets and {CALLS} calls at most): {chain}. Move what \
             is large to a per-CPU map, pass a pointer to it, or call what needs it from further up"
        ))
    })
}

/// Section and offset.
type At = (usize, u64);

#[derive(Clone, Debug, Default)]
struct Function {
    name: String,
    octets: u32,
    calls: BTreeSet<At>,
}

fn deepest(all: &BTreeMap<At, Function>, at: At, above: &mut Vec<At>) -> Result<Vec<(String, u32)>, String> {
    let function = all.get(&at).ok_or("a call leads to no function")?;
    if above.contains(&at) {
        return Err(format!("{} calls itself", function.name));
    }
    above.push(at);
    let mut below: Vec<(String, u32)> = Vec::new();
    for call in &function.calls {
        let chain = deepest(all, *call, above)?;
        let sum = |chain: &[(String, u32)]| chain.iter().map(|(_, octets)| octets).sum::<u32>();
        if (sum(&chain), chain.len()) > (sum(&below), below.len()) {
            below = chain;
        }
    }
    above.pop();
    below.insert(0, (function.name.clone(), function.octets.max(1).next_multiple_of(STEP)));
    Ok(below)
}

struct Section {
    name: String,
    kind: u64,
    flags: u64,
    start: usize,
    size: usize,
    link: usize,
    info: usize,
}

struct Symbol {
    name: String,
    kind: u64,
    section: usize,
    value: u64,
    size: u64,
}

struct Elf<'a> {
    octets: &'a [u8],
    sections: Vec<Section>,
    symbols: Vec<Symbol>,
}

const REL: u64 = 9;
const SYMBOLS: u64 = 2;
const EXECUTABLE: u64 = 4;
const FUNCTION: u64 = 2;
const SECTION: u64 = 3;

/// Instructions.
const CALL: u8 = 0x85;
const LOAD_64: u8 = 0x18;
const MOVE: u8 = 0xbf;
const ADD: u8 = 0x07;
const FRAME: u8 = 10;

impl<'a> Elf<'a> {
    fn read(octets: &'a [u8]) -> Option<Self> {
        if octets.get(..6)? != b"\x7fELF\x02\x01" {
            return None;
        }
        let mut elf = Self { octets, sections: Vec::new(), symbols: Vec::new() };
        let (table, size, count, names) =
            (elf.index(0x28, 8)?, elf.index(0x3a, 2)?, elf.index(0x3c, 2)?, elf.index(0x3e, 2)?);
        let names = elf.index(table + names * size + 0x18, 8)?;
        for i in 0..count {
            let at = table + i * size;
            let section = Section {
                name: elf.text(names + elf.index(at, 4)?)?,
                kind: elf.number(at + 4, 4)?,
                flags: elf.number(at + 8, 8)?,
                start: elf.index(at + 0x18, 8)?,
                size: elf.index(at + 0x20, 8)?,
                link: elf.index(at + 0x28, 4)?,
                info: elf.index(at + 0x2c, 4)?,
            };
            elf.sections.push(section);
        }
        let symbols = elf.sections.iter().find(|section| section.kind == SYMBOLS)?;
        let strings = elf.sections.get(symbols.link)?.start;
        let symbols: Option<Vec<Symbol>> = (symbols.start..symbols.start + symbols.size)
            .step_by(24)
            .map(|at| {
                Some(Symbol {
                    name: elf.text(strings + elf.index(at, 4)?)?,
                    kind: elf.number(at + 4, 1)? & 15,
                    section: elf.index(at + 6, 2)?,
                    value: elf.number(at + 8, 8)?,
                    size: elf.number(at + 16, 8)?,
                })
            })
            .collect();
        elf.symbols = symbols?;
        Some(elf)
    }

    fn number(&self, at: usize, len: usize) -> Option<u64> {
        let octets = self.octets.get(at..at.checked_add(len)?)?;
        Some(octets.iter().rev().fold(0, |n, octet| n << 8 | u64::from(*octet)))
    }

    fn index(&self, at: usize, len: usize) -> Option<usize> {
        self.number(at, len)?.try_into().ok()
    }

    fn text(&self, at: usize) -> Option<String> {
        let text = self.octets.get(at..)?.split(|octet| *octet == 0).next()?;
        Some(String::from_utf8_lossy(text).into_owned())
    }

    /// What each place that the linker has to fill in refers to.
    fn references(&self) -> Option<BTreeMap<At, &Symbol>> {
        let mut all = BTreeMap::new();
        for section in self.sections.iter().filter(|section| section.kind == REL) {
            for at in (section.start..section.start + section.size).step_by(16) {
                let symbol = self.symbols.get(self.index(at + 12, 4)?)?;
                all.insert((section.info, self.number(at, 8)?), symbol);
            }
        }
        Some(all)
    }

    fn functions(&self) -> Option<BTreeMap<At, Function>> {
        let references = self.references()?;
        let executable = |symbol: &&Symbol| {
            symbol.kind == FUNCTION
                && self.sections.get(symbol.section).is_some_and(|section| section.flags & EXECUTABLE != 0)
        };
        let function =
            |symbol: &Symbol| Some(((symbol.section, symbol.value), self.function(symbol, &references)?));
        self.symbols.iter().filter(executable).map(function).collect()
    }

    fn function(&self, symbol: &Symbol, references: &BTreeMap<At, &Symbol>) -> Option<Function> {
        let mut function = Function { name: symbol.name.clone(), ..Function::default() };
        let start = self.sections.get(symbol.section)?.start;
        // The register that the address of the stack's end was copied to by the instruction before.
        let mut copied = None;
        for at in (symbol.value..symbol.value + symbol.size).step_by(8) {
            let place = start + usize::try_from(at).ok()?;
            let [code, registers, low, high] = *self.octets.get(place..)?.first_chunk()?;
            let (to, from) = (registers & 15, registers >> 4);
            #[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "four octets")]
            let immediate = self.number(place + 4, 4)? as u32 as i32;
            let offset = i32::from(i16::from_le_bytes([low, high]));
            let reference = references.get(&(symbol.section, at)).copied();
            let mut deep = 0;
            match code {
                CALL if from == 1 => {
                    let next = u64::try_from((i64::from(immediate) + 1) * 8);
                    function.calls.insert(match reference {
                        Some(symbol) if symbol.kind == SECTION => (symbol.section, next.ok()?),
                        Some(symbol) => (symbol.section, symbol.value),
                        None => (symbol.section, at.wrapping_add_signed((i64::from(immediate) + 1) * 8)),
                    });
                }
                // A function that a helper is to call.
                LOAD_64 => match reference {
                    Some(symbol) if symbol.kind == FUNCTION => {
                        function.calls.insert((symbol.section, symbol.value));
                    }
                    Some(symbol)
                        if symbol.kind == SECTION
                            && self.sections.get(symbol.section)?.flags & EXECUTABLE != 0 =>
                    {
                        function.calls.insert((symbol.section, u64::try_from(immediate).ok()?));
                    }
                    _ => {}
                },
                ADD if copied == Some(to) => deep = -immediate,
                // Loads and stores, by their classes.
                _ if code & 7 == 1 && from == FRAME => deep = -offset,
                _ if matches!(code & 7, 2 | 3) && to == FRAME => deep = -offset,
                _ => {}
            }
            copied = (code == MOVE && from == FRAME).then_some(to);
            function.octets = function.octets.max(u32::try_from(deep).unwrap_or(0));
        }
        Some(function)
    }
}

/// The names of the sections of an object.
pub fn section_names(object: &[u8]) -> Option<Vec<String>> {
    Elf::read(object).map(|elf| elf.sections.into_iter().map(|section| section.name).collect())
}
