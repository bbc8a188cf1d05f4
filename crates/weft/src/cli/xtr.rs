//! `weft xtr`.

use super::{Access, Output, number::number, words};
use clap::{Args, Subcommand};
use std::path::PathBuf;
use weft_api::KeyAlgorithm;
use weft_model::{Name, Rloc, VnName, XtrId};

#[derive(Debug, Subcommand)]
pub(crate) enum XtrCommand {
    /// Make a plain LISP xTR known: it may register what is granted to it, ask and subscribe.
    #[command(after_help = "Example:
  weft xtr add router --rloc 192.0.2.5 --xtr-id 000102030405060708090a0b0c0d0e0f --key-file secret --vn red")]
    Add(XtrAdd),
    /// Forget a plain LISP xTR, with its subscriptions.
    #[command(after_help = "Example: weft xtr remove router")]
    Remove {
        /// Its name.
        name: Name,
        /// Release its grants, too.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        access: Access,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, Args)]
pub(crate) struct XtrAdd {
    /// Its name; NVEs have no other one's.
    pub(crate) name: Name,
    /// An address of it; may be repeated.
    #[arg(long, required = true)]
    pub(crate) rloc: Vec<Rloc>,
    /// The xTR-ID it sends, 32 hexadecimal digits [default: drawn, for one that sends none; one that subscribes sends
    /// its own, so put what was drawn into it].
    #[arg(long)]
    pub(crate) xtr_id: Option<XtrId>,
    /// The Site-ID it sends with that.
    #[arg(long, default_value_t = 0, value_parser = number::<u64>(0..=u64::MAX))]
    pub(crate) site_id: u64,
    /// The Key ID it sends with its messages.
    #[arg(long, default_value_t = 0, value_parser = number::<u8>(0..=u8::MAX.into()))]
    pub(crate) key_id: u8,
    /// How its messages are authenticated: hmac-sha1, hmac-sha256 or hmac-sha256-hkdf.
    #[arg(long, value_parser = words::<KeyAlgorithm>, default_value = "hmac-sha256")]
    pub(crate) algorithm: KeyAlgorithm,
    /// The file with the secret shared with it, whose first line counts.
    #[arg(long, value_name = "FILE")]
    pub(crate) key_file: PathBuf,
    /// The same for publications to it (RFC 9437) [default: the one secret].
    #[arg(long, value_name = "FILE")]
    pub(crate) pubsub_key_file: Option<PathBuf>,
    /// A virtual network in which it may ask although nothing is granted to it there; may be repeated.
    #[arg(long)]
    pub(crate) vn: Vec<VnName>,
    #[command(flatten)]
    pub(crate) access: Access,
    #[command(flatten)]
    pub(crate) output: Output,
}
