//! What the kernel is to leave out of a capture: with thousands of data packets a second, whoever wants to see
//! control messages must not be handed all of them.

use libc::sock_filter;

/// Which frames a capture is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Filter {
    /// All.
    #[default]
    Everything,
    /// Over an IPv4 underlay: LISP, sessions, the API, and VXLAN with a group destination inside.
    Control,
}

const IPV4: u32 = 0x0800;
const UDP: u32 = 17;
const TCP: u32 = 6;
const LISP: u32 = 4342;
const API: u32 = 4343;
const VXLAN: u32 = 4789;

#[expect(clippy::cast_possible_truncation, reason = "codes are of 16 bits")]
const fn code(code: u32) -> u16 {
    code as u16
}

const LOAD_HALF: u16 = code(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS);
const LOAD_BYTE: u16 = code(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS);
const LOAD_HALF_AT: u16 = code(libc::BPF_LD | libc::BPF_H | libc::BPF_IND);
const LOAD_BYTE_AT: u16 = code(libc::BPF_LD | libc::BPF_B | libc::BPF_IND);
const LOAD_IP_LENGTH: u16 = code(libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH);
const EQUAL: u16 = code(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K);
const BIT: u16 = code(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K);
const RETURN: u16 = code(libc::BPF_RET | libc::BPF_K);

const fn load(code: u16, k: u32) -> sock_filter {
    sock_filter { code, jt: 0, jf: 0, k }
}

const fn test(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

/// The program of [`Filter::Control`], in the kernel's classic filter language. Jumps count from the
/// instruction behind; the last two accept and refuse.
pub(super) const CONTROL: [sock_filter; 17] = [
    load(LOAD_HALF, 12),
    test(EQUAL, IPV4, 0, 14),
    load(LOAD_IP_LENGTH, 14),
    load(LOAD_HALF_AT, 14), // source port
    test(EQUAL, LISP, 10, 0),
    test(EQUAL, API, 9, 0),
    load(LOAD_HALF_AT, 16), // destination port
    test(EQUAL, LISP, 7, 0),
    test(EQUAL, API, 6, 0),
    test(EQUAL, VXLAN, 0, 6),
    load(LOAD_BYTE, 23),
    test(EQUAL, TCP, 4, 0),
    test(EQUAL, UDP, 0, 3),
    load(LOAD_BYTE_AT, 14 + 8 + 8), // the first octet of the inner destination
    test(BIT, 1, 0, 1),
    load(RETURN, 0xffff),
    load(RETURN, 0),
];
