//! What the build finds of the programs' stacks.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test fails by panicking")]

#[path = "../build/stack.rs"]
mod stack;

const OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/weft.o"));

/// Each program's deepest chain, as the kernel counts; one call less far down than the limit is named.
#[test]
fn which_chain_is_too_deep() {
    let chains = stack::chains(OBJECT).unwrap();
    let named = |name: &str| chains.iter().find(|chain| chain.0[0].0 == name).unwrap();
    for chain in &chains {
        println!("{chain}");
        assert!(chain.0.iter().all(|(_, octets)| octets % 32 == 0 && *octets > 0), "{chain}");
        assert_eq!(stack::check(std::slice::from_ref(chain), chain.octets()), Ok(()));
        let error = stack::check(std::slice::from_ref(chain), chain.octets() - 1).unwrap_err();
        assert!(error.contains(&chain.to_string()) && !error.contains('\n'), "{error}");
    }
    for program in ["from_vap", "from_underlay", "from_overlay", "again", "carry_again"] {
        assert!(named(program).0.len() > 2, "{program} calls what calls others");
    }
    assert_eq!(named("knock").0.len(), 1);
    let deep = stack::Chain(vec![("a".to_owned(), 32); 9]);
    assert!(stack::check(&[deep], stack::MOST).unwrap_err().contains("288 octets: a 32 a 32"));
    assert!(stack::section_names(OBJECT).unwrap().iter().any(|name| name == "classifier/from_vap"));
    assert!(stack::chains(b"no object").unwrap_err().contains("ELF"));
}
