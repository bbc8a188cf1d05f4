//! What `/v1` carries.

mod error;
mod grant;
mod group;
mod list;
mod nve;
mod tunnel;
mod view;
mod vn;
mod xtr;

pub use error::{Code, ErrorBody, one_line};
pub use grant::{
    ChangeAddresses, GrantReply, GrantRequest, GrantView, NameNext, TakeAddress, TicketReply, TraceAt,
    TraceTicketReply,
};
pub use group::{GroupView, PolicyItem, PutGroup, SetGroups};
pub use list::{Event, List};
pub use nve::{
    JoinReply, JoinRequest, NewToken, NveView, RenewReply, RenewRequest, Role, TokenReply, TokenView,
};
pub use tunnel::TunnelChange;
pub use view::{ConversationView, Counters, DuplicateView, MappingView, Message, TsiState, TsiView, Version};
pub use vn::{NewVn, Vn, VnChange, VnConnection};
pub use xtr::{KeyAlgorithm, NewXtr, XtrView};
