//! How deep the stack of each program gets, from the compiled object. The kernel refuses what goes deeper than 512 octets,
//! calls included, or more than eight calls deep, by an error that names no function; and older kernels count each
//! function's part in steps of 32 octets, newer ones in steps of 16: what loads here need not load there.

use object::{
    File, Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SectionIndex, SectionKind,
    Symbol, SymbolKind,
};
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
    let file = File::parse(object).map_err(|e| format!("the compiled object is no ELF file: {e}"))?;
    let functions = functions(&file).ok_or("the compiled object's functions do not add up")?;
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

/// Instructions.
const CALL: u8 = 0x85;
const LOAD_64: u8 = 0x18;
const MOVE: u8 = 0xbf;
const ADD: u8 = 0x07;
const FRAME: u8 = 10;

/// What each place that the linker has to fill in refers to.
fn references<'a>(file: &'a File<'a>) -> Option<BTreeMap<At, Symbol<'a, 'a>>> {
    let mut all = BTreeMap::new();
    for section in file.sections() {
        for (at, reference) in section.relocations() {
            let RelocationTarget::Symbol(symbol) = reference.target() else { return None };
            all.insert((section.index().0, at), file.symbol_by_index(symbol).ok()?);
        }
    }
    Some(all)
}

/// Where something is, if it is code.
fn place(file: &File<'_>, symbol: &Symbol<'_, '_>) -> Option<At> {
    let section = symbol.section_index()?;
    let code = file.section_by_index(section).is_ok_and(|section| section.kind() == SectionKind::Text);
    code.then_some((section.0, symbol.address()))
}

fn functions(file: &File<'_>) -> Option<BTreeMap<At, Function>> {
    let references = references(file)?;
    let all = file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text);
    let all = all.filter_map(|symbol| Some((place(file, &symbol)?, symbol)));
    all.map(|(at, symbol)| Some((at, function(file, at, &symbol, &references)?))).collect()
}

fn function(
    file: &File<'_>,
    (section, start): At,
    symbol: &Symbol<'_, '_>,
    references: &BTreeMap<At, Symbol<'_, '_>>,
) -> Option<Function> {
    let mut function = Function { name: symbol.name().ok()?.to_owned(), ..Function::default() };
    let code = file.section_by_index(SectionIndex(section)).ok()?.data().ok()?;
    let code = code.get(usize::try_from(start).ok()?..usize::try_from(start + symbol.size()).ok()?)?;
    // The register that the address of the stack's end was copied to by the instruction before.
    let mut copied = None;
    for (at, instruction) in (start..).step_by(8).zip(code.as_chunks::<8>().0) {
        let [code, registers, low, high, immediate @ ..] = *instruction;
        let (to, from) = (registers & 15, registers >> 4);
        let (immediate, offset) = (i32::from_le_bytes(immediate), i32::from(i16::from_le_bytes([low, high])));
        let reference = references.get(&(section, at));
        let mut deep = 0;
        match code {
            CALL if from == 1 => {
                let next = (i64::from(immediate) + 1) * 8;
                function.calls.insert(match reference {
                    Some(symbol) if symbol.kind() == SymbolKind::Section => {
                        (symbol.section_index()?.0, u64::try_from(next).ok()?)
                    }
                    Some(symbol) => place(file, symbol)?,
                    None => (section, at.wrapping_add_signed(next)),
                });
            }
            // A function that a helper is to call.
            LOAD_64 => match reference.and_then(|symbol| Some((symbol, place(file, symbol)?))) {
                Some((symbol, (section, _))) if symbol.kind() == SymbolKind::Section => {
                    function.calls.insert((section, u64::try_from(immediate).ok()?));
                }
                Some((_, at)) => {
                    function.calls.insert(at);
                }
                None => {}
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

/// The names of the sections of an object.
pub fn section_names(object: &[u8]) -> Option<Vec<String>> {
    let file = File::parse(object).ok()?;
    file.sections().map(|section| Some(section.name().ok()?.to_owned())).collect()
}
