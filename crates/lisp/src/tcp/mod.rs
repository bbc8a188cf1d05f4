//! LISP's reliable transport: frames on a byte stream, TCP or TLS, port 4342.
//!
//! The framing and frame types 16 to 30 are those of the map-server reliable transport and RLOC membership
//! drafts as deployed peers and protocol analysers know them:
//!
//! ```text
//! Type (16) | Length (16, of the whole frame) | ID (32) | data ... | end marker 0x9FACADE9 (32)
//! ```
//!
//! # Weft's own frames
//!
//! Some signals have no place in those types: a hello, the end of registration, the digest of a VN, the
//! subscription to all mappings of a VN (see [`Signal`]), the receivers of its groups (see [`Group`]), and what an
//! NVE shows to people ([`View`]). They have frame types of their own, from [`SIGNAL_BASE`] on, far from what is
//! assigned. The alternatives were worse: an Error Notification takes arbitrary data but tells a peer that
//! it did something wrong; a Registration Refresh asks a peer to send everything again; an EID that is an
//! LCAF of a private type is reported by Wireshark as not dissected, and data behind the known
//! part of any membership frame as undecoded. A frame of an unassigned type is shown by Wireshark with its
//! data and without a complaint, and a peer that follows the drafts skips it or answers with an Error
//! Notification that names it. A peer sends nothing of this but its hello before it has seen the other's.
//!
//! # Decoding
//!
//! ```
//! use weft_lisp::tcp::{Body, FrameDecoder, Signal};
//!
//! let mut stream = Vec::new();
//! let hello = Body::Signal(Signal::Hello { version: 1, boot_id: 0xfeed });
//! hello.encode(7, &mut stream, Default::default())?;
//!
//! let mut decoder = FrameDecoder::default();
//! decoder.push(&stream); // any piece of the stream, as it comes
//! while let Some(frame) = decoder.next_frame()? {
//!     assert_eq!((frame.id, frame.body()?), (7, hello));
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod body;
mod frame;
mod frames;
mod group;
mod membership;
mod signal;
mod view;

pub use body::{Body, EidPrefix, ErrorNotification, RefreshScope, Registration, RejectReason};
pub use frame::{END_MARKER, Frame, FrameDecoder, FrameError, MAX_FRAME_LEN, MIN_FRAME_LEN, encode_frame};
pub use frames::Frames;
pub use group::{Group, GroupEvent};
pub use membership::{Membership, MembershipEvent, SubscribeError};
pub use signal::{SIGNAL_BASE, Signal};
pub use view::View;
