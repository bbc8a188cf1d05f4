//! Frames that outlive the stream's buffer.

use super::Frame;

/// Frames kept in the order they came, to be handed on together: two allocations for all of them.
///
/// ```
/// use weft_lisp::tcp::{Frame, Frames};
///
/// let mut frames = Frames::default();
/// frames.push(&Frame { frame_type: 20, id: 1, data: &[0, 0, 0] });
/// assert_eq!(frames.iter().map(|frame| frame.id).collect::<Vec<_>>(), [1]);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Frames {
    heads: Vec<Head>,
    /// The data of all, one behind the other.
    data: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Head {
    frame_type: u16,
    id: u32,
    /// Where its data end.
    end: usize,
}

impl Frames {
    /// Adds one.
    pub fn push(&mut self, frame: &Frame<'_>) {
        self.data.extend_from_slice(frame.data);
        let Frame { frame_type, id, .. } = *frame;
        self.heads.push(Head { frame_type, id, end: self.data.len() });
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.heads.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = Frame<'_>> {
        let mut start = 0;
        self.heads.iter().map(move |head| {
            let data = self.data.get(start..head.end).unwrap_or_default();
            start = head.end;
            Frame { frame_type: head.frame_type, id: head.id, data }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_as_they_went_in() {
        let all = [(17, 1, &[1, 2, 3][..]), (18, 2, &[]), (0xff03, 3, &[4])];
        let all = all.map(|(frame_type, id, data)| Frame { frame_type, id, data });
        let mut frames = Frames::default();
        assert!(frames.is_empty());
        all.iter().for_each(|frame| frames.push(frame));
        assert_eq!(frames.len(), 3);
        assert_eq!(frames.iter().collect::<Vec<_>>(), all);
    }
}
