//! The lengths of flows in the queue, for whoever looks for the longest.

/// Which flow is the longest, at the same cost for any number of flows: a list of the flows of each
/// length, linked through the flows.
#[derive(Debug, Default)]
pub(super) struct Lengths {
    /// The first flow of each length.
    heads: Vec<Option<u32>>,
    links: Vec<Link>,
    /// The greatest length that a flow has.
    pub(super) highest: usize,
}

/// A flow's place in the list of its length. A length of 0 is in no list.
#[derive(Clone, Copy, Debug, Default)]
struct Link {
    length: usize,
    before: Option<u32>,
    after: Option<u32>,
}

impl Lengths {
    /// One of the flows of the greatest length; none if all are empty, or have less than their weight.
    pub(super) fn longest(&self) -> Option<u32> {
        self.heads.get(self.highest).copied().flatten()
    }

    pub(super) fn set(&mut self, flow: u32, length: usize) {
        let index = flow as usize;
        if self.links.len() <= index {
            self.links.resize(index + 1, Link::default());
        }
        let old = self.links[index];
        if old.length == length {
            return;
        }
        if old.length > 0 {
            match old.before {
                Some(before) => self.links[before as usize].after = old.after,
                None => self.heads[old.length] = old.after,
            }
            if let Some(after) = old.after {
                self.links[after as usize].before = old.before;
            }
        }
        let mut after = None;
        if length > 0 {
            if self.heads.len() <= length {
                self.heads.resize(length + 1, None);
            }
            after = self.heads[length].replace(flow);
            if let Some(after) = after {
                self.links[after as usize].before = Some(flow);
            }
        }
        self.links[index] = Link {
            length,
            before: None,
            after,
        };
        self.highest = self.highest.max(length);
        while self.highest > 0 && self.heads[self.highest].is_none() {
            self.highest -= 1;
        }
    }
}
